//! The control side: watches the API server, decides what the objects mean, publishes snapshots, writes status and
//! Events. All decisions are in pure modules (`world` and what it uses); `source`, `reader`, `status` and `event` do the
//! talking; `controller` is the loop between them.

mod change;
mod class;
mod controller;
mod event;
mod external;
mod health;
mod names;
mod problem;
mod reader;
mod rules;
mod secrets;
mod source;
mod status;
mod upstreams;
mod world;

pub(crate) use class::ClassPolicy;
pub(crate) use controller::{Settings, run};
pub(crate) use external::ExternalNames;
