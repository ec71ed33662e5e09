//! What a Deployment does next: a pure function of its spec, its ReplicaSets, their pods and the time.
//!
//! One scale step at a time, as upstream: up while the total may still surge, else down as far as availability allows.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource, ResourceExt};

use crate::amount;
use crate::deployment::template::{self, HASH_LABEL};
use crate::meta;

#[path = "status.rs"]
mod status;

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of the Deployment that its ReplicaSets do not get.
const NOT_COPIED: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    "deployment.kubernetes.io/revision-history",
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// One effect to perform.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Intent {
    Adopt { set: String },
    Create(Box<ReplicaSet>),
    Change(Change),
    Delete { set: String },
    Annotate { annotations: BTreeMap<String, String> },
    Status(Box<DeploymentStatus>),
}

/// What changes of a set.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Change {
    pub(super) set: String,
    /// The size before and after.
    pub(super) replicas: Option<(i32, i32)>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) min_ready_seconds: Option<i32>,
}

pub(super) struct Outcome {
    pub(super) intents: Vec<Intent>,
    /// When nothing changes meanwhile: time at which a deadline or `minReadySeconds` may have passed.
    pub(super) look_again_seconds: Option<u64>,
}

/// The rolling bounds of a Deployment, resolved to counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    replicas: i32,
    surge: i32,
    unavailable: i32,
    is_rolling: bool,
}

impl Bounds {
    fn of(spec: &DeploymentSpec) -> Self {
        let replicas = spec.replicas.unwrap_or(1).max(0);
        let strategy = spec.strategy.clone().unwrap_or_default();
        let is_rolling = strategy.type_.as_deref() != Some("Recreate");
        if !is_rolling {
            return Self { replicas, surge: 0, unavailable: replicas, is_rolling };
        }
        let rolling = strategy.rolling_update.unwrap_or_default();
        let quarter = IntOrString::String("25%".into());
        let surge = amount::rounded_up(rolling.max_surge.as_ref().unwrap_or(&quarter), replicas);
        let unavailable = amount::rounded_down(rolling.max_unavailable.as_ref().unwrap_or(&quarter), replicas);
        // Both zero would never move; upstream then allows one pod to be missing.
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        Self { replicas, surge, unavailable: unavailable.min(replicas), is_rolling }
    }

    fn total_max(self) -> i32 {
        if self.replicas == 0 { 0 } else { self.replicas + self.surge }
    }
}

fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

fn revision(object: &impl ResourceExt) -> i64 {
    object.annotations().get(REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn age_order(set: &ReplicaSet) -> (Timestamp, String) {
    (set.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |time| time.0), set.name_any())
}

/// Decides what to do now.
pub(super) fn plan(deployment: &Deployment, sets: &[Arc<ReplicaSet>], pods: &[Arc<Pod>], now: Timestamp) -> Outcome {
    let Some(spec) = &deployment.spec else { return Outcome { intents: vec![], look_again_seconds: None } };
    let mut rollout = Rollout::new(deployment, spec, sets);
    if !meta::is_deleting(deployment) {
        rollout.adopt(sets);
        if !rollout.intents.is_empty() {
            return Outcome { intents: rollout.intents, look_again_seconds: None };
        }
        rollout.step(pods);
        rollout.clean_up_history();
    }
    let (status, look_again_seconds) = status::compute(&rollout, now);
    if deployment.status.as_ref() != Some(&status) {
        rollout.intents.push(Intent::Status(Box::new(status)));
    }
    Outcome { intents: rollout.intents, look_again_seconds }
}

struct Rollout<'a> {
    deployment: &'a Deployment,
    spec: &'a DeploymentSpec,
    bounds: Bounds,
    /// The set with the wanted template.
    new: Option<&'a ReplicaSet>,
    /// All others of ours, oldest first.
    old: Vec<&'a ReplicaSet>,
    created: Option<String>,
    intents: Vec<Intent>,
}

impl<'a> Rollout<'a> {
    fn new(deployment: &'a Deployment, spec: &'a DeploymentSpec, sets: &'a [Arc<ReplicaSet>]) -> Self {
        let mut owned: Vec<&ReplicaSet> =
            sets.iter().map(|set| &**set).filter(|set| meta::controller_of(&set.metadata).is_some()).collect();
        owned.sort_by_key(|set| age_order(set));
        let new = owned.iter().copied().find(|set| template::is_same(set, deployment));
        let old = owned.into_iter().filter(|set| new.is_none_or(|new| new.name_any() != set.name_any())).collect();
        Self { deployment, spec, bounds: Bounds::of(spec), new, old, created: None, intents: Vec::new() }
    }

    fn all(&self) -> impl Iterator<Item = &'a ReplicaSet> + use<'a, '_> {
        self.old.iter().copied().chain(self.new)
    }

    fn total(&self) -> i32 {
        self.all().map(size).sum()
    }

    fn adopt(&mut self, sets: &[Arc<ReplicaSet>]) {
        let orphans = sets.iter().filter(|set| meta::controller_of(&set.metadata).is_none());
        self.intents.extend(orphans.map(|set| Intent::Adopt { set: set.name_any() }));
    }

    fn step(&mut self, pods: &[Arc<Pod>]) {
        let paused = self.spec.paused.unwrap_or(false);
        if paused || self.is_scaling() {
            self.sync_revision();
            self.scale_as_a_whole();
        } else if self.bounds.is_rolling {
            self.sync_revision();
            if self.new.is_none() {
                self.create(self.size_of_new(0));
            } else if !self.grow_new() {
                self.shrink_old();
            }
        } else {
            self.recreate(pods);
        }
    }

    /// The wanted size has changed since the active sets were last scaled.
    fn is_scaling(&self) -> bool {
        self.all().filter(|set| size(set) > 0).any(|set| {
            let desired = set.annotations().get(DESIRED).and_then(|text| text.parse::<i32>().ok());
            desired.is_some_and(|desired| desired != self.bounds.replicas)
        })
    }

    /// The new set carries the highest revision; the Deployment shows it.
    fn sync_revision(&mut self) {
        let newest_old = self.old.iter().map(|set| revision(*set)).max().unwrap_or(0);
        let Some(new) = self.new else { return };
        let mut wanted = self.copied_annotations();
        let own = revision(new).max(newest_old + 1);
        wanted.insert(REVISION.into(), own.to_string());
        wanted.retain(|key, value| new.annotations().get(key) != Some(value));
        let min_ready = |seconds: Option<i32>| seconds.unwrap_or(0);
        let wanted_min_ready = min_ready(self.spec.min_ready_seconds);
        let found_min_ready = min_ready(new.spec.as_ref().and_then(|spec| spec.min_ready_seconds));
        let min_ready_seconds = (wanted_min_ready != found_min_ready).then_some(wanted_min_ready);
        if !wanted.is_empty() || min_ready_seconds.is_some() {
            let change = Change { set: new.name_any(), annotations: wanted, min_ready_seconds, ..Change::default() };
            self.intents.push(Intent::Change(change));
        }
        self.show_revision(own);
    }

    fn show_revision(&mut self, revision: i64) {
        let text = revision.to_string();
        if self.deployment.annotations().get(REVISION) != Some(&text) {
            self.intents.push(Intent::Annotate { annotations: BTreeMap::from([(REVISION.into(), text)]) });
        }
    }

    fn copied_annotations(&self) -> BTreeMap<String, String> {
        let all = self.deployment.annotations().iter();
        all.filter(|(key, _)| !NOT_COPIED.contains(&key.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    fn size_annotations(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (DESIRED.into(), self.bounds.replicas.to_string()),
            (MAX.into(), (self.bounds.replicas + self.bounds.surge).to_string()),
        ])
    }

    /// Scales a set; returns whether there was anything to change.
    fn scale(&mut self, set: &ReplicaSet, replicas: i32) -> bool {
        let mut annotations = self.size_annotations();
        annotations.retain(|key, value| set.annotations().get(key) != Some(value));
        if size(set) == replicas && annotations.is_empty() {
            return false;
        }
        let changed = (size(set) != replicas).then_some((size(set), replicas));
        let change = Change { set: set.name_any(), replicas: changed, annotations, ..Change::default() };
        self.intents.push(Intent::Change(change));
        changed.is_some()
    }

    fn create(&mut self, replicas: i32) {
        let hash = template::hash(&self.spec.template, self.deployment.status.as_ref().and_then(|s| s.collision_count));
        let name = format!("{}-{hash}", self.deployment.name_any());
        let mut template = self.spec.template.clone();
        let meta = template.metadata.get_or_insert_default();
        meta.labels.get_or_insert_default().insert(HASH_LABEL.into(), hash.clone());
        let labels = meta.labels.clone();
        let mut selector = self.spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(HASH_LABEL.into(), hash);
        let revision = self.old.iter().map(|set| revision(*set)).max().unwrap_or(0) + 1;
        let mut annotations = self.copied_annotations();
        annotations.extend(self.size_annotations());
        annotations.insert(REVISION.into(), revision.to_string());
        let set = ReplicaSet {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: self.deployment.namespace(),
                labels,
                annotations: Some(annotations),
                owner_references: Some(vec![meta::controller_reference(self.deployment)]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(replicas),
                selector,
                template: Some(template),
                min_ready_seconds: self.spec.min_ready_seconds,
            }),
            status: None,
        };
        self.intents.push(Intent::Create(Box::new(set)));
        self.created = Some(name);
        self.show_revision(revision);
    }

    /// How large the new set may be now, given its size.
    fn size_of_new(&self, current: i32) -> i32 {
        if !self.bounds.is_rolling {
            return self.bounds.replicas;
        }
        let total = self.total();
        let room = self.bounds.replicas + self.bounds.surge - total;
        if room <= 0 { current } else { current + room.min(self.bounds.replicas - current) }
    }

    fn grow_new(&mut self) -> bool {
        let Some(new) = self.new else { return false };
        let current = size(new);
        let wanted = if current > self.bounds.replicas { self.bounds.replicas } else { self.size_of_new(current) };
        self.scale(new, wanted)
    }

    /// Takes from the old sets what availability can spare: first what is not available anyway, then oldest first.
    fn shrink_old(&mut self) {
        let Some(new) = self.new else { return };
        let available_min = self.bounds.replicas - self.bounds.unavailable;
        let new_unavailable = size(new) - available(new);
        let mut spare = self.total() - available_min - new_unavailable;
        let mut sizes: Vec<(&ReplicaSet, i32)> = self.old.iter().map(|set| (*set, size(set))).collect();
        if spare <= 0 || sizes.iter().all(|(_, size)| *size == 0) {
            return;
        }
        for (set, size) in &mut sizes {
            let unhealthy = (*size - available(set)).max(0).min(spare);
            *size -= unhealthy;
            spare -= unhealthy;
        }
        let mut surplus = self.all().map(available).sum::<i32>() - available_min;
        for (_, size) in &mut sizes {
            let taken = (*size).min(surplus.max(0));
            *size -= taken;
            surplus -= taken;
        }
        for (set, wanted) in sizes {
            if wanted != size(set) {
                self.scale(set, wanted);
            }
        }
    }

    /// Old pods must be gone, not only ending, before the first new one is made.
    fn recreate(&mut self, pods: &[Arc<Pod>]) {
        let old: Vec<&ReplicaSet> = self.old.iter().copied().filter(|set| size(set) > 0).collect();
        if !old.is_empty() {
            for set in old {
                self.scale(set, 0);
            }
            return;
        }
        let is_old = |pod: &Arc<Pod>| {
            let owner = meta::controller_name(&pod.metadata, "ReplicaSet");
            !meta::is_terminal(pod) && self.old.iter().any(|set| owner == Some(set.name_any().as_str()))
        };
        if pods.iter().any(is_old) {
            return;
        }
        self.sync_revision();
        match self.new {
            Some(new) => {
                self.scale(new, self.bounds.replicas);
            }
            None => self.create(self.bounds.replicas),
        }
    }

    /// Scales while paused or when only the count changed: one active set takes all, several share in proportion.
    fn scale_as_a_whole(&mut self) {
        let active: Vec<&ReplicaSet> = self.all().filter(|set| size(set) > 0).collect();
        let only = match active.as_slice() {
            [] => self.new.or_else(|| self.old.last().copied()),
            [one] => Some(*one),
            _ => None,
        };
        if let Some(one) = only {
            self.scale(one, self.bounds.replicas);
            return;
        }
        let is_saturated = |set: &ReplicaSet| {
            let desired = set.annotations().get(DESIRED).and_then(|text| text.parse().ok());
            size(set) == self.bounds.replicas && desired == Some(size(set)) && available(set) == size(set)
        };
        if self.new.is_some_and(is_saturated) {
            for set in self.old.clone() {
                if size(set) > 0 {
                    self.scale(set, 0);
                }
            }
        } else if self.bounds.is_rolling {
            self.scale_in_proportion(active);
        }
    }

    fn scale_in_proportion(&mut self, mut active: Vec<&'a ReplicaSet>) {
        let to_add = self.bounds.total_max() - active.iter().map(|set| size(set)).sum::<i32>();
        if to_add > 0 {
            active.sort_by_key(|set| (Reverse(size(set)), Reverse(age_order(set))));
        } else {
            active.sort_by_key(|set| (Reverse(size(set)), age_order(set)));
        }
        let mut added = 0;
        let mut sizes: Vec<i32> = Vec::new();
        for set in &active {
            let share = if to_add == 0 { 0 } else { self.share(set) };
            let rest = to_add - added;
            let share = if to_add > 0 { share.clamp(0, rest) } else { share.clamp(rest, 0) };
            added += share;
            sizes.push(size(set) + share);
        }
        if let Some(first) = sizes.first_mut() {
            *first = (*first + to_add - added).max(0);
        }
        for (set, wanted) in active.into_iter().zip(sizes) {
            self.scale(set, wanted);
        }
    }

    /// What a set should gain so that it keeps its share of the former maximum.
    fn share(&self, set: &ReplicaSet) -> i32 {
        if self.bounds.replicas == 0 {
            return -size(set);
        }
        let annotated = set.annotations().get(MAX).and_then(|text| text.parse::<i32>().ok());
        let status = self.deployment.status.as_ref().and_then(|status| status.replicas);
        let former = f64::from(annotated.or(status).unwrap_or(0).max(1));
        let wanted = f64::from(size(set)) * f64::from(self.bounds.replicas + self.bounds.surge) / former;
        wanted.round() as i32 - size(set)
    }

    /// Removes the oldest finished sets once the rollout is complete.
    fn clean_up_history(&mut self) {
        let Some(limit) = self.spec.revision_history_limit.filter(|limit| *limit != i32::MAX) else { return };
        let is_complete = self.deployment.status.as_ref().is_some_and(|status| status::is_complete(self, status));
        if !is_complete {
            return;
        }
        let is_finished = |set: &&ReplicaSet| {
            let status = set.status.clone().unwrap_or_default();
            size(set) == 0
                && status.replicas == 0
                && set.meta().generation <= status.observed_generation
                && !meta::is_deleting(*set)
        };
        let surplus = self.old.len().saturating_sub(limit.max(0) as usize);
        let mut by_revision = self.old.clone();
        by_revision.sort_by_key(|set| revision(*set));
        let gone: Vec<_> =
            by_revision.into_iter().filter(is_finished).take(surplus).map(|set| set.name_any()).collect();
        self.intents.extend(gone.into_iter().map(|set| Intent::Delete { set }));
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
