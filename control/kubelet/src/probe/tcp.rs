//! TCP probes: a connection that is accepted is a success.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Outcome;

pub(crate) async fn probe(address: &str, limit: Duration) -> Outcome {
    match timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Outcome::Success,
        Ok(Err(error)) => Outcome::Failure(format!("dial tcp {address}: connect: {}", super::cause(&error))),
        Err(_) => Outcome::Failure(format!("dial tcp {address}: i/o timeout")),
    }
}
