//! Whether a node is one that a pod asks for, and whether a pod bears a node's taints.

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration};
use kube::ResourceExt;

pub(crate) const NAME_FIELD: &str = "metadata.name";

/// The node selector and the required node affinity of a pod; terms are alternatives.
pub(crate) fn selects(spec: &PodSpec, node: &Node) -> bool {
    let by_label = spec.node_selector.iter().flatten().all(|(key, value)| node.labels().get(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    by_label && required.is_none_or(|required| required.node_selector_terms.iter().any(|term| term_selects(term, node)))
}

/// An empty term selects nothing.
fn term_selects(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let name = node.name_any();
    !(labels.is_empty() && fields.is_empty())
        && labels.iter().all(|one| holds(one, node.labels().get(&one.key).map(String::as_str)))
        && fields.iter().all(|one| one.key == NAME_FIELD && holds(one, Some(&name)))
}

fn holds(requirement: &NodeSelectorRequirement, found: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let is_listed = found.is_some_and(|found| values.iter().any(|value| value == found));
    let compare = |wanted: fn(i64, i64) -> bool| {
        let (found, value) =
            (found.and_then(|text| text.parse().ok()), values.first().and_then(|text| text.parse().ok()));
        matches!((found, value), (Some(found), Some(value)) if wanted(found, value))
    };
    match requirement.operator.as_str() {
        "In" => is_listed,
        "NotIn" => !is_listed,
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compare(|found, value| found > value),
        "Lt" => compare(|found, value| found < value),
        _ => false,
    }
}

pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let is_empty = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
    let same_effect = is_empty(&toleration.effect) || toleration.effect.as_deref() == Some(&taint.effect);
    let same_key = is_empty(&toleration.key) || toleration.key.as_deref() == Some(&taint.key);
    let same_value = || toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default();
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => same_effect && same_key,
        "Equal" | "" => same_effect && same_key && !is_empty(&toleration.key) && same_value(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{selects, tolerates};
    use k8s_openapi::api::core::v1::{Node, PodSpec};
    use serde_json::{Value, json};

    #[test]
    fn nodes_are_chosen_by_label_and_by_name() {
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": "n1", "labels": {"disk": "ssd", "cores": "8"}}}))
                .unwrap();
        let term = |term: Value| {
            let terms = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}});
            let spec: PodSpec = serde_json::from_value(json!({"containers": [], "affinity": terms})).unwrap();
            selects(&spec, &node)
        };
        let label = |key: &str, operator: &str, values: Value| {
            term(json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}))
        };
        assert!(label("disk", "In", json!(["ssd", "hdd"])));
        assert!(!label("disk", "NotIn", json!(["ssd"])));
        assert!(label("zone", "NotIn", json!(["a"])));
        assert!(label("disk", "Exists", json!([])) && label("zone", "DoesNotExist", json!([])));
        assert!(label("cores", "Gt", json!(["4"])) && !label("cores", "Lt", json!(["4"])));
        assert!(!term(json!({})));
        assert!(term(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]})));
        let spec: PodSpec = serde_json::from_value(json!({"containers": [], "nodeSelector": {"disk": "hdd"}})).unwrap();
        assert!(!selects(&spec, &node));
    }

    #[test]
    fn tolerations_match_key_value_and_effect() {
        let taint = serde_json::from_value(json!({"key": "k", "value": "v", "effect": "NoSchedule"})).unwrap();
        let check = |toleration: Value| tolerates(&serde_json::from_value(toleration).unwrap(), &taint);
        assert!(check(json!({"operator": "Exists"})));
        assert!(check(json!({"key": "k", "value": "v"})));
        assert!(!check(json!({"key": "k", "value": "w"})));
        assert!(!check(json!({"key": "k", "operator": "Exists", "effect": "NoExecute"})));
        assert!(!check(json!({})));
    }
}
