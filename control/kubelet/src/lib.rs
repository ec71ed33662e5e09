//! The node agent of the bundled cluster: pod lifecycle, probes, volumes, logs.
//!
//! `kubelet` puts the parts together. `node` reports the machine, `pod` runs pods, `spec` translates them, `image`, `volume`
//! and `probe` do what their names say, `server` answers the API server on port 10250. The outside world is behind three
//! traits, so that pod logic is tested without it: `runtime::PodRuntime`, `network::PodNet`, `cluster::Cluster`.

#![forbid(unsafe_code)]

mod args;
mod clock;
mod cluster;
mod duration;
mod events;
mod image;
mod kubelet;
mod metrics;
mod network;
mod node;
mod pod;
mod preload;
mod probe;
mod runtime;
mod server;
mod spec;
mod volume;

pub use args::Args;
pub use kubelet::{run, run_until};
