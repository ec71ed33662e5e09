//! Does an applied configuration fit its type? In the words of upstream's structured merge, which differ from those of
//! decoding: unknown fields, values of another form, list items without their keys or with the keys of another item.

use std::collections::BTreeSet;

use serde_json::Value;

use super::compare::{Node, element_of};
use super::set::Element;
use crate::patch::print;
use crate::schema::{Field, Merging, Message, Shape};

/// What is wrong, or nothing.
pub(super) fn check(message: &Message, config: &Value) -> Result<(), String> {
    let mut walk = Walk::default();
    walk.object(message, config);
    match walk.errors.as_slice() {
        [] => Ok(()),
        [only] => Err(only.clone()),
        several => Err(several.iter().fold("errors:".to_owned(), |all, error| all + "\n  " + error)),
    }
}

#[derive(Default)]
struct Walk {
    path: String,
    errors: Vec<String>,
}

impl Walk {
    fn object(&mut self, message: &Message, value: &Value) {
        let Some(object) = self.map(value) else { return };
        for (name, value) in object {
            let length = self.enter(&Element::field(name.as_str()));
            match message.field(name) {
                Some(field) => self.field(field, value),
                None if message.keeps_unknown || message.fields().is_empty() => {}
                None => {
                    self.error("field not declared in schema".into());
                    self.path.truncate(length);
                    return;
                }
            }
            self.path.truncate(length);
        }
    }

    fn field(&mut self, field: &Field, value: &Value) {
        match (&field.shape, &field.merging) {
            (Shape::List { item, .. }, Some(Merging::Map(_) | Merging::Set)) => {
                self.named_items(Node::of_field(field), item, value);
            }
            (shape, _) => self.shape(shape, value),
        }
    }

    fn shape(&mut self, shape: &Shape, value: &Value) {
        match shape {
            Shape::Message(link) => self.object(link.get(), value),
            Shape::List { item, .. } => {
                for (at, value) in self.list(value).into_iter().flatten().enumerate() {
                    let length = self.enter(&Element::Index(at));
                    self.shape(item, value);
                    self.path.truncate(length);
                }
            }
            Shape::Map(values) => {
                for (key, value) in self.map(value).into_iter().flatten() {
                    let length = self.enter(&Element::field(key.as_str()));
                    self.shape(values, value);
                    self.path.truncate(length);
                }
            }
            Shape::RawExtension | Shape::FieldsV1 => drop(self.map(value)),
            scalar => self.scalar(scalar, value),
        }
    }

    /// A list whose items have names: the values of their keys, or their own.
    fn named_items(&mut self, node: Node<'_>, item: &Shape, value: &Value) {
        let mut seen = BTreeSet::new();
        for (at, value) in self.list(value).into_iter().flatten().enumerate() {
            let element = match named(node, value) {
                Ok(element) => element,
                Err(error) => {
                    self.error(format!("element {at}: {error}"));
                    return;
                }
            };
            if !seen.insert(element.clone()) {
                self.error(format!("duplicate entries for key {element}"));
            }
            let length = self.enter(&element);
            self.shape(item, value);
            self.path.truncate(length);
        }
    }

    fn scalar(&mut self, shape: &Shape, value: &Value) {
        let error = match (shape, value) {
            (_, Value::Null) => return,
            (Shape::Int32 | Shape::Int64 | Shape::Double, Value::Number(_)) | (Shape::Bool, Value::Bool(_)) => return,
            (Shape::Int32 | Shape::Int64 | Shape::Double, _) => {
                format!("expected numeric (int or float), got {}", print::type_name(value))
            }
            (Shape::Bool, _) => format!("expected boolean, got &{{{}}}", print::plain(value)),
            (Shape::String | Shape::Bytes | Shape::Time | Shape::MicroTime, Value::String(_)) => return,
            (Shape::String | Shape::Bytes | Shape::Time | Shape::MicroTime, _) => {
                format!("expected string, got &value.valueUnstructured{{Value:{}}}", print::syntax(value))
            }
            // The rest has more than one form; decoding says what is wrong with it.
            _ => return,
        };
        self.error(error);
    }

    fn map<'a>(&mut self, value: &'a Value) -> Option<&'a serde_json::Map<String, Value>> {
        if !value.is_object() && !value.is_null() {
            self.error(format!("expected map, got &{{{}}}", print::plain(value)));
        }
        value.as_object()
    }

    fn list<'a>(&mut self, value: &'a Value) -> Option<&'a Vec<Value>> {
        if !value.is_array() && !value.is_null() {
            self.error(format!("expected list, got &{{{}}}", print::plain(value)));
        }
        value.as_array()
    }

    fn enter(&mut self, element: &Element) -> usize {
        let length = self.path.len();
        self.path.push_str(&element.to_string());
        length
    }

    fn error(&mut self, error: String) {
        self.errors.push(if self.path.is_empty() { error } else { format!("{}: {error}", self.path) });
    }
}

/// How an item is named, or why it cannot be.
fn named(node: Node<'_>, item: &Value) -> Result<Element, String> {
    match (node, item) {
        (Node::Keyed(..), Value::Null) => Err("associative list with keys may not have a null element".into()),
        (Node::Keyed(keys, shape), Value::Object(object)) => {
            let omitted =
                keys.iter().find(|key| !object.contains_key(key.as_ref()) && Node::default_of(shape, key).is_none());
            match omitted {
                Some(key) => Err(format!(
                    "associative list with keys has an element that omits key field {key:?} (and doesn't have default value)"
                )),
                None => element_of(node, item).ok_or_else(|| "associative list without keys".to_owned()),
            }
        }
        (Node::Keyed(..), _) => Err("associative list with keys may not have non-map elements".into()),
        (_, Value::Object(_)) => Err("associative list without keys has an element that's a map type".into()),
        (_, Value::Array(_)) => Err("not supported: associative list with lists as elements".into()),
        (_, Value::Null) => Err("associative list without keys has an element that's an explicit null".into()),
        (_, scalar) => Ok(Element::value(scalar)),
    }
}
