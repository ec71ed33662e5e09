//! Jobs: the selector and labels by which a new job finds its pods.

use serde_json::{Value, json};

use crate::meta;
use crate::value::{child_mut, set};

pub(crate) const JOB_NAME: &str = "batch.kubernetes.io/job-name";
pub(crate) const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
/// The same without a prefix, as pods of jobs were labelled at first.
pub(crate) const OLD_JOB_NAME: &str = "job-name";
pub(crate) const OLD_CONTROLLER_UID: &str = "controller-uid";

/// Unless the client brings a selector of its own, the job's uid selects.
pub(crate) fn create(job: &mut Value) {
    let (name, uid) = (meta::name(job).to_owned(), meta::uid(job).to_owned());
    let Some(spec) = child_mut(job, "spec") else { return };
    if spec["manualSelector"] == true {
        return;
    }
    let Some(template) = child_mut(spec, "template") else { return };
    for (label, value) in [(OLD_JOB_NAME, &name), (OLD_CONTROLLER_UID, &uid), (JOB_NAME, &name), (CONTROLLER_UID, &uid)]
    {
        // What a client set itself is judged by validation.
        if meta::label(template, label).is_none() {
            meta::set_label(template, label, value);
        }
    }
    // A selector that a client sent along is kept, so that validation can refuse it.
    if spec["selector"].is_null() {
        set(spec, "selector", json!({"matchLabels": {CONTROLLER_UID: uid}}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_selects_by_its_uid() {
        let mut job =
            json!({"metadata": {"name": "pi", "uid": "u"}, "spec": {"template": {"metadata": {"labels": {"a": "b"}}}}});
        create(&mut job);
        assert_eq!(job["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}}));
        assert_eq!(
            job["spec"]["template"]["metadata"]["labels"],
            json!({"a": "b", "job-name": "pi", "controller-uid": "u",
                "batch.kubernetes.io/job-name": "pi", "batch.kubernetes.io/controller-uid": "u"})
        );
        let manual = json!({"metadata": {"name": "pi", "uid": "u"},
            "spec": {"manualSelector": true, "selector": {"matchLabels": {"x": "y"}}, "template": {}}});
        let mut job = manual.clone();
        create(&mut job);
        assert_eq!(job, manual);
    }
}
