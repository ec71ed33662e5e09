//! The gateway: listeners, TLS, routing and proxying on pingora and rustls, for Ingress v1 of any Kubernetes API server.
//!
//! ```text
//! API server ─watch─▶ model (compact values) ─▶ control::World (pure) ─▶ Snapshot ─ArcSwap─▶ serve (accept, TLS)
//!                                                  │                                          │
//!                                                  └─▶ Upstream endpoints ───────────────────▶ proxy (pingora phases)
//! ```
//!
//! `model` turns API objects into what the gateway keeps of them; `control` decides what a set of objects means and
//! publishes it, and writes status and Events; `snapshot`, `upstream` and `tls` are what serving looks at; `serve` owns
//! sockets, threads and draining; `proxy` is one request.
//!
//! A request is routed by exactly one snapshot and keeps only its rule and upstream. Endpoints live beside the snapshot,
//! so that a scaled Deployment compiles nothing. User text is never rendered into configuration.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a failed unwrap fails the test"))]

mod args;
mod control;
mod dump;
mod explain;
mod limits;
mod metrics;
mod model;
mod policy;
mod proxy;
mod request_path;
mod run;
mod serve;
mod shared;
mod snapshot;
mod tls;
mod units;
mod upstream;

pub use args::Args;
pub use explain::{ExplainArgs, explain_command};
pub use run::run;
