//! Defaults of Jobs and CronJobs.

use serde_json::Value;

use super::pod::pod_template;
use crate::value::{child_mut, is_set, items_mut, set_default, set_if_zero};

pub(crate) fn job(job: &mut Value) {
    let Some(spec) = child_mut(job, "spec") else { return };
    // With neither given, one pod has to succeed; with only parallelism, the job is a work queue.
    if !is_set(&spec["completions"]) && !is_set(&spec["parallelism"]) {
        set_default(spec, "completions", 1);
    }
    set_default(spec, "parallelism", 1);
    // With a limit for each index there is none for the whole, unless it is given.
    let limit = if is_set(&spec["backoffLimitPerIndex"]) { i32::MAX } else { 6 };
    set_default(spec, "backoffLimit", limit);
    set_default(spec, "completionMode", "NonIndexed");
    set_default(spec, "suspend", false);
    set_default(spec, "manualSelector", false);
    let replacement = if is_set(&spec["podFailurePolicy"]) { "Failed" } else { "TerminatingOrFailed" };
    set_if_zero(spec, "podReplacementPolicy", replacement);
    if let Some(policy) = child_mut(spec, "podFailurePolicy") {
        for rule in items_mut(policy, "rules") {
            for pattern in items_mut(rule, "onPodConditions") {
                set_if_zero(pattern, "status", "True");
            }
        }
    }
    if let Some(template) = spec.get_mut("template") {
        pod_template(template);
    }
}

pub(crate) fn cron_job(job: &mut Value) {
    let Some(spec) = child_mut(job, "spec") else { return };
    set_if_zero(spec, "concurrencyPolicy", "Allow");
    set_default(spec, "suspend", false);
    set_default(spec, "successfulJobsHistoryLimit", 3);
    set_default(spec, "failedJobsHistoryLimit", 1);
    // Of the job itself only the pods get their defaults here; the rest comes with each job.
    if let Some(template) = child_mut(spec, "jobTemplate").and_then(|job| child_mut(job, "spec"))
        && let Some(template) = template.get_mut("template")
    {
        pod_template(template);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_pod_has_to_succeed_unless_parallelism_says_otherwise() {
        let with = |spec: Value| {
            let mut object = json!({"spec": spec});
            job(&mut object);
            object["spec"].clone()
        };
        let plain = with(json!({}));
        assert_eq!((&plain["completions"], &plain["parallelism"]), (&json!(1), &json!(1)));
        assert_eq!((&plain["backoffLimit"], &plain["suspend"]), (&json!(6), &json!(false)));
        assert_eq!(plain["completionMode"], "NonIndexed");
        assert!(with(json!({"parallelism": 2}))["completions"].is_null());
        assert_eq!(with(json!({"completions": 3}))["parallelism"], 1);
        assert_eq!(with(json!({"backoffLimitPerIndex": 1}))["backoffLimit"], i32::MAX);
    }

    #[test]
    fn a_cron_job_keeps_three_good_and_one_bad_job() {
        let mut object = json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": []}}}}}});
        cron_job(&mut object);
        let spec = &object["spec"];
        assert_eq!(spec["concurrencyPolicy"], "Allow");
        assert_eq!((&spec["successfulJobsHistoryLimit"], &spec["failedJobsHistoryLimit"]), (&json!(3), &json!(1)));
        assert_eq!(spec["jobTemplate"]["spec"]["template"]["spec"]["dnsPolicy"], "ClusterFirst");
        assert!(spec["jobTemplate"]["spec"]["backoffLimit"].is_null());
    }
}
