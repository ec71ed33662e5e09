//! DaemonSet: one pod on every node that should have one, bound there by the scheduler.
//!
//! Owns: pods and ControllerRevisions it controls, and the set's status. [`plan`] decides, this file looks up and calls.

mod placement;
mod plan;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Cluster;
use crate::causes;
use crate::daemon_set::plan::{Plan, plan};
use crate::meta;
use crate::pod_control::{BURST_MAX, Claim, EXPECTATION_POLL, PodControl};
use crate::queue::{self, Key, Next};
use crate::revision::{Collision, HASH_LABEL, History, Revision, Writer};

const KIND: &str = "DaemonSet";
/// How long a node waits whose pods end by themselves: doubled each time.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_mins(15);

pub(crate) fn start(cluster: &Arc<Cluster>, tasks: &mut JoinSet<anyhow::Result<()>>) {
    let controller =
        Arc::new(Controller { pods: PodControl::new(cluster, "daemonset-controller"), backoff: Mutex::default() });
    let queue = queue::start("daemonset", tasks, move |key| {
        let controller = Arc::clone(&controller);
        async move { controller.reconcile(&key).await }
    });
    causes::itself(&cluster.daemon_sets, &queue);
    causes::controlled(&cluster.revisions, KIND, &queue);
    causes::pods_of(cluster, KIND, |cluster| &cluster.daemon_sets, adopts, &queue);
    let weak = Arc::downgrade(cluster);
    cluster.nodes.on_change(move |old, new| {
        let Some(cluster) = weak.upgrade() else { return };
        if !places_alike(old, new) {
            cluster.daemon_sets.all().iter().for_each(|set| queue.add(Key::of(&**set)));
        }
    });
}

fn adopts(set: &DaemonSet, pod: &Pod) -> bool {
    causes::adopts(set.spec.as_ref().map(|spec| &spec.selector), pod)
}

/// Whether a node's change, such as a heartbeat, cannot matter to any set.
fn places_alike(old: Option<&Node>, new: Option<&Node>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return false };
    let taints = |node: &Node| node.spec.as_ref().and_then(|spec| spec.taints.clone());
    old.labels() == new.labels() && taints(old) == taints(new)
}

struct Controller {
    pods: PodControl,
    /// By set and node: how often a pod has ended by itself, and when the next may be removed.
    backoff: Mutex<HashMap<(Key, String), (u32, Instant)>>,
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> anyhow::Result<Next> {
        let cluster = &self.pods.cluster;
        let Some(set) = cluster.daemon_sets.get(&key.namespace, &key.name) else {
            self.pods.forget(key);
            self.backoff.lock().retain(|(of, _), _| of != key);
            return Ok(Next::Await);
        };
        if !self.pods.is_caught_up(key) {
            return Ok(Next::After(EXPECTATION_POLL));
        }
        let spec = set.spec.as_ref().context("a DaemonSet without a spec")?;
        let selector = meta::selector(&spec.selector)?;
        let claim = Claim::of(&*set, &selector, cluster.pods.filter(&key.namespace, |_| true), |_| true);
        self.pods.settle(&*set, &claim).await?;
        let history = History::of(cluster, &*set, &selector);
        let Some(revision) = self.revision(&set, &history).await? else { return Ok(Next::Await) };
        let now = Timestamp::now();
        let plan = plan(&set, &cluster.nodes.all(), &claim.owned, &revision.hash, now);
        let done = self.apply(key, &set, &revision, &plan).await;
        self.write_status(&set, plan.status).await?;
        let retry = done?;
        self.prune(key, &set, &history, &revision, &claim.owned).await?;
        let min_ready = spec.min_ready_seconds.unwrap_or(0);
        let waits =
            claim.owned.iter().any(|pod| meta::ready_since(pod).is_some() && !meta::is_available(pod, min_ready, now));
        let soon = waits.then_some(Duration::from_secs(1));
        Ok([soon, retry].into_iter().flatten().min().map_or(Next::Await, Next::After))
    }

    async fn revision(&self, set: &DaemonSet, history: &History) -> anyhow::Result<Option<Revision>> {
        let status = set.status.clone().unwrap_or_default();
        let template = &set.spec.as_ref().context("a DaemonSet without a spec")?.template;
        let namespace = set.namespace().unwrap_or_default();
        let writer = Writer { cluster: &self.pods.cluster, namespace: &namespace };
        match writer.apply(set, history, history.step(set, template, status.collision_count)).await {
            Err(error) if error.is::<Collision>() => {
                let collision_count = Some(status.collision_count.unwrap_or(0) + 1);
                self.write_status(set, DaemonSetStatus { collision_count, ..status }).await?;
                Ok(None)
            }
            result => result.map(Some),
        }
    }

    /// Does what the plan says; returns when a pod that ended by itself may be removed, if it must wait.
    async fn apply(
        &self,
        key: &Key,
        set: &DaemonSet,
        revision: &Revision,
        plan: &Plan,
    ) -> anyhow::Result<Option<Duration>> {
        let template = &set.spec.as_ref().context("a DaemonSet without a spec")?.template;
        self.pods.delete_all(key, set, &plan.delete).await?;
        let mut retry: Option<Duration> = None;
        for pod in &plan.ended {
            let node = placement::node_of(pod).unwrap_or_default();
            if let Some(wait) = self.wait(key, node, Instant::now()) {
                retry = Some(retry.map_or(wait, |before| before.min(wait)));
                continue;
            }
            let phase = meta::phase(pod);
            let note = format!(
                "Found {} daemon pod {}/{} on node {node}, will try to kill it",
                phase.to_lowercase(),
                key.namespace,
                pod.name_any()
            );
            self.pods.events.warning(set, &format!("{phase}DaemonPod"), note);
            self.pods.delete(key, set, pod).await?;
        }
        let pods = plan.create.iter().take(BURST_MAX);
        let pods = pods.map(|node| placement::pod(set, template, &revision.hash, node)).collect();
        self.pods.create_all(key, set, pods).await?;
        Ok(retry)
    }

    /// How long the pod of a node must stay as it ended; none if it may go now, which counts as one more failure.
    fn wait(&self, key: &Key, node: &str, now: Instant) -> Option<Duration> {
        let mut all = self.backoff.lock();
        let (failures, until) = all.entry((key.clone(), node.to_owned())).or_insert((0, now));
        if *until > now {
            return Some(*until - now);
        }
        // A node that has behaved for long starts anew.
        if now - *until > BACKOFF_MAX * 2 {
            *failures = 0;
        }
        *until = now + BACKOFF_MIN.saturating_mul(1 << (*failures).min(20)).min(BACKOFF_MAX);
        *failures += 1;
        None
    }

    async fn prune(
        &self,
        key: &Key,
        set: &DaemonSet,
        history: &History,
        revision: &Revision,
        pods: &[Arc<Pod>],
    ) -> anyhow::Result<()> {
        // Pods bear the hash, which is the end of their revision's name.
        let names: Vec<String> = pods
            .iter()
            .filter_map(|pod| pod.labels().get(HASH_LABEL))
            .map(|hash| format!("{}-{hash}", set.name_any()))
            .collect();
        let mut live = vec![revision.name.as_str()];
        live.extend(names.iter().map(String::as_str));
        let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit);
        let writer = Writer { cluster: &self.pods.cluster, namespace: &key.namespace };
        writer.prune(history, &live, limit).await
    }

    async fn write_status(&self, set: &DaemonSet, status: DaemonSetStatus) -> anyhow::Result<()> {
        if set.status.as_ref() == Some(&status) || meta::is_deleting(set) {
            return Ok(());
        }
        let api: Api<DaemonSet> =
            Api::namespaced(self.pods.cluster.client.clone(), &set.namespace().unwrap_or_default());
        let mut new = set.clone();
        new.status = Some(status);
        meta::ignore_missing(api.replace_status(&set.name_any(), &PostParams::default(), &new).await)
    }
}
