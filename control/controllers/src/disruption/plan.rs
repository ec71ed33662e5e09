//! How many pods of a budget may be evicted now: a pure function of the budget, its pods and the time.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource, ResourceExt};

use crate::amount;
use crate::meta;

/// A pod whose eviction was approved longer ago will not go any more.
const EVICTION_MAX: SignedDuration = SignedDuration::from_mins(2);

#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) status: PodDisruptionBudgetStatus,
    /// When an approved eviction is given up.
    pub(super) look_again: Option<SignedDuration>,
}

/// `scale` says how many pods an owner wants in all, by its uid; only asked when a bound needs it.
pub(super) fn plan(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    scale: impl Fn(&Pod) -> Result<Option<(String, i32)>, String>,
    now: Timestamp,
) -> Plan {
    let old = budget.status.clone().unwrap_or_default();
    let disrupted = still_disrupted(&old, pods, now);
    let look_again =
        disrupted.values().filter_map(|time| SignedDuration::try_from(time.0 + EVICTION_MAX - now).ok()).min();
    let healthy = pods.iter().filter(|pod| {
        !meta::is_deleting(&***pod) && !disrupted.contains_key(&pod.name_any()) && meta::ready_since(pod).is_some()
    });
    let healthy = healthy.count() as i32;
    let generation = budget.meta().generation;
    let conditions = old.conditions.clone().unwrap_or_default();
    let status = match bounds(budget, pods, scale) {
        Ok((expected, desired)) => {
            let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
            let condition = match allowed {
                0 => ("False", "InsufficientPods", String::new()),
                _ => ("True", "SufficientPods", String::new()),
            };
            PodDisruptionBudgetStatus {
                current_healthy: Some(healthy),
                desired_healthy: Some(desired),
                expected_pods: Some(expected),
                disruptions_allowed: Some(allowed),
                disrupted_pods: Some(disrupted).filter(|map| !map.is_empty()),
                observed_generation: generation,
                conditions: Some(with(conditions, condition, generation, now)),
            }
        }
        // What cannot be computed allows nothing.
        Err(why) => PodDisruptionBudgetStatus {
            disruptions_allowed: Some(0),
            conditions: Some(with(conditions, ("False", "SyncFailed", why), generation, now)),
            ..old
        },
    };
    Plan { status, look_again }
}

fn still_disrupted(old: &PodDisruptionBudgetStatus, pods: &[Arc<Pod>], now: Timestamp) -> BTreeMap<String, Time> {
    let mut disrupted = old.disrupted_pods.clone().unwrap_or_default();
    disrupted.retain(|name, time| {
        let found = pods.iter().find(|pod| pod.name_any() == *name);
        found.is_some_and(|pod| !meta::is_deleting(&**pod)) && time.0 + EVICTION_MAX >= now
    });
    disrupted
}

/// Pods there should be, and those of them that must stay healthy.
fn bounds(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    scale: impl Fn(&Pod) -> Result<Option<(String, i32)>, String>,
) -> Result<(i32, i32), String> {
    let spec = budget.spec.clone().unwrap_or_default();
    let expected = || -> Result<i32, String> {
        let mut owners = BTreeMap::new();
        for pod in pods {
            owners.extend(scale(pod)?);
        }
        Ok(owners.values().sum())
    };
    match (spec.max_unavailable, spec.min_available) {
        (Some(max), _) => {
            let expected = expected()?;
            Ok((expected, (expected - amount::rounded_up(&max, expected)).max(0)))
        }
        (None, Some(IntOrString::Int(min))) => Ok((pods.len() as i32, min)),
        (None, Some(min)) => {
            let expected = expected()?;
            Ok((expected, amount::rounded_up(&min, expected)))
        }
        (None, None) => Ok((0, 0)),
    }
}

fn with(
    mut conditions: Vec<Condition>,
    (status, reason, message): (&str, &str, String),
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    const KIND: &str = "DisruptionAllowed";
    let found = conditions.iter().find(|one| one.type_ == KIND && one.status == status);
    let condition = Condition {
        type_: KIND.into(),
        status: status.into(),
        reason: reason.into(),
        message,
        observed_generation: generation,
        last_transition_time: found.map_or(Time(now), |one| one.last_transition_time.clone()),
    };
    conditions.retain(|one| one.type_ != KIND);
    conditions.push(condition);
    conditions
}

#[cfg(test)]
mod tests {
    use super::{Plan, plan};
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn pods(ready: usize, unready: usize) -> Vec<Arc<Pod>> {
        let pod = |number: usize, status: &str| {
            serde_json::from_value(json!({"metadata": {"name": format!("p{number}")},
                "status": {"conditions": [{"type": "Ready", "status": status}]}}))
            .unwrap()
        };
        let good = (0..ready).map(|number| pod(number, "True"));
        good.chain((ready..ready + unready).map(|number| pod(number, "False"))).map(Arc::new).collect()
    }

    fn run(spec: Value, status: Value, pods: &[Arc<Pod>]) -> Plan {
        let budget =
            serde_json::from_value(json!({"metadata": {"name": "b", "generation": 4}, "spec": spec, "status": status}));
        let scale = |_: &Pod| Ok(Some(("owner".to_owned(), 4)));
        plan(&budget.unwrap(), pods, scale, "2026-01-01T00:01:00Z".parse().unwrap())
    }

    fn allowed(spec: Value, ready: usize, unready: usize) -> (i32, i32, i32) {
        let status = run(spec, json!({}), &pods(ready, unready)).status;
        (status.expected_pods.unwrap(), status.desired_healthy.unwrap(), status.disruptions_allowed.unwrap())
    }

    #[test]
    fn what_is_healthy_beyond_the_bound_may_go() {
        assert_eq!(allowed(json!({"minAvailable": 2}), 3, 0), (3, 2, 1));
        assert_eq!(allowed(json!({"minAvailable": 2}), 1, 2), (3, 2, 0));
        assert_eq!(allowed(json!({"minAvailable": "50%"}), 4, 0), (4, 2, 2));
        assert_eq!(allowed(json!({"maxUnavailable": 1}), 4, 0), (4, 3, 1));
        assert_eq!(allowed(json!({"maxUnavailable": "30%"}), 4, 0), (4, 2, 2));
        assert_eq!(allowed(json!({"minAvailable": 0}), 0, 0), (0, 0, 0));
    }

    #[test]
    fn an_approved_eviction_counts_until_it_is_too_old() {
        let disrupted = |time: &str| {
            let plan =
                run(json!({"minAvailable": 1}), json!({"disruptedPods": {"p0": time, "gone": time}}), &pods(3, 0));
            (plan.status.disruptions_allowed.unwrap(), plan.look_again.map(|wait| wait.as_secs()))
        };
        assert_eq!(disrupted("2026-01-01T00:00:30Z"), (1, Some(90)));
        assert_eq!(disrupted("2025-12-31T00:00:30Z"), (2, None));
    }

    #[test]
    fn the_condition_follows_and_the_status_comes_to_rest() {
        let first = run(json!({"minAvailable": 2}), json!({}), &pods(3, 0)).status;
        assert_eq!(first.conditions.as_ref().unwrap()[0].reason, "SufficientPods");
        let again = run(json!({"minAvailable": 2}), serde_json::to_value(&first).unwrap(), &pods(3, 0)).status;
        assert_eq!(first, again);
    }
}
