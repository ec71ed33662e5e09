//! What the control side and all serving threads share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;

use crate::metrics::Metrics;
use crate::snapshot::Snapshot;

#[derive(Debug)]
pub(crate) struct Shared {
    snapshot: ArcSwap<Snapshot>,
    synced: AtomicBool,
    draining: AtomicBool,
    pub(crate) metrics: Metrics,
}

impl Shared {
    pub(crate) fn new(snapshot: Snapshot, metrics: Metrics) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            synced: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            metrics,
        }
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
