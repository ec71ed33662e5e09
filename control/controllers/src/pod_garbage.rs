//! Pods that no kubelet will ever end: those bound to a node that is gone, and those deleted before they had a node.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Cluster;
use crate::meta;
use crate::queue::{self, Key, Next};

/// A node that is missing may only be new, or register again.
const QUARANTINE: Duration = Duration::from_secs(40);

pub(crate) fn start(cluster: &Arc<Cluster>, tasks: &mut JoinSet<anyhow::Result<()>>) {
    let (shared, missing) = (Arc::clone(cluster), Arc::new(Mutex::new(Missing::default())));
    // Keys are nodes; the empty one stands for pods without a node.
    let queue = queue::start("podgc", tasks, move |key| {
        let (cluster, missing) = (Arc::clone(&shared), Arc::clone(&missing));
        async move { reconcile(&cluster, &missing, &key.name).await }
    });
    let (pods, weak) = (queue.clone(), Arc::downgrade(cluster));
    cluster.pods.on_change(move |_, new| {
        let (Some(cluster), Some(pod)) = (weak.upgrade(), new) else { return };
        let node = node_of(pod);
        let is_suspect = match node {
            "" => meta::is_deleting(pod),
            node => cluster.nodes.get("", node).is_none(),
        };
        if is_suspect {
            pods.add(Key::new("", node));
        }
    });
    cluster.nodes.on_change(move |old, new| {
        if let (Some(node), None) = (old, new) {
            queue.add(Key::of(node));
        }
    });
}

fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// Since when nodes with pods have been missing.
#[derive(Default)]
struct Missing(HashMap<String, Instant>);

impl Missing {
    /// How long the pods of a missing node must still wait.
    fn wait(&mut self, node: &str, now: Instant) -> Option<Duration> {
        let since = *self.0.entry(node.to_owned()).or_insert(now);
        QUARANTINE.checked_sub(now - since).filter(|left| !left.is_zero())
    }
}

async fn reconcile(cluster: &Cluster, missing: &Mutex<Missing>, node: &str) -> anyhow::Result<Next> {
    let pods: Vec<Arc<Pod>> = cluster.pods.all().into_iter().filter(|pod| node_of(pod) == node).collect();
    if node.is_empty() {
        for pod in pods.iter().filter(|pod| meta::is_deleting(&***pod)) {
            remove(cluster, pod).await?;
        }
        return Ok(Next::Await);
    }
    // At last from the server itself: a node must not lose its pods because our view is behind.
    let api: Api<Node> = Api::all(cluster.client.clone());
    if pods.is_empty() || cluster.nodes.get("", node).is_some() || api.get_opt(node).await?.is_some() {
        missing.lock().0.remove(node);
        return Ok(Next::Await);
    }
    if let Some(left) = missing.lock().wait(node, Instant::now()) {
        return Ok(Next::After(left));
    }
    for pod in &pods {
        if !meta::is_terminal(pod) {
            let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &pod.namespace().unwrap_or_default());
            let failed = json!({"phase": "Failed"});
            mark_disrupted(&api, pod, "DeletionByPodGC", "PodGC: node no longer exists", failed).await?;
        }
        remove(cluster, pod).await?;
    }
    Ok(Next::Await)
}

/// Nobody is left who could end it gracefully.
async fn remove(cluster: &Cluster, pod: &Pod) -> anyhow::Result<()> {
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), &pod.namespace().unwrap_or_default());
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: Some(meta::uid(pod)), resource_version: None }),
        ..DeleteParams::default()
    };
    tracing::info!(pod = pod.name_any(), namespace = pod.namespace(), "removing a pod without a node");
    meta::ignore_missing(api.delete(&pod.name_any(), &params).await)
}

/// Writes why a pod ends into its status, with more of the status if given.
pub(crate) async fn mark_disrupted(
    api: &Api<Pod>,
    pod: &Pod,
    reason: &str,
    message: &str,
    status: Value,
) -> anyhow::Result<()> {
    let mut status = status;
    status["conditions"] = json!([{
        "type": "DisruptionTarget", "status": "True", "reason": reason, "message": message,
        "lastTransitionTime": k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::now()),
    }]);
    let patch = json!({"metadata": {"uid": meta::uid(pod)}, "status": status});
    let patched = api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(&patch)).await;
    meta::ignore_missing(patched)
}

#[cfg(test)]
mod tests {
    use super::{Missing, QUARANTINE};
    use std::time::Duration;
    use tokio::time::Instant;

    #[test]
    fn a_node_is_given_up_only_after_a_while() {
        let (mut missing, start) = (Missing::default(), Instant::now());
        assert_eq!(missing.wait("a", start), Some(QUARANTINE));
        assert_eq!(missing.wait("a", start + Duration::from_secs(30)), Some(Duration::from_secs(10)));
        assert_eq!(missing.wait("a", start + QUARANTINE), None);
    }
}
