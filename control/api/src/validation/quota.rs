//! Rules for ResourceQuotas: names and values of what is limited, scopes that fit them.

use serde_json::Value;

use super::errors::{Errors, NOT_NEGATIVE, Path};
use crate::names;
use crate::value::{entries, is_set, items, text};

const COMPUTE: &[&str] = &[
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
/// Counted in whole things.
const COUNTS: &[&str] = &[
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
const OPPOSITES: [[&str; 2]; 2] = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];
const ONLY_EXISTS: &str = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, \
     ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
     ResourceQuotaScopeCrossNamespacePodAffinity";
const UNFIT: &str = "unsupported scope applied to resource";

pub(crate) fn resource_quota(quota: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &quota["spec"];
    for (name, value) in entries(&spec["hard"]) {
        let path = path.at("hard").key(name);
        amount_name(name, &path, errors);
        amount(name, value, &path, errors);
    }
    let hard: Vec<&str> =
        entries(&spec["hard"]).map(|(name, _)| name.as_str()).filter(|name| is_standard(name)).collect();
    let all = items(&spec["scopes"]);
    let scopes_path = path.at("scopes");
    for scope in all {
        if !SCOPES.contains(&text(scope)) {
            errors.invalid(&scopes_path, spec["scopes"].clone(), "unsupported scope");
        }
        for _ in hard.iter().filter(|name| !fits(text(scope), name)) {
            errors.invalid(&scopes_path, spec["scopes"].clone(), UNFIT);
        }
    }
    no_opposites(all.iter().map(text), &spec["scopes"], &scopes_path, errors);
    if is_set(&spec["scopeSelector"]) {
        selector(&spec["scopeSelector"], &hard, &path.at("scopeSelector"), errors);
    }
}

pub(crate) fn resource_quota_update(old: &Value, new: &Value, errors: &mut Errors) {
    errors.immutable(&Path::new("spec").at("scopes"), &old["spec"]["scopes"], &new["spec"]["scopes"]);
}

fn is_standard(name: &str) -> bool {
    let bare = name.strip_prefix("requests.").unwrap_or(name);
    COMPUTE.contains(&name) || COUNTS.contains(&name) || name == "requests.storage" || bare.starts_with("hugepages-")
}

fn amount_name(name: &str, path: &Path, errors: &mut Errors) {
    errors.complaints(path, name, names::qualified_name(name));
    if !name.contains('/') && !is_standard(name) {
        errors.invalid(path, name, "must be a standard resource for quota");
    }
}

fn amount(name: &str, value: &Value, path: &Path, errors: &mut Errors) {
    let Some(quantity) = errors.quantity(path, value) else { return };
    if quantity.is_negative() {
        errors.invalid(path, quantity.to_string(), NOT_NEGATIVE);
    }
    let is_counted = COUNTS.contains(&name) || (name.contains('/') && !name.contains("kubernetes.io/"));
    if is_counted && !quantity.is_whole() {
        errors.invalid(path, quantity.to_string(), "must be an integer");
    }
}

/// Whether a scope says anything about an amount.
fn fits(scope: &str, name: &str) -> bool {
    match scope {
        "BestEffort" | "CrossNamespacePodAffinity" => name == "pods",
        "NotBestEffort" | "NotTerminating" | "PriorityClass" | "Terminating" => {
            name == "pods" || COMPUTE.contains(&name)
        }
        "VolumeAttributesClass" => matches!(name, "persistentvolumeclaims" | "requests.storage"),
        _ => true,
    }
}

fn no_opposites<'a>(scopes: impl Iterator<Item = &'a str>, value: &Value, path: &Path, errors: &mut Errors) {
    let scopes: Vec<&str> = scopes.collect();
    for _ in OPPOSITES.iter().filter(|pair| pair.iter().all(|scope| scopes.contains(scope))) {
        errors.invalid(path, value.clone(), "conflicting scopes");
    }
}

fn selector(selector: &Value, hard: &[&str], path: &Path, errors: &mut Errors) {
    let expressions = items(&selector["matchExpressions"]);
    let path = path.at("matchExpressions");
    for expression in expressions {
        let scope = text(&expression["scopeName"]);
        if !SCOPES.contains(&scope) {
            errors.invalid(&path.at("scopeName"), scope, "unsupported scope");
        }
        for _ in hard.iter().filter(|name| !fits(scope, name)) {
            errors.invalid(&path, selector.clone(), UNFIT);
        }
        let operator = text(&expression["operator"]);
        if !matches!(scope, "PriorityClass" | "VolumeAttributesClass") && operator != "Exists" {
            errors.invalid(&path.at("operator"), operator, ONLY_EXISTS);
        }
        let values = &expression["values"];
        match operator {
            "In" | "NotIn" if items(values).is_empty() => {
                let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.required(&path.at("values"), detail);
            }
            "Exists" | "DoesNotExist" if !items(values).is_empty() => {
                let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.invalid(&path.at("values"), values.clone(), detail);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.invalid(&path.at("operator"), operator, "not a valid selector operator"),
        }
    }
    no_opposites(expressions.iter().map(|one| text(&one["scopeName"])), selector, &path, errors);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::errors::texts;

    fn check(spec: Value) -> Vec<String> {
        texts(|errors| resource_quota(&json!({"spec": spec}), errors))
    }

    #[test]
    fn amounts_have_known_names_and_values() {
        let good = json!({"pods": "4", "count/widgets.example.com": "1", "requests.example.com/gpu": "2",
            "hugepages-2Mi": "2Mi", "limits.memory": "1Gi"});
        assert_eq!(check(json!({"hard": good})), Vec::<String>::new());
        assert_eq!(
            check(json!({"hard": {"banana": "1", "cpu": "-1", "pods": "1500m"}})),
            [
                "spec.hard[banana]: Invalid value: \"banana\": must be a standard resource for quota",
                "spec.hard[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
                "spec.hard[pods]: Invalid value: \"1500m\": must be an integer",
            ]
        );
    }

    #[test]
    fn scopes_fit_what_is_limited() {
        assert_eq!(
            check(json!({"hard": {"cpu": "1"}, "scopes": ["BestEffort"]})),
            ["spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource"]
        );
        assert_eq!(
            check(json!({"hard": {"pods": "1"}, "scopes": ["Terminating", "NotTerminating"]})),
            ["spec.scopes: Invalid value: [\"Terminating\",\"NotTerminating\"]: conflicting scopes"]
        );
        let by_class = |operator: &str, values: Value| {
            check(json!({"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [
                {"scopeName": "PriorityClass", "operator": operator, "values": values}]}}))
        };
        assert_eq!(by_class("In", json!(["high"])), Vec::<String>::new());
        assert_eq!(
            by_class("In", json!([])),
            [
                "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is \
                 'In' or 'NotIn' for scope selector"
            ]
        );
        let changed = texts(|errors| {
            resource_quota_update(&json!({"spec": {"scopes": ["BestEffort"]}}), &json!({"spec": {}}), errors);
        });
        assert_eq!(changed, ["spec.scopes: Invalid value: null: field is immutable"]);
    }
}
