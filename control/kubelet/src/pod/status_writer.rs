//! Writes a pod's newest status to the API server, one patch at a time; values that are overtaken are never sent.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::patch::patch;
use crate::cluster::{Cluster, ClusterError};
use crate::spec::pod_ref::{PodRef, version};

const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// A patch that the API server took but did not keep is not sent again before this.
const REPEAT_MIN: Duration = Duration::from_secs(10);

/// Ends with the worker that owns it.
pub(crate) struct StatusWriter {
    goal: watch::Sender<Goal>,
    done: watch::Receiver<u64>,
    task: tokio::task::AbortHandle,
}

/// The wished status, and the newest pod that the worker has seen.
#[derive(Debug, Clone)]
struct Goal {
    seen: Arc<Pod>,
    wished: PodStatus,
    serial: u64,
}

impl StatusWriter {
    /// `answer` is called with what the API server holds after each write.
    pub(crate) fn spawn(
        cluster: Arc<dyn Cluster>,
        pod: Arc<Pod>,
        answer: impl Fn(Arc<Pod>) + Send + Sync + 'static,
    ) -> Self {
        let wished = pod.status.clone().unwrap_or_default();
        let (goal, goals) = watch::channel(Goal { seen: pod, wished, serial: 0 });
        let (done_sender, done) = watch::channel(0);
        let writer = Writer { cluster, newest: None, last: None, done: done_sender, answer };
        let task = tokio::spawn(writer.run(goals)).abort_handle();
        Self { goal, done, task }
    }

    pub(crate) fn wish(&self, seen: &Arc<Pod>, wished: PodStatus) {
        self.goal.send_if_modified(|goal| {
            if goal.wished == wished && version(&goal.seen) == version(seen) {
                return false;
            }
            *goal = Goal { seen: Arc::clone(seen), wished, serial: goal.serial + 1 };
            true
        });
    }

    /// A future that ends when the newest wish is at the API server.
    pub(crate) fn flushed(&self) -> impl Future<Output = ()> + Send + use<> {
        let serial = self.goal.borrow().serial;
        let mut done = self.done.clone();
        async move {
            // An error means that the writer has ended with its worker: nobody waits then.
            let _ = done.wait_for(|done| *done >= serial).await;
        }
    }
}

impl Drop for StatusWriter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Writer<F> {
    cluster: Arc<dyn Cluster>,
    /// Last answer of the API server: the watch may be behind it.
    newest: Option<Arc<Pod>>,
    /// The last patch and when it was sent.
    last: Option<(Value, Instant)>,
    done: watch::Sender<u64>,
    answer: F,
}

impl<F: Fn(Arc<Pod>) + Send + Sync> Writer<F> {
    async fn run(mut self, mut goals: watch::Receiver<Goal>) {
        let mut delay = RETRY_FIRST;
        loop {
            let goal = goals.borrow_and_update().clone();
            if let Err(error) = self.write(&goal).await {
                let (namespace, name) = (goal.seen.namespace(), goal.seen.name());
                tracing::warn!(pod.namespace = namespace, pod.name = name, %error, "cannot write pod status");
                tokio::select! {
                    () = tokio::time::sleep(delay) => {}
                    changed = goals.changed() => if changed.is_err() { return },
                }
                delay = (delay * 2).min(RETRY_MAX);
                continue;
            }
            delay = RETRY_FIRST;
            self.done.send_replace(goal.serial);
            if goals.changed().await.is_err() {
                return;
            }
        }
    }

    async fn write(&mut self, goal: &Goal) -> Result<(), ClusterError> {
        let newer = self.newest.as_ref().filter(|newest| version(newest) > version(&goal.seen));
        let held = newer.unwrap_or(&goal.seen);
        let held_status = held.status.clone().unwrap_or_default();
        let Some(patch) = patch(goal.seen.uid(), &held_status, &goal.wished) else { return Ok(()) };
        let repeated = self.last.as_ref().is_some_and(|(last, at)| *last == patch && at.elapsed() < REPEAT_MIN);
        if repeated {
            return Ok(());
        }
        match self.cluster.patch_pod_status(goal.seen.namespace(), goal.seen.name(), &patch).await {
            Ok(pod) => {
                self.last = Some((patch, Instant::now()));
                let pod = Arc::new(pod);
                self.newest = Some(Arc::clone(&pod));
                (self.answer)(pod);
                Ok(())
            }
            // The pod is gone or is another: its status has nowhere to go.
            Err(ClusterError::Gone(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
