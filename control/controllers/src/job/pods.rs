//! The pods of a Job: which have ended and how, which index they have, and how new ones look.

use k8s_openapi::api::batch::v1::{Job, JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use kube::ResourceExt;

use crate::meta;
use crate::pod_control;

/// Keeps a pod until its end has been counted.
pub(super) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
pub(super) const FAILURES_OF_INDEX: &str = "batch.kubernetes.io/job-index-failure-count";
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

pub(super) fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

pub(super) fn has_finalizer(pod: &Pod) -> bool {
    pod.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

pub(super) fn has_succeeded(pod: &Pod) -> bool {
    meta::phase(pod) == "Succeeded"
}

/// Whether a pod counts as a failure. One that is being deleted does, unless the job replaces only pods that have failed.
pub(super) fn has_failed(spec: &JobSpec, pod: &Pod) -> bool {
    match meta::phase(pod) {
        "Failed" => true,
        "Succeeded" => false,
        _ => meta::is_deleting(pod) && !replaces_failed_only(spec),
    }
}

pub(super) fn replaces_failed_only(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed")
}

pub(super) fn index(pod: &Pod) -> Option<i32> {
    pod.annotations().get(INDEX)?.parse().ok()
}

/// How often an index has failed when this pod, the newest of its index, is taken into account.
pub(super) fn failures_of_index(spec: &JobSpec, pod: &Pod) -> i32 {
    let before = pod.annotations().get(FAILURES_OF_INDEX).and_then(|text| text.parse().ok()).unwrap_or(0);
    let counts = has_failed(spec, pod) && !matches!(verdict(spec, pod), Some(Verdict::Ignore));
    before + i32::from(counts)
}

/// What a failure policy says of a failed pod.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    Ignore,
    Count,
    FailIndex,
    /// With the message of the condition.
    FailJob(String),
}

/// The first rule that matches decides; none means that the failure counts.
pub(super) fn verdict(spec: &JobSpec, pod: &Pod) -> Option<Verdict> {
    let policy = spec.pod_failure_policy.as_ref()?;
    policy.rules.iter().enumerate().find_map(|(number, rule)| {
        let what = matched(rule, pod)?;
        Some(match rule.action.as_str() {
            "Ignore" => Verdict::Ignore,
            "FailIndex" => Verdict::FailIndex,
            "FailJob" => Verdict::FailJob(format!("{what} matching FailJob rule at index {number}")),
            _ => Verdict::Count,
        })
    })
}

/// What of a pod a rule matches, in words.
fn matched(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let of_pod = format!("pod {}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    if let Some(codes) = &rule.on_exit_codes {
        let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
        return all
            .filter(|one| codes.container_name.as_ref().is_none_or(|name| *name == one.name))
            .filter_map(|one| Some((one, one.state.as_ref()?.terminated.as_ref()?.exit_code)))
            .find(|(_, code)| *code != 0 && holds(codes, *code))
            .map(|(one, code)| format!("Container {} for {of_pod} failed with exit code {code}", one.name));
    }
    let conditions = status.conditions.as_deref().unwrap_or_default();
    rule.on_pod_conditions.iter().flatten().find_map(|pattern| {
        let wanted = pattern.status.as_deref().unwrap_or("True");
        let found = conditions.iter().find(|one| one.type_ == pattern.type_ && one.status == wanted)?;
        let of_pod = of_pod.replacen("pod", "Pod", 1);
        Some(format!("{of_pod} has condition {}", found.type_))
    })
}

fn holds(codes: &PodFailurePolicyOnExitCodesRequirement, code: i32) -> bool {
    codes.values.contains(&code) == (codes.operator == "In")
}

/// A new pod, with an index if the job has them.
pub(super) fn pod(job: &Job, spec: &JobSpec, index: Option<i32>, failures_of_index: i32) -> Pod {
    let mut pod = pod_control::from_template(job, &spec.template);
    pod.metadata.finalizers.get_or_insert_default().push(FINALIZER.into());
    let Some(index) = index else { return pod };
    let name = job.name_any();
    pod.metadata.generate_name = Some(format!("{name}-{index}-"));
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.into(), index.to_string());
    if spec.backoff_limit_per_index.is_some() {
        annotations.insert(FAILURES_OF_INDEX.into(), failures_of_index.to_string());
    }
    pod.metadata.labels.get_or_insert_default().insert(INDEX.into(), index.to_string());
    if let Some(spec) = &mut pod.spec {
        spec.hostname = Some(format!("{name}-{index}"));
        let all = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
        for container in all {
            let variables = container.env.get_or_insert_default();
            if !variables.iter().any(|variable| variable.name == INDEX_VARIABLE) {
                variables.push(index_variable());
            }
        }
    }
    pod
}

fn index_variable() -> EnvVar {
    let field_ref = ObjectFieldSelector { field_path: format!("metadata.labels['{INDEX}']"), api_version: None };
    let value_from = EnvVarSource { field_ref: Some(field_ref), ..EnvVarSource::default() };
    EnvVar { name: INDEX_VARIABLE.into(), value: None, value_from: Some(value_from) }
}

#[cfg(test)]
mod tests {
    use super::{Verdict, pod, verdict};
    use k8s_openapi::api::batch::v1::Job;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    fn job(spec: Value) -> Job {
        let mut spec = spec;
        spec["template"] = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}});
        serde_json::from_value(json!({"metadata": {"name": "pi", "namespace": "n", "uid": "u"}, "spec": spec})).unwrap()
    }

    #[test]
    fn an_indexed_pod_knows_its_index() {
        let job = job(json!({"completionMode": "Indexed", "completions": 3}));
        let value = serde_json::to_value(pod(&job, job.spec.as_ref().unwrap(), Some(2), 0)).unwrap();
        assert_eq!(value["metadata"]["generateName"], "pi-2-");
        assert_eq!(value["metadata"]["annotations"], json!({super::INDEX: "2"}));
        assert_eq!(value["metadata"]["labels"][super::INDEX], "2");
        assert_eq!(value["metadata"]["finalizers"], json!([super::FINALIZER]));
        assert_eq!(value["spec"]["hostname"], "pi-2");
        let variable = &value["spec"]["containers"][0]["env"][0];
        assert_eq!(variable["name"], "JOB_COMPLETION_INDEX");
        assert_eq!(
            variable["valueFrom"]["fieldRef"]["fieldPath"],
            "metadata.labels['batch.kubernetes.io/job-completion-index']"
        );
    }

    #[test]
    fn the_first_matching_rule_of_a_failure_policy_decides() {
        let job = job(json!({"podFailurePolicy": {"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
        ]}}));
        let failed = |status: Value| -> Option<Verdict> {
            let pod: Pod =
                serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}, "status": status})).unwrap();
            verdict(job.spec.as_ref().unwrap(), &pod)
        };
        let exit = |code: i32| {
            json!({"phase": "Failed", "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false,
                "restartCount": 0, "state": {"terminated": {"exitCode": code}}}]})
        };
        let message = "Container c for pod n/p failed with exit code 42 matching FailJob rule at index 1";
        assert_eq!(failed(exit(42)), Some(Verdict::FailJob(message.into())));
        assert_eq!(failed(exit(1)), None);
        let mut disrupted = exit(42);
        disrupted["conditions"] = json!([{"type": "DisruptionTarget", "status": "True"}]);
        assert_eq!(failed(disrupted), Some(Verdict::Ignore));
    }
}
