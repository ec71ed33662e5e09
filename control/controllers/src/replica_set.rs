//! ReplicaSet and ReplicationController: as many pods as asked, made and removed in upstream's order.
//!
//! Owns: pods it controls, and the set's status. Adopts orphans that match its selector, releases pods that no longer do.

mod kind;

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::PostParams;
use kube::core::Selector;
use kube::{Api, Resource, ResourceExt};
use tokio::task::JoinSet;

use crate::Cluster;
use crate::causes;
use crate::meta;
use crate::pod_control::{self, BURST_MAX, Claim, EXPECTATION_POLL, PodControl, is_active};
use crate::queue::{self, Key, Next};
use crate::replica_set::kind::Replicated;

pub(crate) fn start<K: Replicated>(cluster: &Arc<Cluster>, tasks: &mut JoinSet<anyhow::Result<()>>) {
    let state = Arc::new(Controller::<K> { pods: PodControl::new(cluster, K::SOURCE), kind: PhantomData });
    let queue = queue::start(K::SOURCE, tasks, move |key| {
        let state = Arc::clone(&state);
        async move { state.reconcile(&key).await }
    });
    causes::itself(K::known(cluster), &queue);
    causes::pods_of(cluster, K::KIND, K::known, adopts::<K>, &queue);
}

fn adopts<K: Replicated>(owner: &K, pod: &Pod) -> bool {
    causes::adopts(owner.as_set().spec.as_ref().map(|spec| &spec.selector), pod)
}

struct Controller<K> {
    pods: PodControl,
    kind: PhantomData<K>,
}

/// What one reconcile does to pods.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    adopt: Vec<String>,
    release: Vec<String>,
    create: usize,
    delete: Vec<String>,
}

impl<K: Replicated> Controller<K> {
    async fn reconcile(&self, key: &Key) -> anyhow::Result<Next> {
        let cluster = &self.pods.cluster;
        let Some(owner) = K::known(cluster).get(&key.namespace, &key.name) else {
            self.pods.forget(key);
            return Ok(Next::Await);
        };
        if !self.pods.is_caught_up(key) {
            return Ok(Next::After(EXPECTATION_POLL));
        }
        let set = owner.as_set();
        let spec = set.spec.as_ref().context("a set of pods without a spec")?;
        let selector = meta::selector(&spec.selector)?;
        let pods = cluster.pods.filter(&key.namespace, |pod| is_related(&set, &selector, pod));
        let now = Timestamp::now();
        let plan = plan(&set, &selector, &pods, now);
        let failure = self.apply(key, &owner, &set, &plan, &pods).await.err();
        let status = status(&set, &selector, &pods, now, failure.as_ref());
        self.write_status(&owner, status).await?;
        match failure {
            Some(error) => Err(error),
            None => Ok(next_look(&set, &pods, now)),
        }
    }

    async fn apply(
        &self,
        key: &Key,
        owner: &K,
        set: &ReplicaSet,
        plan: &Plan,
        pods: &[Arc<Pod>],
    ) -> anyhow::Result<()> {
        let named = |names: &[String]| -> Vec<Arc<Pod>> {
            pods.iter().filter(|pod| names.contains(&pod.name_any())).cloned().collect()
        };
        let claim = Claim { owned: vec![], adopt: named(&plan.adopt), release: named(&plan.release) };
        self.pods.settle(owner, &claim).await?;
        if let Some(template) = set.spec.as_ref().and_then(|spec| spec.template.as_ref()) {
            let wanted = vec![pod_control::from_template(owner, template); plan.create];
            self.pods.create_all(key, owner, wanted).await?;
        }
        self.pods.delete_all(key, owner, &named(&plan.delete)).await
    }

    async fn write_status(&self, owner: &K, status: ReplicaSetStatus) -> anyhow::Result<()> {
        let mut new = owner.clone();
        new.set_status(status);
        if meta::is_deleting(owner) || new.as_set().status == owner.as_set().status {
            return Ok(());
        }
        let namespace = owner.meta().namespace.clone().unwrap_or_default();
        let api: Api<K> = Api::namespaced(self.pods.cluster.client.clone(), &namespace);
        let name = owner.meta().name.clone().unwrap_or_default();
        meta::ignore_missing(api.replace_status(&name, &PostParams::default(), &new).await)
    }
}

/// A set that is available only later must be looked at when that time comes.
fn next_look(set: &ReplicaSet, pods: &[Arc<Pod>], now: Timestamp) -> Next {
    let min_ready = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let waits = pods.iter().any(|pod| meta::ready_since(pod).is_some() && !meta::is_available(pod, min_ready, now));
    if waits { Next::After(Duration::from_secs(1)) } else { Next::Await }
}

fn is_related(set: &ReplicaSet, selector: &Selector, pod: &Pod) -> bool {
    match meta::controller_of(&pod.metadata) {
        Some(owner) => owner.uid == meta::uid(set),
        None => meta::matches(selector, pod.labels()),
    }
}

/// Decides which related pods to adopt, release, make and remove.
fn plan(set: &ReplicaSet, selector: &Selector, pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if meta::is_deleting(set) {
        return plan;
    }
    let mut active: Vec<&Pod> = Vec::new();
    for pod in pods {
        let owned = meta::controller_of(&pod.metadata).is_some();
        match (owned, meta::matches(selector, pod.labels())) {
            (true, false) if !meta::is_deleting(&**pod) => plan.release.push(pod.name_any()),
            (false, true) if is_active(pod) => {
                plan.adopt.push(pod.name_any());
                active.push(pod);
            }
            (true, true) if is_active(pod) => active.push(pod),
            _ => {}
        }
    }
    let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1).max(0) as usize;
    if active.len() < wanted {
        plan.create = (wanted - active.len()).min(BURST_MAX);
    } else {
        active.sort_by_key(|pod| deletion_rank(pod, now));
        let surplus = (active.len() - wanted).min(BURST_MAX);
        plan.delete = active.iter().take(surplus).map(|pod| pod.name_any()).collect();
    }
    plan
}

/// Upstream's order of removal, smallest first: unassigned, pending, unready, cheap, ready for less time, more restarts,
/// newer.
fn deletion_rank(pod: &Pod, now: Timestamp) -> impl Ord + use<> {
    let assigned = pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_ref().is_some_and(|name| !name.is_empty()));
    let phase = match meta::phase(pod) {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let cost = pod.annotations().get("controller.kubernetes.io/pod-deletion-cost");
    let cost: i32 = cost.and_then(|text| text.parse().ok()).unwrap_or(0);
    let ready = meta::ready_since(pod);
    let ready_seconds = ready.map_or(-1, |since| now.as_second() - since.as_second());
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let restarts = statuses.iter().map(|status| status.restart_count).max().unwrap_or(0);
    let created = pod.creation_timestamp().map_or(0, |time| time.0.as_second());
    (assigned, phase, ready.is_some(), cost, ready_seconds, -restarts, -created)
}

fn status(
    set: &ReplicaSet,
    selector: &Selector,
    pods: &[Arc<Pod>],
    now: Timestamp,
    failure: Option<&anyhow::Error>,
) -> ReplicaSetStatus {
    let spec = set.spec.clone().unwrap_or_default();
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let template_labels = spec.template.and_then(|template| template.metadata).and_then(|meta| meta.labels);
    let template_labels = template_labels.unwrap_or_default();
    let active: Vec<&Arc<Pod>> =
        pods.iter().filter(|pod| is_active(pod) && meta::matches(selector, pod.labels())).collect();
    let count = |wanted: &dyn Fn(&Pod) -> bool| active.iter().filter(|pod| wanted(pod)).count() as i32;
    let terminating = pods.iter().filter(|pod| meta::is_deleting(&***pod) && !meta::is_terminal(pod)).count() as i32;
    let old = set.status.clone().unwrap_or_default();
    let mut conditions = old.conditions.unwrap_or_default();
    let had = conditions.iter().position(|one| one.type_ == "ReplicaFailure");
    match (failure, had) {
        (Some(error), None) => conditions.push(ReplicaSetCondition {
            type_: "ReplicaFailure".into(),
            status: "True".into(),
            reason: Some("FailedCreate".into()),
            message: Some(meta::cause(error)),
            last_transition_time: Some(Time(now)),
        }),
        (None, Some(index)) => drop(conditions.remove(index)),
        _ => {}
    }
    ReplicaSetStatus {
        replicas: active.len() as i32,
        fully_labeled_replicas: meta::nonzero(count(&|pod| {
            template_labels.iter().all(|(key, value)| pod.labels().get(key) == Some(value))
        })),
        ready_replicas: meta::nonzero(count(&|pod| meta::ready_since(pod).is_some())),
        available_replicas: meta::nonzero(count(&|pod| meta::is_available(pod, min_ready, now))),
        terminating_replicas: Some(terminating),
        observed_generation: set.meta().generation,
        conditions: Some(conditions).filter(|list| !list.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::{plan, status};
    use crate::meta;
    use jiff::Timestamp;
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn set(replicas: i32) -> ReplicaSet {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "n", "uid": "set", "generation": 4},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                     "template": {"metadata": {"labels": {"app": "web"}}}},
        }))
        .unwrap()
    }

    fn pod(name: &str, change: impl Fn(&mut Value)) -> Arc<Pod> {
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"app": "web"},
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "set",
                                     "controller": true}]},
            "spec": {"containers": [], "nodeName": "node"},
            "status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:10Z"}]},
        });
        change(&mut pod);
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn now() -> Timestamp {
        "2026-01-01T01:00:00Z".parse().unwrap()
    }

    #[test]
    fn missing_pods_are_made_and_terminal_ones_do_not_count() {
        let set = set(3);
        let selector = meta::selector(&set.spec.as_ref().unwrap().selector).unwrap();
        let pods = [pod("a", |_| {}), pod("b", |pod| pod["status"]["phase"] = json!("Failed"))];
        assert_eq!(plan(&set, &selector, &pods, now()).create, 2);
    }

    #[test]
    fn surplus_pods_go_in_upstreams_order() {
        let set = set(0);
        let selector = meta::selector(&set.spec.as_ref().unwrap().selector).unwrap();
        let pods = [
            pod("old-ready", |_| {}),
            pod("cheap", |pod| {
                pod["metadata"]["annotations"] = json!({"controller.kubernetes.io/pod-deletion-cost": "-5"});
            }),
            pod("unready", |pod| pod["status"]["conditions"][0]["status"] = json!("False")),
            pod("pending", |pod| pod["status"]["phase"] = json!("Pending")),
            pod("unassigned", |pod| pod["spec"]["nodeName"] = json!("")),
        ];
        let order = plan(&set, &selector, &pods, now()).delete;
        assert_eq!(order, ["unassigned", "pending", "unready", "cheap", "old-ready"]);
    }

    #[test]
    fn orphans_are_adopted_and_strangers_released() {
        let set = set(2);
        let selector = meta::selector(&set.spec.as_ref().unwrap().selector).unwrap();
        let pods = [
            pod("orphan", |pod| pod["metadata"]["ownerReferences"] = json!([])),
            pod("relabelled", |pod| pod["metadata"]["labels"] = json!({"app": "other"})),
        ];
        let plan = plan(&set, &selector, &pods, now());
        assert_eq!((plan.adopt, plan.release, plan.create), (vec!["orphan".into()], vec!["relabelled".into()], 1));
    }

    #[test]
    fn status_counts_what_is_ready_and_available() {
        let set = set(2);
        let selector = meta::selector(&set.spec.as_ref().unwrap().selector).unwrap();
        let pods = [pod("a", |_| {}), pod("b", |pod| pod["status"]["conditions"] = json!([]))];
        let status = status(&set, &selector, &pods, now(), None);
        assert_eq!((status.replicas, status.ready_replicas, status.available_replicas), (2, Some(1), Some(1)));
        assert_eq!(status.observed_generation, Some(4));
    }
}
