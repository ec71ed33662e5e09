//! What a CronJob does next: a pure function of the cron job, its jobs and the time.
//!
//! A job's name is made of the time it is due, so that a time fires once whatever happens. Of several missed times only the
//! last one runs.

use std::sync::Arc;

use control_api::schedule::Schedule;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::{Resource, ResourceExt};

use crate::meta;

const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// More missed times than this are a sign of a clock or a deadline that is wrong.
const MISSED_WARN: usize = 100;

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) create: Option<Box<Job>>,
    /// Jobs that a new one replaces, and jobs beyond the history.
    pub(super) delete: Vec<Arc<Job>>,
    pub(super) status: CronJobStatus,
    /// Type, reason and note of what is worth an event.
    pub(super) news: Vec<(&'static str, String)>,
    pub(super) look_again: Option<SignedDuration>,
}

pub(super) fn plan(cron: &CronJob, schedule: &Schedule, jobs: &[Arc<Job>], now: Timestamp) -> Plan {
    let spec = &cron.spec;
    let mut plan = Plan { status: cron.status.clone().unwrap_or_default(), ..Plan::default() };
    note_ends(cron, jobs, &mut plan);
    plan.delete = beyond_history(spec, jobs);
    if meta::is_deleting(cron) || spec.suspend.unwrap_or(false) {
        return plan;
    }
    fire(cron, spec, schedule, jobs, now, &mut plan);
    plan.look_again = schedule.next(now).and_then(|next| SignedDuration::try_from(next - now).ok());
    plan
}

fn is_finished(job: &Job) -> bool {
    has(job, "Complete") || has(job, "Failed")
}

fn has(job: &Job, kind: &str) -> bool {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|one| one.type_ == kind && one.status == "True")
}

fn active(jobs: &[Arc<Job>]) -> impl Iterator<Item = &Arc<Job>> {
    jobs.iter().filter(|job| !is_finished(job))
}

/// The list of active jobs and the time of the last success.
fn note_ends(cron: &CronJob, jobs: &[Arc<Job>], plan: &mut Plan) {
    for before in cron.status.iter().flat_map(|status| status.active.iter().flatten()) {
        let name = before.name.clone().unwrap_or_default();
        match jobs.iter().find(|job| Some(meta::uid(&***job)) == before.uid) {
            None => plan.news.push(("MissingJob", format!("Active job went missing: {name}"))),
            Some(job) if is_finished(job) => {
                let how = if has(job, "Complete") { "Complete" } else { "Failed" };
                plan.news.push(("SawCompletedJob", format!("Saw completed job: {name}, condition: {how}")));
            }
            Some(_) => {}
        }
    }
    // Without its version: a reference must not change with every change of the job.
    let refer = |job: &Arc<Job>| ObjectReference { resource_version: None, ..job.object_ref(&()) };
    plan.status.active = Some(active(jobs).map(refer).collect()).filter(|list: &Vec<_>| !list.is_empty());
    let ends = jobs.iter().filter(|job| has(job, "Complete"));
    let last = ends.filter_map(|job| job.status.as_ref()?.completion_time.clone()).max_by_key(|time| time.0);
    plan.status.last_successful_time =
        last.into_iter().chain(plan.status.last_successful_time.take()).max_by_key(|time| time.0);
}

/// The oldest finished jobs beyond the numbers to keep.
fn beyond_history(spec: &CronJobSpec, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let surplus = |kind: &str, limit: Option<i32>| {
        let mut ended: Vec<&Arc<Job>> =
            jobs.iter().filter(|job| has(job, kind) && !meta::is_deleting(&***job)).collect();
        ended.sort_by_key(|job| (start_time(job), job.name_any()));
        let keep = limit.map_or(ended.len(), |limit| usize::try_from(limit).unwrap_or(0));
        let count = ended.len().saturating_sub(keep);
        ended.into_iter().take(count).cloned().collect::<Vec<_>>()
    };
    [surplus("Complete", spec.successful_jobs_history_limit), surplus("Failed", spec.failed_jobs_history_limit)]
        .concat()
}

fn start_time(job: &Job) -> Option<Timestamp> {
    let started = job.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|time| time.0);
    started.or_else(|| job.creation_timestamp().map(|time| time.0))
}

fn fire(cron: &CronJob, spec: &CronJobSpec, schedule: &Schedule, jobs: &[Arc<Job>], now: Timestamp, plan: &mut Plan) {
    let (due, missed) = last_due(cron, spec, schedule, now);
    let Some(due) = due else { return };
    if missed > MISSED_WARN {
        let note = format!(
            "too many missed start times: {missed}. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
        );
        plan.news.push(("TooManyMissedTimes", note));
    }
    if let Some(deadline) = spec.starting_deadline_seconds
        && due + SignedDuration::from_secs(deadline) < now
    {
        let note = format!("Missed scheduled time to start a job: {due}");
        plan.news.push(("MissSchedule", note));
        return;
    }
    let name = format!("{}-{}", cron.name_any(), due.as_second() / 60);
    // Our own view of the cron job may be behind its jobs.
    if jobs.iter().any(|job| job.name_any() == name) {
        plan.status.last_schedule_time = Some(Time(due));
        return;
    }
    let running: Vec<Arc<Job>> = active(jobs).cloned().collect();
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !running.is_empty() => {
            let note = "Not starting job because prior execution is running and concurrency policy is Forbid";
            plan.news.push(("JobAlreadyActive", note.into()));
            return;
        }
        Some("Replace") => plan.delete.extend(running),
        _ => {}
    }
    plan.create = Some(Box::new(job(cron, spec, name, due)));
    plan.status.last_schedule_time = Some(Time(due));
}

/// The last time at which a job was due and none has been started, and how many such times there were.
fn last_due(cron: &CronJob, spec: &CronJobSpec, schedule: &Schedule, now: Timestamp) -> (Option<Timestamp>, usize) {
    let created = cron.creation_timestamp().map_or(now, |time| time.0);
    let mut from =
        cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref()).map_or(created, |time| time.0);
    if let Some(deadline) = spec.starting_deadline_seconds {
        from = from.max(now - SignedDuration::from_secs(deadline));
    }
    let (mut due, mut count) = (None, 0);
    while let Some(next) = schedule.next(from).filter(|next| *next <= now) {
        // After a long sleep every minute would be visited: take the rest in one step.
        if count > MISSED_WARN {
            let near = now - SignedDuration::from_hours(24);
            if from < near {
                from = near;
                continue;
            }
        }
        (due, from, count) = (Some(next), next, count + 1);
    }
    (due, count)
}

fn job(cron: &CronJob, spec: &CronJobSpec, name: String, due: Timestamp) -> Job {
    let template = spec.job_template.clone();
    let from = template.metadata.unwrap_or_default();
    let mut annotations = from.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED.into(), due.to_string());
    let metadata = ObjectMeta {
        name: Some(name),
        namespace: cron.namespace(),
        labels: from.labels,
        annotations: Some(annotations),
        owner_references: Some(vec![meta::controller_reference(cron)]),
        ..ObjectMeta::default()
    };
    Job { metadata, spec: template.spec, status: None }
}

#[cfg(test)]
mod tests {
    use super::{Plan, plan};
    use control_api::schedule::Schedule;
    use jiff::Timestamp;
    use k8s_openapi::api::batch::v1::{CronJob, Job};
    use kube::ResourceExt;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn run(spec: Value, last: Option<&str>, jobs: &[Arc<Job>], now: &str) -> Plan {
        let mut spec = spec;
        spec["schedule"] = "*/10 * * * *".into();
        spec["jobTemplate"] = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"template": {}}});
        let cron: CronJob = serde_json::from_value(json!({
            "metadata": {"name": "tick", "namespace": "n", "uid": "u", "creationTimestamp": "2026-01-01T00:05:00Z"},
            "spec": spec, "status": {"lastScheduleTime": last}}))
        .unwrap();
        let schedule = Schedule::parse("*/10 * * * *", None).unwrap();
        plan(&cron, &schedule, jobs, now.parse::<Timestamp>().unwrap())
    }

    fn job(name: &str, condition: Option<&str>) -> Arc<Job> {
        let conditions: Vec<Value> = condition.iter().map(|kind| json!({"type": kind, "status": "True"})).collect();
        Arc::new(
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": "n", "uid": name,
                "creationTimestamp": "2026-01-01T00:00:00Z"}, "status": {"conditions": conditions}}))
            .unwrap(),
        )
    }

    fn made(plan: &Plan) -> Option<String> {
        plan.create.as_ref().map(|job| job.name_any())
    }

    #[test]
    fn a_job_is_named_after_the_time_it_is_due() {
        let plan = run(json!({}), None, &[], "2026-01-01T00:09:00Z");
        assert_eq!((made(&plan), plan.look_again.unwrap().as_secs()), (None, 60));
        let plan = run(json!({}), None, &[], "2026-01-01T00:10:02Z");
        let minutes = "2026-01-01T00:10:00Z".parse::<Timestamp>().unwrap().as_second() / 60;
        assert_eq!(made(&plan), Some(format!("tick-{minutes}")));
        assert_eq!(plan.status.last_schedule_time.as_ref().unwrap().0.to_string(), "2026-01-01T00:10:00Z");
        let job = plan.create.unwrap();
        assert_eq!(job.annotations()[super::SCHEDULED], "2026-01-01T00:10:00Z");
        assert_eq!(job.labels()["a"], "b");
        // The same time does not fire again, also if the status was lost.
        assert_eq!(made(&run(json!({}), Some("2026-01-01T00:10:00Z"), &[], "2026-01-01T00:10:03Z")), None);
        let name = job.name_any();
        assert_eq!(made(&run(json!({}), None, &[self::job(&name, None)], "2026-01-01T00:10:03Z")), None);
    }

    #[test]
    fn only_the_last_missed_time_runs_and_only_within_the_deadline() {
        let last = Some("2026-01-01T00:10:00Z");
        let plan = run(json!({}), last, &[], "2026-01-01T00:45:00Z");
        let minutes = "2026-01-01T00:40:00Z".parse::<Timestamp>().unwrap().as_second() / 60;
        assert_eq!(made(&plan), Some(format!("tick-{minutes}")));
        assert_eq!(made(&run(json!({"startingDeadlineSeconds": 60}), last, &[], "2026-01-01T00:45:00Z")), None);
        assert_eq!(made(&run(json!({"suspend": true}), last, &[], "2026-01-01T00:45:00Z")), None);
        let plan = run(json!({}), last, &[], "2026-01-09T00:45:00Z");
        assert!(plan.create.is_some() && plan.news.iter().any(|(reason, _)| *reason == "TooManyMissedTimes"));
    }

    #[test]
    fn concurrency_is_allowed_forbidden_or_replaces() {
        let jobs = [job("tick-1", None), job("tick-0", Some("Complete"))];
        let with = |policy: &str| run(json!({"concurrencyPolicy": policy}), None, &jobs, "2026-01-01T00:10:02Z");
        assert!(with("Allow").create.is_some() && with("Allow").delete.is_empty());
        assert!(with("Forbid").create.is_none());
        let replaced: Vec<_> = with("Replace").delete.iter().map(|job| job.name_any()).collect();
        assert_eq!(replaced, ["tick-1"]);
        assert_eq!(with("Allow").status.active.unwrap().len(), 1);
    }

    #[test]
    fn history_keeps_the_newest() {
        let jobs: Vec<_> = (0..5).map(|number| job(&format!("tick-{number}"), Some("Complete"))).collect();
        let plan = run(json!({"successfulJobsHistoryLimit": 3}), None, &jobs, "2026-01-01T00:06:00Z");
        let gone: Vec<_> = plan.delete.iter().map(|job| job.name_any()).collect();
        assert_eq!(gone, ["tick-0", "tick-1"]);
    }
}
