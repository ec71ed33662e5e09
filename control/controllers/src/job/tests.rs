//! Jobs by table: pods in, intents out.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{Plan, plan};
use crate::job::pods::{FINALIZER, INDEX};

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

fn job(spec: Value) -> Job {
    let mut spec = spec;
    spec["template"] = json!({"spec": {"restartPolicy": "Never", "containers": []}});
    serde_json::from_value(json!({"metadata": {"name": "pi", "namespace": "n", "uid": "u"}, "spec": spec})).unwrap()
}

/// `state`: `p` pending, `s` succeeded, `f` failed long ago, `F` failed now, `d` being deleted.
fn pod(name: &str, state: char, index: Option<i32>) -> Arc<Pod> {
    let phase = match state {
        's' => "Succeeded",
        'f' | 'F' => "Failed",
        _ => "Pending",
    };
    let ended = if state == 'F' { "2026-01-01T01:00:00Z" } else { "2026-01-01T00:00:00Z" };
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "n", "uid": name, "finalizers": [FINALIZER]},
        "status": {"phase": phase, "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"terminated": {"exitCode": 1, "finishedAt": ended}}}]},
    });
    if state == 'd' {
        pod["metadata"]["deletionTimestamp"] = ended.into();
    }
    if let Some(index) = index {
        pod["metadata"]["annotations"] = json!({INDEX: index.to_string()});
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn pods(states: &str) -> Vec<Arc<Pod>> {
    states.chars().enumerate().map(|(number, state)| pod(&format!("p{number}"), state, None)).collect()
}

/// Runs to the end of all bookkeeping: writes the status, drops the finalizers that may go, removes deleted pods.
fn settle(job: &mut Job, pods: &mut Vec<Arc<Pod>>) -> Plan {
    for _ in 0..10 {
        let plan = plan(job, pods, now());
        let before = job.status.clone();
        job.status = Some(plan.status.clone());
        for pod in pods.iter_mut() {
            if plan.let_go.iter().any(|one| one.name_any() == pod.name_any()) {
                Arc::make_mut(pod).metadata.finalizers = None;
            }
        }
        let deleted: Vec<String> = plan.delete.iter().map(|pod| pod.name_any()).collect();
        pods.retain(|pod| !deleted.contains(&pod.name_any()));
        if before == job.status && plan.let_go.is_empty() && deleted.is_empty() {
            return plan;
        }
    }
    panic!("never settles: {:?}", job.status);
}

fn conditions(job: &Job) -> Vec<String> {
    let list = job.status.as_ref().unwrap().conditions.clone().unwrap_or_default();
    list.iter().map(|one| format!("{}={} {}", one.type_, one.status, one.reason.clone().unwrap_or_default())).collect()
}

#[test]
fn as_many_pods_run_as_are_needed_and_allowed() {
    let made = |spec: Value, states: &str| settle(&mut job(spec), &mut pods(states)).create.len();
    assert_eq!(made(json!({"completions": 5, "parallelism": 2}), ""), 2);
    assert_eq!(made(json!({"completions": 5, "parallelism": 2}), "p"), 1);
    assert_eq!(made(json!({"completions": 2, "parallelism": 2}), "s"), 1);
    assert_eq!(made(json!({"parallelism": 3}), ""), 3);
    assert_eq!(made(json!({"parallelism": 3}), "sp"), 0);
    assert_eq!(made(json!({"completions": 2, "parallelism": 2, "suspend": true}), ""), 0);
}

#[test]
fn an_end_is_counted_once_and_before_the_finalizer_goes() {
    let mut job = job(json!({"completions": 2, "parallelism": 1}));
    let mut all = pods("s");
    let first = plan(&job, &all, now());
    let uncounted = first.status.uncounted_terminated_pods.clone().unwrap();
    assert_eq!((uncounted.succeeded, first.status.succeeded), (Some(vec!["p0".to_owned()]), None));
    assert_eq!(first.let_go.len(), 1);
    settle(&mut job, &mut all);
    assert_eq!(job.status.as_ref().unwrap().succeeded, Some(1));
    settle(&mut job, &mut all);
    assert_eq!(job.status.as_ref().unwrap().succeeded, Some(1));
}

#[test]
fn a_job_completes_in_two_steps() {
    let mut job = job(json!({"completions": 1, "parallelism": 1}));
    let mut all = pods("s");
    let first = plan(&job, &all, now());
    assert!(!first.status.conditions.unwrap().iter().any(|one| one.type_ == "Complete"));
    settle(&mut job, &mut all);
    assert_eq!(conditions(&job), ["SuccessCriteriaMet=True CompletionsReached", "Complete=True CompletionsReached"]);
    assert!(job.status.as_ref().unwrap().completion_time.is_some());
}

#[test]
fn failures_beyond_the_limit_end_the_job_and_its_pods() {
    let mut job = job(json!({"completions": 3, "parallelism": 3, "backoffLimit": 1}));
    let mut all = pods("ffp");
    settle(&mut job, &mut all);
    assert_eq!(conditions(&job), ["FailureTarget=True BackoffLimitExceeded", "Failed=True BackoffLimitExceeded"]);
    let status = job.status.as_ref().unwrap();
    assert_eq!((status.failed, status.active), (Some(2), None));
    assert_eq!(all.len(), 2);
}

#[test]
fn a_new_pod_waits_after_a_failure() {
    let plan = settle(&mut job(json!({"completions": 1, "parallelism": 1, "backoffLimit": 6})), &mut pods("F"));
    assert_eq!((plan.create.len(), plan.look_again.unwrap().as_secs()), (0, 10));
    let plan = settle(&mut job(json!({"completions": 1, "parallelism": 1, "backoffLimit": 6})), &mut pods("FF"));
    assert_eq!(plan.look_again.unwrap().as_secs(), 20);
    let plan = settle(&mut job(json!({"completions": 1, "parallelism": 1, "backoffLimit": 6})), &mut pods("f"));
    assert_eq!(plan.create.len(), 1);
}

#[test]
fn a_deadline_beats_everything_and_suspension_stops_its_clock() {
    let started = json!({"startTime": "2026-01-01T00:00:00Z"});
    let mut late = job(json!({"completions": 1, "parallelism": 1, "activeDeadlineSeconds": 60}));
    late.status = Some(serde_json::from_value(started.clone()).unwrap());
    settle(&mut late, &mut pods("p"));
    assert_eq!(conditions(&late), ["FailureTarget=True DeadlineExceeded", "Failed=True DeadlineExceeded"]);
    let mut asleep = job(json!({"completions": 1, "parallelism": 1, "activeDeadlineSeconds": 60, "suspend": true}));
    asleep.status = Some(serde_json::from_value(started).unwrap());
    settle(&mut asleep, &mut pods("p"));
    assert_eq!(conditions(&asleep), ["Suspended=True JobSuspended"]);
    asleep.spec.as_mut().unwrap().suspend = Some(false);
    let plan = settle(&mut asleep, &mut Vec::new());
    assert_eq!((plan.create.len(), conditions(&asleep)), (1, vec!["Suspended=False JobResumed".to_owned()]));
    assert_eq!(asleep.status.unwrap().start_time.unwrap().0, now());
}

#[test]
fn indexed_jobs_fill_the_lowest_free_indexes() {
    let mut job = job(json!({"completionMode": "Indexed", "completions": 5, "parallelism": 3}));
    let mut all = vec![pod("a", 's', Some(0)), pod("b", 'p', Some(2))];
    let plan = settle(&mut job, &mut all);
    let made: Vec<_> = plan.create.iter().map(|pod| pod.annotations()[INDEX].clone()).collect();
    assert_eq!(made, ["1", "3"]);
    assert_eq!(job.status.unwrap().completed_indexes.as_deref(), Some("0"));
}

#[test]
fn an_index_that_fails_too_often_is_given_up_alone() {
    let spec = json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2, "backoffLimit": i32::MAX,
        "backoffLimitPerIndex": 0});
    let mut job = job(spec);
    let mut all = vec![pod("a", 'f', Some(0)), pod("b", 's', Some(1))];
    settle(&mut job, &mut all);
    assert_eq!(job.status.as_ref().unwrap().failed_indexes.as_deref(), Some("0"));
    assert_eq!(conditions(&job), ["FailureTarget=True FailedIndexes", "Failed=True FailedIndexes"]);
}

#[test]
fn a_success_policy_ends_the_job_early() {
    let spec = json!({"completionMode": "Indexed", "completions": 3, "parallelism": 3,
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]}});
    let mut job = job(spec);
    settle(&mut job, &mut vec![pod("a", 's', Some(0)), pod("b", 'p', Some(1))]);
    assert_eq!(conditions(&job), ["SuccessCriteriaMet=True SuccessPolicy", "Complete=True SuccessPolicy"]);
}

#[test]
fn ignored_failures_do_not_count() {
    let spec = json!({"completions": 1, "parallelism": 1, "backoffLimit": 0, "podFailurePolicy": {"rules": [
        {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [1]}}]}});
    let mut job = job(spec);
    let plan = settle(&mut job, &mut pods("f"));
    assert_eq!((job.status.unwrap().failed, plan.create.len()), (None, 1));
}

#[test]
fn a_deleted_pod_counts_as_failed_unless_only_failed_ones_are_replaced() {
    let mut eager = job(json!({"completions": 1, "parallelism": 1}));
    let plan = settle(&mut eager, &mut pods("d"));
    assert_eq!((eager.status.unwrap().failed, plan.create.len()), (Some(1), 1));
    let mut patient = job(json!({"completions": 1, "parallelism": 1, "podReplacementPolicy": "Failed"}));
    let plan = settle(&mut patient, &mut pods("d"));
    assert_eq!((patient.status.unwrap().failed, plan.create.len()), (None, 0));
}

#[test]
fn a_finished_job_goes_when_its_time_is_over() {
    let mut job = job(json!({"completions": 1, "parallelism": 1, "ttlSecondsAfterFinished": 30}));
    let mut all = pods("s");
    let plan = settle(&mut job, &mut all);
    assert_eq!((plan.expire, plan.look_again.unwrap().as_secs()), (false, 30));
    assert!(super::plan(&job, &all, now() + jiff::SignedDuration::from_secs(30)).expire);
}
