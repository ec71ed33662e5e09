//! Assigning a pod to a node: what `POST …/pods/<name>/binding` does to the pod.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::meta;
use crate::schema::time::seconds;
use crate::status::Status;
use crate::value::{entries, is_zero, items, text};

/// Assigns the pod to the node that a Binding names, and marks it as scheduled.
///
/// # Errors
/// If the binding names no node, or the pod has one, is gated, or is going away.
pub fn bind(pod: &mut Value, binding: &Value, now: Timestamp) -> Result<(), Status> {
    let node = text(&binding["target"]["name"]);
    let name = meta::name(pod).to_owned();
    if node.is_empty() {
        return Err(Status::invalid(
            "",
            "Binding",
            &name,
            vec![crate::status::Cause {
                reason: "FieldValueRequired".into(),
                message: "Required value".into(),
                field: "target.name".into(),
            }],
        ));
    }
    let conflict = |why: String| Err(Status::conflict("", "pods/binding", &name, why));
    if meta::deletion_timestamp(pod).is_some() {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let current = text(&pod["spec"]["nodeName"]);
    if !current.is_empty() {
        return conflict(format!("pod {name} is already assigned to node {current:?}"));
    }
    if !items(&pod["spec"]["schedulingGates"]).is_empty() {
        return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    for (key, value) in entries(&binding["metadata"]["annotations"]) {
        meta::set_annotation(pod, key, text(value));
    }
    let node = node.to_owned();
    meta::child_mut(pod, "spec").insert("nodeName".into(), node.into());
    let generation = meta::generation(pod);
    if generation > 0 {
        meta::set_field(pod, "generation", generation + 1);
    }
    scheduled(pod, now);
    Ok(())
}

fn scheduled(pod: &mut Value, now: Timestamp) {
    let mut conditions: Vec<Value> = items(&pod["status"]["conditions"]).to_vec();
    conditions.retain(|condition| condition["type"] != "PodScheduled" && !is_zero(condition));
    conditions.insert(
        0,
        json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": seconds(now)}),
    );
    meta::child_mut(pod, "status").insert("conditions".into(), conditions.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_bound_once() {
        let now = "2026-01-01T00:00:00Z".parse().expect("time");
        let mut pod = json!({"metadata": {"name": "a", "generation": 1}, "spec": {}, "status": {"phase": "Pending"}});
        let binding = json!({"metadata": {"annotations": {"x": "y"}}, "target": {"kind": "Node", "name": "n"}});
        bind(&mut pod, &binding, now).expect("bound");
        assert_eq!(pod["spec"]["nodeName"], "n");
        assert_eq!(meta::annotation(&pod, "x"), Some("y"));
        assert_eq!(pod["status"]["conditions"][0]["status"], "True");
        let error = bind(&mut pod, &binding, now).expect_err("twice");
        assert_eq!(
            error.message,
            "Operation cannot be fulfilled on pods/binding \"a\": pod a is already assigned to node \"n\""
        );
    }
}
