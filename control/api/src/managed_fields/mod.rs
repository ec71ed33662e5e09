//! `metadata.managedFields`: who set which field.
//!
//! Every write that is no apply goes through [`track`]; [`apply`] is server-side apply. Both build on [`FieldSet`] and
//! [`Managers`], and take the shape of objects from the schema alone, so that custom resources merge as built-in ones do.
//! The time comes from outside.

mod apply;
mod compare;
mod conflict;
mod fit;
mod last_applied;
mod managers;
mod merge;
mod reconcile;
mod set;
mod wire;

use serde_json::{Map, Value};

pub use apply::{Application, apply, apply_scale};
pub use compare::{Comparison, compare, field_set};
pub use managers::{Manager, Managers, Operation, UPDATE_MANAGERS_MAX};
pub use set::{Element, FieldSet};

use crate::prune::prune;
use crate::schema::Message;

/// Fields that nobody owns: the server sets them, or they are the object's name.
const UNOWNED: [&[&str]; 11] = [
    &["apiVersion"],
    &["kind"],
    &["metadata"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
];

/// A write that is no apply.
#[derive(Debug)]
pub struct TrackUpdate<'a> {
    /// The stored object; none for a create.
    pub old: Option<&'a Value>,
    /// The object to be stored. Its `managedFields` are rewritten.
    pub new: &'a mut Value,
    /// Who writes: `fieldManager`, else the beginning of the user agent.
    pub manager: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    pub api_version: &'a str,
    /// `metav1.Time` text.
    pub time: &'a str,
    pub message: &'a Message,
}

/// Writes down that a manager made a change. What does not change belongs to whom it belonged before.
pub fn track(update: TrackUpdate<'_>) {
    let TrackUpdate { old, new, manager, subresource, api_version, time, message } = update;
    let mut managers = managers_before(old, new, !subresource.is_empty());
    managers.map_fields(|fields| reconcile::with_schema(message, fields));
    remove(new);
    let old = old.map_or_else(|| empty(message), without_managed_fields);
    let mut changes = compare(message, &old, new);
    let unowned = unowned();
    changes.added = changes.added.difference(&unowned);
    changes.modified = changes.modified.difference(&unowned);
    let me = Manager {
        name: if manager.is_empty() { "unknown".into() } else { manager.to_owned() },
        operation: Operation::Update,
        api_version: api_version.to_owned(),
        subresource: subresource.to_owned(),
    };
    managers.record_update(&me, &changes, time);
    managers.cap_updates();
    write(new, &managers);
}

/// Puts the entries into an object.
pub fn write(object: &mut Value, managers: &Managers) {
    let entries = managers.to_json();
    if entries.as_array().is_none_or(Vec::is_empty) {
        remove(object);
    } else if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("managedFields".into(), entries);
    }
}

/// Takes the entries out of an object.
pub fn remove(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

/// The fields that no manager owns, as a set.
#[must_use]
pub fn unowned() -> FieldSet {
    let mut set = FieldSet::new();
    for path in UNOWNED {
        set.insert(&path.iter().map(|name| Element::field(*name)).collect::<Vec<_>>());
    }
    set
}

/// Whether two objects differ in nothing but the times of their `managedFields` and their `resourceVersion`: then nothing
/// has to be stored.
#[must_use]
pub fn same_but_for_times(old: &Value, new: &Value) -> bool {
    without_times(old) == without_times(new)
}

fn without_times(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
        if let Some(entries) = metadata.get_mut("managedFields").and_then(Value::as_array_mut) {
            entries.iter_mut().filter_map(Value::as_object_mut).for_each(|entry| drop(entry.remove("time")));
        }
    }
    object
}

/// The entries that the request sends count if it sends any that can be read: a client may edit or reset them. A
/// subresource cannot.
fn managers_before(old: Option<&Value>, new: &Value, subresource: bool) -> Managers {
    let stored = || old.and_then(entries).and_then(Managers::from_json).unwrap_or_default();
    if subresource {
        return stored();
    }
    let Some(sent) = entries(new) else { return stored() };
    let reset = match sent.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => only.as_object().is_some_and(Map::is_empty),
        _ => false,
    };
    if reset {
        return Managers::default();
    }
    Managers::from_json(sent).filter(|managers| !managers.is_empty()).unwrap_or_else(stored)
}

fn entries(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get("managedFields").filter(|entries| entries.is_array())
}

/// What a create starts from: structs that always exist are owned by nobody.
fn empty(message: &Message) -> Value {
    let mut object = Value::Object(Map::new());
    prune(message, &mut object);
    object
}

fn without_managed_fields(object: &Value) -> Value {
    let mut object = object.clone();
    remove(&mut object);
    object
}

#[cfg(test)]
mod tests;
