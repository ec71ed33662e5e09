//! Strategic merge patch: a merge patch that knows lists.
//!
//! Lists whose field has a merge key are merged item by item, lists of scalars whose field merges are united, all others
//! are replaced. Directives in the patch say what merging cannot: `$patch: replace|delete`, `$deleteFromPrimitiveList/F`,
//! `$setElementOrder/F`, `$retainKeys`. The order of a merged list is that of `$setElementOrder`, then of the patch, then
//! of the list before.

use serde_json::{Map, Value};

use super::order::{self, Places};
use super::print;
use crate::schema::{Field, Message, Patch, Shape};
use crate::status::Status;

pub(super) const DIRECTIVE: &str = "$patch";
const DELETE_FROM: &str = "$deleteFromPrimitiveList";
const SET_ORDER: &str = "$setElementOrder";
const RETAIN_KEYS: &str = "$retainKeys";

type Object = Map<String, Value>;

/// Merges a patch into an object of this type.
///
/// # Errors
/// 400 for a malformed patch, 422 for one that lists cannot take, 500 for the faults that upstream does not classify.
pub fn strategic(message: &Message, document: &Value, patch: &Value) -> Result<Value, Status> {
    let Value::Object(patch) = patch else {
        return Err(Status::bad_request("invalid JSON document"));
    };
    let original = document.as_object().cloned().unwrap_or_default();
    let merged = merge_object(original, patch.clone(), Known::Message(message)).map_err(Refusal::status)?;
    Ok(Value::Object(merged))
}

/// Why a patch cannot be merged.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("invalid patch format of primitive list")]
    PrimitiveList,
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    #[error("invalid patch format of setElementOrder list")]
    SetElementOrder,
    #[error("lists of lists are not supported")]
    ListOfLists,
    /// Upstream has no code for these and answers 500.
    #[error("{0}")]
    Other(String),
}

impl Refusal {
    fn status(self) -> Status {
        match self {
            Self::PrimitiveList | Self::RetainKeys | Self::SetElementOrder => Status::bad_request(self.to_string()),
            Self::ListOfLists => super::unprocessable(),
            Self::Other(text) => Status::new(500, "", text),
        }
    }

    pub(super) fn wrong_type(expected: &str, found: &Value) -> Self {
        Self::Other(format!("expected a {expected}, but received a {}", print::type_name(found)))
    }

    pub(super) fn no_merge_key(item: &Object, key: &str) -> Self {
        let item = print::plain(&Value::Object(item.clone()));
        Self::Other(format!("map: {item} does not contain declared merge key: {key}"))
    }

    fn bad_directive(directive: &Value, item: &Object) -> Self {
        let item = print::plain(&Value::Object(item.clone()));
        Self::Other(format!("unknown patch type: {} in map: {item}", print::plain(directive)))
    }
}

/// What the schema says of the object at hand.
#[derive(Clone, Copy)]
enum Known<'a> {
    Message(&'a Message),
    /// A map, whose values all have this shape.
    Values(&'a Shape),
    /// Nothing: embedded JSON.
    Nothing,
}

impl<'a> Known<'a> {
    fn of(shape: &'a Shape) -> Self {
        match shape {
            Shape::Message(link) => Self::Message(link.get()),
            Shape::Map(values) => Self::Values(values),
            _ => Self::Nothing,
        }
    }

    /// The patch facts of a field and what is known of its value, or of its items if it is a list.
    fn field(self, name: &str) -> Result<(Option<&'a Patch>, Known<'a>), Refusal> {
        match self {
            Self::Message(message) => {
                let field: &Field = message.field(name).ok_or_else(|| {
                    Refusal::Other(format!(
                        "unable to find api field in struct {} for the json field {name:?}",
                        message.short_name()
                    ))
                })?;
                let inner = match &field.shape {
                    Shape::List { item, .. } => Self::of(item),
                    shape => Self::of(shape),
                };
                Ok((Some(&field.patch), inner))
            }
            Self::Values(Shape::List { item, .. }) => Ok((None, Self::of(item))),
            Self::Values(shape) => Ok((None, Self::of(shape))),
            Self::Nothing => Ok((None, Self::Nothing)),
        }
    }
}

fn merge_object(mut original: Object, mut patch: Object, known: Known<'_>) -> Result<Object, Refusal> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Object::new()),
            _ => {
                patch.insert(DIRECTIVE.into(), directive.clone());
                Err(Refusal::bad_directive(&directive, &patch))
            }
        };
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered(&mut original, &mut patch, known)?;
    for (key, value) in patch {
        merge_entry(&mut original, &key, value, known)?;
    }
    Ok(original)
}

fn merge_entry(original: &mut Object, key: &str, mut value: Value, known: Known<'_>) -> Result<(), Refusal> {
    let (key, deletes) = match key.strip_prefix(DELETE_FROM) {
        None => (key, false),
        Some(rest) => (rest.strip_prefix('/').ok_or(Refusal::PrimitiveList)?, true),
    };
    if value.is_null() {
        original.remove(key);
        return Ok(());
    }
    let Some(before) = original.remove(key) else {
        if !deletes {
            take(original, key, value);
        }
        return Ok(());
    };
    let merged = match (before, value) {
        (Value::Object(before), Value::Object(after)) => {
            let (facts, inner) = known.field(key)?;
            let replaces = facts.is_some_and(|facts| facts.replace);
            Value::Object(if replaces { after } else { merge_object(before, after, inner)? })
        }
        (Value::Array(before), Value::Array(after)) => {
            let (facts, inner) = known.field(key)?;
            Value::Array(merge_list(before, after, facts, inner, deletes)?)
        }
        // A list that deletes items means nothing to a value that is no list.
        (before, _) if deletes => before,
        (_, after) => {
            value = after;
            take(original, key, value);
            return Ok(());
        }
    };
    original.insert(key.to_owned(), merged);
    Ok(())
}

/// Puts a value in place as it is, without its nulls and directives.
fn take(original: &mut Object, key: &str, mut value: Value) {
    discard_nulls(&mut value);
    if remove_directives(&mut value) {
        original.insert(key.to_owned(), value);
    }
}

fn discard_nulls(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, value| !value.is_null());
        map.values_mut().for_each(discard_nulls);
    }
}

/// Whether something is left: a map with a directive of its own was never meant to be kept.
fn remove_directives(value: &mut Value) -> bool {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => return false,
        Value::Object(map) => map.retain(|_, value| remove_directives(value)),
        Value::Array(items) => items.retain_mut(remove_directives),
        _ => {}
    }
    true
}

/// `$retainKeys`: drops what it does not list. The patch may set only what it lists.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), Refusal> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let keys: Vec<&str> = keys.as_array().ok_or(Refusal::RetainKeys)?.iter().filter_map(Value::as_str).collect();
    let directive = |key: &str| key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER);
    if patch.iter().any(|(key, value)| !value.is_null() && !directive(key) && !keys.contains(&key.as_str())) {
        return Err(Refusal::RetainKeys);
    }
    original.retain(|key, _| keys.contains(&key.as_str()));
    Ok(())
}

/// Merges the lists for which the patch sets an order, and takes them out of the patch.
fn merge_ordered(original: &mut Object, patch: &mut Object, known: Known<'_>) -> Result<(), Refusal> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let Some(order) = patch.remove(&directive) else { continue };
        let key = directive[SET_ORDER.len()..].strip_prefix('/').ok_or(Refusal::SetElementOrder)?;
        let order = list_of(order)?;
        let before = original.get(key).cloned().map(list_of).transpose()?;
        let after = patch.get(key).cloned().map(list_of).transpose()?;
        let (facts, inner) = known.field(key)?;
        let merge_key = facts.and_then(|facts| facts.merge_key.as_deref());
        order::check(after.as_deref().unwrap_or_default(), &order, merge_key)?;
        let merged = match (before.clone(), after) {
            (None, None) => continue,
            (Some(before), None) => before,
            (None, Some(after)) => {
                let mut list = Value::Array(after);
                remove_directives(&mut list);
                list_of(list)?
            }
            (Some(before), Some(after)) => merge_list(before, after, facts, inner, false)?,
        };
        element_kind([before.as_deref().unwrap_or_default(), &merged])?;
        let sorted = order::arrange(merged, &order, &before.unwrap_or_default(), merge_key)?;
        original.insert(key.to_owned(), Value::Array(sorted));
        patch.remove(key);
    }
    Ok(())
}

fn list_of(value: Value) -> Result<Vec<Value>, Refusal> {
    match value {
        Value::Array(items) => Ok(items),
        other => Err(Refusal::wrong_type("[]interface {}", &other)),
    }
}

fn merge_list(
    before: Vec<Value>,
    after: Vec<Value>,
    facts: Option<&Patch>,
    inner: Known<'_>,
    deletes: bool,
) -> Result<Vec<Value>, Refusal> {
    if !deletes && !facts.is_some_and(|facts| facts.merge) {
        return Ok(after);
    }
    if before.is_empty() && after.is_empty() {
        return Ok(before);
    }
    if !element_kind([&before, &after])? {
        if deletes {
            let gone = Places::of(&after, None);
            return Ok(before.into_iter().filter(|item| gone.find(item).is_none()).collect());
        }
        let both: Vec<Value> = before.iter().chain(&after).cloned().collect();
        let first = Places::of(&both, None);
        let merged = both.iter().enumerate().filter(|(at, item)| first.find(item) == Some(*at));
        return order::arrange(merged.map(|(_, item)| item.clone()).collect(), &after, &before, None);
    }
    let key = facts.and_then(|facts| facts.merge_key.as_deref()).ok_or_else(|| {
        let name = if let Known::Message(message) = inner { message.short_name() } else { "" };
        Refusal::Other(format!("cannot merge lists without merge key for {name}"))
    })?;
    let (mut merged, plain) = list_directives(before, after, key)?;
    let server = merged.clone();
    let mut places = Places::of(&merged, Some(key));
    for item in &plain {
        let Value::Object(map) = item else { continue };
        if !map.contains_key(key) {
            return Err(Refusal::no_merge_key(map, key));
        }
        match places.find(item) {
            Some(at) => {
                let Value::Object(old) = merged[at].take() else { continue };
                merged[at] = Value::Object(merge_object(old, map.clone(), inner)?);
            }
            None => {
                places.add(item, merged.len());
                merged.push(item.clone());
            }
        }
    }
    order::arrange(merged, &plain, &server, Some(key))
}

/// Carries out `$patch` in list items: the list to merge into, and the items to merge.
fn list_directives(before: Vec<Value>, after: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>), Refusal> {
    let (mut deleted, mut plain, mut replace) = (Vec::new(), Vec::new(), false);
    for item in after {
        let Value::Object(map) = &item else { continue };
        match map.get(DIRECTIVE) {
            None => plain.push(item),
            Some(Value::String(directive)) if directive == "delete" => {
                if !map.contains_key(key) {
                    return Err(Refusal::no_merge_key(map, key));
                }
                deleted.push(item);
            }
            Some(Value::String(directive)) if directive == "replace" => replace = true,
            Some(Value::String(directive)) if directive == "merge" => {
                return Err(Refusal::Other("merging lists cannot yet be specified in the patch".into()));
            }
            Some(directive) => return Err(Refusal::bad_directive(directive, map)),
        }
    }
    if replace {
        return Ok((plain, Vec::new()));
    }
    let deleted = Places::of(&deleted, Some(key));
    Ok((before.into_iter().filter(|item| deleted.find(item).is_none()).collect(), plain))
}

/// Whether the items are objects. All must be of one kind.
fn element_kind(lists: [&[Value]; 2]) -> Result<bool, Refusal> {
    let mut kind: Option<&'static str> = None;
    for item in lists.iter().flat_map(|list| list.iter()) {
        let this = print::type_name(item);
        match kind {
            _ if item.is_array() => return Err(Refusal::ListOfLists),
            None => kind = Some(this),
            Some(kind) if kind == this => {}
            Some(_) => {
                let shown: Vec<String> = lists.iter().map(|list| print::plain(&Value::Array(list.to_vec()))).collect();
                return Err(Refusal::Other(format!("list element types are not identical: [{}]", shown.join(" "))));
            }
        }
    }
    kind.map(|kind| kind == "map[string]interface {}")
        .ok_or_else(|| Refusal::Other("no elements in any of the given slices".into()))
}
