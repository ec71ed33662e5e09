//! What every long-running Tidegate process needs and none should write again: logging, inherited sockets,
//! the admin endpoint (metrics, health) and shutdown.
//!
//! It knows nothing of Kubernetes or of the other crates, so that the agent and the gateway can use it without the
//! bundled control plane.

pub mod admin;
pub mod logging;
pub mod shutdown;
pub mod sockets;
