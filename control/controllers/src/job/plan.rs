//! What a Job does next: a pure function of the job, its pods and the time.
//!
//! A pod's end is counted exactly once: its uid is written into the status first (uncounted), then its finalizer goes, then
//! the uid is replaced by the count. Of indexed jobs the finished indexes themselves are the count.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use crate::job::indexes;
use crate::job::pods::{self, Verdict};
use crate::job::verdict::{self, End};
use crate::meta;
use crate::pod_control::{BURST_MAX, is_active};

const BACKOFF_SECONDS_MIN: i64 = 10;
const BACKOFF_SECONDS_MAX: i64 = 600;

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) create: Vec<Pod>,
    pub(super) delete: Vec<Arc<Pod>>,
    /// The job has too many pods: those to delete are no failures, so their finalizers go first.
    pub(super) is_shrinking: bool,
    pub(super) status: JobStatus,
    /// Pods that are counted, or need no count, once the status is written.
    pub(super) let_go: Vec<Arc<Pod>>,
    /// The job itself goes: its time after the end is over.
    pub(super) expire: bool,
    /// Reason and message of what is worth an event.
    pub(super) news: Option<(&'static str, String)>,
    pub(super) look_again: Option<SignedDuration>,
}

pub(super) fn plan(job: &Job, owned: &[Arc<Pod>], now: Timestamp) -> Plan {
    let Some(spec) = &job.spec else { return Plan::default() };
    let status = job.status.clone().unwrap_or_default();
    if verdict::is_finished(&status) {
        return after_the_end(spec, status, owned, now);
    }
    let mut work = Work { job, spec, owned, now, plan: Plan { status, ..Plan::default() } };
    work.count();
    if meta::is_deleting(job) {
        return work.plan;
    }
    work.start_or_suspend();
    match verdict::end(&work.facts()) {
        Some(end) => work.finish(end),
        None => work.manage(),
    }
    work.plan
}

/// Finalizers that are left over go, and after its time the job does.
fn after_the_end(spec: &JobSpec, status: JobStatus, owned: &[Arc<Pod>], now: Timestamp) -> Plan {
    let mut plan = Plan { let_go: finalized(owned).collect(), ..Plan::default() };
    if let (Some(seconds), Some(ended)) = (spec.ttl_seconds_after_finished, verdict::finish_time(&status)) {
        let left = ended + SignedDuration::from_secs(seconds.into()) - now;
        let left = SignedDuration::try_from(left).unwrap_or_default();
        plan.expire = left <= SignedDuration::ZERO;
        plan.look_again = (!plan.expire).then_some(left);
    }
    plan.status = status;
    plan
}

fn finalized(owned: &[Arc<Pod>]) -> impl Iterator<Item = Arc<Pod>> {
    owned.iter().filter(|pod| pods::has_finalizer(pod)).cloned()
}

struct Work<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    owned: &'a [Arc<Pod>],
    now: Timestamp,
    plan: Plan,
}

impl Work<'_> {
    fn count(&mut self) {
        let has_finalizer =
            |uid: &String| self.owned.iter().any(|pod| meta::uid(&**pod) == *uid && pods::has_finalizer(pod));
        let status = &mut self.plan.status;
        let uncounted = status.uncounted_terminated_pods.take().unwrap_or_default();
        let (mut succeeded, gone_well): (Vec<_>, Vec<_>) =
            uncounted.succeeded.unwrap_or_default().into_iter().partition(has_finalizer);
        let (mut failed, gone_badly): (Vec<_>, Vec<_>) =
            uncounted.failed.unwrap_or_default().into_iter().partition(has_finalizer);
        let mut total_succeeded = status.succeeded.unwrap_or(0) + gone_well.len() as i32;
        let total_failed = status.failed.unwrap_or(0) + gone_badly.len() as i32;
        let mut completed = indexes::parse(status.completed_indexes.as_deref().unwrap_or_default());
        let is_indexed = pods::is_indexed(self.spec);
        let completions = self.spec.completions.unwrap_or(0);
        for pod in self.owned.iter().filter(|pod| pods::has_finalizer(pod)) {
            let uid = meta::uid(&**pod);
            let is_known = succeeded.contains(&uid) || failed.contains(&uid);
            if pods::has_succeeded(pod) {
                if is_indexed {
                    completed.extend(pods::index(pod).filter(|index| *index < completions));
                } else if !is_known {
                    succeeded.push(uid);
                }
            } else if pods::has_failed(self.spec, pod) {
                // A job that goes away or is done takes its pods along; these are no failures.
                let is_cleared = meta::phase(pod) != "Failed" && verdict::holds(status, "SuccessCriteriaMet");
                let is_ignored = || pods::verdict(self.spec, pod) == Some(Verdict::Ignore);
                if !(is_known || meta::is_deleting(self.job) || is_cleared || is_ignored()) {
                    failed.push(uid);
                }
            } else {
                continue;
            }
            self.plan.let_go.push(Arc::clone(pod));
        }
        if is_indexed {
            total_succeeded = completed.len() as i32;
            status.completed_indexes = Some(indexes::format(&completed)).filter(|text| !text.is_empty());
        }
        status.succeeded = meta::nonzero(total_succeeded);
        status.failed = meta::nonzero(total_failed);
        let some = |list: Vec<String>| Some(list).filter(|list| !list.is_empty());
        status.uncounted_terminated_pods =
            Some(UncountedTerminatedPods { succeeded: some(succeeded), failed: some(failed) });
        self.count_living();
        self.fail_indexes(&completed);
    }

    fn count_living(&mut self) {
        let count = |wanted: &dyn Fn(&Pod) -> bool| self.owned.iter().filter(|pod| wanted(pod)).count() as i32;
        self.plan.status.active = meta::nonzero(count(&is_active));
        self.plan.status.ready = Some(count(&|pod| is_active(pod) && meta::ready_since(pod).is_some()));
        self.plan.status.terminating = Some(count(&|pod| meta::is_deleting(pod) && !meta::is_terminal(pod)));
    }

    /// With a limit for each index, an index that has failed too often is given up alone.
    fn fail_indexes(&mut self, completed: &BTreeSet<i32>) {
        let Some(limit) = self.spec.backoff_limit_per_index else { return };
        let mut failed = indexes::parse(self.plan.status.failed_indexes.as_deref().unwrap_or_default());
        let counted = |pod: &&Arc<Pod>| pods::has_finalizer(pod) && pods::has_failed(self.spec, pod);
        for pod in self.owned.iter().filter(counted) {
            let Some(index) = pods::index(pod) else { continue };
            let by_rule = pods::verdict(self.spec, pod) == Some(Verdict::FailIndex);
            if by_rule || pods::failures_of_index(self.spec, pod) > limit {
                failed.insert(index);
            }
        }
        failed.retain(|index| !completed.contains(index));
        self.plan.status.failed_indexes = Some(indexes::format(&failed));
    }

    fn start_or_suspend(&mut self) {
        let suspend = self.spec.suspend.unwrap_or(false);
        let was_suspended = verdict::holds(&self.plan.status, "Suspended");
        match (suspend, was_suspended) {
            (true, false) => {
                self.set("Suspended", "True", "JobSuspended", "Job suspended".into());
                self.plan.news = Some(("Suspended", "Job suspended".into()));
            }
            (false, true) => {
                self.set("Suspended", "False", "JobResumed", "Job resumed".into());
                self.plan.news = Some(("Resumed", "Job resumed".into()));
                // The deadline counts from now.
                self.plan.status.start_time = Some(Time(self.now));
            }
            _ => {}
        }
        if !suspend && self.plan.status.start_time.is_none() {
            self.plan.status.start_time = Some(Time(self.now));
        }
    }

    fn facts(&self) -> verdict::Facts<'_> {
        verdict::Facts { spec: self.spec, status: &self.plan.status, pods: self.owned, now: self.now }
    }

    /// First says how the job ends, then, when no pod runs any more, that it has ended.
    fn finish(&mut self, end: End) {
        let active: Vec<Arc<Pod>> = self.owned.iter().filter(|pod| is_active(pod)).cloned().collect();
        let (before, after, news) = match end.failed {
            true => ("FailureTarget", "Failed", (end.reason, end.message.clone())),
            false => ("SuccessCriteriaMet", "Complete", ("Completed", "Job completed".into())),
        };
        self.set(before, "True", end.reason, end.message.clone());
        // Every pod must have ended, and every end must be in the counts.
        let is_counted = self
            .plan
            .status
            .uncounted_terminated_pods
            .as_ref()
            .is_none_or(|uncounted| uncounted.succeeded.is_none() && uncounted.failed.is_none());
        if active.is_empty() && self.plan.status.terminating == Some(0) && is_counted {
            self.set(after, "True", end.reason, end.message);
            self.plan.status.uncounted_terminated_pods = Some(UncountedTerminatedPods::default());
            if !end.failed {
                self.plan.status.completion_time = Some(Time(self.now));
            }
            self.plan.news = Some(news);
        }
        self.plan.delete = active;
    }

    fn manage(&mut self) {
        let active: Vec<&Arc<Pod>> = self.owned.iter().filter(|pod| is_active(pod)).collect();
        let wanted = self.wanted(active.len());
        if active.len() > wanted {
            self.plan.delete = shrink(&active, active.len() - wanted);
            self.plan.is_shrinking = true;
        } else if active.len() < wanted {
            match self.backoff() {
                Some(wait) => self.plan.look_again = Some(wait),
                None => self.plan.create = self.new_pods(&active, (wanted - active.len()).min(BURST_MAX)),
            }
        }
        if let Some(left) = verdict::time_left(&self.facts()) {
            self.plan.look_again = Some(self.plan.look_again.map_or(left, |wait| wait.min(left)));
        }
    }

    /// How many pods should be active now.
    fn wanted(&self, active: usize) -> usize {
        if self.spec.suspend.unwrap_or(false) {
            return 0;
        }
        let status = &self.plan.status;
        let succeeded = usize::try_from(verdict::succeeded(status)).unwrap_or(0);
        let parallelism = usize::try_from(self.spec.parallelism.unwrap_or(1)).unwrap_or(0);
        let wanted = match self.spec.completions {
            // A work queue: once one has succeeded the rest end by themselves.
            None if succeeded > 0 => active,
            None => parallelism,
            Some(completions) => {
                let given_up = indexes::parse(status.failed_indexes.as_deref().unwrap_or_default()).len();
                let rest = usize::try_from(completions).unwrap_or(0).saturating_sub(succeeded + given_up);
                rest.min(parallelism)
            }
        };
        if pods::replaces_failed_only(self.spec) {
            let terminating = usize::try_from(status.terminating.unwrap_or(0)).unwrap_or(0);
            return wanted.saturating_sub(terminating).max(active.min(wanted));
        }
        wanted
    }

    /// How long new pods wait after failures: from ten seconds, doubled with each failure since the last success.
    fn backoff(&self) -> Option<SignedDuration> {
        // Each index has its own history of failures, which its own limit ends.
        let ended = |pod: &Arc<Pod>| end_time(pod).unwrap_or(self.now);
        let last_success = self.owned.iter().filter(|pod| pods::has_succeeded(pod)).map(ended).max();
        let failures: Vec<Timestamp> = self
            .owned
            .iter()
            .filter(|pod| meta::phase(pod) == "Failed")
            .map(ended)
            .filter(|time| last_success.is_none_or(|success| *time > success))
            .collect();
        let last = *failures.iter().max()?;
        let doublings = u32::try_from(failures.len() - 1).unwrap_or(0).min(10);
        let seconds = (BACKOFF_SECONDS_MIN << doublings).min(BACKOFF_SECONDS_MAX);
        let left = SignedDuration::try_from(last + SignedDuration::from_secs(seconds) - self.now).unwrap_or_default();
        (left > SignedDuration::ZERO).then_some(left)
    }

    fn new_pods(&self, active: &[&Arc<Pod>], count: usize) -> Vec<Pod> {
        if !pods::is_indexed(self.spec) {
            return vec![pods::pod(self.job, self.spec, None, 0); count];
        }
        let status = &self.plan.status;
        let mut taken = indexes::parse(status.completed_indexes.as_deref().unwrap_or_default());
        taken.extend(indexes::parse(status.failed_indexes.as_deref().unwrap_or_default()));
        taken.extend(active.iter().filter_map(|pod| pods::index(pod)));
        if pods::replaces_failed_only(self.spec) {
            taken.extend(self.owned.iter().filter(|pod| meta::is_deleting(&***pod)).filter_map(|pod| pods::index(pod)));
        }
        let free = (0..self.spec.completions.unwrap_or(0)).filter(|index| !taken.contains(index));
        free.take(count).map(|index| pods::pod(self.job, self.spec, Some(index), self.failures_of(index))).collect()
    }

    fn failures_of(&self, index: i32) -> i32 {
        let of_index = self.owned.iter().filter(|pod| pods::index(pod) == Some(index));
        of_index.map(|pod| pods::failures_of_index(self.spec, pod)).max().unwrap_or(0)
    }

    fn set(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let conditions = self.plan.status.conditions.get_or_insert_default();
        if conditions.iter().any(|one| one.type_ == kind && one.status == status) {
            return;
        }
        let condition = JobCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message).filter(|text| !text.is_empty()),
            last_probe_time: Some(Time(self.now)),
            last_transition_time: Some(Time(self.now)),
        };
        conditions.retain(|one| one.type_ != kind);
        conditions.push(condition);
    }
}

/// The pods to remove when there are too many: those that have got least far, the youngest first; of indexed jobs the
/// highest index.
fn shrink(active: &[&Arc<Pod>], count: usize) -> Vec<Arc<Pod>> {
    let mut pods: Vec<&Arc<Pod>> = active.to_vec();
    pods.sort_by_key(|pod| {
        let created = pod.creation_timestamp().map_or(0, |time| time.0.as_second());
        (
            -i64::from(pods::index(pod).unwrap_or(0)),
            meta::phase(pod) != "Pending",
            meta::ready_since(pod).is_some(),
            -created,
        )
    });
    pods.into_iter().take(count).cloned().collect()
}

/// When the last container of a pod ended, or when the pod's deletion began.
fn end_time(pod: &Pod) -> Option<Timestamp> {
    let statuses = pod.status.as_ref()?.container_statuses.iter().flatten();
    let ends =
        statuses.filter_map(|one| one.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()).map(|time| time.0);
    ends.max().or_else(|| pod.metadata.deletion_timestamp.as_ref().map(|time| time.0))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
