//! Rules for where a pod may run: node selector, affinity, tolerations, spread, gates.

use serde_json::Value;

use super::errors::{Errors, Path};
use super::meta;
use crate::names;
use crate::value::{int, is_set, items, same, text};

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(crate) fn spec(spec: &Value, path: &Path, errors: &mut Errors) {
    meta::labels(&spec["nodeSelector"], &path.at("nodeSelector"), errors);
    let affinity = path.at("affinity");
    node_affinity(&spec["affinity"]["nodeAffinity"], &affinity.at("nodeAffinity"), errors);
    for kind in ["podAffinity", "podAntiAffinity"] {
        pod_affinity(&spec["affinity"][kind], &affinity.at(kind), errors);
    }
    for (index, toleration) in items(&spec["tolerations"]).iter().enumerate() {
        self::toleration(toleration, &path.at("tolerations").index(index), errors);
    }
    for (index, constraint) in items(&spec["topologySpreadConstraints"]).iter().enumerate() {
        spread(constraint, &path.at("topologySpreadConstraints").index(index), errors);
    }
    for (index, gate) in items(&spec["schedulingGates"]).iter().enumerate() {
        let name = text(&gate["name"]);
        errors.complaints(&path.at("schedulingGates").index(index).at("name"), name, names::qualified_name(name));
    }
}

/// Tolerations may only be added, gates only be removed.
pub(crate) fn update(old: &Value, new: &Value, path: &Path, errors: &mut Errors) {
    let without_seconds = |toleration: &Value| {
        let mut rest = toleration.clone();
        crate::value::remove(&mut rest, "tolerationSeconds");
        rest
    };
    let kept = items(&old["tolerations"]).iter().all(|toleration| {
        let wanted = without_seconds(toleration);
        items(&new["tolerations"]).iter().any(|other| same(&without_seconds(other), &wanted))
    });
    if !kept {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.forbidden(&path.at("tolerations"), detail);
    }
    for (index, gate) in items(&new["schedulingGates"]).iter().enumerate() {
        if !items(&old["schedulingGates"]).contains(gate) {
            let detail =
                "only deletion is allowed, but found new scheduling gate '".to_owned() + text(&gate["name"]) + "'";
            errors.forbidden(&path.at("schedulingGates").index(index), &detail);
        }
    }
}

fn node_affinity(affinity: &Value, path: &Path, errors: &mut Errors) {
    let required = &affinity[REQUIRED];
    if is_set(required) {
        let path = path.at(REQUIRED).at("nodeSelectorTerms");
        let terms = items(&required["nodeSelectorTerms"]);
        if terms.is_empty() {
            errors.required(&path, "must have at least one node selector term");
        }
        for (index, term) in terms.iter().enumerate() {
            node_term(term, &path.index(index), errors);
        }
    }
    for (index, preferred) in items(&affinity[PREFERRED]).iter().enumerate() {
        let path = path.at(PREFERRED).index(index);
        weight(preferred, &path, errors);
        node_term(&preferred["preference"], &path.at("preference"), errors);
    }
}

fn node_term(term: &Value, path: &Path, errors: &mut Errors) {
    for (index, expression) in items(&term["matchExpressions"]).iter().enumerate() {
        let path = path.at("matchExpressions").index(index);
        let values = items(&expression["values"]);
        match text(&expression["operator"]) {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(&path.at("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.forbidden(&path.at("values"), detail);
            }
            "Gt" | "Lt" if values.len() != 1 => {
                let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                errors.required(&path.at("values"), detail);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => errors.invalid(&path.at("operator"), other, "not a valid selector operator"),
        }
        let key = text(&expression["key"]);
        errors.complaints(&path.at("key"), key, names::qualified_name(key));
    }
}

fn pod_affinity(affinity: &Value, path: &Path, errors: &mut Errors) {
    for (index, term) in items(&affinity[REQUIRED]).iter().enumerate() {
        pod_term(term, &path.at(REQUIRED).index(index), errors);
    }
    for (index, preferred) in items(&affinity[PREFERRED]).iter().enumerate() {
        let path = path.at(PREFERRED).index(index);
        weight(preferred, &path, errors);
        pod_term(&preferred["podAffinityTerm"], &path.at("podAffinityTerm"), errors);
    }
}

fn pod_term(term: &Value, path: &Path, errors: &mut Errors) {
    meta::selector(&term["labelSelector"], &path.at("labelSelector"), errors);
    meta::selector(&term["namespaceSelector"], &path.at("namespaceSelector"), errors);
    topology_key(term, path, errors);
}

fn topology_key(term: &Value, path: &Path, errors: &mut Errors) {
    let key = text(&term["topologyKey"]);
    if key.is_empty() {
        errors.required(&path.at("topologyKey"), "can not be empty");
    } else {
        errors.complaints(&path.at("topologyKey"), key, names::qualified_name(key));
    }
}

fn weight(preferred: &Value, path: &Path, errors: &mut Errors) {
    let weight = int(&preferred["weight"]);
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.at("weight"), weight, "must be in the range 1-100");
    }
}

fn toleration(toleration: &Value, path: &Path, errors: &mut Errors) {
    let key = text(&toleration["key"]);
    let operator = text(&toleration["operator"]);
    if !key.is_empty() {
        errors.complaints(&path.at("key"), key, names::qualified_name(key));
    }
    if key.is_empty() && operator != "Exists" {
        let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.invalid(&path.at("operator"), operator, detail);
    }
    if is_set(&toleration["tolerationSeconds"]) && toleration["effect"] != "NoExecute" {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.invalid(&path.at("effect"), text(&toleration["effect"]), detail);
    }
    let value = text(&toleration["value"]);
    match operator {
        "" | "Equal" => errors.complaints(&path.at("operator"), value, names::label_value(value)),
        "Exists" if !value.is_empty() => {
            errors.invalid(&path.at("operator"), toleration.clone(), "value must be empty when `operator` is 'Exists'");
        }
        "Exists" => {}
        _ => errors.not_supported(&path.at("operator"), operator, &["Equal", "Exists"]),
    }
    if !text(&toleration["effect"]).is_empty() {
        errors.one_of(&path.at("effect"), &toleration["effect"], EFFECTS);
    }
}

fn spread(constraint: &Value, path: &Path, errors: &mut Errors) {
    if int(&constraint["maxSkew"]) <= 0 {
        errors.invalid(&path.at("maxSkew"), int(&constraint["maxSkew"]), "must be greater than zero");
    }
    topology_key(constraint, path, errors);
    errors.one_of(
        &path.at("whenUnsatisfiable"),
        &constraint["whenUnsatisfiable"],
        &["DoNotSchedule", "ScheduleAnyway"],
    );
    meta::selector(&constraint["labelSelector"], &path.at("labelSelector"), errors);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::errors::texts;

    #[test]
    fn mistakes_in_scheduling_are_named() {
        let spec = json!({
            "nodeSelector": {"a": "b"},
            "affinity": {"podAntiAffinity": {REQUIRED: [{}], PREFERRED: [{"weight": 0, "podAffinityTerm": {"topologyKey": "x"}}]},
                "nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "In"}]}]}}},
            "tolerations": [{"operator": "Equal"}, {"key": "a", "operator": "Exists", "effect": "Nope"}],
            "topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "x"}],
        });
        assert_eq!(
            texts(|errors| super::spec(&spec, &Path::new("spec"), errors)),
            [
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
                "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can not be empty",
                "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100",
                "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
                "spec.tolerations[1].effect: Unsupported value: \"Nope\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
                "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
                "spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"x\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\"",
            ]
        );
    }

    #[test]
    fn tolerations_only_grow_and_gates_only_shrink() {
        let old = json!({"tolerations": [{"key": "a"}], "schedulingGates": [{"name": "g"}]});
        let new = json!({"tolerations": [{"key": "a", "tolerationSeconds": 3}, {"key": "b"}]});
        assert!(texts(|errors| update(&old, &new, &Path::new("spec"), errors)).is_empty());
        let found = texts(|errors| update(&new, &old, &Path::new("spec"), errors));
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
