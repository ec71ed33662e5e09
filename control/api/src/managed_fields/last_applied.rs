//! The annotation of client-side apply, as far as server-side apply must know it.
//!
//! Whoever turns from `kubectl apply` to `kubectl apply --server-side` should meet no conflict over what they applied
//! themselves, and while the annotation is there it has to say what was applied last.

use serde_json::Value;

use super::apply::Application;
use super::compare::{compare, field_set};
use super::conflict::Conflicts;
use crate::meta;
use crate::prune::prune;

const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Only kubectl's own manager does this; another manager opts out.
const MANAGER: &str = "kubectl";
/// All annotations of an object together, keys included.
const ANNOTATIONS_BYTES_MAX: usize = 256 << 10;

/// Whether all the conflicts are over fields that client-side apply set and nobody changed since.
pub(super) fn allows(request: &Application<'_>, live: &Value, conflicts: &Conflicts) -> bool {
    let annotation = meta::annotation(live, ANNOTATION).filter(|_| request.manager == MANAGER);
    let Some(mut applied) = annotation.and_then(|text| serde_json::from_str::<Value>(text).ok()) else { return false };
    if meta::api_version(&applied) != request.kind.api_version() {
        return false;
    }
    let mut owned = field_set(request.message, &applied);
    // Values are compared in their normal form, as those of the live object are.
    prune(request.message, &mut applied);
    let changes = compare(request.message, &applied, live);
    owned = owned.difference(&changes.added).difference(&changes.modified).difference(&changes.removed);
    conflicts.fields().difference(&owned).is_empty()
}

/// Brings the annotation up to date where there is one.
pub(super) fn follow(request: &Application<'_>, object: &mut Value) {
    if request.manager != MANAGER || meta::annotation(object, ANNOTATION).is_none_or(str::is_empty) {
        return;
    }
    let mut applied = request.config.clone();
    if let Some(annotations) = applied["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(ANNOTATION);
    }
    meta::set_annotation(object, ANNOTATION, &format!("{applied}\n"));
    let bytes: usize = meta::annotations(object)
        .into_iter()
        .flatten()
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    if bytes > ANNOTATIONS_BYTES_MAX
        && let Some(annotations) = object["metadata"]["annotations"].as_object_mut()
    {
        annotations.remove(ANNOTATION);
    }
}
