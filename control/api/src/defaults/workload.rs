//! Defaults of Deployments and ReplicaSets.

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
    fn zero_replicas_are_kept() {
        let mut object = json!({"spec": {"replicas": 0}});
        replica_set(&mut object);
        assert_eq!(object["spec"]["replicas"], 0);
    }
}
