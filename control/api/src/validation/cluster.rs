//! Rules for the small kinds: Namespace, Node, Event, Lease, PriorityClass, and the reviews.

use serde_json::Value;

use super::errors::{Errors, Path};
use crate::meta;
use crate::names;
use crate::value::{int, is_set, items, same, text};

const USER_PRIORITY_MAX: i64 = 1_000_000_000;
const TOKEN_SECONDS_MIN: i64 = 600;

pub(crate) fn namespace(namespace: &Value, errors: &mut Errors) {
    for finalizer in items(&namespace["spec"]["finalizers"]).iter().map(text) {
        errors.complaints(&Path::new("spec").at("finalizers"), finalizer, names::qualified_name(finalizer));
    }
}

pub(crate) fn node(node: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let mut seen = std::collections::BTreeSet::new();
    for (index, taint) in items(&node["spec"]["taints"]).iter().enumerate() {
        let path = path.at("taints").index(index);
        let (key, value) = (text(&taint["key"]), text(&taint["value"]));
        errors.complaints(&path.at("key"), key, names::qualified_name(key));
        errors.complaints(&path.at("value"), value, names::label_value(value));
        let effects = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
        errors.required_one_of(&path.at("effect"), &taint["effect"], effects);
        if !seen.insert((key, text(&taint["effect"]))) {
            errors.duplicate(&path, taint.clone());
        }
    }
    for (index, range) in items(&node["spec"]["podCIDRs"]).iter().enumerate() {
        super::address::cidr(text(range), &path.at("podCIDRs").index(index), errors);
    }
}

pub(crate) fn node_update(old: &Value, new: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let (before, after) = (&old["spec"]["podCIDRs"], &new["spec"]["podCIDRs"]);
    if !items(before).is_empty() && !same(before, after) {
        errors.forbidden(&path.at("podCIDRs"), "node updates may not change podCIDR except from \"\" to valid");
    }
    let (before, after) = (text(&old["spec"]["providerID"]), text(&new["spec"]["providerID"]));
    if !before.is_empty() && before != after {
        errors.forbidden(&path.at("providerID"), "node updates may not change providerID except from \"\" to valid");
    }
}

pub(crate) fn event(event: &Value, errors: &mut Errors) {
    let path = Path::new("involvedObject").at("namespace");
    let involved = text(&event["involvedObject"]["namespace"]);
    let own = meta::namespace(event);
    // Events about cluster-wide objects live in `default`.
    let fits = involved == own || (involved.is_empty() && own == "default");
    if !fits {
        errors.invalid(&path, involved, "does not match event.namespace");
    }
}

pub(crate) fn lease(lease: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &lease["spec"];
    if is_set(&spec["leaseDurationSeconds"]) && int(&spec["leaseDurationSeconds"]) <= 0 {
        let path = path.at("leaseDurationSeconds");
        errors.invalid(&path, int(&spec["leaseDurationSeconds"]), "must be greater than 0");
    }
    errors.not_negative(&path.at("leaseTransitions"), &spec["leaseTransitions"]);
    if is_set(&spec["holderIdentity"]) && text(&spec["holderIdentity"]).is_empty() {
        errors.invalid(&path.at("holderIdentity"), "", "must not be empty");
    }
}

pub(crate) fn priority_class(class: &Value, errors: &mut Errors) {
    let name = meta::name(class);
    let built_in = matches!(name, "system-cluster-critical" | "system-node-critical");
    if !built_in && name.starts_with("system-") {
        let detail = "priority class names with 'system-' prefix are reserved for system use only";
        errors.forbidden(&Path::new("metadata").at("name"), detail);
    }
    if !built_in && int(&class["value"]) > USER_PRIORITY_MAX {
        let detail = format!("maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}");
        errors.forbidden(&Path::new("value"), &detail);
    }
    let policies = &["Never", "PreemptLowerPriority"];
    errors.required_one_of(&Path::new("preemptionPolicy"), &class["preemptionPolicy"], policies);
}

pub(crate) fn priority_class_update(old: &Value, new: &Value, errors: &mut Errors) {
    if !same(&old["value"], &new["value"]) {
        errors.forbidden(&Path::new("value"), "may not be changed in an update.");
    }
    errors.immutable(&Path::new("preemptionPolicy"), &old["preemptionPolicy"], &new["preemptionPolicy"]);
}

pub(crate) fn self_access_review(review: &Value, errors: &mut Errors) {
    let spec = &review["spec"];
    if is_set(&spec["resourceAttributes"]) == is_set(&spec["nonResourceAttributes"]) {
        let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.invalid(&Path::new("spec").at("resourceAttributes"), spec["nonResourceAttributes"].clone(), detail);
    }
}

pub(crate) fn access_review(review: &Value, errors: &mut Errors) {
    self_access_review(review, errors);
    let spec = &review["spec"];
    if text(&spec["user"]).is_empty() && items(&spec["groups"]).is_empty() {
        let detail = "at least one of user or group must be specified";
        errors.invalid(&Path::new("spec").at("user"), "", detail);
    }
}

pub(crate) fn local_access_review(review: &Value, errors: &mut Errors) {
    access_review(review, errors);
    let path = Path::new("spec").at("resourceAttributes").at("namespace");
    let namespace = text(&review["spec"]["resourceAttributes"]["namespace"]);
    if is_set(&review["spec"]["resourceAttributes"]) && namespace != meta::namespace(review) {
        errors.invalid(&path, namespace, "must match metadata.namespace");
    }
    if is_set(&review["spec"]["nonResourceAttributes"]) {
        let path = Path::new("spec").at("nonResourceAttributes");
        errors.forbidden(&path, "disallowed on this kind of request");
    }
}

pub(crate) fn token_request(request: &Value, errors: &mut Errors) {
    let seconds = int(&request["spec"]["expirationSeconds"]);
    let path = Path::new("spec").at("expirationSeconds");
    if seconds < TOKEN_SECONDS_MIN {
        errors.invalid(&path, seconds, "may not specify a duration less than 10 minutes");
    } else if seconds > 1 << 32 {
        errors.invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::errors::texts;

    #[test]
    fn mistakes_in_small_kinds_are_named() {
        let lease_object = json!({"spec": {"leaseDurationSeconds": 0, "holderIdentity": ""}});
        assert_eq!(
            texts(|errors| lease(&lease_object, errors)),
            [
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                "spec.holderIdentity: Invalid value: \"\": must not be empty"
            ]
        );
        let class = json!({"metadata": {"name": "system-x"}, "value": 2_000_000_000, "preemptionPolicy": "Never"});
        assert_eq!(texts(|errors| priority_class(&class, errors)).len(), 2);
        let event_object = json!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": "b"}});
        assert_eq!(
            texts(|errors| event(&event_object, errors)),
            ["involvedObject.namespace: Invalid value: \"b\": does not match event.namespace"]
        );
        assert_eq!(
            texts(|errors| access_review(&json!({"spec": {"resourceAttributes": {}}}), errors)),
            ["spec.user: Invalid value: \"\": at least one of user or group must be specified"]
        );
        assert_eq!(
            texts(|errors| token_request(&json!({"spec": {"expirationSeconds": 5}}), errors)),
            ["spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes"]
        );
    }

    #[test]
    fn taints_are_unique_by_key_and_effect() {
        let object = json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}, {"key": "b"}]}});
        assert_eq!(
            texts(|errors| node(&object, errors)),
            [
                "spec.taints[1]: Duplicate value: {\"effect\":\"NoSchedule\",\"key\":\"a\"}",
                "spec.taints[2].effect: Required value"
            ]
        );
    }
}
