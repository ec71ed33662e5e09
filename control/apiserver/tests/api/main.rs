//! The server as clients see it, over TLS on a loopback port.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

mod applies;
mod custom;
mod deletion;
mod gateway;
mod hostile;
mod identity;
mod kubelet;
mod quotas;
mod reads;
mod services;
mod support;
mod watches;
mod writes;
