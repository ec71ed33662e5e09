//! StatefulSet: pods with names that stay, made, updated and removed in order.
//!
//! Owns: pods and ControllerRevisions it controls, and the set's status. [`plan`] decides, this file looks up and calls.

mod identity;
mod plan;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use tokio::task::JoinSet;

use crate::Cluster;
use crate::causes;
use crate::meta;
use crate::pod_control::{Claim, EXPECTATION_POLL, PodControl};
use crate::queue::{self, Key, Next};
use crate::revision::{Collision, HASH_LABEL, History, Writer};
use crate::stateful_set::plan::{Plan, Revisions, plan};

const KIND: &str = "StatefulSet";

pub(crate) fn start(cluster: &Arc<Cluster>, tasks: &mut JoinSet<anyhow::Result<()>>) {
    let controller = Arc::new(Controller { pods: PodControl::new(cluster, "statefulset-controller") });
    let queue = queue::start("statefulset", tasks, move |key| {
        let controller = Arc::clone(&controller);
        async move { controller.reconcile(&key).await }
    });
    causes::itself(&cluster.stateful_sets, &queue);
    causes::controlled(&cluster.revisions, KIND, &queue);
    causes::pods_of(cluster, KIND, |cluster| &cluster.stateful_sets, is_member, &queue);
}

/// Whether a pod bears an ordinal of the set.
fn is_member(set: &StatefulSet, pod: &Pod) -> bool {
    identity::ordinal(&set.name_any(), &pod.name_any()).is_some()
}

struct Controller {
    pods: PodControl,
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> anyhow::Result<Next> {
        let cluster = &self.pods.cluster;
        let Some(set) = cluster.stateful_sets.get(&key.namespace, &key.name) else {
            self.pods.forget(key);
            return Ok(Next::Await);
        };
        if !self.pods.is_caught_up(key) {
            return Ok(Next::After(EXPECTATION_POLL));
        }
        let spec = set.spec.as_ref().context("a StatefulSet without a spec")?;
        let selector = meta::selector(&spec.selector)?;
        let claim =
            Claim::of(&*set, &selector, cluster.pods.filter(&key.namespace, |_| true), |pod| is_member(&set, pod));
        self.pods.settle(&*set, &claim).await?;
        let history = History::of(cluster, &*set, &selector);
        let Some(revisions) = self.revisions(&set, &history).await? else { return Ok(Next::Await) };
        let now = Timestamp::now();
        let plan = plan(&set, &claim.owned, &revisions, now);
        let done = self.apply(key, &set, &plan).await;
        self.write_status(&set, plan.status).await?;
        done?;
        self.prune(key, &set, &history, &revisions, &claim.owned).await?;
        let min_ready = spec.min_ready_seconds.unwrap_or(0);
        let waits =
            claim.owned.iter().any(|pod| meta::ready_since(pod).is_some() && !meta::is_available(pod, min_ready, now));
        Ok(if waits { Next::After(Duration::from_secs(1)) } else { Next::Await })
    }

    /// The set's two revisions; none after a collision of names, which the set's status then counts.
    async fn revisions(&self, set: &StatefulSet, history: &History) -> anyhow::Result<Option<Revisions>> {
        let status = set.status.clone().unwrap_or_default();
        let template = &set.spec.as_ref().context("a StatefulSet without a spec")?.template;
        let namespace = set.namespace().unwrap_or_default();
        let writer = Writer { cluster: &self.pods.cluster, namespace: &namespace };
        let step = history.step(set, template, status.collision_count);
        let update = match writer.apply(set, history, step).await {
            Err(error) if error.is::<Collision>() => {
                let collision_count = Some(status.collision_count.unwrap_or(0) + 1);
                self.write_status(set, StatefulSetStatus { collision_count, ..status }).await?;
                return Ok(None);
            }
            result => result?,
        };
        let current = status.current_revision.as_deref().and_then(|name| history.find(name));
        Ok(Some(Revisions { current: current.unwrap_or_else(|| update.clone()), update }))
    }

    async fn apply(&self, key: &Key, set: &StatefulSet, plan: &Plan) -> anyhow::Result<()> {
        if set.spec.as_ref().is_some_and(|spec| spec.pod_management_policy.as_deref() == Some("Parallel")) {
            self.pods.create_all(key, set, plan.create.clone()).await?;
        } else {
            for pod in &plan.create {
                self.pods.create(key, set, pod).await?;
            }
        }
        self.pods.delete_all(key, set, &plan.delete).await
    }

    async fn prune(
        &self,
        key: &Key,
        set: &StatefulSet,
        history: &History,
        revisions: &Revisions,
        pods: &[Arc<Pod>],
    ) -> anyhow::Result<()> {
        let mut live = vec![revisions.current.name.as_str(), revisions.update.name.as_str()];
        live.extend(pods.iter().filter_map(|pod| pod.labels().get(HASH_LABEL)).map(String::as_str));
        let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit);
        let writer = Writer { cluster: &self.pods.cluster, namespace: &key.namespace };
        writer.prune(history, &live, limit).await
    }

    async fn write_status(&self, set: &StatefulSet, status: StatefulSetStatus) -> anyhow::Result<()> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api: Api<StatefulSet> =
            Api::namespaced(self.pods.cluster.client.clone(), &set.namespace().unwrap_or_default());
        let mut new = set.clone();
        new.status = Some(status);
        meta::ignore_missing(api.replace_status(&set.name_any(), &PostParams::default(), &new).await)
    }
}
