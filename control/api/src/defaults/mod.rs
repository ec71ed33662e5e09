//! What upstream fills in where a client said nothing.

mod core;
mod definition;
mod job;
mod limits;
pub mod pod;
mod workload;

use serde_json::Value;

use crate::registry::Resource;
use crate::value::{child_mut, items_mut, set_default, set_if_zero};

pub(crate) use self::core::{endpoints, namespace, node, secret, service};
pub(crate) use self::definition::definition;
pub(crate) use self::job::{cron_job, job};
pub(crate) use self::limits::{limit_range, resource_quota};
pub(crate) use self::pod::pod;
pub(crate) use self::workload::{daemon_set, deployment, replica_set, replication_controller, stateful_set};

const RBAC: &str = "rbac.authorization.k8s.io";

/// Fills in the defaults of an object, after decoding and before admission.
pub fn apply(resource: &Resource, object: &mut Value) {
    if !object.is_object() {
        return;
    }
    match &resource.custom {
        Some(custom) => custom.defaults(object),
        None => (resource.hooks.defaults)(object),
    }
}

/// The defaults of a TokenRequest.
pub fn token_request(request: &mut Value) {
    crate::meta::child_mut(request, "spec").entry("expirationSeconds").or_insert(3600.into());
}

pub(crate) fn nothing(_: &mut Value) {}

pub(crate) fn endpoint_slice(slice: &mut Value) {
    for port in items_mut(slice, "ports") {
        set_default(port, "name", "");
        set_default(port, "protocol", "TCP");
    }
}

pub(crate) fn ingress_class(class: &mut Value) {
    if let Some(parameters) = child_mut(class, "spec").and_then(|spec| child_mut(spec, "parameters")) {
        set_default(parameters, "scope", "Cluster");
    }
}

pub(crate) fn network_policy(policy: &mut Value) {
    let Some(spec) = child_mut(policy, "spec") else { return };
    for direction in ["ingress", "egress"] {
        for rule in items_mut(spec, direction) {
            for port in items_mut(rule, "ports") {
                set_default(port, "protocol", "TCP");
            }
        }
    }
    let egress = spec["egress"].as_array().is_some_and(|rules| !rules.is_empty());
    let types: &[&str] = if egress { &["Ingress", "Egress"] } else { &["Ingress"] };
    set_if_zero(spec, "policyTypes", types);
}

pub(crate) fn priority_class(class: &mut Value) {
    set_default(class, "preemptionPolicy", "PreemptLowerPriority");
}

pub(crate) fn role_binding(binding: &mut Value) {
    if let Some(reference) = child_mut(binding, "roleRef") {
        set_if_zero(reference, "apiGroup", RBAC);
    }
    for subject in items_mut(binding, "subjects") {
        if matches!(subject["kind"].as_str(), Some("User" | "Group")) {
            set_if_zero(subject, "apiGroup", RBAC);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn policy_types_follow_the_rules_present() {
        let mut policy = json!({"spec": {"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]}});
        network_policy(&mut policy);
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(policy["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");
        let mut policy = json!({"spec": {"podSelector": {}, "egress": []}});
        network_policy(&mut policy);
        assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress"]));
    }

    #[test]
    fn subjects_get_the_group_their_kind_lives_in() {
        let mut binding = json!({"roleRef": {"kind": "Role", "name": "r"},
            "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}]});
        role_binding(&mut binding);
        assert_eq!(
            binding,
            json!({"roleRef": {"kind": "Role", "name": "r", "apiGroup": RBAC},
            "subjects": [{"kind": "User", "name": "u", "apiGroup": RBAC}, {"kind": "ServiceAccount", "name": "s"}]})
        );
    }
}
