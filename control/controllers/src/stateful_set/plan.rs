//! What a StatefulSet does next: a pure function of the set, its pods, its two revisions and the time.
//!
//! With `OrderedReady` at most one pod is made or removed at a time: upwards only while all lower ones are available, then
//! downwards from the top, then updates from the top.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource, ResourceExt};

use crate::amount;
use crate::meta;
use crate::revision::{HASH_LABEL, Revision};
use crate::stateful_set::identity;

/// The revisions between which a set moves; the same when it is at rest.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Revisions {
    pub(super) current: Revision,
    pub(super) update: Revision,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) create: Vec<Pod>,
    pub(super) delete: Vec<Arc<Pod>>,
    pub(super) status: StatefulSetStatus,
}

pub(super) fn plan(set: &StatefulSet, pods: &[Arc<Pod>], revisions: &Revisions, now: Timestamp) -> Plan {
    let Some(spec) = &set.spec else { return Plan::default() };
    let view = View::new(set, spec, pods, revisions, now);
    let mut plan = Plan { status: view.status(), ..Plan::default() };
    if !meta::is_deleting(set) && view.scale(&mut plan) {
        view.update(&mut plan);
    }
    plan
}

/// The pods by what they should be.
struct View<'a> {
    set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    revisions: &'a Revisions,
    now: Timestamp,
    first: i64,
    /// By ordinal, from the lowest.
    wanted: Vec<Option<&'a Arc<Pod>>>,
    /// Beyond the wanted ordinals, highest first.
    condemned: Vec<&'a Arc<Pod>>,
    all: &'a [Arc<Pod>],
}

impl<'a> View<'a> {
    fn new(
        set: &'a StatefulSet,
        spec: &'a StatefulSetSpec,
        pods: &'a [Arc<Pod>],
        revisions: &'a Revisions,
        now: Timestamp,
    ) -> Self {
        let count = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
        let first = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0).into();
        let mut wanted = vec![None; count];
        let mut condemned = Vec::new();
        for pod in pods {
            let Some(ordinal) = identity::ordinal(&set.name_any(), &pod.name_any()) else { continue };
            match usize::try_from(ordinal - first).ok().and_then(|index| wanted.get_mut(index)) {
                Some(slot) => *slot = Some(pod),
                None => condemned.push((ordinal, pod)),
            }
        }
        condemned.sort_by_key(|(ordinal, _)| -*ordinal);
        let condemned = condemned.into_iter().map(|(_, pod)| pod).collect();
        Self { set, spec, revisions, now, first, wanted, condemned, all: pods }
    }

    fn is_ordered(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn is_rolling(&self) -> bool {
        let strategy = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
        strategy != Some("OnDelete")
    }

    fn partition(&self) -> usize {
        let rolling = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        usize::try_from(rolling.and_then(|rolling| rolling.partition).unwrap_or(0)).unwrap_or(0)
    }

    fn unavailable_max(&self) -> usize {
        let rolling = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let max: Option<&IntOrString> = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
        let total = i32::try_from(self.wanted.len()).unwrap_or(i32::MAX);
        usize::try_from(max.map_or(1, |max| amount::rounded_down(max, total))).unwrap_or(1).max(1)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        is_running_and_ready(pod) && meta::is_available(pod, self.spec.min_ready_seconds.unwrap_or(0), self.now)
    }

    fn is_healthy(&self, pod: &Pod) -> bool {
        !meta::is_deleting(pod) && self.is_available(pod)
    }

    /// A pod below the partition comes back at the revision it had.
    fn new_pod(&self, index: usize) -> Pod {
        let keeps_current = self.is_rolling() && index < self.partition();
        let revision = if keeps_current { &self.revisions.current } else { &self.revisions.update };
        identity::pod(self.set, self.spec, revision, self.first + index as i64)
    }

    /// Brings the number of pods about. Returns whether the set is settled enough to be updated.
    fn scale(&self, plan: &mut Plan) -> bool {
        let ordered = self.is_ordered();
        for (index, slot) in self.wanted.iter().enumerate() {
            let waits = match slot {
                None => {
                    plan.create.push(self.new_pod(index));
                    true
                }
                Some(pod) if meta::is_deleting(&***pod) => true,
                Some(pod) if meta::is_terminal(pod) => {
                    plan.delete.push(Arc::clone(pod));
                    true
                }
                Some(pod) => !self.is_available(pod),
            };
            if waits && ordered {
                // Condemned and outdated pods wait too.
                return false;
            }
        }
        let unhealthy_first = self.condemned.iter().rev().find(|pod| !self.is_healthy(pod));
        for pod in &self.condemned {
            let is_first_unhealthy = unhealthy_first.is_some_and(|first| first.name_any() == pod.name_any());
            if meta::is_deleting(&***pod) {
                if ordered {
                    return false;
                }
                continue;
            }
            if ordered && !self.is_available(pod) && !is_first_unhealthy {
                return false;
            }
            plan.delete.push(Arc::clone(pod));
            if ordered {
                return false;
            }
        }
        true
    }

    /// Replaces outdated pods from the top, as many at once as may be unavailable.
    fn update(&self, plan: &mut Plan) {
        if !self.is_rolling() {
            return;
        }
        let mut budget = self.unavailable_max();
        for pod in self.wanted.iter().skip(self.partition()).rev() {
            if budget == 0 {
                return;
            }
            let Some(pod) = pod else {
                budget -= 1;
                continue;
            };
            let is_outdated = revision_of(pod) != self.revisions.update.name;
            if is_outdated && !meta::is_deleting(&***pod) {
                plan.delete.push(Arc::clone(pod));
                budget -= 1;
            } else if !self.is_healthy(pod) {
                budget -= 1;
            }
        }
    }

    fn status(&self) -> StatefulSetStatus {
        let count = |wanted: &dyn Fn(&Pod) -> bool| self.all.iter().filter(|pod| wanted(pod)).count() as i32;
        let at = |revision: &Revision| count(&|pod: &Pod| !meta::is_deleting(pod) && revision_of(pod) == revision.name);
        let old = self.set.status.clone().unwrap_or_default();
        let replicas = self.wanted.len() as i32;
        let mut status = StatefulSetStatus {
            replicas: count(&|_| true),
            ready_replicas: meta::nonzero(count(&is_running_and_ready)),
            available_replicas: Some(count(&|pod| self.is_available(pod))),
            current_replicas: meta::nonzero(at(&self.revisions.current)),
            updated_replicas: meta::nonzero(at(&self.revisions.update)),
            current_revision: Some(self.revisions.current.name.clone()),
            update_revision: Some(self.revisions.update.name.clone()),
            observed_generation: self.set.meta().generation,
            collision_count: Some(old.collision_count.unwrap_or(0)),
            conditions: old.conditions,
        };
        let counts = [status.updated_replicas, status.ready_replicas, Some(status.replicas)];
        if self.is_rolling() && counts.iter().all(|count| count.unwrap_or(0) == replicas) {
            status.current_replicas = status.updated_replicas;
            status.current_revision.clone_from(&status.update_revision);
        }
        status
    }
}

fn is_running_and_ready(pod: &Pod) -> bool {
    meta::phase(pod) == "Running" && meta::ready_since(pod).is_some()
}

fn revision_of(pod: &Pod) -> &str {
    pod.labels().get(HASH_LABEL).map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::{Plan, Revisions, plan};
    use crate::revision::Revision;
    use k8s_openapi::api::apps::v1::StatefulSet;
    use k8s_openapi::api::core::v1::Pod;
    use kube::ResourceExt;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn set(replicas: i32, change: impl FnOnce(&mut Value)) -> StatefulSet {
        let mut object = json!({
            "metadata": {"name": "web", "namespace": "n", "uid": "u", "generation": 2},
            "spec": {"replicas": replicas, "serviceName": "svc", "selector": {"matchLabels": {"app": "web"}},
                "podManagementPolicy": "OrderedReady",
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
                "template": {"metadata": {"labels": {"app": "web"}}}},
        });
        change(&mut object["spec"]);
        serde_json::from_value(object).unwrap()
    }

    fn parallel(replicas: i32) -> StatefulSet {
        set(replicas, |spec| spec["podManagementPolicy"] = "Parallel".into())
    }

    /// `state`: `r` ready, `p` pending, `f` failed, `d` being deleted.
    fn pod(ordinal: i32, revision: &str, state: char) -> Arc<Pod> {
        let phase = match state {
            'p' => "Pending",
            'f' => "Failed",
            _ => "Running",
        };
        let ready = if matches!(state, 'r' | 'd') { "True" } else { "False" };
        let mut pod = json!({
            "metadata": {"name": format!("web-{ordinal}"), "namespace": "n", "uid": ordinal.to_string(),
                "labels": {"app": "web", "controller-revision-hash": revision}},
            "status": {"phase": phase, "conditions": [
                {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
        });
        if state == 'd' {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:30Z".into();
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn run(set: &StatefulSet, pods: &[Arc<Pod>], current: &str, update: &str) -> Plan {
        let revision = |name: &str| Revision { name: name.into(), hash: name.into(), template: Default::default() };
        let revisions = Revisions { current: revision(current), update: revision(update) };
        plan(set, pods, &revisions, "2026-01-01T00:01:00Z".parse().unwrap())
    }

    /// Names made, with their revision, and names removed.
    fn moves(plan: &Plan) -> (Vec<String>, Vec<String>) {
        let made = plan.create.iter().map(|pod| format!("{}@{}", pod.name_any(), super::revision_of(pod)));
        (made.collect(), plan.delete.iter().map(|pod| pod.name_any()).collect())
    }

    fn check(set: &StatefulSet, pods: &[Arc<Pod>], made: &[&str], removed: &[&str]) {
        let (is_made, is_removed) = moves(&run(set, pods, "a", "b"));
        assert_eq!(
            (is_made, is_removed),
            (made.iter().map(|s| s.to_string()).collect(), removed.iter().map(|s| s.to_string()).collect())
        );
    }

    #[test]
    fn pods_come_one_after_the_other() {
        check(&set(3, |_| {}), &[], &["web-0@b"], &[]);
        check(&set(3, |_| {}), &[pod(0, "b", 'p')], &[], &[]);
        check(&set(3, |_| {}), &[pod(0, "b", 'r')], &["web-1@b"], &[]);
        check(&parallel(3), &[pod(1, "b", 'p')], &["web-0@b", "web-2@b"], &[]);
    }

    #[test]
    fn pods_become_available_only_after_min_ready_seconds() {
        let slow = set(2, |spec| spec["minReadySeconds"] = 120.into());
        check(&slow, &[pod(0, "b", 'r')], &[], &[]);
    }

    #[test]
    fn pods_go_from_the_top_and_one_that_ends_blocks() {
        let pods =
            |states: &str| -> Vec<_> { states.chars().enumerate().map(|(i, s)| pod(i as i32, "b", s)).collect() };
        check(&set(1, |_| {}), &pods("rrr"), &[], &["web-2"]);
        check(&set(1, |_| {}), &pods("rrd"), &[], &[]);
        // The lowest unhealthy one may go, others wait for it.
        check(&set(1, |_| {}), &pods("rrp"), &[], &["web-2"]);
        check(&set(1, |_| {}), &pods("rpr"), &[], &["web-2"]);
        check(&parallel(1), &pods("rrr"), &[], &["web-2", "web-1"]);
    }

    #[test]
    fn updates_run_from_the_top_and_wait_for_health() {
        check(&set(3, |_| {}), &[pod(0, "a", 'r'), pod(1, "a", 'r'), pod(2, "a", 'r')], &[], &["web-2"]);
        check(&set(3, |_| {}), &[pod(0, "a", 'r'), pod(1, "a", 'r'), pod(2, "b", 'p')], &[], &[]);
        check(&set(3, |_| {}), &[pod(0, "a", 'r'), pod(1, "a", 'r'), pod(2, "b", 'r')], &[], &["web-1"]);
    }

    #[test]
    fn a_partition_keeps_lower_pods_and_brings_them_back_as_they_were() {
        let part = set(3, |spec| spec["updateStrategy"]["rollingUpdate"]["partition"] = 2.into());
        check(&part, &[pod(0, "a", 'r'), pod(1, "a", 'r'), pod(2, "a", 'r')], &[], &["web-2"]);
        check(&part, &[pod(0, "a", 'r'), pod(1, "a", 'r'), pod(2, "b", 'r')], &[], &[]);
        check(&part, &[pod(0, "a", 'r'), pod(2, "b", 'r')], &["web-1@a"], &[]);
    }

    #[test]
    fn on_delete_updates_nothing_by_itself() {
        let lazy = set(1, |spec| spec["updateStrategy"] = json!({"type": "OnDelete"}));
        check(&lazy, &[pod(0, "a", 'r')], &[], &[]);
        check(&lazy, &[], &["web-0@b"], &[]);
    }

    #[test]
    fn several_may_be_unavailable_if_the_set_says_so() {
        let two = set(3, |spec| spec["updateStrategy"]["rollingUpdate"]["maxUnavailable"] = 2.into());
        check(&two, &[pod(0, "a", 'r'), pod(1, "a", 'r'), pod(2, "a", 'r')], &[], &["web-2", "web-1"]);
    }

    #[test]
    fn failed_pods_are_replaced_and_ordinals_may_start_anywhere() {
        check(&set(1, |_| {}), &[pod(0, "b", 'f')], &[], &["web-0"]);
        let shifted = set(2, |spec| spec["ordinals"] = json!({"start": 5}));
        check(&shifted, &[pod(5, "b", 'r')], &["web-6@b"], &[]);
    }

    #[test]
    fn the_current_revision_moves_when_all_pods_are_new_and_ready() {
        let half = run(&set(2, |_| {}), &[pod(0, "a", 'r'), pod(1, "b", 'r')], "a", "b").status;
        assert_eq!(
            (half.current_revision.as_deref(), half.current_replicas, half.updated_replicas),
            (Some("a"), Some(1), Some(1))
        );
        let done = run(&set(2, |_| {}), &[pod(0, "b", 'r'), pod(1, "b", 'r')], "a", "b").status;
        assert_eq!((done.current_revision.as_deref(), done.current_replicas), (Some("b"), Some(2)));
        assert_eq!((done.replicas, done.observed_generation), (2, Some(2)));
    }
}
