//! The status of a Deployment: counts and the conditions Available, Progressing and ReplicaFailure.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Resource, ResourceExt};

use super::{Rollout, available, size};

const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const DONE: &str = "NewReplicaSetAvailable";

/// The status as it should be, and after how many seconds the deadline may pass.
pub(super) fn compute(rollout: &Rollout<'_>, now: Timestamp) -> (DeploymentStatus, Option<u64>) {
    let old = rollout.deployment.status.clone().unwrap_or_default();
    let mut status = counts(rollout, &old);
    let mut conditions = Conditions { list: old.conditions.clone().unwrap_or_default(), now };
    let is_available = status.available_replicas.unwrap_or(0) >= rollout.bounds.replicas - rollout.bounds.unavailable;
    if is_available {
        conditions.set(AVAILABLE, "True", "MinimumReplicasAvailable", "Deployment has minimum availability.".into());
    } else {
        let message = "Deployment does not have minimum availability.".into();
        conditions.set(AVAILABLE, "False", "MinimumReplicasUnavailable", message);
    }
    copy_replica_failure(rollout, &mut conditions);
    let deadline = progress(rollout, &old, &status, &mut conditions);
    status.conditions = Some(conditions.list).filter(|list| !list.is_empty());
    (status, deadline)
}

fn counts(rollout: &Rollout<'_>, old: &DeploymentStatus) -> DeploymentStatus {
    let sum = |field: &dyn Fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> i32| {
        rollout.all().filter_map(|set| set.status.as_ref()).map(field).sum::<i32>()
    };
    let available = rollout.all().map(available).sum::<i32>();
    let updated = rollout.new.and_then(|set| set.status.as_ref()).map_or(0, |status| status.replicas);
    let nonzero = |count: i32| Some(count).filter(|count| *count != 0);
    DeploymentStatus {
        observed_generation: rollout.deployment.meta().generation,
        replicas: nonzero(sum(&|status| status.replicas)),
        updated_replicas: nonzero(updated),
        ready_replicas: nonzero(sum(&|status| status.ready_replicas.unwrap_or(0))),
        available_replicas: nonzero(available),
        unavailable_replicas: nonzero((rollout.total() - available).max(0)),
        terminating_replicas: Some(sum(&|status| status.terminating_replicas.unwrap_or(0))),
        collision_count: old.collision_count,
        conditions: None,
    }
}

/// Every replica is new and available, and the spec has been seen.
pub(super) fn is_complete(rollout: &Rollout<'_>, status: &DeploymentStatus) -> bool {
    let wanted = rollout.bounds.replicas;
    status.updated_replicas.unwrap_or(0) == wanted
        && status.replicas.unwrap_or(0) == wanted
        && status.available_replicas.unwrap_or(0) == wanted
        && rollout.new.is_some_and(|new| size(new) == wanted)
        && status.observed_generation >= rollout.deployment.meta().generation
}

fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let count = |field: Option<i32>| field.unwrap_or(0);
    let rest = |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    count(new.updated_replicas) > count(old.updated_replicas)
        || rest(new) < rest(old)
        || count(new.ready_replicas) > count(old.ready_replicas)
        || count(new.available_replicas) > count(old.available_replicas)
}

fn copy_replica_failure(rollout: &Rollout<'_>, conditions: &mut Conditions) {
    let failure = rollout.all().find_map(|set| {
        let list = set.status.as_ref()?.conditions.as_ref()?;
        list.iter().find(|one| one.type_ == REPLICA_FAILURE)
    });
    match failure {
        Some(found) => {
            let reason = found.reason.clone().unwrap_or_default();
            conditions.set(REPLICA_FAILURE, &found.status, &reason, found.message.clone().unwrap_or_default());
        }
        None => conditions.list.retain(|one| one.type_ != REPLICA_FAILURE),
    }
}

/// Sets Progressing; returns the seconds until the deadline while a rollout is under way.
fn progress(
    rollout: &Rollout<'_>,
    old: &DeploymentStatus,
    new: &DeploymentStatus,
    conditions: &mut Conditions,
) -> Option<u64> {
    let deadline = i64::from(rollout.spec.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX)?);
    let name = rollout.created.clone().or_else(|| rollout.new.map(|set| set.name_any()));
    let subject = match &name {
        Some(name) => format!("ReplicaSet \"{name}\""),
        None => format!("Deployment \"{}\"", rollout.deployment.name_any()),
    };
    let before = conditions.get(PROGRESSING).cloned();
    let reason = before.as_ref().and_then(|one| one.reason.as_deref()).unwrap_or_default();
    if rollout.spec.paused.unwrap_or(false) {
        conditions.set(PROGRESSING, "Unknown", "DeploymentPaused", "Deployment is paused".into());
        return None;
    }
    if reason == "DeploymentPaused" {
        conditions.set(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed".into());
    } else if let Some(created) = &rollout.created {
        conditions.set(PROGRESSING, "True", "NewReplicaSetCreated", format!("Created new replica set \"{created}\""));
    } else if reason == DONE && new.replicas == new.updated_replicas {
        // Done before, and still nothing old: scaling up is no rollout.
        return None;
    } else if is_complete(rollout, new) {
        conditions.set(PROGRESSING, "True", DONE, format!("{subject} has successfully progressed."));
        return None;
    } else if has_progressed(old, new) || before.is_none() {
        conditions.renew(PROGRESSING, "True", "ReplicaSetUpdated", format!("{subject} is progressing."));
    } else if conditions.age_seconds(PROGRESSING) >= deadline {
        let message = format!("{subject} has timed out progressing.");
        conditions.set(PROGRESSING, "False", "ProgressDeadlineExceeded", message);
        return None;
    }
    Some((deadline - conditions.age_seconds(PROGRESSING)).max(1) as u64)
}

struct Conditions {
    list: Vec<DeploymentCondition>,
    now: Timestamp,
}

impl Conditions {
    fn get(&self, kind: &str) -> Option<&DeploymentCondition> {
        self.list.iter().find(|one| one.type_ == kind)
    }

    fn age_seconds(&self, kind: &str) -> i64 {
        let updated = self.get(kind).and_then(|one| one.last_update_time.as_ref());
        updated.map_or(0, |time| self.now.as_second() - time.0.as_second())
    }

    /// Changes a condition only where its status or reason differs, as upstream does.
    fn set(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let same = |one: &DeploymentCondition| one.status == status && one.reason.as_deref() == Some(reason);
        if !self.get(kind).is_some_and(same) {
            self.renew(kind, status, reason, message);
        }
    }

    /// Writes a condition anew; the transition time moves only with the status.
    fn renew(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let before = self.get(kind).filter(|one| one.status == status);
        let transition = before.and_then(|one| one.last_transition_time.clone()).unwrap_or(Time(self.now));
        let condition = DeploymentCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_update_time: Some(Time(self.now)),
            last_transition_time: Some(transition),
        };
        match self.list.iter_mut().find(|one| one.type_ == kind) {
            Some(one) => *one = condition,
            None => self.list.push(condition),
        }
    }
}
