//! Nodes: each gets a range of pod addresses, and is marked when its kubelet falls silent.
//!
//! Owns: `spec.podCIDRs`, the taints that conditions and `spec.unschedulable` ask for, and the conditions of a node that no
//! longer reports.

mod cidr;
mod taints;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::task::JoinSet;

use crate::Cluster;
use crate::meta;
use crate::node::cidr::Ranges;
use crate::queue::{self, Key, Next};

pub(crate) const LEASES: &str = "kube-node-lease";
/// A kubelet renews its lease every ten seconds; four times missed is silence (upstream's node-monitor-grace-period).
const SILENCE_SECONDS: i64 = 50;
const LOOK_EVERY: Duration = Duration::from_secs(5);

pub(crate) fn start(cluster: &Arc<Cluster>, tasks: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    let ranges = Arc::new(Ranges::parse(&cluster.config.pod_cidrs).context("--pod-cidrs is not usable")?);
    // One node at a time: two must not be given the same range.
    let one_at_a_time = Arc::new(tokio::sync::Mutex::new(()));
    let shared = Arc::clone(cluster);
    let queue = queue::start("node", tasks, move |key| {
        let (cluster, ranges, lock) = (Arc::clone(&shared), Arc::clone(&ranges), Arc::clone(&one_at_a_time));
        async move {
            let _guard = lock.lock().await;
            reconcile(&cluster, &ranges, &key.name).await
        }
    });
    cluster.nodes.on_change(move |_, new| {
        if let Some(node) = new {
            queue.add(Key::of(node));
        }
    });
    Ok(())
}

async fn reconcile(cluster: &Cluster, ranges: &Ranges, name: &str) -> anyhow::Result<Next> {
    let Some(node) = cluster.nodes.get("", name) else { return Ok(Next::Await) };
    if meta::is_deleting(&*node) {
        return Ok(Next::Await);
    }
    let api: Api<Node> = Api::all(cluster.client.clone());
    if pod_cidrs(&node).is_empty() {
        // From the server, not from the informer: a range given a moment ago must count as taken, and as this node's.
        let nodes = api.list(&Default::default()).await?.items;
        if nodes.iter().any(|node| node.name_any() == name && !pod_cidrs(node).is_empty()) {
            return Ok(Next::After(LOOK_EVERY));
        }
        let taken = nodes.iter().flat_map(pod_cidrs).cloned().collect();
        let cidrs = ranges.next(&taken).with_context(|| format!("no pod range is left for node {name}"))?;
        let patch = json!({"spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs}});
        api.patch(name, &PatchParams::default(), &Patch::Strategic(&patch)).await?;
        return Ok(Next::After(LOOK_EVERY));
    }
    let lease = cluster.leases.get(LEASES, name);
    let now = Timestamp::now();
    if is_silent(&node, lease.as_deref(), now)
        && let Some(silent) = silenced(&node, now)
    {
        api.replace_status(name, &PostParams::default(), &silent).await?;
    }
    if let Some(taints) = taints::wanted(&node, now) {
        let patch = json!({"metadata": {"resourceVersion": node.resource_version()}, "spec": {"taints": taints}});
        api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    }
    Ok(Next::After(LOOK_EVERY))
}

fn pod_cidrs(node: &Node) -> &[String] {
    node.spec.as_ref().and_then(|spec| spec.pod_cidrs.as_deref()).unwrap_or_default()
}

fn is_silent(node: &Node, lease: Option<&Lease>, now: Timestamp) -> bool {
    let renewed = lease.and_then(|lease| lease.spec.as_ref()?.renew_time.as_ref().map(|time| time.0));
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let heartbeat =
        conditions.into_iter().flatten().filter_map(|one| one.last_heartbeat_time.as_ref()).map(|t| t.0).max();
    let created = node.creation_timestamp().map(|time| time.0);
    let last = renewed.max(heartbeat).max(created);
    last.is_none_or(|last| now.as_second() - last.as_second() > SILENCE_SECONDS)
}

/// The node with its conditions set to Unknown, if they are not already.
fn silenced(node: &Node, now: Timestamp) -> Option<Node> {
    let mut node = node.clone();
    let mut changed = false;
    for condition in node.status.as_mut()?.conditions.iter_mut().flatten() {
        if condition.status != "Unknown" {
            condition.status = "Unknown".into();
            condition.reason = Some("NodeStatusUnknown".into());
            condition.message = Some("Kubelet stopped posting node status.".into());
            condition.last_transition_time = Some(Time(now));
            changed = true;
        }
    }
    changed.then_some(node)
}

#[cfg(test)]
mod tests {
    use super::{is_silent, silenced};
    use jiff::Timestamp;
    use k8s_openapi::api::core::v1::Node;
    use serde_json::json;

    fn node(ready: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "status": {"conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": "2026-01-01T00:10:00Z"}]},
        }))
        .unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn silence_is_noticed_once() {
        let node = node("True");
        assert!(!is_silent(&node, None, at("2026-01-01T00:10:30Z")));
        assert!(is_silent(&node, None, at("2026-01-01T00:11:00Z")));
        let silent = silenced(&node, at("2026-01-01T00:11:00Z")).unwrap();
        assert!(silenced(&silent, at("2026-01-01T00:12:00Z")).is_none());
    }
}
