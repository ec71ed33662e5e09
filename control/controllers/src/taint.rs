//! Taints of effect NoExecute: pods that do not bear them leave the node, at once or after the time they bear them for.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinSet;

use crate::Cluster;
use crate::events::Events;
use crate::meta;
use crate::node_selector::tolerates;
use crate::pod_garbage::mark_disrupted;
use crate::queue::{self, Key, Next};

pub(crate) fn start(cluster: &Arc<Cluster>, tasks: &mut JoinSet<anyhow::Result<()>>) {
    let events = Events::new(cluster, "taint-eviction-controller");
    let evictor = Arc::new(Evictor { cluster: Arc::clone(cluster), events, leaving_since: Mutex::default() });
    let queue = queue::start("taint", tasks, move |key| {
        let evictor = Arc::clone(&evictor);
        async move { evictor.reconcile(&key).await }
    });
    let pods = queue.clone();
    cluster.pods.on_change(move |old, new| {
        let node = |pod: Option<&Pod>| pod.and_then(|pod| pod.spec.as_ref()?.node_name.clone());
        let tolerations = |pod: Option<&Pod>| pod.and_then(|pod| pod.spec.as_ref()?.tolerations.clone());
        if let Some(pod) = new.filter(|_| node(old) != node(new) || tolerations(old) != tolerations(new)) {
            pods.add(Key::of(pod));
        }
    });
    let weak = Arc::downgrade(cluster);
    cluster.nodes.on_change(move |old, new| {
        let (Some(cluster), Some(node)) = (weak.upgrade(), new) else { return };
        if old.map(expelling) != Some(expelling(node)) {
            let name = node.name_any();
            let here = |pod: &&Arc<Pod>| pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_ref() == Some(&name));
            cluster.pods.all().iter().filter(here).for_each(|pod| queue.add(Key::of(&**pod)));
        }
    });
}

fn expelling(node: &Node) -> Vec<Taint> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    taints.into_iter().filter(|taint| taint.effect == "NoExecute").collect()
}

struct Evictor {
    cluster: Arc<Cluster>,
    events: Events,
    /// Since when pods have been on borrowed time; for taints that do not say when they were added.
    leaving_since: Mutex<HashMap<Key, Timestamp>>,
}

impl Evictor {
    async fn reconcile(&self, key: &Key) -> anyhow::Result<Next> {
        let found = self.cluster.pods.get(&key.namespace, &key.name).filter(|pod| !meta::is_deleting(&**pod));
        let node_name = found.as_ref().and_then(|pod| pod.spec.as_ref()?.node_name.clone()).unwrap_or_default();
        let (Some(pod), Some(node)) = (found, self.cluster.nodes.get("", &node_name)) else {
            self.leaving_since.lock().remove(key);
            return Ok(Next::Await);
        };
        let now = Timestamp::now();
        let since = *self.leaving_since.lock().entry(key.clone()).or_insert(now);
        match stay(&pod, &expelling(&node), since, now) {
            Stay::For(wait) => return Ok(Next::After(wait.unsigned_abs())),
            Stay::ForEver => {}
            Stay::NoLonger => self.evict(key, &pod).await?,
        }
        self.leaving_since.lock().remove(key);
        Ok(Next::Await)
    }

    async fn evict(&self, key: &Key, pod: &Pod) -> anyhow::Result<()> {
        let note = format!("Marking for deletion Pod {}/{}", key.namespace, key.name);
        self.events.normal(pod, "TaintManagerEviction", note);
        let api: Api<Pod> = Api::namespaced(self.cluster.client.clone(), &key.namespace);
        let message = "Taint manager: deleting due to NoExecute taint";
        mark_disrupted(&api, pod, "DeletionByTaintManager", message, json!({})).await?;
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: Some(meta::uid(pod)), resource_version: None }),
            ..DeleteParams::default()
        };
        meta::ignore_missing(api.delete(&key.name, &params).await)
    }
}

#[derive(Debug, PartialEq)]
enum Stay {
    ForEver,
    For(SignedDuration),
    NoLonger,
}

/// How long a pod may stay: of each taint as long as the tolerations for it say, and the shortest of these counts.
fn stay(pod: &Pod, taints: &[Taint], since: Timestamp, now: Timestamp) -> Stay {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let mut end: Option<Timestamp> = None;
    for taint in taints {
        let bearing = tolerations.iter().filter(|toleration| tolerates(toleration, taint));
        let times: Vec<Option<i64>> = bearing.map(|toleration| toleration.toleration_seconds).collect();
        if times.is_empty() {
            return Stay::NoLonger;
        }
        if let Some(seconds) = times.into_iter().flatten().min() {
            let added = taint.time_added.as_ref().map_or(since, |time| time.0);
            let until = added + SignedDuration::from_secs(seconds.max(0));
            end = Some(end.map_or(until, |end| end.min(until)));
        }
    }
    match end.map(|end| SignedDuration::try_from(end - now).unwrap_or_default()) {
        None => Stay::ForEver,
        Some(left) if left <= SignedDuration::ZERO => Stay::NoLonger,
        Some(left) => Stay::For(left),
    }
}

#[cfg(test)]
mod tests {
    use super::{Stay, stay};
    use jiff::SignedDuration;
    use serde_json::{Value, json};

    #[test]
    fn the_shortest_toleration_decides() {
        let check = |tolerations: Value, taints: Value| {
            let pod = serde_json::from_value(json!({"spec": {"containers": [], "tolerations": tolerations}})).unwrap();
            let taints: Vec<_> = serde_json::from_value(taints).unwrap();
            let at = |text: &str| text.parse().unwrap();
            stay(&pod, &taints, at("2026-01-01T00:00:50Z"), at("2026-01-01T00:01:00Z"))
        };
        let taint = json!([{"key": "a", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:30Z"}]);
        assert_eq!(check(json!([]), json!([])), Stay::ForEver);
        assert_eq!(check(json!([]), taint.clone()), Stay::NoLonger);
        assert_eq!(check(json!([{"key": "a", "operator": "Exists"}]), taint.clone()), Stay::ForEver);
        let seconds = |seconds: i64| json!([{"key": "a", "operator": "Exists", "tolerationSeconds": seconds}]);
        assert_eq!(check(seconds(90), taint.clone()), Stay::For(SignedDuration::from_secs(60)));
        assert_eq!(check(seconds(10), taint), Stay::NoLonger);
        let undated = json!([{"key": "a", "effect": "NoExecute"}]);
        assert_eq!(check(seconds(30), undated), Stay::For(SignedDuration::from_secs(20)));
    }
}
