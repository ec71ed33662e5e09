//! Deletion: grace, finalizers, and whether an object goes at once.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{definition, namespace};
use crate::custom;
use crate::meta;
use crate::registry::Resource;
use crate::schema::time::seconds;
use crate::value::{int, is_set, is_zero, items, text};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// What happens to the objects that the deleted one owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// What the client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    pub propagation: Option<Propagation>,
}

/// What to do with the object after [`prepare_for_delete`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// Take it out of the store.
    Remove,
    /// Write it back: somebody has to finish first.
    Update,
    /// It is being deleted already and nothing changed.
    Unchanged,
}

/// Marks an object as deleted and says whether it can go at once.
pub fn prepare_for_delete(resource: &Resource, object: &mut Value, options: DeleteOptions, now: Timestamp) -> Deletion {
    let before = object.clone();
    if custom::is_definition(resource) && meta::deletion_timestamp(object).is_none() {
        definition::begin_deletion(object, now);
    }
    propagate(object, options.propagation);
    let grace = grace_seconds(resource, object, options);
    let waits = grace > 0 || !meta::finalizers(object).is_empty() || holds_contents(resource, object);
    if !waits {
        return Deletion::Remove;
    }
    mark(object, grace, now);
    if resource.kind == "Namespace" && resource.group.is_empty() {
        meta::child_mut(object, "status").insert("phase".into(), "Terminating".into());
    }
    if *object == before { Deletion::Unchanged } else { Deletion::Update }
}

/// Whether nothing keeps a deleted object any more, after an update.
#[must_use]
pub fn is_finished(resource: &Resource, object: &Value) -> bool {
    meta::deletion_timestamp(object).is_some()
        && meta::finalizers(object).is_empty()
        && meta::deletion_grace_period_seconds(object).unwrap_or(0) == 0
        && !holds_contents(resource, object)
}

fn holds_contents(resource: &Resource, object: &Value) -> bool {
    resource.kind == "Namespace"
        && resource.group.is_empty()
        && items(&object["spec"]["finalizers"]).iter().any(|finalizer| finalizer == namespace::FINALIZER)
}

/// How the owned objects are treated is written down as a finalizer, for the garbage collector.
fn propagate(object: &mut Value, propagation: Option<Propagation>) {
    let Some(propagation) = propagation else { return };
    let wanted = match propagation {
        Propagation::Background => None,
        Propagation::Foreground => Some(FOREGROUND),
        Propagation::Orphan => Some(ORPHAN),
    };
    let finalizers: Vec<String> = meta::finalizers(object)
        .into_iter()
        .filter(|finalizer| ![ORPHAN, FOREGROUND].contains(finalizer))
        .chain(wanted)
        .map(str::to_owned)
        .collect();
    let finalizers: Vec<&str> = finalizers.iter().map(String::as_str).collect();
    meta::set_finalizers(object, &finalizers);
}

/// Only what runs somewhere needs time; a pod that never got a node or has ended does not.
fn grace_seconds(resource: &Resource, object: &Value, options: DeleteOptions) -> i64 {
    if !resource.graceful_deletion {
        return 0;
    }
    let ended = matches!(text(&object["status"]["phase"]), "Succeeded" | "Failed");
    if is_zero(&object["spec"]["nodeName"]) || ended {
        return 0;
    }
    let own = &object["spec"]["terminationGracePeriodSeconds"];
    let own = if is_set(own) { int(own) } else { 30 };
    let asked = options.grace_period_seconds.unwrap_or(own);
    if asked < 0 { 1 } else { asked }
}

fn mark(object: &mut Value, grace: i64, now: Timestamp) {
    if meta::deletion_timestamp(object).is_some() {
        shorten(object, grace, now);
        return;
    }
    meta::set_field(object, "deletionTimestamp", seconds(now + SignedDuration::from_secs(grace)));
    meta::metadata_mut(object).insert("deletionGracePeriodSeconds".into(), grace.into());
    let generation = meta::generation(object);
    if generation > 0 {
        meta::set_field(object, "generation", generation + 1);
    }
}

/// A second deletion may only bring the end closer.
fn shorten(object: &mut Value, grace: i64, now: Timestamp) {
    let Some(current) = meta::deletion_grace_period_seconds(object) else { return };
    if grace >= current {
        return;
    }
    let deletion: Option<Timestamp> = meta::deletion_timestamp(object).and_then(|time| time.parse().ok());
    let requested_at = deletion.map_or(now, |time| time - SignedDuration::from_secs(current));
    let end = (requested_at + SignedDuration::from_secs(grace)).max(now);
    meta::set_field(object, "deletionTimestamp", seconds(end));
    meta::metadata_mut(object).insert("deletionGracePeriodSeconds".into(), grace.into());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::Registry;

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().expect("time")
    }

    fn delete(plural: &str, object: &mut Value, options: DeleteOptions) -> Deletion {
        let registry = Registry::builtin();
        prepare_for_delete(registry.get("", "v1", plural).expect(plural), object, options, now())
    }

    #[test]
    fn a_running_pod_gets_its_grace() {
        let mut pod = json!({"metadata": {"name": "a", "generation": 1}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 5}});
        assert_eq!(delete("pods", &mut pod, DeleteOptions::default()), Deletion::Update);
        assert_eq!(
            pod["metadata"],
            json!({"name": "a", "generation": 2, "deletionTimestamp": "2026-01-01T00:00:05Z", "deletionGracePeriodSeconds": 5})
        );
        assert_eq!(delete("pods", &mut pod, DeleteOptions::default()), Deletion::Unchanged);
        let at_once = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
        assert_eq!(delete("pods", &mut pod.clone(), at_once), Deletion::Remove);
        let sooner = DeleteOptions { grace_period_seconds: Some(2), ..DeleteOptions::default() };
        assert_eq!(delete("pods", &mut pod, sooner), Deletion::Update);
        assert_eq!(meta::deletion_timestamp(&pod), Some("2026-01-01T00:00:02Z"));
    }

    #[test]
    fn what_runs_nowhere_goes_at_once() {
        for mut pod in [json!({"spec": {}}), json!({"spec": {"nodeName": "n"}, "status": {"phase": "Failed"}})] {
            assert_eq!(delete("pods", &mut pod, DeleteOptions::default()), Deletion::Remove);
        }
        assert_eq!(delete("configmaps", &mut json!({"metadata": {}}), DeleteOptions::default()), Deletion::Remove);
    }

    #[test]
    fn finalizers_and_propagation_hold_an_object() {
        let mut map = json!({"metadata": {"name": "a"}});
        let foreground = DeleteOptions { propagation: Some(Propagation::Foreground), ..DeleteOptions::default() };
        assert_eq!(delete("configmaps", &mut map, foreground), Deletion::Update);
        assert_eq!(meta::finalizers(&map), ["foregroundDeletion"]);
        assert_eq!(meta::deletion_grace_period_seconds(&map), Some(0));
        let registry = Registry::builtin();
        let maps = registry.get("", "v1", "configmaps").expect("configmaps");
        assert!(!is_finished(maps, &map));
        meta::set_finalizers(&mut map, &[]);
        assert!(is_finished(maps, &map));
    }

    #[test]
    fn a_namespace_terminates_until_it_is_empty() {
        let mut namespace = json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["kubernetes"]}});
        assert_eq!(delete("namespaces", &mut namespace, DeleteOptions::default()), Deletion::Update);
        assert_eq!(namespace["status"]["phase"], "Terminating");
        namespace["spec"]["finalizers"] = json!([]);
        let registry = Registry::builtin();
        assert!(is_finished(registry.get("", "v1", "namespaces").expect("namespaces"), &namespace));
    }
}
