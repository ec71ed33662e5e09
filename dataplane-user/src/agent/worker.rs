//! The reconciling thread: gathers changes for a moment, then plans and applies, retries what failed, and compares
//! everything now and then.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::health::Health;
use super::metrics::Metrics;
use super::refusals::Refusals;
use crate::apply::ServiceMaps;
use crate::reconcile::{Outcome, ReconcileError, Reconciler};
use crate::source::Change;

/// Changes that follow each other this closely are planned together.
const QUIET: Duration = Duration::from_millis(1);
/// But nothing waits longer than this for what may follow.
const GATHER_MAX: Duration = Duration::from_millis(20);
/// The pause after a first failure; it doubles.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Owns the reconciler and the clock.
pub(super) struct Worker<M> {
    reconciler: Reconciler<M>,
    metrics: Metrics,
    health: Arc<Health>,
    refusals: Refusals,
    resync_interval: Duration,
    resync_at: Instant,
    retry_at: Option<Instant>,
    retry_pause: Duration,
}

impl<M: ServiceMaps> Worker<M> {
    pub(super) fn new(
        reconciler: Reconciler<M>,
        metrics: Metrics,
        health: Arc<Health>,
        refusals: Refusals,
        resync_interval_s: u64,
    ) -> Self {
        let resync_interval = Duration::from_secs(resync_interval_s.max(1));
        Self {
            reconciler,
            metrics,
            health,
            refusals,
            resync_interval,
            resync_at: Instant::now() + resync_interval,
            retry_at: None,
            retry_pause: RETRY_MIN,
        }
    }

    /// Works until the queue is closed.
    pub(super) fn run(mut self, queue: &Receiver<Change>) {
        loop {
            match queue.recv_timeout(self.next_deadline().saturating_duration_since(Instant::now())) {
                Ok(change) => {
                    self.health.queued();
                    self.metrics.queued();
                    self.take(change);
                    self.gather(queue);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.work();
        }
    }

    fn next_deadline(&self) -> Instant {
        self.retry_at.map_or(self.resync_at, |retry| retry.min(self.resync_at))
    }

    fn gather(&mut self, queue: &Receiver<Change>) {
        let until = Instant::now() + GATHER_MAX;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            match queue.recv_timeout(QUIET.min(left)) {
                Ok(change) => self.take(change),
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, change: Change) {
        let services = matches!(change, Change::Services(_));
        let count = self.reconciler.change(change);
        self.metrics.changed(services, count);
    }

    fn work(&mut self) {
        let now = Instant::now();
        let result = if now >= self.resync_at {
            self.resync_at = now + self.resync_interval;
            // What failed before is no drift.
            let settled = !self.reconciler.has_work();
            self.reconciler.resync().inspect(|outcome| {
                if settled && outcome.operations() > 0 {
                    self.metrics.drifted(outcome.operations());
                    tracing::warn!(operations = outcome.operations(), "the maps had drifted and were repaired");
                }
            })
        } else if self.reconciler.has_changes() || self.retry_at.is_some_and(|at| now >= at) {
            self.reconciler.reconcile()
        } else {
            self.health.update(&self.reconciler);
            return;
        };
        self.finish(result, now.elapsed());
    }

    fn finish(&mut self, result: Result<Outcome, ReconcileError>, took: Duration) {
        let outcome = result.unwrap_or_else(|error| {
            tracing::error!(error = %super::health::chain(&error), "reconciling failed");
            Outcome { failed: [("reconcile", 1)].into(), ..Outcome::default() }
        });
        self.metrics.observe(&outcome, took, self.reconciler.contents(), self.reconciler.refused().len());
        if let Some(error) = &outcome.error {
            let failed: u64 = outcome.failed.values().sum();
            tracing::warn!(failed, error = %super::health::chain(error), "map operations failed and will be retried");
        }
        if outcome.operations() > 0 {
            tracing::debug!(operations = outcome.operations(), full = outcome.full, ?took, "plan applied");
        }
        self.refusals.tell(self.reconciler.refused());
        self.schedule_retry(&outcome);
        self.health.update(&self.reconciler);
        if outcome.is_complete() {
            self.health.applied();
        }
    }

    fn schedule_retry(&mut self, outcome: &Outcome) {
        if outcome.is_complete() && !self.reconciler.has_retries() {
            self.retry_at = None;
            self.retry_pause = RETRY_MIN;
            return;
        }
        self.retry_at = Some(Instant::now() + self.retry_pause);
        self.retry_pause = (self.retry_pause * 2).min(RETRY_MAX);
    }
}
