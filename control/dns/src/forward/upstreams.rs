//! Which servers to ask, in which order: as configured, but those that lately gave no answer last.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::resolv_conf;

/// How long a server that gave no answer is asked last.
const PENALTY: Duration = Duration::from_secs(10);
/// How often to look whether the file has changed.
const FILE_INTERVAL: Duration = Duration::from_secs(5);
/// Servers that one question is sent to at most: more would not be in time for the client.
const SERVERS_MAX: usize = 3;

pub(crate) struct Upstreams {
    servers: ArcSwap<Vec<Arc<Upstream>>>,
}

#[derive(Debug)]
pub(crate) struct Upstream {
    pub(super) address: SocketAddr,
    start: Instant,
    /// Milliseconds after the start; 0 for not at all.
    penalty_end: AtomicU64,
}

impl Upstreams {
    pub(crate) fn new(addresses: &[SocketAddr]) -> Self {
        let upstreams = Self { servers: ArcSwap::default() };
        upstreams.set(addresses);
        upstreams
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.servers.load().is_empty()
    }

    fn set(&self, addresses: &[SocketAddr]) {
        let upstream = |address: &SocketAddr| {
            Arc::new(Upstream { address: *address, start: Instant::now(), penalty_end: AtomicU64::new(0) })
        };
        self.servers.store(Arc::new(addresses.iter().map(upstream).collect()));
    }

    pub(super) fn in_order(&self) -> Vec<Arc<Upstream>> {
        let mut servers = Vec::clone(&self.servers.load());
        servers.sort_by_key(|server| server.is_penalised());
        servers.truncate(SERVERS_MAX);
        servers
    }
}

impl Upstream {
    pub(super) fn answered(&self) {
        self.penalty_end.store(0, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.penalty_end.store(millis(self.start.elapsed() + PENALTY), Ordering::Relaxed);
    }

    fn is_penalised(&self) -> bool {
        self.penalty_end.load(Ordering::Relaxed) > millis(self.start.elapsed())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Reads a `resolv.conf` and keeps the upstream servers in step with it. Our own addresses are not asked: that would be
/// a loop.
pub(crate) async fn follow_file(upstreams: Arc<Upstreams>, path: PathBuf, own: Vec<SocketAddr>) {
    let mut known = None;
    loop {
        let addresses = read(&path, &own).await;
        if known.as_ref() != Some(&addresses) {
            tracing::info!(file = %path.display(), servers = ?addresses, "upstream servers read");
            upstreams.set(&addresses);
            known = Some(addresses);
        }
        tokio::time::sleep(FILE_INTERVAL).await;
    }
}

async fn read(path: &Path, own: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut addresses = servers_in(path).await;
    if !addresses.is_empty() && addresses.iter().all(|address| address.ip().is_loopback()) {
        // A stub of systemd-resolved, which may be out of our reach. It writes the real servers here.
        let real = servers_in(Path::new(resolv_conf::BEHIND_STUB)).await;
        if !real.is_empty() {
            addresses = real;
        }
    }
    addresses.retain(|address| !own.contains(address));
    addresses
}

async fn servers_in(path: &Path) -> Vec<SocketAddr> {
    match tokio::fs::read_to_string(path).await {
        Ok(text) => resolv_conf::parse(&text),
        Err(error) => {
            tracing::debug!(file = %path.display(), %error, "cannot read");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Upstreams;

    #[test]
    fn servers_that_gave_no_answer_come_last_for_a_while() {
        let addresses = ["192.0.2.1:53", "192.0.2.2:53"].map(|address| address.parse().unwrap());
        let upstreams = Upstreams::new(&addresses);
        let order = || upstreams.in_order().iter().map(|upstream| upstream.address).collect::<Vec<_>>();
        assert_eq!(order(), addresses);
        upstreams.in_order()[0].failed();
        assert_eq!(order(), [addresses[1], addresses[0]]);
        upstreams.in_order()[1].answered();
        assert_eq!(order(), addresses);
    }

    #[tokio::test]
    async fn our_own_address_is_never_asked() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "nameserver 192.0.2.1\nnameserver 192.0.2.2\n").unwrap();
        let own = ["192.0.2.1:53".parse().unwrap()];
        assert_eq!(super::read(file.path(), &own).await, ["192.0.2.2:53".parse().unwrap()]);
        assert!(super::read(std::path::Path::new(""), &own).await.is_empty());
    }
}
