//! Placement and rollouts by table: nodes and pods in, creations and deletions out.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{Plan, plan};

fn set(strategy: Value) -> DaemonSet {
    serde_json::from_value(json!({
        "metadata": {"name": "d", "namespace": "n", "uid": "u", "generation": 3},
        "spec": {"selector": {"matchLabels": {"app": "d"}}, "updateStrategy": strategy,
            "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": []}}},
    }))
    .unwrap()
}

fn rolling(unavailable: Value, surge: Value) -> DaemonSet {
    set(json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}}))
}

fn node(name: &str) -> Arc<Node> {
    Arc::new(serde_json::from_value(json!({"metadata": {"name": name}})).unwrap())
}

fn nodes(count: usize) -> Vec<Arc<Node>> {
    (0..count).map(|index| node(&format!("n{index}"))).collect()
}

/// `state`: `r` ready, `u` not ready, `f` failed, `d` being deleted.
fn pod(node: usize, hash: &str, state: char) -> Arc<Pod> {
    let ready = if state == 'r' { "True" } else { "False" };
    let mut pod = json!({
        "metadata": {"name": format!("d-{node}-{hash}"), "namespace": "n", "uid": format!("{node}{hash}"),
            "labels": {"app": "d", "controller-revision-hash": hash}},
        "spec": {"containers": [], "nodeName": format!("n{node}")},
        "status": {"phase": if state == 'f' { "Failed" } else { "Running" }, "conditions": [
            {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    });
    if state == 'd' {
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn run(set: &DaemonSet, nodes: &[Arc<Node>], pods: &[Arc<Pod>]) -> Plan {
    plan(set, nodes, pods, "new", "2026-01-01T00:01:00Z".parse().unwrap())
}

fn check(set: &DaemonSet, count: usize, pods: &[Arc<Pod>], created: &[&str], deleted: &[&str]) {
    let plan = run(set, &nodes(count), pods);
    let gone: Vec<String> = plan.delete.iter().chain(&plan.ended).map(|pod| pod.name_any()).collect();
    assert_eq!(
        (plan.create.iter().map(String::as_str).collect(), gone),
        (created.to_vec(), deleted.iter().map(|s| (*s).to_owned()).collect())
    );
}

#[test]
fn every_node_gets_one_pod() {
    let set = rolling(json!(1), json!(0));
    check(&set, 3, &[], &["n0", "n1", "n2"], &[]);
    check(&set, 2, &[pod(0, "new", 'r')], &["n1"], &[]);
    // One that ends still has the node.
    check(&set, 1, &[pod(0, "new", 'd')], &[], &[]);
    check(&set, 1, &[pod(0, "new", 'f')], &[], &["d-0-new"]);
    check(&set, 1, &[pod(0, "new", 'r'), pod(0, "old", 'r')], &[], &["d-0-old"]);
}

#[test]
fn a_node_that_repels_the_pod_loses_it() {
    let set = rolling(json!(1), json!(0));
    let tainted: Arc<Node> = Arc::new(
        serde_json::from_value(
            json!({"metadata": {"name": "n0"}, "spec": {"taints": [{"key": "x", "effect": "NoExecute"}]}}),
        )
        .unwrap(),
    );
    let plan = run(&set, &[tainted], &[pod(0, "new", 'r')]);
    assert_eq!((plan.create.len(), plan.delete.len(), plan.status.number_misscheduled), (0, 1, 1));
}

#[test]
fn a_rollout_takes_as_many_nodes_as_may_be_unavailable() {
    let old = |count: usize| (0..count).map(|index| pod(index, "old", 'r')).collect::<Vec<_>>();
    check(&rolling(json!(1), json!(0)), 3, &old(3), &[], &["d-0-old"]);
    check(&rolling(json!("50%"), json!(0)), 3, &old(3), &[], &["d-0-old", "d-1-old"]);
    // A new pod that is not ready uses the budget up.
    check(&rolling(json!(1), json!(0)), 2, &[pod(0, "new", 'u'), pod(1, "old", 'r')], &[], &[]);
    check(&rolling(json!(1), json!(0)), 2, &[pod(0, "old", 'd'), pod(1, "old", 'r')], &[], &[]);
    // Old pods that serve nobody go at once.
    check(&rolling(json!(1), json!(0)), 2, &[pod(0, "new", 'u'), pod(1, "old", 'u')], &[], &["d-1-old"]);
}

#[test]
fn a_surging_rollout_makes_the_new_pod_first() {
    let set = rolling(json!(0), json!(1));
    check(&set, 2, &[pod(0, "old", 'r'), pod(1, "old", 'r')], &["n0"], &[]);
    check(&set, 2, &[pod(0, "old", 'r'), pod(0, "new", 'u'), pod(1, "old", 'r')], &[], &[]);
    check(&set, 2, &[pod(0, "old", 'r'), pod(0, "new", 'r'), pod(1, "old", 'r')], &[], &["d-0-old"]);
}

#[test]
fn on_delete_waits_for_the_user() {
    check(&set(json!({"type": "OnDelete"})), 1, &[pod(0, "old", 'r')], &[], &[]);
    check(&set(json!({"type": "OnDelete"})), 1, &[], &["n0"], &[]);
}

#[test]
fn the_status_counts_nodes() {
    let pods = [pod(0, "new", 'r'), pod(1, "old", 'r'), pod(2, "new", 'u')];
    let status = run(&rolling(json!(1), json!(0)), &nodes(4), &pods).status;
    assert_eq!((status.desired_number_scheduled, status.current_number_scheduled, status.number_ready), (4, 3, 2));
    assert_eq!((status.number_available, status.number_unavailable), (Some(2), Some(2)));
    assert_eq!((status.updated_number_scheduled, status.observed_generation), (Some(2), Some(3)));
}
