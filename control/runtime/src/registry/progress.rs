//! How far a pull is, said in the log now and then.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

const INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) blobs: AtomicU64,
    pub(super) blobs_total: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) bytes_total: AtomicU64,
}

impl Progress {
    /// Runs a pull to its end, speaking up every few seconds.
    pub(super) async fn watch<T>(&self, image: &str, pull: impl Future<Output = T>) -> T {
        let mut ticks = interval_at(Instant::now() + INTERVAL, INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(pull);
        loop {
            tokio::select! {
                result = &mut pull => return result,
                _ = ticks.tick() => self.say(image),
            }
        }
    }

    fn say(&self, image: &str) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        tracing::info!(
            image,
            bytes = count(&self.bytes),
            bytes_total = count(&self.bytes_total),
            blobs = count(&self.blobs),
            blobs_total = count(&self.blobs_total),
            "pulling image"
        );
    }
}
