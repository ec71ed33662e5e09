//! On which nodes a DaemonSet's pod belongs, and how a pod is bound to its node: by an affinity that the scheduler follows.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, PodTemplateSpec, Toleration,
};
use kube::ResourceExt;

use crate::node_selector::{self, NAME_FIELD};
use crate::pod_control;
use crate::revision::HASH_LABEL;

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
const GENERATION_LABEL: &str = "pod-template-generation";

/// Taints that no daemon minds: it is often what would mend their cause.
const TOLERATED: &[(&str, &str)] = &[
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const NETWORK_UNAVAILABLE: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// What a node is to a DaemonSet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A pod belongs here.
    Wanted,
    /// No new pod may come, but one that is here stays.
    Kept,
    Unwanted,
}

pub(super) fn place(template: &PodTemplateSpec, node: &Node) -> Place {
    let Some(spec) = &template.spec else { return Place::Unwanted };
    let is_elsewhere = spec.node_name.as_ref().is_some_and(|name| !name.is_empty() && *name != node.name_any());
    if is_elsewhere || !node_selector::selects(spec, node) {
        return Place::Unwanted;
    }
    let tolerations = tolerations(spec);
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let repels = |effect: &str| {
        let mut taints = taints.iter().filter(|taint| taint.effect == effect);
        taints.any(|taint| !tolerations.iter().any(|toleration| node_selector::tolerates(toleration, taint)))
    };
    match (repels("NoExecute"), repels("NoSchedule")) {
        (true, _) => Place::Unwanted,
        (false, true) => Place::Kept,
        (false, false) => Place::Wanted,
    }
}

/// The template's own and the automatic ones.
fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let network = spec.host_network.unwrap_or(false).then_some(&NETWORK_UNAVAILABLE);
    let automatic = TOLERATED.iter().chain(network).map(|(key, effect)| Toleration {
        key: Some((*key).into()),
        operator: Some("Exists".into()),
        effect: Some((*effect).into()),
        ..Toleration::default()
    });
    let mut all = spec.tolerations.clone().unwrap_or_default();
    for toleration in automatic {
        if !all.contains(&toleration) {
            all.push(toleration);
        }
    }
    all
}

/// The pod for a node.
pub(super) fn pod(set: &DaemonSet, template: &PodTemplateSpec, hash: &str, node: &str) -> Pod {
    let mut pod = pod_control::from_template(set, template);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(HASH_LABEL.into(), hash.into());
    if let Some(generation) = set.annotations().get(TEMPLATE_GENERATION) {
        labels.insert(GENERATION_LABEL.into(), generation.clone());
    }
    let spec = pod.spec.get_or_insert_default();
    spec.tolerations = Some(tolerations(spec));
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    let by_name =
        NodeSelectorRequirement { key: NAME_FIELD.into(), operator: "In".into(), values: Some(vec![node.into()]) };
    // The template's own terms have been judged already.
    affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector {
        node_selector_terms: vec![NodeSelectorTerm { match_fields: Some(vec![by_name]), match_expressions: None }],
    });
    pod
}

/// The node of a pod: where it runs, or where its affinity sends it.
pub(super) fn node_of(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(name) = spec.node_name.as_deref().filter(|name| !name.is_empty()) {
        return Some(name);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let mut names = fields.filter(|field| field.key == NAME_FIELD && field.operator == "In");
    names.find_map(|field| field.values.as_ref()?.first()).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::{Place, node_of, place, pod};
    use k8s_openapi::api::apps::v1::DaemonSet;
    use k8s_openapi::api::core::v1::PodTemplateSpec;
    use serde_json::{Value, json};

    fn at(spec: Value, taints: Value) -> Place {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let template: PodTemplateSpec = serde_json::from_value(json!({"spec": spec})).unwrap();
        let node = json!({"metadata": {"name": "n1", "labels": {"disk": "ssd"}}, "spec": {"taints": taints}});
        place(&template, &serde_json::from_value(node).unwrap())
    }

    #[test]
    fn a_pod_belongs_where_selectors_and_taints_let_it() {
        assert_eq!(at(json!({}), json!([])), Place::Wanted);
        assert_eq!(at(json!({"nodeSelector": {"disk": "hdd"}}), json!([])), Place::Unwanted);
        assert_eq!(at(json!({"nodeName": "n2"}), json!([])), Place::Unwanted);
        let taint = |key: &str, effect: &str| json!([{"key": key, "effect": effect}]);
        assert_eq!(at(json!({}), taint("mine", "NoSchedule")), Place::Kept);
        assert_eq!(at(json!({}), taint("mine", "NoExecute")), Place::Unwanted);
        assert_eq!(at(json!({"tolerations": [{"operator": "Exists"}]}), taint("mine", "NoExecute")), Place::Wanted);
        assert_eq!(at(json!({}), taint("node.kubernetes.io/unschedulable", "NoSchedule")), Place::Wanted);
        assert_eq!(at(json!({}), taint("node.kubernetes.io/unreachable", "NoExecute")), Place::Wanted);
        let network = taint("node.kubernetes.io/network-unavailable", "NoSchedule");
        assert_eq!(at(json!({}), network.clone()), Place::Kept);
        assert_eq!(at(json!({"hostNetwork": true}), network), Place::Wanted);
    }

    #[test]
    fn a_pod_is_sent_to_its_node_by_name() {
        let set: DaemonSet = serde_json::from_value(json!({"metadata": {"name": "d", "uid": "u",
            "annotations": {"deprecated.daemonset.template.generation": "3"}}}))
        .unwrap();
        let template =
            serde_json::from_value(json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}})).unwrap();
        let pod = pod(&set, &template, "abc", "n1");
        assert_eq!(node_of(&pod), Some("n1"));
        let value = serde_json::to_value(&pod).unwrap();
        assert_eq!(
            value["metadata"]["labels"],
            json!({"a": "b", "controller-revision-hash": "abc", "pod-template-generation": "3"})
        );
        assert_eq!(value["spec"]["tolerations"].as_array().unwrap().len(), 6);
        assert_eq!(value["metadata"]["generateName"], "d-");
    }
}
