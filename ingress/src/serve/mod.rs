//! Serving: sockets, threads, handshakes and draining. One thread is one runtime with its own pingora proxy and upstream
//! connections; the threads share the listening sockets and nothing else that changes per request.

mod connection;
mod crowd;
mod handshake;
mod head;
mod listen;
mod progress;
mod proxy_protocol;
mod session;
mod stream;
mod worker;

pub(crate) use connection::Client;
pub(crate) use listen::{Listeners, Scheme};
pub(crate) use worker::{Signals, Workers};
