//! Rules for Deployments, ReplicaSets, DaemonSets and ControllerRevisions.

use serde_json::Value;

use super::errors::{Errors, NOT_NEGATIVE, Path};
use super::meta::{self, number};
use super::pod;
use crate::names;
use crate::selector::LabelSelector;
use crate::value::{int, is_set, same, text};

pub(crate) fn deployment(deployment: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &deployment["spec"];
    workload(spec, &path, errors);
    strategy(&spec["strategy"], &path.at("strategy"), errors);
    errors.not_negative(&path.at("revisionHistoryLimit"), &spec["revisionHistoryLimit"]);
    if let Some(deadline) = number(&spec["progressDeadlineSeconds"]) {
        let path = path.at("progressDeadlineSeconds");
        if deadline < 0 {
            errors.invalid(&path, deadline, NOT_NEGATIVE);
        }
        if deadline <= int(&spec["minReadySeconds"]) {
            errors.invalid(&path, deadline, "must be greater than minReadySeconds");
        }
    }
}

pub(crate) fn replica_set(set: &Value, errors: &mut Errors) {
    workload(&set["spec"], &Path::new("spec"), errors);
}

/// Its selector is a plain map, which may change.
pub(crate) fn replication_controller(controller: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &controller["spec"];
    errors.not_negative(&path.at("minReadySeconds"), &spec["minReadySeconds"]);
    let selector = spec["selector"].as_object().filter(|selector| !selector.is_empty());
    if selector.is_none() {
        errors.required(&path.at("selector"), "");
    }
    if is_set(&spec["replicas"]) {
        errors.not_negative(&path.at("replicas"), &spec["replicas"]);
    } else {
        errors.required(&path.at("replicas"), "");
    }
    let path = path.at("template");
    let template = &spec["template"];
    if !is_set(template) {
        errors.required(&path, "");
        return;
    }
    let labels = &template["metadata"]["labels"];
    if selector.is_some_and(|selector| selector.iter().any(|(key, value)| labels[key] != *value)) {
        let detail = "`selector` does not match template `labels`";
        errors.invalid(&path.at("metadata").at("labels"), labels.clone(), detail);
    }
    pod::template(template, &path, errors);
    endless(template, &path, "ReplicationController", errors);
}

/// Pods that are replaced when they end must not end by themselves.
fn endless(template: &Value, path: &Path, kind: &str, errors: &mut Errors) {
    let path = path.at("spec");
    if text(&template["spec"]["restartPolicy"]) != "Always" {
        errors.one_of(&path.at("restartPolicy"), &template["spec"]["restartPolicy"], &["Always"]);
    }
    if is_set(&template["spec"]["activeDeadlineSeconds"]) {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.forbidden(&path.at("activeDeadlineSeconds"), &detail);
    }
}

/// The selector ties pods to their owner for as long as both live.
pub(crate) fn update(old: &Value, new: &Value, errors: &mut Errors) {
    errors.immutable(&Path::new("spec").at("selector"), &old["spec"]["selector"], &new["spec"]["selector"]);
}

pub(crate) fn daemon_set(set: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &set["spec"];
    let selector = &spec["selector"];
    if !is_set(selector) {
        errors.required(&path.at("selector"), "");
    } else {
        meta::selector(selector, &path.at("selector"), errors);
        if meta::is_empty_selector(selector) {
            errors.invalid(&path.at("selector"), selector.clone(), "empty selector is invalid for daemonset");
        }
    }
    template(spec, &path.at("template"), errors);
    errors.not_negative(&path.at("minReadySeconds"), &spec["minReadySeconds"]);
    errors.not_negative(&path.at("revisionHistoryLimit"), &spec["revisionHistoryLimit"]);
    daemon_strategy(&spec["updateStrategy"], &path.at("updateStrategy"), errors);
}

fn daemon_strategy(strategy: &Value, path: &Path, errors: &mut Errors) {
    let rolling = &strategy["rollingUpdate"];
    match text(&strategy["type"]) {
        "OnDelete" => {}
        "RollingUpdate" if !is_set(rolling) => errors.required(&path.at("rollingUpdate"), ""),
        "RollingUpdate" => {
            let path = path.at("rollingUpdate");
            for field in ["maxUnavailable", "maxSurge"] {
                amount(&rolling[field], &path.at(field), errors);
                at_most_all(&rolling[field], &path.at(field), errors);
            }
            // Of old and new pods on one node exactly one kind may wait for the other.
            match (is_none(&rolling["maxUnavailable"]), is_none(&rolling["maxSurge"])) {
                (true, true) => {
                    let detail = "cannot be 0 when maxSurge is 0";
                    errors.invalid(&path.at("maxUnavailable"), rolling["maxUnavailable"].clone(), detail);
                }
                (false, false) => {
                    let detail = "may not be set when maxUnavailable is non-zero";
                    errors.invalid(&path.at("maxSurge"), rolling["maxSurge"].clone(), detail);
                }
                _ => {}
            }
        }
        other => errors.not_supported(&path.at("type"), other, &["OnDelete", "RollingUpdate"]),
    }
}

/// No pods at all, as a count or a percentage.
fn is_none(value: &Value) -> bool {
    matches!(value, Value::Null) || value == 0 || value == "0%"
}

fn workload(spec: &Value, path: &Path, errors: &mut Errors) {
    errors.not_negative(&path.at("replicas"), &spec["replicas"]);
    errors.not_negative(&path.at("minReadySeconds"), &spec["minReadySeconds"]);
    let selector = &spec["selector"];
    if !is_set(selector) {
        errors.required(&path.at("selector"), "");
    } else {
        meta::selector(selector, &path.at("selector"), errors);
        if meta::is_empty_selector(selector) {
            errors.invalid(&path.at("selector"), selector.clone(), "empty selector is invalid for deployment");
        }
    }
    template(spec, &path.at("template"), errors);
}

pub(super) fn template(spec: &Value, path: &Path, errors: &mut Errors) {
    let template = &spec["template"];
    if !is_set(template) {
        errors.required(path, "");
        return;
    }
    let selector = &spec["selector"];
    if is_set(selector)
        && !meta::is_empty_selector(selector)
        && let Ok(parsed) = LabelSelector::from_object(selector)
    {
        let labels = &template["metadata"]["labels"];
        if !parsed.matches(labels.as_object()) {
            let detail = "`selector` does not match template `labels`";
            errors.invalid(&path.at("metadata").at("labels"), labels.clone(), detail);
        }
    }
    pod::template(template, path, errors);
    endless(template, path, "ReplicaSet", errors);
}

fn strategy(strategy: &Value, path: &Path, errors: &mut Errors) {
    let rolling = &strategy["rollingUpdate"];
    match text(&strategy["type"]) {
        "Recreate" if is_set(rolling) => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            errors.forbidden(&path.at("rollingUpdate"), detail);
        }
        "Recreate" => {}
        "RollingUpdate" if !is_set(rolling) => {
            errors.required(&path.at("rollingUpdate"), "this should be defaulted and never be nil");
        }
        "RollingUpdate" => rolling_update(rolling, &path.at("rollingUpdate"), errors),
        other => errors.not_supported(&path.at("type"), other, &["Recreate", "RollingUpdate"]),
    }
}

fn rolling_update(rolling: &Value, path: &Path, errors: &mut Errors) {
    for field in ["maxUnavailable", "maxSurge"] {
        amount(&rolling[field], &path.at(field), errors);
    }
    if is_none(&rolling["maxUnavailable"]) && is_none(&rolling["maxSurge"]) {
        let value = rolling["maxUnavailable"].clone();
        errors.invalid(&path.at("maxUnavailable"), value, "may not be 0 when `maxSurge` is 0");
    }
    at_most_all(&rolling["maxUnavailable"], &path.at("maxUnavailable"), errors);
}

pub(super) fn at_most_all(value: &Value, path: &Path, errors: &mut Errors) {
    if let Some(percent) = text(value).strip_suffix('%')
        && percent.parse::<u32>().is_ok_and(|percent| percent > 100)
    {
        errors.invalid(path, value.clone(), "must not be greater than 100%");
    }
}

/// A count or a percentage.
pub(super) fn amount(value: &Value, path: &Path, errors: &mut Errors) {
    match value {
        Value::String(text) => {
            if let Some(complaint) = names::percent(text).first() {
                errors.invalid(path, text.as_str(), complaint);
            }
        }
        _ => errors.not_negative(path, value),
    }
}

pub(crate) fn controller_revision(revision: &Value, errors: &mut Errors) {
    if !is_set(&revision["data"]) {
        errors.required(&Path::new("data"), "data is mandatory");
    }
    errors.not_negative(&Path::new("revision"), &revision["revision"]);
}

pub(crate) fn controller_revision_update(old: &Value, new: &Value, errors: &mut Errors) {
    if !same(&old["data"], &new["data"]) {
        errors.invalid(&Path::new("data"), new["data"].clone(), super::errors::IMMUTABLE);
    }
}

/// The spec of a Scale.
pub(crate) fn scale(scale: &Value, errors: &mut Errors) {
    errors.not_negative(&Path::new("spec").at("replicas"), &scale["spec"]["replicas"]);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::errors::texts;

    fn check(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut object = json!({"spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        }});
        change(&mut object["spec"]);
        crate::defaults::deployment(&mut object);
        texts(|errors| deployment(&object, errors))
    }

    #[test]
    fn a_good_deployment_has_no_complaints() {
        assert_eq!(check(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn mistakes_in_deployments_are_named() {
        assert_eq!(
            check(|spec| spec["replicas"] = (-1).into()),
            ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]
        );
        assert_eq!(
            check(|spec| spec["template"]["metadata"]["labels"] = json!({"app": "other"})),
            [
                "spec.template.metadata.labels: Invalid value: {\"app\":\"other\"}: `selector` does not match template `labels`"
            ]
        );
        assert_eq!(check(|spec| spec["selector"] = Value::Null), ["spec.selector: Required value"]);
        assert_eq!(
            check(|spec| spec["selector"] = json!({})),
            ["spec.selector: Invalid value: {}: empty selector is invalid for deployment"]
        );
        assert_eq!(
            check(|spec| spec["template"]["spec"]["restartPolicy"] = "Never".into()),
            ["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""]
        );
        assert_eq!(
            check(|spec| spec["strategy"] = json!({"type": "Recreate", "rollingUpdate": {}})),
            ["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"]
        );
        assert_eq!(
            check(|spec| spec["strategy"] = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}})),
            ["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0"]
        );
        assert_eq!(
            check(|spec| spec["minReadySeconds"] = 600.into()),
            ["spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"]
        );
    }

    #[test]
    fn mistakes_in_replication_controllers_are_named() {
        let check = |change: &dyn Fn(&mut Value)| {
            let mut object = json!({"spec": {"selector": {"app": "web"}, "template": {
                "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
            change(&mut object["spec"]);
            crate::defaults::replication_controller(&mut object);
            texts(|errors| replication_controller(&object, errors))
        };
        assert_eq!(check(&|_| {}), Vec::<String>::new());
        assert_eq!(
            check(&|spec| spec["selector"]["app"] = "other".into()),
            [
                "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`"
            ]
        );
        assert_eq!(
            check(&|spec| {
                spec.take();
                spec["replicas"] = (-1).into();
            }),
            [
                "spec.selector: Required value",
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.template: Required value",
            ]
        );
        assert_eq!(
            check(&|spec| spec["template"]["spec"]["activeDeadlineSeconds"] = 5.into()),
            [
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicationController is not Supported"
            ]
        );
    }

    #[test]
    fn mistakes_in_daemon_sets_are_named() {
        let check = |strategy: Value| {
            let mut object = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "updateStrategy": strategy,
                "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
            crate::defaults::daemon_set(&mut object);
            texts(|errors| daemon_set(&object, errors))
        };
        assert_eq!(check(json!({})), Vec::<String>::new());
        assert_eq!(check(json!({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}})), Vec::<String>::new());
        assert_eq!(
            check(json!({"rollingUpdate": {"maxUnavailable": 0}})),
            ["spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0 when maxSurge is 0"]
        );
        assert_eq!(
            check(json!({"rollingUpdate": {"maxSurge": 1}})),
            [
                "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero"
            ]
        );
    }

    #[test]
    fn the_selector_is_immutable() {
        let old = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}}});
        let new = json!({"spec": {"selector": {"matchLabels": {"a": "c"}}}});
        assert_eq!(
            texts(|errors| update(&old, &new, errors)),
            ["spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"c\"}}: field is immutable"]
        );
    }
}
