//! The server as a real process, asked by `dig` and by bare sockets, against a scripted API server that is not ours.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod api_server;
mod client;
mod forwarding;
mod names;
mod process;
mod upstream;
