//! The bundled cluster's HTTP surface: a Kubernetes API server over a [`control_store::Store`].
//!
//! ```text
//! socket ─ server (TLS, limits) ─ handler (audit id, panics, metrics)
//!        ─ authn ─ authz ─ request ─▶ read: get, list, watch      ◀─ bytes as stored, resourceVersion spliced in
//!                                 └─▶ write: create … delete      ─ admission ─ strategy ─ validation ─ store
//! ```
//! *Owns*: sockets, identities, permissions, admission, allocation of Service addresses. *Does not own*: what kinds
//! mean (`control-api`), durability (`control-store`), and anything that reacts to objects (`control-controllers`).

#![forbid(unsafe_code)]

mod admission;
mod allocation;
mod apply;
mod authn;
mod authz;
mod body;
mod bootstrap;
mod config;
mod connection;
mod definitions;
mod delete;
mod discovery;
mod eviction;
mod follow;
mod form;
mod handler;
mod health;
mod kubelet;
mod limits;
mod log;
mod metrics;
mod negotiate;
mod object;
mod openapi;
mod patch;
mod read;
mod reply;
mod request;
mod reviews;
mod selection;
mod server;
mod state;
mod stream;
mod subresource;
mod tls;
mod watch;
mod write;

pub use config::{Config, KubeletClient, ServiceAccountKeys, TlsFiles};
pub use limits::Limits;
pub use server::serve;
