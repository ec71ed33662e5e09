//! The gateway as a real process, with real connections, against a scripted API server that is not ours.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod api_server;
mod backend;
mod bed;
mod changes;
mod client;
mod explain;
mod failures;
mod forwarded;
mod health;
mod hostile;
mod limits;
mod objects;
mod process;
mod routing;
mod shutdown;
mod status;
mod tls;
