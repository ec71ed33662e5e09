//! Rules for Jobs and CronJobs.

use serde_json::{Value, json};

use super::errors::{Errors, Path};
use super::meta;
use super::pod;
use crate::schedule::Schedule;
use crate::selector::LabelSelector;
use crate::strategy::job::{CONTROLLER_UID, JOB_NAME, OLD_CONTROLLER_UID, OLD_JOB_NAME};
use crate::value::{copy, int, is_set, items, same, set, text};

/// More would make the list of finished indexes too large to keep.
const INDEXED_PARALLELISM_MAX: i64 = 100_000;
/// A CronJob's name plus `-` and ten digits must be a pod's name prefix.
const CRON_NAME_LENGTH_MAX: usize = 52;
const FAILURE_RULES_MAX: usize = 20;

pub(crate) fn job(job: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &job["spec"];
    generated_selector(job, &path, errors);
    self::spec(spec, &path, errors);
    let selector = &spec["selector"];
    if !is_set(selector) {
        errors.required(&path.at("selector"), "");
        return;
    }
    meta::selector(selector, &path.at("selector"), errors);
    let labels = &spec["template"]["metadata"]["labels"];
    if LabelSelector::from_object(selector).is_ok_and(|parsed| !parsed.matches(labels.as_object())) {
        let detail = "`selector` does not match template `labels`";
        errors.invalid(&path.at("template.metadata.labels"), labels.clone(), detail);
    }
}

/// Labels and selector that the server made must be what it made.
fn generated_selector(job: &Value, path: &Path, errors: &mut Errors) {
    let spec = &job["spec"];
    if spec["manualSelector"] == true || !is_set(&spec["selector"]) {
        return;
    }
    let template = &spec["template"];
    let (name, uid) = (crate::meta::name(job), crate::meta::uid(job));
    for (label, value) in [(OLD_CONTROLLER_UID, uid), (CONTROLLER_UID, uid), (OLD_JOB_NAME, name), (JOB_NAME, name)] {
        let path = path.at("template.metadata.labels").key(label);
        match crate::meta::label(template, label) {
            None => errors.required(&path, &format!("must be '{value}'")),
            Some(found) if found != value => errors.invalid(&path, found, &format!("must be '{value}'")),
            Some(_) => {}
        }
    }
    let expected = json!({OLD_CONTROLLER_UID: uid, CONTROLLER_UID: uid, OLD_JOB_NAME: name, JOB_NAME: name});
    if LabelSelector::from_object(&spec["selector"]).is_ok_and(|selector| !selector.matches(expected.as_object())) {
        errors.invalid(&path.at("selector"), spec["selector"].clone(), "`selector` not auto-generated");
    }
}

fn spec(spec: &Value, path: &Path, errors: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        errors.not_negative(&path.at(field), &spec[field]);
    }
    completion(spec, path, errors);
    if let Some(policy) = spec.get("podFailurePolicy").filter(|policy| is_set(policy)) {
        failure_policy(spec, policy, &path.at("podFailurePolicy"), errors);
    }
    if is_set(&spec["successPolicy"]) {
        if spec["completionMode"] != "Indexed" {
            errors.invalid(
                &path.at("successPolicy"),
                spec["successPolicy"].clone(),
                "requires indexed completion mode",
            );
        }
        if items(&spec["successPolicy"]["rules"]).is_empty() {
            let detail = "at least one rules must be specified when the successPolicy is specified";
            errors.required(&path.at("successPolicy").at("rules"), detail);
        }
    }
    if is_set(&spec["template"]) {
        pod::template(&spec["template"], &path.at("template"), errors);
    }
    let policy = &spec["template"]["spec"]["restartPolicy"];
    let path = path.at("template.spec.restartPolicy");
    match text(policy) {
        "OnFailure" | "Never" => {}
        "" | "Always" => errors.required(&path, "valid values: \"OnFailure\", \"Never\""),
        other => errors.not_supported(&path, other, &["OnFailure", "Never"]),
    }
}

fn completion(spec: &Value, path: &Path, errors: &mut Errors) {
    let indexed = match text(&spec["completionMode"]) {
        "Indexed" => true,
        "NonIndexed" | "" => false,
        other => {
            errors.not_supported(&path.at("completionMode"), other, &["Indexed", "NonIndexed"]);
            false
        }
    };
    if indexed {
        if !is_set(&spec["completions"]) {
            errors.required(&path.at("completions"), "when completion mode is Indexed");
        }
        let parallelism = int(&spec["parallelism"]);
        if parallelism > INDEXED_PARALLELISM_MAX {
            let detail =
                format!("must be less than or equal to {INDEXED_PARALLELISM_MAX} when completion mode is Indexed");
            errors.invalid(&path.at("parallelism"), parallelism, &detail);
        }
    } else if is_set(&spec["backoffLimitPerIndex"]) {
        let value = spec["backoffLimitPerIndex"].clone();
        errors.invalid(&path.at("backoffLimitPerIndex"), value, "requires indexed completion mode");
    }
    if is_set(&spec["maxFailedIndexes"]) && !is_set(&spec["backoffLimitPerIndex"]) {
        errors.required(&path.at("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    if is_set(&spec["podReplacementPolicy"]) {
        let supported =
            if is_set(&spec["podFailurePolicy"]) { &["Failed"][..] } else { &["Failed", "TerminatingOrFailed"] };
        errors.one_of(&path.at("podReplacementPolicy"), &spec["podReplacementPolicy"], supported);
    }
}

fn failure_policy(spec: &Value, policy: &Value, path: &Path, errors: &mut Errors) {
    if spec["template"]["spec"]["restartPolicy"] != "Never" {
        let value = spec["template"]["spec"]["restartPolicy"].clone();
        let detail = "only \"Never\" is supported when podFailurePolicy is specified";
        errors.invalid(&Path::new("spec.template.spec.restartPolicy"), value, detail);
    }
    let rules = items(&policy["rules"]);
    if rules.len() > FAILURE_RULES_MAX {
        errors.too_many(&path.at("rules"), rules.len(), FAILURE_RULES_MAX);
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = path.at("rules").index(index);
        let actions: &[&str] = if is_set(&spec["backoffLimitPerIndex"]) {
            &["Count", "FailIndex", "FailJob", "Ignore"]
        } else {
            &["Count", "FailJob", "Ignore"]
        };
        errors.required_one_of(&path.at("action"), &rule["action"], actions);
        let (codes, conditions) = (&rule["onExitCodes"], items(&rule["onPodConditions"]));
        match (is_set(codes), conditions.is_empty()) {
            (true, false) => {
                errors.invalid(&path, rule.clone(), "specifying both OnExitCodes and OnPodConditions is not supported");
            }
            (false, true) => {
                errors.invalid(&path, rule.clone(), "specifying one of OnExitCodes and OnPodConditions is required");
            }
            (true, true) => exit_codes(codes, &path.at("onExitCodes"), errors),
            (false, false) => {}
        }
    }
}

fn exit_codes(codes: &Value, path: &Path, errors: &mut Errors) {
    errors.required_one_of(&path.at("operator"), &codes["operator"], &["In", "NotIn"]);
    let values = items(&codes["values"]);
    if values.is_empty() {
        errors.invalid(&path.at("values"), json!([]), "at least one value is required");
    }
    for (index, value) in values.iter().enumerate() {
        if codes["operator"] == "In" && *value == 0 {
            errors.invalid(&path.at("values").index(index), 0, "must not be 0 for the In operator");
        }
    }
}

pub(crate) fn update(old: &Value, new: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let (before, after) = (&old["spec"], &new["spec"]);
    // An indexed job may grow and shrink when both sizes move together.
    let completions = &after["completions"];
    if after["completionMode"] != "Indexed" {
        errors.immutable(&path.at("completions"), &before["completions"], completions);
    } else if is_set(completions)
        && !same(&before["completions"], completions)
        && !same(completions, &after["parallelism"])
    {
        let detail = "can only be modified in tandem with spec.parallelism";
        errors.invalid(&path.at("completions"), completions.clone(), detail);
    }
    errors.immutable(&path.at("selector"), &before["selector"], &after["selector"]);
    let mut template = after["template"].clone();
    if before["suspend"] == true && !is_set(&old["status"]["startTime"]) {
        keep_scheduling(&before["template"], &mut template);
    }
    errors.immutable(&path.at("template"), &before["template"], &template);
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        errors.immutable(&path.at(field), &before[field], &after[field]);
    }
}

/// Where the pods of a job that has not started run may still be decided.
fn keep_scheduling(old: &Value, template: &mut Value) {
    if !template["spec"].is_object() {
        return;
    }
    for field in ["nodeSelector", "tolerations", "schedulingGates", "affinity"] {
        copy(&old["spec"], &mut template["spec"], field);
    }
    let mut metadata = template["metadata"].clone();
    if !metadata.is_object() {
        metadata = json!({});
    }
    for field in ["labels", "annotations"] {
        copy(&old["metadata"], &mut metadata, field);
    }
    set(template, "metadata", metadata);
}

pub(crate) fn cron_job(job: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &job["spec"];
    if crate::meta::name(job).len() > CRON_NAME_LENGTH_MAX {
        let detail = format!("must be no more than {CRON_NAME_LENGTH_MAX} characters");
        errors.invalid(&Path::new("metadata.name"), crate::meta::name(job), &detail);
    }
    schedule(spec, &path, errors);
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        errors.not_negative(&path.at(field), &spec[field]);
    }
    errors.required_one_of(&path.at("concurrencyPolicy"), &spec["concurrencyPolicy"], &["Allow", "Forbid", "Replace"]);
    let path = path.at("jobTemplate.spec");
    let job = &spec["jobTemplate"]["spec"];
    self::spec(job, &path, errors);
    if is_set(&job["selector"]) {
        errors.invalid(&path.at("selector"), job["selector"].clone(), "`selector` will be auto-generated");
    }
    if job["manualSelector"] == true {
        errors.not_supported(&path.at("manualSelector"), true, &["nil", "false"]);
    }
}

fn schedule(spec: &Value, path: &Path, errors: &mut Errors) {
    let schedule = text(&spec["schedule"]);
    if schedule.is_empty() {
        errors.required(&path.at("schedule"), "");
    } else if schedule.contains("TZ") {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.invalid(&path.at("schedule"), schedule, detail);
    } else if let Err(error) = Schedule::parse(schedule, None) {
        errors.invalid(&path.at("schedule"), schedule, &error.to_string());
    }
    let zone = &spec["timeZone"];
    if is_set(zone) {
        let path = path.at("timeZone");
        match text(zone) {
            "" => errors.invalid(&path, "", "timeZone must be nil or non-empty string"),
            "Local" | "local" => {
                errors.invalid(
                    &path,
                    zone.clone(),
                    "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
                );
            }
            name => {
                if let Err(error) = Schedule::parse("@daily", Some(name)) {
                    errors.invalid(&path, name, &error.to_string());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validation::errors::texts;

    fn made(change: impl FnOnce(&mut Value)) -> Value {
        let mut object = json!({"metadata": {"name": "pi", "uid": "u"}, "spec": {
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}},
        }});
        change(&mut object["spec"]);
        crate::defaults::job(&mut object);
        crate::strategy::job::create(&mut object);
        object
    }

    fn check(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let object = made(change);
        texts(|errors| job(&object, errors))
    }

    #[test]
    fn mistakes_in_jobs_are_named() {
        assert_eq!(check(|_| {}), Vec::<String>::new());
        assert_eq!(
            check(|spec| spec["template"]["spec"]["restartPolicy"] = "Always".into()),
            ["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""]
        );
        assert_eq!(
            check(|spec| spec["backoffLimit"] = (-1).into()),
            ["spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0"]
        );
        assert_eq!(
            check(|spec| {
                spec["completionMode"] = "Indexed".into();
                spec["parallelism"] = 1.into();
            }),
            ["spec.completions: Required value: when completion mode is Indexed"]
        );
        let clash = check(|spec| spec["selector"] = json!({"matchLabels": {"a": "b"}}));
        assert_eq!(
            clash[0],
            "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\"}}: `selector` not auto-generated"
        );
    }

    #[test]
    fn a_job_that_has_not_started_may_still_be_placed() {
        let place = |job: &mut Value| job["spec"]["template"]["spec"]["nodeSelector"] = json!({"a": "b"});
        let running = made(|_| {});
        let mut placed = running.clone();
        place(&mut placed);
        assert_eq!(texts(|errors| update(&running, &placed, errors)).len(), 1);
        let suspended = made(|spec| spec["suspend"] = true.into());
        let mut placed = suspended.clone();
        place(&mut placed);
        assert_eq!(texts(|errors| update(&suspended, &placed, errors)), Vec::<String>::new());
    }

    #[test]
    fn mistakes_in_cron_jobs_are_named() {
        let check = |change: &dyn Fn(&mut Value)| {
            let mut object = json!({"metadata": {"name": "tick"}, "spec": {"schedule": "*/5 * * * *", "jobTemplate": {
                "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}}});
            change(&mut object["spec"]);
            crate::defaults::cron_job(&mut object);
            texts(|errors| cron_job(&object, errors))
        };
        assert_eq!(check(&|_| {}), Vec::<String>::new());
        assert_eq!(check(&|spec| spec["schedule"] = "".into()), ["spec.schedule: Required value"]);
        assert_eq!(
            check(&|spec| spec["schedule"] = "* *".into()),
            ["spec.schedule: Invalid value: \"* *\": expected exactly 5 fields, found 2: [* *]"]
        );
        assert_eq!(
            check(&|spec| spec["timeZone"] = "Mars/Base".into()),
            ["spec.timeZone: Invalid value: \"Mars/Base\": unknown time zone Mars/Base"]
        );
        assert_eq!(
            check(&|spec| spec["concurrencyPolicy"] = "x".into()),
            ["spec.concurrencyPolicy: Unsupported value: \"x\": supported values: \"Allow\", \"Forbid\", \"Replace\""]
        );
    }
}
