//! ReplicaSet: as many pods as asked, made and removed in upstream's order.
//!
//! Owns: pods it controls, and the ReplicaSet's status. Adopts orphans that match its selector, releases pods that no
//! longer do. A reconcile waits until the informer has seen what the last one did (its expectations), so that a stale view
//! never makes a pod twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Selector;
use kube::{Api, Resource, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Cluster;
use crate::meta;
use crate::queue::{self, Key, Next, Queue};

/// Pods made or removed in one reconcile.
const BURST_MAX: usize = 500;
/// An expectation older than this is given up: the pod has come and gone unseen.
const EXPECTATION_MAX: Duration = Duration::from_secs(10);
const EXPECTATION_POLL: Duration = Duration::from_millis(50);

pub(crate) fn start(cluster: &Arc<Cluster>, tasks: &mut JoinSet<anyhow::Result<()>>) {
    let state = Arc::new(Controller { cluster: Arc::clone(cluster), expectations: Mutex::default() });
    let queue = queue::start("replicaset", tasks, move |key| {
        let state = Arc::clone(&state);
        async move { state.reconcile(&key).await }
    });
    let sets = queue.clone();
    cluster.replica_sets.on_change(move |old, new| {
        if let Some(set) = new.or(old) {
            sets.add(Key::of(set));
        }
    });
    let weak = Arc::downgrade(cluster);
    cluster.pods.on_change(move |old, new| {
        let Some(cluster) = weak.upgrade() else { return };
        for pod in [old, new].into_iter().flatten() {
            enqueue_owner(&cluster, &queue, pod);
        }
    });
}

/// A pod's set, or for an orphan every set that could adopt it.
fn enqueue_owner(cluster: &Cluster, queue: &Queue, pod: &Pod) {
    let namespace = pod.namespace().unwrap_or_default();
    if let Some(name) = meta::controller_name(&pod.metadata, "ReplicaSet") {
        queue.add(Key::new(namespace, name));
    } else if meta::controller_of(&pod.metadata).is_none() {
        let adopts = |set: &ReplicaSet| {
            let selector = set.spec.as_ref().and_then(|spec| meta::selector(&spec.selector).ok());
            selector.is_some_and(|selector| meta::matches(&selector, pod.labels()))
        };
        for set in cluster.replica_sets.filter(&namespace, adopts) {
            queue.add(Key::of(&*set));
        }
    }
}

struct Controller {
    cluster: Arc<Cluster>,
    expectations: Mutex<HashMap<Key, Vec<Expectation>>>,
}

/// A change that the informer must show before the next reconcile.
struct Expectation {
    pod: String,
    uid: String,
    /// Whether the pod should be there (made) or not (removed).
    present: bool,
    since: Instant,
}

/// What one reconcile does to pods.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    adopt: Vec<String>,
    release: Vec<String>,
    create: usize,
    delete: Vec<String>,
}

impl Controller {
    async fn reconcile(&self, key: &Key) -> anyhow::Result<Next> {
        let Some(set) = self.cluster.replica_sets.get(&key.namespace, &key.name) else {
            self.expectations.lock().remove(key);
            return Ok(Next::Await);
        };
        if !self.is_caught_up(key) {
            return Ok(Next::After(EXPECTATION_POLL));
        }
        let spec = set.spec.as_ref().context("a ReplicaSet without a spec")?;
        let selector = meta::selector(&spec.selector)?;
        let pods = self.cluster.pods.filter(&key.namespace, |pod| is_related(&set, &selector, pod));
        let now = Timestamp::now();
        let plan = plan(&set, &selector, &pods, now);
        let failure = self.apply(key, &set, &plan, &pods).await.err();
        let status = status(&set, &selector, &pods, now, failure.as_ref());
        self.write_status(&set, status).await?;
        match failure {
            Some(error) => Err(error),
            None => Ok(next_look(&set, &pods, now)),
        }
    }

    fn is_caught_up(&self, key: &Key) -> bool {
        let mut all = self.expectations.lock();
        let Some(expectations) = all.get_mut(key) else { return true };
        expectations.retain(|one| {
            let found = self.cluster.pods.get(&key.namespace, &one.pod);
            let seen =
                found.is_some_and(|pod| meta::uid(&*pod) == one.uid && (one.present || !meta::is_deleting(&*pod)));
            seen != one.present && one.since.elapsed() < EXPECTATION_MAX
        });
        expectations.is_empty()
    }

    fn expect(&self, key: &Key, pod: &str, uid: String, present: bool) {
        let expectation = Expectation { pod: pod.into(), uid, present, since: Instant::now() };
        self.expectations.lock().entry(key.clone()).or_default().push(expectation);
    }

    async fn apply(&self, key: &Key, set: &ReplicaSet, plan: &Plan, pods: &[Arc<Pod>]) -> anyhow::Result<()> {
        let api: Api<Pod> = Api::namespaced(self.cluster.client.clone(), &key.namespace);
        let uid_of = |name: &str| pods.iter().find(|pod| pod.name_any() == name).map(|pod| meta::uid(&**pod));
        let owner = meta::controller_reference(set);
        for name in &plan.adopt {
            let patch = json!({"metadata": {"uid": uid_of(name), "ownerReferences": [&owner]}});
            api.patch(name, &PatchParams::default(), &Patch::Strategic(&patch)).await?;
        }
        for name in &plan.release {
            let drop = json!({"$patch": "delete", "uid": owner.uid});
            let patch = json!({"metadata": {"uid": uid_of(name), "ownerReferences": [drop]}});
            api.patch(name, &PatchParams::default(), &Patch::Strategic(&patch)).await?;
        }
        // Slow start: one, two, four … so that a set whose pods are refused asks only a few times.
        let (mut made, mut batch) = (0, 1);
        while made < plan.create {
            let wave = batch.min(plan.create - made);
            let calls = (0..wave).map(|_| async { api.create(&PostParams::default(), &pod_of(set)).await });
            for pod in futures::future::join_all(calls).await {
                let pod = pod.context("cannot create a pod")?;
                self.expect(key, &pod.name_any(), meta::uid(&pod), true);
            }
            made += wave;
            batch *= 2;
        }
        for name in &plan.delete {
            let uid = uid_of(name).unwrap_or_default();
            let params = DeleteParams {
                preconditions: Some(Preconditions { uid: Some(uid.clone()), resource_version: None }),
                ..DeleteParams::default()
            };
            self.expect(key, name, uid, false);
            match api.delete(name, &params).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                result => drop(result?),
            }
        }
        Ok(())
    }

    async fn write_status(&self, set: &ReplicaSet, status: ReplicaSetStatus) -> anyhow::Result<()> {
        if set.status.as_ref() == Some(&status) || meta::is_deleting(set) {
            return Ok(());
        }
        let api: Api<ReplicaSet> = Api::namespaced(self.cluster.client.clone(), &set.namespace().unwrap_or_default());
        let mut new = set.clone();
        new.status = Some(status);
        match api.replace_status(&set.name_any(), &PostParams::default(), &new).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            result => Ok(result.map(drop)?),
        }
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

fn is_active(pod: &Pod) -> bool {
    !meta::is_terminal(pod) && !meta::is_deleting(pod)
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

fn pod_of(set: &ReplicaSet) -> Pod {
    let template = set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
    let from = template.metadata.unwrap_or_default();
    let metadata = ObjectMeta {
        generate_name: Some(format!("{}-", set.name_any())),
        namespace: set.namespace(),
        labels: from.labels,
        annotations: from.annotations,
        finalizers: from.finalizers,
        owner_references: Some(vec![meta::controller_reference(set)]),
        ..ObjectMeta::default()
    };
    Pod { metadata, spec: template.spec, status: None }
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
            message: Some(format!("{error:#}")),
            last_transition_time: Some(Time(now)),
        }),
        (None, Some(index)) => drop(conditions.remove(index)),
        _ => {}
    }
    ReplicaSetStatus {
        replicas: active.len() as i32,
        fully_labeled_replicas: nonzero(count(&|pod| {
            template_labels.iter().all(|(key, value)| pod.labels().get(key) == Some(value))
        })),
        ready_replicas: nonzero(count(&|pod| meta::ready_since(pod).is_some())),
        available_replicas: nonzero(count(&|pod| meta::is_available(pod, min_ready, now))),
        terminating_replicas: Some(terminating),
        observed_generation: set.meta().generation,
        conditions: Some(conditions).filter(|list| !list.is_empty()),
    }
}

/// Go's `omitempty`: zero is absent.
fn nonzero(count: i32) -> Option<i32> {
    Some(count).filter(|count| *count != 0)
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
