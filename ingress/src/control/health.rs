//! Active health checks of the endpoints whose Services ask for them.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, timeout};

use crate::metrics::Metrics;
use crate::model::{HealthCheck, Probe};
use crate::shared::Shared;
use crate::upstream::{Endpoint, Upstream};

/// How often to look which checks are due.
const TICK: Duration = Duration::from_millis(50);
/// `HTTP/1.1 200`.
const STATUS_END: usize = 12;

/// Upstreams with checks.
pub(super) type Checked = Vec<Weak<Upstream>>;

/// Checks for good.
pub(super) async fn run(mut upstreams: watch::Receiver<Checked>, shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let current: Checked = upstreams.borrow_and_update().clone();
        if current.is_empty() {
            if upstreams.changed().await.is_err() {
                return;
            }
            continue;
        }
        ticks.tick().await;
        let now = Instant::now();
        for upstream in current.iter().filter_map(Weak::upgrade) {
            begin_due(&upstream, now, &shared);
        }
    }
}

fn begin_due(upstream: &Upstream, now: Instant, shared: &Arc<Shared>) {
    let endpoints = upstream.endpoints();
    let Some(check) = &endpoints.check else { return };
    for endpoint in endpoints.members().iter().filter(|endpoint| endpoint.begin_check(check.interval, now)) {
        let (endpoint, check, shared) = (Arc::clone(endpoint), Arc::clone(check), Arc::clone(shared));
        tokio::spawn(async move { check_one(&endpoint, &check, &shared.metrics).await });
    }
}

async fn check_one(endpoint: &Endpoint, check: &HealthCheck, metrics: &Metrics) {
    let result = timeout(check.timeout, probe(endpoint.address, &check.probe)).await;
    let result = result.unwrap_or(Err(ProbeError::Timeout));
    metrics.health_checks.with_label_values(&[if result.is_ok() { "good" } else { "bad" }]).inc();
    match (endpoint.check_done(result.is_ok()), result) {
        (Some(true), _) => tracing::info!(endpoint = %endpoint.address, "endpoint passes its checks again"),
        (Some(false), Err(error)) => tracing::warn!(endpoint = %endpoint.address, %error, "endpoint fails its checks"),
        _ => {}
    }
}

#[derive(Debug, Error)]
enum ProbeError {
    #[error("timeout")]
    Timeout,
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("connection broke: {0}")]
    Broken(io::Error),
    #[error("answer is {0:?}")]
    Answer(String),
}

async fn probe(address: SocketAddr, probe: &Probe) -> Result<(), ProbeError> {
    let mut stream = TcpStream::connect(address).await.map_err(ProbeError::Connect)?;
    let Probe::Http { path } = probe else { return Ok(()) };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: tidegate-health-check\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(ProbeError::Broken)?;
    let mut start = [0; STATUS_END];
    stream.read_exact(&mut start).await.map_err(ProbeError::Broken)?;
    if is_good(&start) { Ok(()) } else { Err(ProbeError::Answer(String::from_utf8_lossy(&start).into_owned())) }
}

fn is_good(start: &[u8; STATUS_END]) -> bool {
    start.starts_with(b"HTTP/1.") && matches!(start[8..10], [b' ', b'2' | b'3'])
}

#[cfg(test)]
mod tests {
    use super::is_good;

    #[test]
    fn answers_with_2xx_and_3xx_are_good() {
        for (start, good) in
            [(b"HTTP/1.1 200", true), (b"HTTP/1.0 302", true), (b"HTTP/1.1 404", false), (b"SSH-2.0-Open", false)]
        {
            assert_eq!(is_good(start), good, "{}", String::from_utf8_lossy(start));
        }
    }
}
