//! What this server grants its clients, all in one place. The README says why each is what it is.

use std::time::Duration;

/// Bounds on connections, requests and answers. Tests give smaller ones; everybody else takes the default.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections, and those of them that one address may have.
    pub connections: usize,
    pub connections_per_address: usize,
    /// For a TLS handshake, and for the head of a request over HTTP/1.
    pub handshake: Duration,
    pub head: Duration,
    /// A connection on which nothing is asked.
    pub idle: Duration,
    /// A client that takes nothing of what is sent to it.
    pub stall: Duration,
    /// The head of a request.
    pub head_bytes: u32,
    /// Requests at once on one HTTP/2 connection.
    pub streams: u32,
    /// One body, how long it may take, and what all bodies together may hold in memory.
    pub body_bytes: usize,
    pub body: Duration,
    pub bodies_bytes: usize,
    /// From the head of a request to its answer, long-running requests aside.
    pub request: Duration,
    /// Requests that are worked on at once, long-running ones aside; as upstream's two limits together.
    pub in_flight: usize,
    /// Open watches, logs, and exec, attach and port-forward streams.
    pub long_running: usize,
    /// The longest watch.
    pub watch: Duration,
    /// A stream on which nobody says anything; as the kubelet's own limit.
    pub stream_idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            connections_per_address: 1024,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(32),
            idle: Duration::from_secs(90),
            stall: Duration::from_secs(300),
            head_bytes: 128 << 10,
            streams: 250,
            body_bytes: 3 << 20,
            body: Duration::from_secs(30),
            bodies_bytes: 128 << 20,
            request: Duration::from_secs(60),
            in_flight: 600,
            long_running: 16_384,
            watch: Duration::from_secs(24 * 3600),
            stream_idle: Duration::from_secs(4 * 3600),
        }
    }
}

/// A refused client's body is taken and thrown away up to this size and for this long, so that it reads its refusal.
pub(crate) const DISCARDED_BYTES_MAX: usize = 16 << 20;
pub(crate) const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);
/// Characters of all `Warning` headers of an answer, and of each one where all together are too long.
pub(crate) const WARNINGS_LENGTH_MAX: usize = 4096;
pub(crate) const WARNING_LENGTH_MAX: usize = 256;
/// Warnings of an answer: many clients take no more than 100 headers.
pub(crate) const WARNINGS_MAX: usize = 64;
/// How deep a stored object may be nested: JSON readers, ours among them, stop at 128.
pub(crate) const DEPTH_MAX: usize = 120;
