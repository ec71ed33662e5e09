//! Rules for StatefulSets.

use serde_json::Value;

use super::errors::{Errors, Path};
use super::{meta, workload};
use crate::value::{copy, is_set, items, same, text};

const ORDERED: &str = "OrderedReady";
const PARALLEL: &str = "Parallel";
const ROLLING: &str = "RollingUpdate";
const ON_DELETE: &str = "OnDelete";

/// What may change after creation; the rest is bound to the pods that exist.
const MUTABLE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];
const FORBIDDEN: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
    'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";

pub(crate) fn stateful_set(set: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    let spec = &set["spec"];
    let policy = &spec["podManagementPolicy"];
    if !matches!(text(policy), ORDERED | PARALLEL) {
        let detail = format!("must be '{ORDERED}' or '{PARALLEL}'");
        errors.invalid(&path.at("podManagementPolicy"), policy.clone(), &detail);
    }
    strategy(&spec["updateStrategy"], &path.at("updateStrategy"), errors);
    for field in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        errors.not_negative(&path.at(field), &spec[field]);
    }
    errors.not_negative(&path.at("ordinals").at("start"), &spec["ordinals"]["start"]);
    retention(&spec["persistentVolumeClaimRetentionPolicy"], &path, errors);
    if !items(&spec["volumeClaimTemplates"]).is_empty() {
        // Better refused than a set whose pods wait for ever for claims that nobody can make.
        errors.forbidden(&path.at("volumeClaimTemplates"), "this API server does not serve persistentvolumeclaims");
    }
    if !is_set(&spec["selector"]) {
        errors.required(&path.at("selector"), "");
    } else {
        meta::selector(&spec["selector"], &path.at("selector"), errors);
        if meta::is_empty_selector(&spec["selector"]) {
            let detail = "empty selector is invalid for statefulset";
            errors.invalid(&path.at("selector"), spec["selector"].clone(), detail);
        }
    }
    workload::template(spec, &path.at("template"), errors);
}

fn strategy(strategy: &Value, path: &Path, errors: &mut Errors) {
    let rolling = &strategy["rollingUpdate"];
    match text(&strategy["type"]) {
        "" => errors.required(path, ""),
        ON_DELETE if is_set(rolling) => {
            let detail = format!("only allowed for updateStrategy '{ROLLING}'");
            errors.invalid(&path.at("rollingUpdate"), rolling.clone(), &detail);
        }
        ON_DELETE => {}
        ROLLING => {
            let path = path.at("rollingUpdate");
            errors.not_negative(&path.at("partition"), &rolling["partition"]);
            if is_set(&rolling["maxUnavailable"]) {
                workload::amount(&rolling["maxUnavailable"], &path.at("maxUnavailable"), errors);
            }
        }
        _ => {
            let detail = format!("must be '{ROLLING}' or '{ON_DELETE}'");
            errors.invalid(path, strategy.clone(), &detail);
        }
    }
}

fn retention(policy: &Value, path: &Path, errors: &mut Errors) {
    let path = path.at("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        if is_set(policy) {
            errors.one_of(&path.at(field), &policy[field], &["Retain", "Delete"]);
        }
    }
}

pub(crate) fn update(old: &Value, new: &Value, errors: &mut Errors) {
    let (old, mut rest) = (&old["spec"], new["spec"].clone());
    for field in MUTABLE {
        copy(old, &mut rest, field);
    }
    if !same(old, &rest) {
        errors.forbidden(&Path::new("spec"), FORBIDDEN);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validation::errors::texts;

    fn set(change: impl FnOnce(&mut Value)) -> Value {
        let mut object = json!({"spec": {
            "serviceName": "web", "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        }});
        change(&mut object["spec"]);
        crate::defaults::stateful_set(&mut object);
        object
    }

    fn check(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let object = set(change);
        texts(|errors| stateful_set(&object, errors))
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(check(|_| {}), Vec::<String>::new());
        assert_eq!(
            check(|spec| spec["podManagementPolicy"] = "x".into()),
            ["spec.podManagementPolicy: Invalid value: \"x\": must be 'OrderedReady' or 'Parallel'"]
        );
        assert_eq!(
            check(|spec| spec["updateStrategy"] = json!({"type": "OnDelete", "rollingUpdate": {"partition": 1}})),
            [
                "spec.updateStrategy.rollingUpdate: Invalid value: {\"partition\":1}: only allowed for updateStrategy 'RollingUpdate'"
            ]
        );
        assert_eq!(
            check(|spec| spec["selector"] = json!({})),
            ["spec.selector: Invalid value: {}: empty selector is invalid for statefulset"]
        );
        assert_eq!(
            check(|spec| spec["volumeClaimTemplates"] = json!([{}])),
            ["spec.volumeClaimTemplates: Forbidden: this API server does not serve persistentvolumeclaims"]
        );
    }

    #[test]
    fn only_some_fields_may_change() {
        let old = set(|_| {});
        let new = set(|spec| {
            spec["replicas"] = 3.into();
            spec["template"]["metadata"]["annotations"] = json!({"a": "b"});
        });
        assert_eq!(texts(|errors| update(&old, &new, errors)), Vec::<String>::new());
        let new = set(|spec| spec["serviceName"] = "other".into());
        assert_eq!(texts(|errors| update(&old, &new, errors)), [format!("spec: Forbidden: {FORBIDDEN}")]);
    }
}
