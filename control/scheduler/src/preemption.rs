//! What is said of preemption where a pod fits nowhere. It is not done here: no pod gives way to another.

use k8s_openapi::api::core::v1::Pod;

use crate::filter::Verdict;
use crate::resources;
use crate::view::NodeView;

const IN_VAIN: &str = "Preemption is not helpful for scheduling";
const NOBODY: &str = "No preemption victims found for incoming pod";
const NOT_DONE: &str = "Preemption is not supported";

/// Why pods of a node that a pod does not fit on need not give way, in upstream's words where they are true here.
pub(crate) fn verdict(pod: &Pod, node: &NodeView, refusals: &[Verdict]) -> &'static str {
    let asked = resources::requests(pod);
    let could_help = |refusal: &Verdict| match refusal {
        Verdict::Ports | Verdict::TooManyPods => true,
        // More than the whole node has cannot be freed.
        Verdict::Insufficient(name) => asked.get(name) <= node.allocatable.get(name),
        Verdict::Affinity | Verdict::Unschedulable | Verdict::UntoleratedTaint(_) => false,
    };
    if !refusals.iter().all(could_help) {
        IN_VAIN
    } else if node.priorities.keys().any(|other| *other < priority(pod)) {
        NOT_DONE
    } else {
        NOBODY
    }
}

/// Why the pod may not even ask for it.
pub(crate) fn ineligible(pod: &Pod) -> Option<&'static str> {
    let policy = pod.spec.as_ref().and_then(|spec| spec.preemption_policy.as_deref());
    (policy == Some("Never")).then_some("not eligible due to preemptionPolicy=Never.")
}

pub(crate) fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{IN_VAIN, NOBODY, NOT_DONE, verdict};
    use crate::filter::{Verdict, check};
    use crate::view::NodeView;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    #[test]
    fn only_what_others_hold_could_be_freed() {
        let node = NodeView {
            allocatable: [("cpu".to_owned(), 1000), ("pods".to_owned(), 9)].into(),
            requested: [("cpu".to_owned(), 800)].into(),
            priorities: [(0, 2)].into(),
            ..NodeView::default()
        };
        let says = |cpu: &str, priority: i32| {
            let container = json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
            let pod: Pod =
                serde_json::from_value(json!({"spec": {"priority": priority, "containers": [container]}})).unwrap();
            let refusals = check(&pod, &node);
            assert_eq!(refusals, [Verdict::Insufficient("cpu".into())]);
            verdict(&pod, &node, &refusals)
        };
        assert_eq!(says("500m", 0), NOBODY);
        assert_eq!(says("2", 0), IN_VAIN);
        assert_eq!(says("500m", 1), NOT_DONE);
        let pod = Pod::default();
        assert_eq!(verdict(&pod, &node, &[Verdict::Unschedulable]), IN_VAIN);
    }
}
