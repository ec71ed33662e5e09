//! Defaults of Deployments, ReplicaSets, DaemonSets and StatefulSets.

use serde_json::{Value, json};

use super::pod::pod_template;
use crate::value::{child_mut, set_default, set_if_zero};

pub(crate) fn deployment(deployment: &mut Value) {
    let Some(spec) = child_mut(deployment, "spec") else { return };
    set_default(spec, "replicas", 1);
    set_default(spec, "revisionHistoryLimit", 10);
    set_default(spec, "progressDeadlineSeconds", 600);
    set_default(spec, "strategy", json!({}));
    if let Some(strategy) = child_mut(spec, "strategy") {
        self::strategy(strategy);
    }
    template(spec);
}

fn strategy(strategy: &mut Value) {
    set_if_zero(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        set_default(strategy, "rollingUpdate", json!({}));
        if let Some(rolling) = child_mut(strategy, "rollingUpdate") {
            set_default(rolling, "maxUnavailable", "25%");
            set_default(rolling, "maxSurge", "25%");
        }
    }
}

pub(crate) fn replica_set(set: &mut Value) {
    let Some(spec) = child_mut(set, "spec") else { return };
    set_default(spec, "replicas", 1);
    template(spec);
}

/// Selector and labels are those of the template where they are not given.
pub(crate) fn replication_controller(controller: &mut Value) {
    let labels = controller["spec"]["template"]["metadata"]["labels"].clone();
    if labels.as_object().is_some_and(|labels| !labels.is_empty()) {
        let is_empty = |value: &Value| value.as_object().is_none_or(serde_json::Map::is_empty);
        if is_empty(&controller["spec"]["selector"]) {
            controller["spec"]["selector"] = labels.clone();
        }
        if is_empty(&controller["metadata"]["labels"]) {
            controller["metadata"]["labels"] = labels;
        }
    }
    replica_set(controller);
}

pub(crate) fn daemon_set(set: &mut Value) {
    let Some(spec) = child_mut(set, "spec") else { return };
    set_default(spec, "revisionHistoryLimit", 10);
    set_default(spec, "updateStrategy", json!({}));
    if let Some(strategy) = child_mut(spec, "updateStrategy") {
        set_if_zero(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate" {
            set_default(strategy, "rollingUpdate", json!({}));
            if let Some(rolling) = child_mut(strategy, "rollingUpdate") {
                set_default(rolling, "maxUnavailable", 1);
                set_default(rolling, "maxSurge", 0);
            }
        }
    }
    template(spec);
}

pub(crate) fn stateful_set(set: &mut Value) {
    let Some(spec) = child_mut(set, "spec") else { return };
    set_default(spec, "replicas", 1);
    set_default(spec, "revisionHistoryLimit", 10);
    set_if_zero(spec, "podManagementPolicy", "OrderedReady");
    set_default(spec, "updateStrategy", json!({}));
    if let Some(strategy) = child_mut(spec, "updateStrategy") {
        set_if_zero(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate" {
            set_default(strategy, "rollingUpdate", json!({}));
            if let Some(rolling) = child_mut(strategy, "rollingUpdate") {
                set_default(rolling, "partition", 0);
            }
        }
    }
    let policy = "persistentVolumeClaimRetentionPolicy";
    set_default(spec, policy, json!({}));
    if let Some(policy) = child_mut(spec, policy) {
        set_if_zero(policy, "whenDeleted", "Retain");
        set_if_zero(policy, "whenScaled", "Retain");
    }
    template(spec);
}

fn template(spec: &mut Value) {
    if let Some(template) = spec.get_mut("template") {
        pod_template(template);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployment_rolls_by_a_quarter() {
        let mut object = json!({"spec": {"template": {"spec": {"containers": []}}}});
        deployment(&mut object);
        let spec = &object["spec"];
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
        );
        assert_eq!((&spec["replicas"], &spec["revisionHistoryLimit"]), (&json!(1), &json!(10)));
        assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
        assert!(spec["template"]["spec"]["enableServiceLinks"].is_null());
    }

    #[test]
    fn sets_roll_one_pod_at_a_time() {
        let mut object = json!({"spec": {}});
        daemon_set(&mut object);
        let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}});
        assert_eq!(object["spec"]["updateStrategy"], rolling);
        let mut object = json!({"spec": {}});
        stateful_set(&mut object);
        assert_eq!(
            object["spec"]["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
        );
        assert_eq!(object["spec"]["podManagementPolicy"], "OrderedReady");
        let mut object = json!({"spec": {"updateStrategy": {"type": "OnDelete"}}});
        stateful_set(&mut object);
        assert_eq!(object["spec"]["updateStrategy"], json!({"type": "OnDelete"}));
    }

    #[test]
    fn a_replication_controller_takes_its_labels_from_its_template() {
        let mut object = json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}});
        replication_controller(&mut object);
        assert_eq!((&object["spec"]["selector"], &object["spec"]["replicas"]), (&json!({"a": "b"}), &json!(1)));
        assert_eq!(object["metadata"]["labels"], json!({"a": "b"}));
        let mut object = json!({"metadata": {"labels": {"x": "y"}}, "spec": {"selector": {"a": "b"}, "template": {}}});
        replication_controller(&mut object);
        assert_eq!(object["spec"]["selector"], json!({"a": "b"}));
        assert_eq!(object["metadata"]["labels"], json!({"x": "y"}));
    }

    #[test]
    fn zero_replicas_are_kept() {
        let mut object = json!({"spec": {"replicas": 0}});
        replica_set(&mut object);
        assert_eq!(object["spec"]["replicas"], 0);
    }
}
