//! Which events tell of a node's changes. Pure.

use k8s_openapi::api::core::v1::{NodeCondition, NodeStatus};

/// A condition, and what it is called when it holds and when it does not.
const NAMES: &[(&str, &str, &str)] = &[
    ("MemoryPressure", "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
    ("DiskPressure", "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
    ("PIDPressure", "NodeHasInsufficientPID", "NodeHasSufficientPID"),
    ("Ready", "NodeReady", "NodeNotReady"),
];

/// Reasons of the events for conditions that changed.
pub(super) fn of_conditions(old: &NodeStatus, new: &NodeStatus) -> Vec<&'static str> {
    let mut reasons = Vec::new();
    for (kind, holds, fails) in NAMES {
        let (Some(after), before) = (condition(new, kind), condition(old, kind)) else { continue };
        // A node that says for the first time that it is ready or not has not become so.
        let is_new = before.is_none() && *kind != "Ready";
        if is_new || before.is_some_and(|before| before.status != after.status) {
            reasons.push(if after.status == "True" { *holds } else { *fails });
        }
    }
    reasons
}

/// The reason of the event for a node that takes no new pods any more, or takes them again.
pub(super) fn of_scheduling(was_unschedulable: bool, is_unschedulable: bool) -> Option<&'static str> {
    let reason = if is_unschedulable { "NodeNotSchedulable" } else { "NodeSchedulable" };
    (was_unschedulable != is_unschedulable).then_some(reason)
}

fn condition<'a>(status: &'a NodeStatus, kind: &str) -> Option<&'a NodeCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(conditions: &[(&str, &str)]) -> NodeStatus {
        let condition = |(kind, status): &(&str, &str)| serde_json::json!({"type": kind, "status": status});
        let list: Vec<_> = conditions.iter().map(condition).collect();
        serde_json::from_value(serde_json::json!({"conditions": list})).unwrap()
    }

    #[test]
    fn changes_are_told_once() {
        let starting = status(&[("MemoryPressure", "False"), ("Ready", "False")]);
        assert_eq!(of_conditions(&NodeStatus::default(), &starting), ["NodeHasSufficientMemory"]);
        let ready = status(&[("MemoryPressure", "False"), ("Ready", "True")]);
        assert_eq!(of_conditions(&starting, &ready), ["NodeReady"]);
        assert!(of_conditions(&ready, &ready).is_empty());
        let full = status(&[("MemoryPressure", "True"), ("Ready", "Unknown")]);
        assert_eq!(of_conditions(&ready, &full), ["NodeHasInsufficientMemory", "NodeNotReady"]);
    }

    #[test]
    fn cordon_and_uncordon_are_told() {
        assert_eq!(of_scheduling(false, true), Some("NodeNotSchedulable"));
        assert_eq!(of_scheduling(true, false), Some("NodeSchedulable"));
        assert_eq!(of_scheduling(true, true), None);
    }
}
