//! What differs between two objects, and which fields an object sets, as sets of paths.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::set::{Element, FieldSet};
use crate::schema::{Field, Merging, Message, Presence, Shape};

/// The fields that a change added, changed and removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    pub added: FieldSet,
    pub modified: FieldSet,
    pub removed: FieldSet,
}

/// Compares two objects of one type.
#[must_use]
pub fn compare(message: &Message, old: &Value, new: &Value) -> Comparison {
    compare_at(Node::Message(message), Some(old), Some(new)).inside
}

/// Every field that an object sets.
#[must_use]
pub fn field_set(message: &Message, object: &Value) -> FieldSet {
    let mut set = FieldSet::new();
    collect(Node::Message(message), object, &mut Vec::new(), &mut set);
    set
}

/// How one value is looked at.
#[derive(Clone, Copy)]
pub(super) enum Node<'a> {
    Message(&'a Message),
    Map(&'a Shape),
    Keyed(&'a [crate::schema::Text], &'a Shape),
    Set,
    /// A map that no schema describes.
    Free,
    /// Changes as a whole.
    Leaf,
}

impl<'a> Node<'a> {
    fn of_shape(shape: &'a Shape) -> Self {
        match shape {
            Shape::Message(link) if !link.get().atomic => Self::Message(link.get()),
            Shape::Map(values) => Self::Map(values),
            Shape::RawExtension | Shape::Json | Shape::SchemaOr(_) => Self::Free,
            _ => Self::Leaf,
        }
    }

    pub(super) fn of_field(field: &'a Field) -> Self {
        match (&field.shape, &field.merging) {
            (_, Some(Merging::Atomic)) => Self::Leaf,
            (Shape::List { item, .. }, Some(Merging::Map(keys))) => Self::Keyed(keys, item),
            (Shape::List { .. }, Some(Merging::Set)) => Self::Set,
            (shape, _) => Self::of_shape(shape),
        }
    }

    /// How the value behind a field or key is looked at.
    pub(super) fn child(self, name: &str) -> Self {
        match self {
            Self::Message(message) => message.field(name).map_or(Self::Free, Self::of_field),
            Self::Map(values) => Self::of_shape(values),
            Self::Free => Self::Free,
            Self::Keyed(..) | Self::Set | Self::Leaf => Self::Leaf,
        }
    }

    pub(super) fn item(self) -> Self {
        match self {
            Self::Keyed(_, item) => Self::of_shape(item),
            _ => Self::Leaf,
        }
    }

    /// Whether the values at hand make this a leaf: no map or list where one should be, or nothing in them.
    pub(super) fn is_leaf(self, values: [Option<&Value>; 2]) -> bool {
        let holds = |value: &Value| match self {
            Self::Message(_) | Self::Map(_) | Self::Free => value.as_object().is_some_and(|map| !map.is_empty()),
            Self::Keyed(..) | Self::Set => value.as_array().is_some_and(|list| !list.is_empty()),
            Self::Leaf => false,
        };
        !values.into_iter().flatten().any(holds)
    }

    /// Where Go writes null for a list, map or pointer that nobody set, the field is there already and only its content is
    /// new.
    fn written_null(self, name: &str) -> Option<&'static Value> {
        match self {
            Self::Message(message) => message.field(name).filter(|field| writes_null(field)).map(|_| &Value::Null),
            _ => None,
        }
    }

    fn written_nulls(self) -> impl Iterator<Item = &'a str> {
        let message = if let Self::Message(message) = self { Some(message) } else { None };
        let fields = message.into_iter().flat_map(Message::fields);
        fields.filter(|field| writes_null(field)).map(|field| field.name.as_ref())
    }

    pub(super) fn is_list(self) -> bool {
        matches!(self, Self::Keyed(..) | Self::Set)
    }

    pub(super) fn is_map(self) -> bool {
        matches!(self, Self::Message(_) | Self::Map(_) | Self::Free)
    }

    /// Whether the type names this field, as opposed to a key of a map.
    pub(super) fn names(self, field: &str) -> bool {
        matches!(self, Self::Message(message) if message.field(field).is_some())
    }

    /// What an item of a keyed list has for a key that it leaves out.
    pub(super) fn default_of(item: &'a Shape, key: &str) -> Option<&'a Value> {
        match item {
            Shape::Message(link) => link.get().field(key).and_then(|field| field.default.as_ref()),
            _ => None,
        }
    }
}

fn writes_null(field: &Field) -> bool {
    !field.omit_empty && field.presence == Presence::Pointer
}

/// What a comparison of two values says of the place they stand at, and of what is inside.
#[derive(Default)]
struct Found {
    here: Option<Change>,
    inside: Comparison,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Added,
    Modified,
    Removed,
}

impl Comparison {
    fn put(&mut self, element: Element, found: Found) {
        let Found { here, inside } = found;
        self.added.add(element.clone(), here == Some(Change::Added), inside.added);
        self.modified.add(element.clone(), here == Some(Change::Modified), inside.modified);
        self.removed.add(element, here == Some(Change::Removed), inside.removed);
    }

    fn mark(&mut self, element: &Element, change: Change) {
        self.put(element.clone(), Found { here: Some(change), inside: Self::default() });
    }
}

fn compare_at(node: Node<'_>, old: Option<&Value>, new: Option<&Value>) -> Found {
    let leaf = node.is_leaf([old, new]);
    let here = match (old, new) {
        (None, Some(_)) => Some(Change::Added),
        (Some(_), None) => Some(Change::Removed),
        (Some(old), Some(new)) if leaf && old != new => Some(Change::Modified),
        _ => None,
    };
    let inside = if leaf {
        Comparison::default()
    } else if node.is_list() {
        compare_lists(node, old.and_then(Value::as_array), new.and_then(Value::as_array))
    } else {
        compare_maps(node, old.and_then(Value::as_object), new.and_then(Value::as_object))
    };
    Found { here, inside }
}

fn compare_maps<'a>(
    node: Node<'_>,
    old: Option<&'a Map<String, Value>>,
    new: Option<&'a Map<String, Value>>,
) -> Comparison {
    let mut names: BTreeSet<&str> = old.into_iter().chain(new).flat_map(Map::keys).map(String::as_str).collect();
    names.extend(node.written_nulls());
    let mut found = Comparison::default();
    for name in names {
        let value = |map: Option<&'a Map<String, Value>>| map.and_then(|map| map.get(name).or(node.written_null(name)));
        let (before, after) = (value(old), value(new));
        if before != after {
            found.put(Element::field(name), compare_at(node.child(name), before, after));
        }
    }
    found
}

fn compare_lists(node: Node<'_>, old: Option<&Vec<Value>>, new: Option<&Vec<Value>>) -> Comparison {
    let (old, new) = (by_element(node, old), by_element(node, new));
    let elements: BTreeSet<&Element> = old.keys().chain(new.keys()).collect();
    let mut found = Comparison::default();
    for element in elements {
        let before = old.get(element).map_or(&[][..], Vec::as_slice);
        let after = new.get(element).map_or(&[][..], Vec::as_slice);
        if before == after {
            continue;
        }
        let mut items = |old: Option<&&Value>, new: Option<&&Value>| {
            found.put(element.clone(), compare_at(node.item(), old.copied(), new.copied()));
        };
        match (before, after) {
            ([] | [_], [] | [_]) => items(before.first(), after.first()),
            // Items that occur more than once are owned as a whole.
            ([_, _, ..], [_, _, ..]) => found.mark(element, Change::Modified),
            ([_, _, ..], _) => {
                items(None, after.first());
                found.mark(element, Change::Removed);
            }
            (_, _) => {
                items(before.first(), None);
                found.mark(element, Change::Added);
            }
        }
    }
    found
}

fn collect(node: Node<'_>, value: &Value, path: &mut Vec<Element>, set: &mut FieldSet) {
    match (node, value) {
        (Node::Message(_) | Node::Map(_) | Node::Free, Value::Object(map)) => {
            for (name, value) in map {
                path.push(Element::field(name.as_str()));
                collect(node.child(name), value, path, set);
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                if empty || !node.names(name) {
                    set.insert(path);
                }
                path.pop();
            }
        }
        (Node::Keyed(..) | Node::Set, Value::Array(list)) => {
            for (element, items) in by_element(node, Some(list)) {
                path.push(element);
                if let [item] = items.as_slice() {
                    collect(node.item(), item, path, set);
                }
                set.insert(path);
                path.pop();
            }
        }
        (Node::Keyed(..) | Node::Set, Value::Null) => {}
        _ => set.insert(path),
    }
}

/// The items of a list by their path element. Items that have none, such as those without any key, are left out.
fn by_element<'a>(node: Node<'_>, list: Option<&'a Vec<Value>>) -> BTreeMap<Element, Vec<&'a Value>> {
    let mut items: BTreeMap<Element, Vec<&Value>> = BTreeMap::new();
    for item in list.into_iter().flatten() {
        if let Some(element) = element_of(node, item) {
            items.entry(element).or_default().push(item);
        }
    }
    items
}

/// How an item of a keyed list or a set is named in a path.
pub(super) fn element_of(node: Node<'_>, item: &Value) -> Option<Element> {
    match node {
        Node::Keyed(keys, shape) => {
            let object = item.as_object()?;
            let mut found = BTreeMap::new();
            for key in keys {
                if let Some(value) = object.get(key.as_ref()).or_else(|| Node::default_of(shape, key)) {
                    found.insert(key.as_ref(), value);
                }
            }
            (!found.is_empty()).then(|| Element::key(&found))
        }
        Node::Set if !item.is_object() && !item.is_array() && !item.is_null() => Some(Element::value(item)),
        _ => None,
    }
}
