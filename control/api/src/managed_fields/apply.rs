//! Server-side apply: a client says what it wants of an object, and only that is its own.
//!
//! What it applies is merged into the live object; what it applied before and leaves out now goes, unless somebody else
//! owns it. Changing what others own is a conflict, which force turns into taking it over.

use serde_json::{Map, Value};

use super::compare::{Comparison, Node, compare, field_set};
use super::conflict::Conflicts;
use super::managers::{Manager, Managers, Operation};
use super::merge::{merge, without};
use super::set::{Element, FieldSet};
use super::{empty, entries, fit, last_applied, reconcile, remove, unowned, without_managed_fields, write};
use crate::meta;
use crate::prune::prune as normalise;
use crate::registry::{GroupVersionKind, split_api_version};
use crate::schema::Message;
use crate::status::Status;
use crate::strict;

/// Who owns the fields of an object that was never tracked before its first apply.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// A request to apply.
#[derive(Debug, Clone, Copy)]
pub struct Application<'a> {
    /// The stored object; none where the apply creates it.
    pub live: Option<&'a Value>,
    /// What the client wants, and nothing else.
    pub config: &'a Value,
    /// What the endpoint takes.
    pub kind: &'a GroupVersionKind,
    pub message: &'a Message,
    pub manager: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// `metav1.Time` text.
    pub time: &'a str,
    pub force: bool,
    /// Fields that this endpoint does not write, such as the status of the object itself.
    pub ignored: &'a FieldSet,
}

/// The object as it is to be, in its normal form and before defaults, with its new `managedFields`.
///
/// # Errors
/// 400 for a configuration of another type or with `managedFields`, 409 for conflicts, 500 for one that does not fit its
/// type (as upstream has it).
pub fn apply(request: &Application<'_>) -> Result<Value, Status> {
    let stored = request.live.and_then(entries).and_then(Managers::from_json).unwrap_or_default();
    let live = request.live.map_or_else(|| empty(request.message), without_managed_fields);
    let (merged, managers) = decide(request, request.kind.api_version(), &live, stored)?;
    let mut merged = merged.unwrap_or(live);
    remove(&mut merged);
    into_type(request.message, &mut merged)?;
    last_applied::follow(request, &mut merged);
    write(&mut merged, &managers);
    Ok(merged)
}

/// What fits the form of its type may still be no quantity, time or 32-bit number.
fn into_type(message: &Message, object: &mut Value) -> Result<(), Status> {
    if let Some(error) = strict::check(message, object).type_error {
        let (about, kind) = (describe(object), print(&type_of(object)));
        let why = format!("unable to convert unstructured object to {kind}: {error}");
        return Err(Status::new(500, "", format!("failed to convert new typed object ({about}) to object: {why}")));
    }
    normalise(message, object);
    Ok(())
}

/// The same for a Scale: who owns its replicas is who owns the field `replicas` of the workload. Returns the Scale as it is
/// to be, and who owns the workload's fields then.
///
/// # Errors
/// As [`apply`].
pub fn apply_scale(
    request: &Application<'_>,
    workload: &Value,
    replicas: &[&str],
) -> Result<(Value, Managers), Status> {
    let path = |names: &[&str]| names.iter().map(|name| Element::field(*name)).collect::<Vec<_>>();
    let (in_scale, in_workload) = (path(&["spec", "replicas"]), path(replicas));
    let (shown_field, own_field): (FieldSet, FieldSet) =
        ([in_scale.as_slice()].into_iter().collect(), [in_workload.as_slice()].into_iter().collect());
    let parent = entries(workload).and_then(Managers::from_json).unwrap_or_default();
    let mut shown = Managers::default();
    for (manager, _) in parent.iter().filter(|(_, fields)| fields.has(&in_workload)) {
        shown.set(manager.clone(), shown_field.clone(), parent.time(manager));
    }
    let live = request.live.cloned().unwrap_or_default();
    let (merged, scaled) = decide(request, meta::api_version(workload).to_owned(), &live, shown)?;
    let mut managers = Managers::default();
    for (manager, fields) in parent.iter() {
        let fields = if scaled.fields(manager).is_some() { fields.clone() } else { fields.difference(&own_field) };
        managers.set(manager.clone(), fields, parent.time(manager));
    }
    for (manager, _) in scaled.iter().filter(|(_, fields)| fields.has(&in_scale)) {
        let known = managers.fields(manager).cloned().unwrap_or_default();
        managers.set(manager.clone(), known.union(&own_field), scaled.time(manager));
    }
    Ok((merged.unwrap_or(live), managers))
}

/// What becomes of an object (nothing if it stays the same), and who owns it then.
fn decide(
    request: &Application<'_>,
    api_version: String,
    live: &Value,
    mut managers: Managers,
) -> Result<(Option<Value>, Managers), Status> {
    let Application { config, message, force, .. } = *request;
    check_type(request)?;
    // Upstream has no code for objects that do not fit their type, and answers 500 without a reason.
    fit::check(message, config).map_err(|error| {
        Status::new(500, "", format!("failed to create typed patch object ({}): {error}", describe(config)))
    })?;
    let me = Manager {
        name: request.manager.into(),
        operation: Operation::Apply,
        api_version,
        subresource: request.subresource.into(),
    };
    if managers.is_empty() && request.live.is_some() {
        let mut changes = compare(message, &empty(message), live);
        changes.added = changes.added.difference(&unowned());
        changes.modified = changes.modified.difference(&unowned());
        let before = Manager { name: BEFORE_FIRST_APPLY.into(), operation: Operation::Update, ..me.clone() };
        managers.record_update(&before, &changes, request.time);
    }
    managers.map_fields(|fields| reconcile::with_schema(message, fields));
    let merged = match merge_in(request, &me, live, managers.clone(), force) {
        Err(conflicts) if last_applied::allows(request, live, &conflicts) => {
            merge_in(request, &me, live, managers, true)
        }
        other => other,
    };
    let (merged, mut managers) = merged.map_err(Conflicts::into_status)?;
    let changed = merged != *live;
    if changed {
        managers.set_time(&me, request.time);
    }
    Ok((changed.then_some(merged), managers))
}

fn check_type(request: &Application<'_>) -> Result<(), Status> {
    let config = request.config;
    let kind = type_of(config);
    if kind != *request.kind {
        return Err(Status::bad_request(format!("invalid object type: {}", print(&kind))));
    }
    if meta::metadata(config).and_then(|metadata| metadata.get("managedFields")).is_some_and(|sent| !sent.is_null()) {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    Ok(())
}

/// `apps/v1, Kind=Deployment`
fn print(kind: &GroupVersionKind) -> String {
    format!("{}/{}, Kind={}", kind.group, kind.version, kind.kind)
}

fn type_of(object: &Value) -> GroupVersionKind {
    let (group, version) = split_api_version(meta::api_version(object));
    GroupVersionKind::new(group, version, meta::kind(object))
}

/// `default/web; apps/v1, Kind=Deployment`
fn describe(object: &Value) -> String {
    format!("{}/{}; {}", meta::namespace(object), meta::name(object), print(&type_of(object)))
}

fn merge_in(
    request: &Application<'_>,
    me: &Manager,
    live: &Value,
    mut managers: Managers,
    force: bool,
) -> Result<(Value, Managers), Conflicts> {
    let Application { config, message, ignored, .. } = *request;
    let merged = merge(Node::Message(message), live, config);
    let last = managers.applied(me);
    let mine = field_set(message, config).recursive_difference(ignored);
    managers.set(me.clone(), mine, last.as_ref().and_then(|(_, time)| time.clone()));
    let merged = match last {
        Some((last, _)) => prune(message, merged, &managers, &last),
        None => merged,
    };
    let changes = without_ignored(compare(message, live, &merged), ignored);
    let taken = changes.added.union(&changes.modified);
    let conflicts = managers.owning(me, &taken);
    if !force && !conflicts.is_empty() {
        return Err(Conflicts(conflicts));
    }
    managers.disown(me, &taken.union(&changes.removed));
    managers.own_less(me, &unowned());
    Ok((merged, managers))
}

fn without_ignored(changes: Comparison, ignored: &FieldSet) -> Comparison {
    Comparison {
        added: changes.added.recursive_difference(ignored),
        modified: changes.modified.recursive_difference(ignored),
        removed: changes.removed.recursive_difference(ignored),
    }
}

/// Takes out what the applier owned until now and nobody, the applier included, owns any more. Fields inside that nobody
/// owns and that the applier did not own stay.
fn prune(message: &Message, merged: Value, managers: &Managers, last: &FieldSet) -> Value {
    let root = Node::Message(message);
    let named = |set: &FieldSet| named_members(root, set);
    let set_of = |value: &Value| named(&field_set(message, value));
    let (all, last) = (set_of(&merged), named(last));
    let pruned = or_empty(without(root, &merged, &last));
    let owned = managers.iter().fold(FieldSet::new(), |all, (_, fields)| all.union(fields));
    let gone = all.difference(&set_of(&pruned).union(&named(&owned)));
    let pruned = or_empty(without(root, &merged, &gone));
    let gone = all.difference(&set_of(&pruned)).intersection(&last);
    or_empty(without(root, &merged, &gone))
}

fn or_empty(value: Value) -> Value {
    if value.is_null() { Value::Object(Map::new()) } else { value }
}

/// The set with every struct field in it that holds something of it: such fields are owned with their content.
fn named_members(node: Node<'_>, set: &FieldSet) -> FieldSet {
    let mut out = FieldSet::new();
    for (element, member, below) in set.elements() {
        let (named, inner) = match element {
            Element::Field(name) => (node.names(name), node.child(name)),
            _ => (false, node.item()),
        };
        out.add(element.clone(), member || (named && !below.is_empty()), named_members(inner, below));
    }
    out
}

#[cfg(test)]
mod tests;
