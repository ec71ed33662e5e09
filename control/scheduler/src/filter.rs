//! Whether a pod may run on a node: upstream's filters, in its order, with its words.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration};

use crate::resources;
use crate::view::{NodeView, host_ports};

/// Why a pod does not fit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Affinity,
    Insufficient(String),
    Ports,
    TooManyPods,
    Unschedulable,
    UntoleratedTaint(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Affinity => f.write_str("node(s) didn't match Pod's node affinity/selector"),
            Self::Insufficient(resource) => write!(f, "Insufficient {resource}"),
            Self::Ports => f.write_str("node(s) didn't have free ports for the requested pod ports"),
            Self::TooManyPods => f.write_str("Too many pods"),
            Self::Unschedulable => f.write_str("node(s) were unschedulable"),
            Self::UntoleratedTaint(taint) => write!(f, "node(s) had untolerated taint {{{taint}}}"),
        }
    }
}

const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";

/// Every reason against a node that the first failing filter gives; none if the pod fits.
pub(crate) fn check(pod: &Pod, node: &NodeView) -> Vec<Verdict> {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    if node.unschedulable {
        let taint = Taint { key: UNSCHEDULABLE_TAINT.into(), effect: "NoSchedule".into(), ..Taint::default() };
        if !is_tolerated(&taint, tolerations) {
            return vec![Verdict::Unschedulable];
        }
    }
    let repelling = node.taints.iter().filter(|taint| taint.effect != "PreferNoSchedule");
    if let Some(taint) = repelling.into_iter().find(|taint| !is_tolerated(taint, tolerations)) {
        let value = taint.value.clone().unwrap_or_default();
        return vec![Verdict::UntoleratedTaint(format!("{}: {value}", taint.key))];
    }
    if !matches_affinity(pod, node) {
        return vec![Verdict::Affinity];
    }
    if host_ports(pod).iter().any(|port| node.ports.iter().any(|taken| conflicts(port, taken))) {
        return vec![Verdict::Ports];
    }
    let lacks = |name: &str, asked: i64| {
        let has = node.allocatable.get(name).copied().unwrap_or(0);
        asked > 0 && node.requested.get(name).copied().unwrap_or(0) + asked > has
    };
    let asked = resources::requests(pod);
    let short = asked.iter().filter(|(name, amount)| lacks(name, **amount));
    short
        .map(
            |(name, _)| {
                if name == resources::PODS { Verdict::TooManyPods } else { Verdict::Insufficient(name.clone()) }
            },
        )
        .collect()
}

/// The same port and protocol on the same address, where 0.0.0.0 is every address.
fn conflicts(one: &(String, String, i32), other: &(String, String, i32)) -> bool {
    let any = |address: &str| address == "0.0.0.0" || address == "::";
    one.1 == other.1 && one.2 == other.2 && (one.0 == other.0 || any(&one.0) || any(&other.0))
}

pub(crate) fn is_tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| {
        let effect = toleration.effect.as_deref().unwrap_or_default();
        let key = toleration.key.as_deref().unwrap_or_default();
        let key_matches =
            if key.is_empty() { toleration.operator.as_deref() == Some("Exists") } else { key == taint.key };
        let value_matches = match toleration.operator.as_deref() {
            Some("Exists") => true,
            _ => toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default(),
        };
        (effect.is_empty() || effect == taint.effect) && key_matches && value_matches
    })
}

fn matches_affinity(pod: &Pod, node: &NodeView) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| node.labels.get(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|required| required.node_selector_terms.iter().any(|term| matches_term(term, node)))
}

/// All expressions of a term; a term without any matches nothing.
pub(crate) fn matches_term(term: &NodeSelectorTerm, node: &NodeView) -> bool {
    let (labels, fields) = (term.match_expressions.as_deref(), term.match_fields.as_deref());
    let name = BTreeMap::from([("metadata.name".to_owned(), node.name.clone())]);
    let (labels, fields) = (labels.unwrap_or_default(), fields.unwrap_or_default());
    !(labels.is_empty() && fields.is_empty())
        && labels.iter().all(|one| matches_requirement(one, &node.labels))
        && fields.iter().all(|one| matches_requirement(one, &name))
}

fn matches_requirement(requirement: &NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&requirement.key);
    let values = requirement.values.as_deref().unwrap_or_default();
    let compare = |order: std::cmp::Ordering| {
        let number = value.and_then(|value| value.parse::<i64>().ok());
        let bound = values.first().and_then(|value| value.parse::<i64>().ok());
        matches!((number, bound), (Some(number), Some(bound)) if number.cmp(&bound) == order)
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|value| values.contains(value)),
        "NotIn" => value.is_none_or(|value| !values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(std::cmp::Ordering::Greater),
        "Lt" => compare(std::cmp::Ordering::Less),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{Verdict, check};
    use crate::view::NodeView;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    fn node() -> NodeView {
        NodeView {
            name: "a".into(),
            labels: [("zone".to_owned(), "z1".to_owned()), ("size".to_owned(), "7".to_owned())].into(),
            allocatable: [("cpu".to_owned(), 1000), ("memory".to_owned(), 1 << 30), ("pods".to_owned(), 2)].into(),
            ..NodeView::default()
        }
    }

    fn pod(spec: Value) -> Pod {
        let mut spec = spec;
        if spec["containers"].is_null() {
            spec["containers"] = json!([{"name": "c"}]);
        }
        serde_json::from_value(json!({"spec": spec})).unwrap()
    }

    fn container(resources: Value) -> Value {
        json!({"containers": [{"name": "c", "resources": {"requests": resources}}]})
    }

    #[test]
    fn resources_are_counted() {
        assert_eq!(check(&pod(container(json!({"cpu": "1"}))), &node()), []);
        let short = check(&pod(container(json!({"cpu": "1001m", "memory": "2Gi"}))), &node());
        assert_eq!(short, [Verdict::Insufficient("cpu".into()), Verdict::Insufficient("memory".into())]);
        let full = NodeView { requested: [("pods".to_owned(), 2)].into(), ..node() };
        assert_eq!(check(&pod(json!({})), &full), [Verdict::TooManyPods]);
    }

    #[test]
    fn taints_repel_unless_tolerated() {
        let taint = serde_json::from_value(json!({"key": "k", "value": "v", "effect": "NoSchedule"})).unwrap();
        let tainted = NodeView { taints: vec![taint], ..node() };
        assert_eq!(check(&pod(json!({})), &tainted), [Verdict::UntoleratedTaint("k: v".into())]);
        for tolerations in [
            json!([{"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}]),
            json!([{"key": "k", "operator": "Exists"}]),
            json!([{"operator": "Exists"}]),
        ] {
            assert_eq!(check(&pod(json!({"tolerations": tolerations})), &tainted), []);
        }
        assert_ne!(check(&pod(json!({"tolerations": [{"key": "k", "value": "x"}]})), &tainted), []);
    }

    #[test]
    fn affinity_terms_are_alternatives() {
        let affinity = |terms: Value| {
            pod(json!({"affinity": {"nodeAffinity":
                {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}}))
        };
        let term = |operator: &str, values: Value| json!({"matchExpressions": [{"key": "size", "operator": operator, "values": values}]});
        assert_eq!(check(&affinity(json!([term("In", json!(["1"])), term("Gt", json!(["6"]))])), &node()), []);
        assert_eq!(check(&affinity(json!([term("Lt", json!(["7"]))])), &node()), [Verdict::Affinity]);
        assert_eq!(check(&affinity(json!([{}])), &node()), [Verdict::Affinity]);
        assert_eq!(check(&pod(json!({"nodeSelector": {"zone": "z2"}})), &node()), [Verdict::Affinity]);
    }

    #[test]
    fn host_ports_conflict_per_address_and_protocol() {
        let taken = NodeView { ports: [("10.0.0.1".to_owned(), "TCP".to_owned(), 80)].into(), ..node() };
        let asks = |ip: &str, protocol: &str| {
            pod(json!({"containers": [{"name": "c", "ports": [
                {"containerPort": 80, "hostPort": 80, "hostIP": ip, "protocol": protocol}]}]}))
        };
        assert_eq!(check(&asks("10.0.0.2", "TCP"), &taken), []);
        assert_eq!(check(&asks("10.0.0.1", "UDP"), &taken), []);
        assert_eq!(check(&asks("0.0.0.0", "TCP"), &taken), [Verdict::Ports]);
    }
}
