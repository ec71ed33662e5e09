//! Which of the fitting nodes is best: upstream's default plugins and weights, as whole numbers of 0 to 100 each.

use k8s_openapi::api::core::v1::Pod;

use crate::filter::{is_tolerated, matches_term};
use crate::resources::{self, CPU, MEMORY};
use crate::view::NodeView;

const MAX: i64 = 100;
const TAINT_WEIGHT: i64 = 3;
const AFFINITY_WEIGHT: i64 = 2;
const IMAGE_WEIGHT: i64 = 1;

/// The sum of all weighted scores; larger is better.
pub(crate) fn score(pod: &Pod, node: &NodeView) -> i64 {
    TAINT_WEIGHT * taints(pod, node)
        + AFFINITY_WEIGHT * affinity(pod, node)
        + least_allocated(pod, node)
        + balanced(pod, node)
        + IMAGE_WEIGHT * images(pod, node)
}

/// Fewer taints of effect PreferNoSchedule that the pod does not tolerate.
fn taints(pod: &Pod, node: &NodeView) -> i64 {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let soft = node.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
    let against = soft.filter(|taint| !is_tolerated(taint, tolerations)).count() as i64;
    MAX / (1 + against)
}

/// The weights of the preferred terms that match, of all their weights.
fn affinity(pod: &Pod, node: &NodeView) -> i64 {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
    let preferred = affinity.and_then(|one| one.preferred_during_scheduling_ignored_during_execution.as_deref());
    let preferred = preferred.unwrap_or_default();
    let total: i64 = preferred.iter().map(|term| i64::from(term.weight)).sum();
    let matching = preferred.iter().filter(|term| matches_term(&term.preference, node));
    let got: i64 = matching.map(|term| i64::from(term.weight)).sum();
    if total > 0 { MAX * got / total } else { 0 }
}

/// Share of a resource that would be promised, in parts of [`MAX`].
fn used(pod: &Pod, node: &NodeView, name: &str) -> i64 {
    let has = node.allocatable.get(name).copied().unwrap_or(0);
    let asked = resources::scored_requests(pod).get(name).copied().unwrap_or(0);
    let total = node.scored.get(name).copied().unwrap_or(0) + asked;
    if has <= 0 || total >= has { MAX } else { MAX * total / has }
}

fn least_allocated(pod: &Pod, node: &NodeView) -> i64 {
    (2 * MAX - used(pod, node, CPU) - used(pod, node, MEMORY)) / 2
}

fn balanced(pod: &Pod, node: &NodeView) -> i64 {
    MAX - (used(pod, node, CPU) - used(pod, node, MEMORY)).abs() / 2
}

/// The share of the pod's images that the node already has.
fn images(pod: &Pod, node: &NodeView) -> i64 {
    let images: Vec<&str> =
        pod.spec.iter().flat_map(|spec| &spec.containers).filter_map(|container| container.image.as_deref()).collect();
    let present = images.iter().filter(|image| node.images.iter().any(|name| name.ends_with(**image))).count() as i64;
    if images.is_empty() { 0 } else { MAX * present / images.len() as i64 }
}

#[cfg(test)]
mod tests {
    use super::score;
    use crate::view::NodeView;
    use serde_json::json;

    #[test]
    fn the_emptier_node_and_the_preferred_one_win() {
        let node = |name: &str, used: i64| NodeView {
            name: name.into(),
            labels: [("name".to_owned(), name.to_owned())].into(),
            allocatable: [("cpu".to_owned(), 1000), ("memory".to_owned(), 1 << 30)].into(),
            scored: [("cpu".to_owned(), used), ("memory".to_owned(), used << 20)].into(),
            ..NodeView::default()
        };
        let plain = serde_json::from_value(json!({"spec": {"containers": [{"name": "c"}]}})).unwrap();

        assert!(score(&plain, &node("a", 100)) > score(&plain, &node("b", 500)));
        let picky = serde_json::from_value(json!({"spec": {"containers": [{"name": "c"}], "affinity": {"nodeAffinity":
            {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference":
                {"matchExpressions": [{"key": "name", "operator": "In", "values": ["b"]}]}}]}}}}))
        .unwrap();
        assert!(score(&picky, &node("b", 500)) > score(&picky, &node("a", 100)));
    }
}
