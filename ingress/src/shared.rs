//! What the control side and all serving threads share.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::serve::Scheme;
use crate::snapshot::Snapshot;

#[derive(Debug)]
pub(crate) struct Shared {
    snapshot: ArcSwap<Snapshot>,
    synced: AtomicBool,
    draining: AtomicBool,
    pub(crate) metrics: Metrics,
    pub(crate) limits: Limits,
    listeners: OnceLock<Vec<(Scheme, SocketAddr)>>,
}

impl Shared {
    pub(crate) fn new(snapshot: Snapshot, metrics: Metrics, limits: Limits) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            synced: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            metrics,
            limits,
            listeners: OnceLock::new(),
        }
    }

    /// Remembers what is listened on, once.
    pub(crate) fn set_listeners(&self, listeners: Vec<(Scheme, SocketAddr)>) {
        // The sockets stay the same for the life of the process.
        let _ = self.listeners.set(listeners);
    }

    pub(crate) fn listeners(&self) -> &[(Scheme, SocketAddr)] {
        self.listeners.get().map_or(&[], Vec::as_slice)
    }

    pub(crate) fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Publishes a snapshot that was made from a complete view of the cluster.
    pub(crate) fn publish(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
        self.synced.store(true, Ordering::Release);
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whether requests should be sent here: everything is known and nobody asked us to stop.
    pub(crate) fn is_ready(&self) -> bool {
        self.synced.load(Ordering::Acquire) && !self.is_draining()
    }
}
