//! Cluster DNS: the names of Services, endpoints and pods as the Kubernetes DNS specification 1.1.0 wants them, everything
//! else forwarded and cached.
//!
//! ```text
//! API server ─▶ watch ─▶ model ─▶ Zone ◀─ answer(name, type) ─ Responder ◀─▶ serve (UDP, TCP)
//!                                                                  └─▶ forward: cache ─▶ upstream servers
//! ```
//! `Zone` is a value without clock, sockets or randomness; the rest moves messages to it and back. Works against any
//! Kubernetes API server that lets it list and watch Services, EndpointSlices and Namespaces.

#![forbid(unsafe_code)]

mod args;
mod forward;
mod message;
mod metrics;
mod model;
mod responder;
mod run;
mod serve;
mod watch;
mod zone;

pub use args::Args;
pub use model::{Endpoint, ObjectKey, Port, Service, ServiceKind, Slice};
pub use run::run;
pub use zone::{Answer, Zone};
