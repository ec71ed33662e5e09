//! What a DaemonSet does next: a pure function of the set, the nodes, its pods, its newest revision and the time.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Resource, ResourceExt};

use crate::amount;
use crate::daemon_set::placement::{Place, node_of, place};
use crate::meta;
use crate::revision::HASH_LABEL;

#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Nodes that get a pod.
    pub(super) create: Vec<String>,
    pub(super) delete: Vec<Arc<Pod>>,
    /// Pods that ended by themselves; a node where they do so again and again is tried less and less often.
    pub(super) ended: Vec<Arc<Pod>>,
    pub(super) status: DaemonSetStatus,
}

pub(super) fn plan(set: &DaemonSet, nodes: &[Arc<Node>], pods: &[Arc<Pod>], hash: &str, now: Timestamp) -> Plan {
    let Some(spec) = &set.spec else { return Plan::default() };
    let view = View::new(set, spec, nodes, pods, hash, now);
    let mut plan = Plan { status: view.status(), ..Plan::default() };
    if meta::is_deleting(set) {
        return plan;
    }
    view.place(&mut plan);
    // A rollout step looks at nodes that have what they should; the others change first.
    let is_rolling = spec.update_strategy.as_ref().is_none_or(|one| one.type_.as_deref() != Some("OnDelete"));
    if is_rolling && plan.create.is_empty() && plan.delete.is_empty() {
        view.roll(&mut plan);
    }
    plan
}

struct View<'a> {
    set: &'a DaemonSet,
    spec: &'a DaemonSetSpec,
    places: BTreeMap<String, Place>,
    /// The pods of each node, oldest first; also of nodes that are gone.
    pods: BTreeMap<&'a str, Vec<&'a Arc<Pod>>>,
    hash: &'a str,
    now: Timestamp,
}

/// The pods of one node that neither end nor have ended.
#[derive(Default)]
struct Running<'a> {
    new: Option<&'a Arc<Pod>>,
    old: Option<&'a Arc<Pod>>,
}

impl<'a> View<'a> {
    fn new(
        set: &'a DaemonSet,
        spec: &'a DaemonSetSpec,
        nodes: &'a [Arc<Node>],
        pods: &'a [Arc<Pod>],
        hash: &'a str,
        now: Timestamp,
    ) -> Self {
        let places = nodes.iter().map(|node| (node.name_any(), place(&spec.template, node))).collect();
        let mut by_node: BTreeMap<&str, Vec<&Arc<Pod>>> = BTreeMap::new();
        for pod in pods {
            by_node.entry(node_of(pod).unwrap_or_default()).or_default().push(pod);
        }
        for pods in by_node.values_mut() {
            pods.sort_by_key(|pod| (pod.creation_timestamp().map(|time| time.0), pod.name_any()));
        }
        Self { set, spec, places, pods: by_node, hash, now }
    }

    fn on(&self, node: &str) -> &[&'a Arc<Pod>] {
        self.pods.get(node).map_or(&[], Vec::as_slice)
    }

    fn is_new(&self, pod: &Pod) -> bool {
        pod.labels().get(HASH_LABEL).is_some_and(|hash| hash == self.hash)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        meta::is_available(pod, self.spec.min_ready_seconds.unwrap_or(0), self.now)
    }

    fn wanted(&self) -> impl Iterator<Item = &str> {
        self.places.iter().filter(|(_, place)| **place == Place::Wanted).map(|(node, _)| node.as_str())
    }

    fn bound(&self, surge: bool) -> usize {
        let rolling = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let bound = rolling.and_then(
            |rolling| {
                if surge { rolling.max_surge.as_ref() } else { rolling.max_unavailable.as_ref() }
            },
        );
        let total = i32::try_from(self.wanted().count()).unwrap_or(i32::MAX);
        let default = i32::from(!surge);
        usize::try_from(bound.map_or(default, |bound| amount::rounded_up(bound, total))).unwrap_or(0)
    }

    fn place(&self, plan: &mut Plan) {
        for (node, place) in &self.places {
            self.place_on(node, *place, plan);
        }
        // Pods of nodes that are gone are pod garbage collection's, not ours.
    }

    fn place_on(&self, node: &str, place: Place, plan: &mut Plan) {
        let pods = self.on(node);
        match place {
            Place::Unwanted => {
                plan.delete.extend(pods.iter().filter(|pod| !meta::is_deleting(&****pod)).map(|pod| Arc::clone(pod)));
            }
            Place::Wanted if pods.is_empty() => plan.create.push(node.to_owned()),
            Place::Wanted | Place::Kept => {
                let living = pods.iter().filter(|pod| !meta::is_deleting(&****pod));
                let (ended, running): (Vec<&&Arc<Pod>>, Vec<_>) = living.partition(|pod| meta::is_terminal(pod));
                plan.ended.extend(ended.into_iter().map(|pod| Arc::clone(pod)));
                plan.delete.extend(self.surplus(&running));
            }
        }
    }

    /// All but the one pod that a node should have; while pods surge also the new one's predecessor stays.
    fn surplus(&self, running: &[&&'a Arc<Pod>]) -> Vec<Arc<Pod>> {
        if self.bound(true) == 0 {
            return running.iter().skip(1).map(|pod| Arc::clone(pod)).collect();
        }
        let (mut kept, mut surplus) = (Running::default(), Vec::new());
        for pod in running {
            let slot = if self.is_new(pod) { &mut kept.new } else { &mut kept.old };
            match slot {
                None => *slot = Some(pod),
                Some(_) => surplus.push(Arc::clone(pod)),
            }
        }
        if let (Some(new), Some(old)) = (kept.new, kept.old)
            && (meta::ready_since(old).is_none() || self.is_available(new))
        {
            surplus.push(Arc::clone(old));
        }
        surplus
    }

    fn running(&self, node: &str) -> Running<'a> {
        let mut running = Running::default();
        for pod in self.on(node).iter().copied().filter(|pod| !meta::is_deleting(&***pod)) {
            *(if self.is_new(pod) { &mut running.new } else { &mut running.old }) = Some(pod);
        }
        running
    }

    fn roll(&self, plan: &mut Plan) {
        let surge = self.bound(true);
        if surge > 0 { self.roll_surging(surge, plan) } else { self.roll_replacing(plan) }
    }

    /// Removes outdated pods: those that serve nobody at once, others while enough nodes are served.
    fn roll_replacing(&self, plan: &mut Plan) {
        let mut unavailable = 0;
        let mut candidates = Vec::new();
        for node in self.wanted() {
            match self.running(node) {
                Running { new: Some(new), .. } if self.is_available(new) => {}
                Running { new: None, old: Some(old) } if self.is_available(old) => candidates.push(Arc::clone(old)),
                Running { new: None, old: Some(old) } => plan.delete.push(Arc::clone(old)),
                _ => unavailable += 1,
            }
        }
        // The useless ones that go now leave their nodes no worse, but they are not available either.
        let spare = self.bound(false).saturating_sub(unavailable + plan.delete.len());
        plan.delete.extend(candidates.into_iter().take(spare));
    }

    /// Makes new pods beside the old ones; placement removes the old one once the new one is available.
    fn roll_surging(&self, surge: usize, plan: &mut Plan) {
        let mut surging = 0;
        let mut candidates = Vec::new();
        for node in self.wanted() {
            match self.running(node) {
                Running { new: None, old: Some(old) } if self.is_available(old) => candidates.push(node.to_owned()),
                Running { new: None, old: Some(_) } => plan.create.push(node.to_owned()),
                Running { new: Some(_), old: Some(_) } => surging += 1,
                _ => {}
            }
        }
        plan.create.extend(candidates.into_iter().take(surge.saturating_sub(surging)));
    }

    fn status(&self) -> DaemonSetStatus {
        let old = self.set.status.clone().unwrap_or_default();
        let mut status = DaemonSetStatus {
            observed_generation: self.set.meta().generation,
            collision_count: old.collision_count,
            conditions: old.conditions,
            ..DaemonSetStatus::default()
        };
        let (mut available, mut updated) = (0, 0);
        for (node, place) in &self.places {
            let pods = self.on(node);
            if *place != Place::Wanted {
                status.number_misscheduled += i32::from(!pods.is_empty());
                continue;
            }
            status.desired_number_scheduled += 1;
            // Of an old and a new pod the one that serves counts.
            let Some(pod) = pods.iter().find(|pod| meta::ready_since(pod).is_some()).or(pods.first()) else { continue };
            status.current_number_scheduled += 1;
            status.number_ready += i32::from(meta::ready_since(pod).is_some());
            available += i32::from(self.is_available(pod));
            updated += i32::from(pods.iter().any(|pod| self.is_new(pod)));
        }
        status.number_available = meta::nonzero(available);
        status.number_unavailable = meta::nonzero(status.desired_number_scheduled - available);
        status.updated_number_scheduled = meta::nonzero(updated);
        status
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
