//! The taints of a node that follow from its conditions and from `spec.unschedulable`; all others are left alone.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// A condition, the status of it that counts, and the taint it asks for.
const BY_CONDITION: &[(&str, &str, &str)] = &[
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];

/// The node's taints as they should be, if they are not so already.
pub(super) fn wanted(node: &Node, now: Timestamp) -> Option<Vec<Taint>> {
    let present: Vec<Taint> = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
    let (ours, mut taints): (Vec<Taint>, Vec<Taint>) = present.iter().cloned().partition(is_ours);
    for (key, effect) in asked_for(node) {
        let same = ours.iter().find(|taint| taint.key == key && taint.effect == effect).cloned();
        taints.push(same.unwrap_or_else(|| Taint {
            key: key.into(),
            effect: effect.into(),
            value: None,
            time_added: Some(Time(now)),
        }));
    }
    let order = |taints: &[Taint]| {
        let mut keys: Vec<_> = taints.iter().map(|taint| (taint.key.clone(), taint.effect.clone())).collect();
        keys.sort();
        keys
    };
    (order(&present) != order(&taints)).then_some(taints)
}

fn asked_for(node: &Node) -> Vec<(&'static str, &'static str)> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let status = |kind: &str| conditions.iter().find(|one| one.type_ == kind).map(|one| one.status.as_str());
    // A node that has never said that it is ready is not.
    let status = |kind: &str| if kind == "Ready" { status(kind).or(Some("False")) } else { status(kind) };
    let mut wanted = Vec::new();
    for (kind, counts, key) in BY_CONDITION {
        if status(kind) == Some(counts) {
            wanted.push((*key, "NoSchedule"));
            if *kind == "Ready" {
                wanted.push((*key, "NoExecute"));
            }
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    wanted
}

fn is_ours(taint: &Taint) -> bool {
    let by_condition = BY_CONDITION.iter().any(|(_, _, key)| *key == taint.key);
    match taint.effect.as_str() {
        "NoSchedule" => by_condition || taint.key == UNSCHEDULABLE,
        "NoExecute" => taint.key == NOT_READY || taint.key == UNREACHABLE,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::wanted;
    use k8s_openapi::api::core::v1::Node;
    use serde_json::{Value, json};

    /// The taints that a node with one foreign taint should have; none where it has them already.
    fn check(conditions: Value, unschedulable: bool, present: &[&str]) -> Option<Vec<String>> {
        let mut taints = vec![json!({"key": "mine", "effect": "NoSchedule"})];
        taints.extend(present.iter().map(|key| json!({"key": key, "effect": "NoSchedule"})));
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "a"},
            "spec": {"taints": taints, "unschedulable": unschedulable},
            "status": {"conditions": conditions},
        }))
        .unwrap();
        let found = wanted(&node, "2026-01-01T00:00:00Z".parse().unwrap())?;
        let short = |key: &str| key.trim_start_matches("node.kubernetes.io/").to_owned();
        Some(found.iter().map(|taint| format!("{}:{}", short(&taint.key), taint.effect)).collect())
    }

    fn condition(kind: &str, status: &str) -> Value {
        json!({"type": kind, "status": status})
    }

    #[test]
    fn taints_follow_the_ready_condition_and_spare_foreign_ones() {
        let keys = |status| check(json!([condition("Ready", status)]), false, &[]);
        assert_eq!(keys("True"), None);
        assert_eq!(keys("False").unwrap(), ["mine:NoSchedule", "not-ready:NoSchedule", "not-ready:NoExecute"]);
        assert_eq!(keys("Unknown").unwrap(), ["mine:NoSchedule", "unreachable:NoSchedule", "unreachable:NoExecute"]);
        assert_eq!(check(json!([]), false, &[]).unwrap().len(), 3);
    }

    #[test]
    fn cordon_taints_and_uncordon_takes_it_back() {
        let ready = json!([condition("Ready", "True")]);
        assert_eq!(check(ready.clone(), true, &[]).unwrap(), ["mine:NoSchedule", "unschedulable:NoSchedule"]);
        let taint = "node.kubernetes.io/unschedulable";
        assert_eq!(check(ready.clone(), true, &[taint]), None);
        assert_eq!(check(ready, false, &[taint]).unwrap(), ["mine:NoSchedule"]);
    }

    #[test]
    fn pressure_repels_new_pods_only() {
        let ready = condition("Ready", "True");
        for (kind, key) in [("MemoryPressure", "memory"), ("DiskPressure", "disk"), ("PIDPressure", "pid")] {
            let conditions = json!([ready, condition(kind, "True")]);
            assert_eq!(
                check(conditions, false, &[]).unwrap(),
                ["mine:NoSchedule".into(), format!("{key}-pressure:NoSchedule")]
            );
            assert_eq!(check(json!([ready, condition(kind, "Unknown")]), false, &[]), None);
        }
    }
}
