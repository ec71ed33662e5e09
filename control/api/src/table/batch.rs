//! The cells of Jobs and CronJobs.

use jiff::Timestamp;
use serde_json::Value;

use super::cells::{age, name, selector, template};
use super::duration::{human, since};
use crate::value::{int, is_set, is_zero, items, text};

pub(super) fn job(job: &Value, now: Timestamp) -> Vec<Value> {
    let (containers, images) = template(job);
    vec![
        name(job),
        job_status(job).into(),
        completions(job).into(),
        duration(&job["status"], now).into(),
        age(job, now),
        containers.into(),
        images.into(),
        selector(&job["spec"]["selector"]).into(),
    ]
}

/// The condition that tells most.
fn job_status(job: &Value) -> &'static str {
    let holds = |kind: &str| {
        let mut conditions = items(&job["status"]["conditions"]).iter();
        conditions.any(|condition| condition["type"] == kind && condition["status"] == "True")
    };
    let by_condition = ["Complete", "Failed"].into_iter().find(|kind| holds(kind));
    match by_condition {
        Some(kind) => kind,
        None if is_set(&job["metadata"]["deletionTimestamp"]) => "Terminating",
        None if holds("Suspended") => "Suspended",
        None if holds("FailureTarget") => "FailureTarget",
        None if holds("SuccessCriteriaMet") => "SuccessCriteriaMet",
        None => "Running",
    }
}

fn completions(job: &Value) -> String {
    let succeeded = int(&job["status"]["succeeded"]);
    let spec = &job["spec"];
    if is_set(&spec["completions"]) {
        return format!("{succeeded}/{}", int(&spec["completions"]));
    }
    // A work queue is done when one pod has succeeded.
    match int(&spec["parallelism"]) {
        parallelism if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        _ => format!("{succeeded}/1"),
    }
}

fn duration(status: &Value, now: Timestamp) -> String {
    let time = |field: &str| text(&status[field]).parse::<Timestamp>().ok();
    let Some(started) = time("startTime") else { return String::new() };
    let ended = time("completionTime").unwrap_or(now);
    human(ended.as_second() - started.as_second())
}

pub(super) fn cron_job(job: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &job["spec"];
    let of_jobs = &spec["jobTemplate"];
    let (containers, images) = template(of_jobs);
    let zone = if is_zero(&spec["timeZone"]) { "<none>" } else { text(&spec["timeZone"]) };
    let last = &job["status"]["lastScheduleTime"];
    let last = if is_zero(last) { "<none>".to_owned() } else { since(last, now) };
    let suspended = if spec["suspend"] == true { "True" } else { "False" };
    vec![
        name(job),
        text(&spec["schedule"]).into(),
        zone.into(),
        suspended.into(),
        items(&job["status"]["active"]).len().into(),
        last.into(),
        age(job, now),
        containers.into(),
        images.into(),
        selector(&of_jobs["spec"]["selector"]).into(),
    ]
}
