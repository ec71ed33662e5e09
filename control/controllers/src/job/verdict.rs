//! Whether and how a Job ends.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;

use crate::job::indexes;
use crate::job::pods::{self, Verdict};
use crate::pod_control::is_active;

/// What an end is decided from; the status has the counts up to date.
pub(super) struct Facts<'a> {
    pub(super) spec: &'a JobSpec,
    pub(super) status: &'a JobStatus,
    pub(super) pods: &'a [Arc<Pod>],
    pub(super) now: Timestamp,
}

/// How a job ends.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct End {
    pub(super) failed: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl End {
    fn failure(reason: &'static str, message: impl Into<String>) -> Self {
        Self { failed: true, reason, message: message.into() }
    }

    fn success(reason: &'static str, message: &str) -> Self {
        Self { failed: false, reason, message: message.into() }
    }
}

pub(super) fn holds(status: &JobStatus, kind: &str) -> bool {
    status.conditions.iter().flatten().any(|one| one.type_ == kind && one.status == "True")
}

pub(super) fn is_finished(status: &JobStatus) -> bool {
    holds(status, "Complete") || holds(status, "Failed")
}

pub(super) fn finish_time(status: &JobStatus) -> Option<Timestamp> {
    let mut ends = status.conditions.iter().flatten().filter(|one| matches!(one.type_.as_str(), "Complete" | "Failed"));
    ends.find(|one| one.status == "True")?.last_transition_time.as_ref().map(|time| time.0)
}

/// Pods that have succeeded, counted or about to be.
pub(super) fn succeeded(status: &JobStatus) -> i32 {
    let uncounted = status.uncounted_terminated_pods.as_ref().and_then(|uncounted| uncounted.succeeded.as_ref());
    status.succeeded.unwrap_or(0) + uncounted.map_or(0, |uids| uids.len() as i32)
}

fn failed(status: &JobStatus) -> i32 {
    let uncounted = status.uncounted_terminated_pods.as_ref().and_then(|uncounted| uncounted.failed.as_ref());
    status.failed.unwrap_or(0) + uncounted.map_or(0, |uids| uids.len() as i32)
}

/// An end that has been announced stays; else failures come before success, as upstream.
pub(super) fn end(facts: &Facts<'_>) -> Option<End> {
    announced(facts)
        .or_else(|| policy_failure(facts))
        .or_else(|| limits(facts))
        .or_else(|| failed_indexes(facts))
        .or_else(|| success(facts))
}

fn announced(facts: &Facts<'_>) -> Option<End> {
    let mut conditions = facts.status.conditions.iter().flatten().filter(|one| one.status == "True");
    let found = conditions.find(|one| matches!(one.type_.as_str(), "FailureTarget" | "SuccessCriteriaMet"))?;
    let reason = REASONS.iter().find(|reason| found.reason.as_deref() == Some(reason))?;
    let message = found.message.clone().unwrap_or_default();
    Some(End { failed: found.type_ == "FailureTarget", reason, message })
}

const REASONS: &[&str] = &[
    "BackoffLimitExceeded",
    "CompletionsReached",
    "DeadlineExceeded",
    "FailedIndexes",
    "MaxFailedIndexesExceeded",
    "PodFailurePolicy",
    "SuccessPolicy",
];

fn policy_failure(facts: &Facts<'_>) -> Option<End> {
    let mut failed = facts.pods.iter().filter(|pod| pods::has_failed(facts.spec, pod));
    failed.find_map(|pod| match pods::verdict(facts.spec, pod) {
        Some(Verdict::FailJob(message)) => Some(End::failure("PodFailurePolicy", message)),
        _ => None,
    })
}

fn limits(facts: &Facts<'_>) -> Option<End> {
    let limit = facts.spec.backoff_limit.unwrap_or(6);
    if time_left(facts).is_some_and(|left| left <= SignedDuration::ZERO) {
        return Some(End::failure("DeadlineExceeded", "Job was active longer than specified deadline"));
    }
    if failed(facts.status) > limit || has_restarted_too_often(facts, limit) {
        return Some(End::failure("BackoffLimitExceeded", "Job has reached the specified backoff limit"));
    }
    None
}

/// Until the active deadline; none without one, or while the job is suspended.
pub(super) fn time_left(facts: &Facts<'_>) -> Option<SignedDuration> {
    let seconds = facts.spec.active_deadline_seconds?;
    let started = facts.status.start_time.as_ref().filter(|_| !facts.spec.suspend.unwrap_or(false))?;
    SignedDuration::try_from(started.0 + SignedDuration::from_secs(seconds) - facts.now).ok()
}

/// Where containers restart in place, their restarts are the failures.
fn has_restarted_too_often(facts: &Facts<'_>, limit: i32) -> bool {
    let policy = facts.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    if policy != Some("OnFailure") {
        return false;
    }
    let statuses = facts.pods.iter().filter(|pod| is_active(pod)).filter_map(|pod| pod.status.as_ref());
    let containers =
        statuses.flat_map(|status| status.init_container_statuses.iter().chain(&status.container_statuses).flatten());
    let restarts: i32 = containers.map(|one| one.restart_count).sum();
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

fn failed_indexes(facts: &Facts<'_>) -> Option<End> {
    facts.spec.backoff_limit_per_index?;
    let given_up = indexes::parse(facts.status.failed_indexes.as_deref().unwrap_or_default()).len() as i32;
    if facts.spec.max_failed_indexes.is_some_and(|max| given_up > max) {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return Some(End::failure("MaxFailedIndexesExceeded", message));
    }
    let all = facts.spec.completions.unwrap_or(0);
    let is_over = given_up > 0 && given_up + succeeded(facts.status) >= all;
    is_over.then(|| End::failure("FailedIndexes", "Job has failed indexes"))
}

fn success(facts: &Facts<'_>) -> Option<End> {
    let reached = "Reached expected number of succeeded pods";
    let by_policy = facts.spec.success_policy.iter().flat_map(|policy| policy.rules.iter().enumerate());
    let done = indexes::parse(facts.status.completed_indexes.as_deref().unwrap_or_default());
    for (number, rule) in by_policy {
        let wanted = rule.succeeded_indexes.as_deref().map(indexes::parse);
        let met = wanted.as_ref().map_or(done.len(), |wanted| wanted.intersection(&done).count());
        let needed = match (rule.succeeded_count, &wanted) {
            (Some(count), _) => usize::try_from(count).unwrap_or(0),
            (None, Some(wanted)) => wanted.len(),
            (None, None) => continue,
        };
        if met >= needed {
            return Some(End::success("SuccessPolicy", &format!("Matched rules at index {number}")));
        }
    }
    let is_complete = match facts.spec.completions {
        Some(completions) => succeeded(facts.status) >= completions,
        None => succeeded(facts.status) > 0 && facts.status.active.unwrap_or(0) == 0,
    };
    is_complete.then(|| End::success("CompletionsReached", reached))
}
