//! What a schema does not know: found for strict clients, and taken out.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{Additional, Schema, number};
use crate::schema::{self, Message};
use crate::strict::{self, Findings, Json, STRICT_ERRORS_MAX, View};

const TYPE_AND_METADATA: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// The unknown and repeated fields of an object, and metadata of the wrong type. Other values are left to validation.
pub(crate) fn findings<T: Json>(schema: &Schema, object: &T) -> Findings {
    let mut walk = Walk::default();
    walk.duplicates(object);
    let duplicates = walk.found.len();
    if let View::Object(entries) = object.view() {
        for (name, value) in entries {
            if name == "metadata" {
                walk.metadata(value);
            }
        }
    }
    let metadata = walk.found.len();
    walk.at(schema, object, true);
    walk.found[metadata..].sort();
    // Repeated metadata has been reported among the repeated fields.
    let mut seen: HashSet<String> = HashSet::with_capacity(walk.found.len());
    let strict = walk.found.drain(..).enumerate().filter_map(|(at, text)| {
        let is_new = seen.insert(text.clone()) && (at < duplicates || text.starts_with("unknown"));
        is_new.then_some(text)
    });
    Findings { strict: strict.take(STRICT_ERRORS_MAX).collect(), type_error: walk.type_error }
}

/// Takes out what the schema does not know, and nulls where null is not allowed and nothing stands in for them.
pub(crate) fn prune(schema: &Schema, object: &mut Value) {
    remove_unknown(schema, object, true);
    remove_nulls(Some(schema), object);
    number::normalize(object);
}

/// Whether nothing in a value is unknown.
pub(crate) fn is_pruned(schema: &Schema, value: &Value) -> bool {
    let mut pruned = value.clone();
    remove_unknown(schema, &mut pruned, false);
    pruned == *value
}

/// The message of an object's metadata. It is part of the built-in table.
fn object_meta() -> Option<&'static Message> {
    schema::message("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
}

#[derive(Default)]
struct Walk {
    path: String,
    found: Vec<String>,
    type_error: Option<String>,
}

impl Walk {
    fn record(&mut self, what: &str, name: &str) {
        let length = self.enter(name);
        if self.found.len() < STRICT_ERRORS_MAX {
            self.found.push(format!("{what} field {:?}", self.path));
        }
        self.path.truncate(length);
    }

    fn enter(&mut self, name: &str) -> usize {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        length
    }

    fn enter_item(&mut self, at: usize) -> usize {
        let length = self.path.len();
        self.path.push_str(&format!("[{at}]"));
        length
    }

    fn duplicates<T: Json>(&mut self, value: &T) {
        match value.view() {
            View::Object(entries) => {
                let mut seen = HashSet::with_capacity(entries.len());
                for (name, value) in entries {
                    if !seen.insert(name) {
                        self.record("duplicate", name);
                    }
                    let length = self.enter(name);
                    self.duplicates(value);
                    self.path.truncate(length);
                }
            }
            View::List(items) => {
                for (at, item) in items.iter().enumerate() {
                    let length = self.enter_item(at);
                    self.duplicates(item);
                    self.path.truncate(length);
                }
            }
            _ => {}
        }
    }

    fn metadata<T: Json>(&mut self, metadata: &T) {
        let Some(message) = object_meta() else { return };
        let length = self.enter("metadata");
        let findings = strict::check_below(message, metadata, &self.path);
        self.path.truncate(length);
        self.found.extend(findings.strict);
        if self.type_error.is_none() {
            self.type_error = findings.type_error;
        }
    }

    /// Unknown fields; `is_root` for an object that has type and metadata whatever its schema says.
    fn at<T: Json>(&mut self, schema: &Schema, value: &T, is_root: bool) {
        match value.view() {
            View::Object(entries) => {
                for (name, value) in entries {
                    if (is_root || schema.embedded) && TYPE_AND_METADATA.contains(&name) {
                        if name == "metadata" && !is_root {
                            self.metadata(value);
                        }
                        continue;
                    }
                    let Some(below) = Below::of(schema, name) else {
                        self.record("unknown", name);
                        continue;
                    };
                    let length = self.enter(name);
                    self.below(below, value);
                    self.path.truncate(length);
                }
            }
            View::List(items) => {
                for (at, item) in items.iter().enumerate() {
                    let length = self.enter_item(at);
                    self.below(Below::item(schema), item);
                    self.path.truncate(length);
                }
            }
            _ => {}
        }
    }

    fn below<T: Json>(&mut self, below: Below<'_>, value: &T) {
        match below {
            Below::Known(schema) => self.at(schema, value, false),
            Below::Nothing => self.at(&Schema::default(), value, false),
            Below::Kept => {}
        }
    }
}

/// What a schema says of a value inside.
enum Below<'a> {
    Known(&'a Schema),
    /// There may be a value, but no field in it is known.
    Nothing,
    /// Nothing in it is looked at.
    Kept,
}

impl<'a> Below<'a> {
    /// `None` for a field that is not known.
    fn of(schema: &'a Schema, name: &str) -> Option<Self> {
        match (schema.properties.get(name), &schema.additional) {
            (Some(property), _) => Some(Self::Known(property)),
            (None, Some(Additional::Of(values))) => Some(Self::Known(values)),
            (None, Some(_)) => Some(Self::Nothing),
            (None, None) => schema.preserves.then_some(Self::Kept),
        }
    }

    fn item(schema: &'a Schema) -> Self {
        match &schema.items {
            Some(items) => Self::Known(items),
            None if schema.preserves => Self::Kept,
            None => Self::Nothing,
        }
    }
}

fn remove_unknown(schema: &Schema, value: &mut Value, is_root: bool) {
    match value {
        Value::Object(object) => {
            let has_metadata = is_root || schema.embedded;
            object.retain(|name, value| {
                if has_metadata && TYPE_AND_METADATA.contains(&name.as_str()) {
                    return true;
                }
                Below::of(schema, name).inspect(|below| remove_below(below, value)).is_some()
            });
            if has_metadata {
                prune_metadata(object);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|value| remove_below(&Below::item(schema), value)),
        _ => {}
    }
}

fn remove_below(below: &Below<'_>, value: &mut Value) {
    match below {
        Below::Known(schema) => remove_unknown(schema, value, false),
        Below::Nothing => remove_unknown(&Schema::default(), value, false),
        Below::Kept => {}
    }
}

fn prune_metadata(object: &mut Map<String, Value>) {
    if let (Some(message), Some(metadata)) = (object_meta(), object.get_mut("metadata")) {
        crate::prune::prune(message, metadata);
        if metadata.is_null() {
            object.remove("metadata");
        }
    }
}

fn remove_nulls(schema: Option<&Schema>, value: &mut Value) {
    match value {
        Value::Object(object) => object.retain(|name, value| {
            let schema = schema.and_then(|schema| schema.field(name));
            let goes = value.is_null() && schema.is_some_and(|schema| !schema.nullable && schema.default.is_none());
            if !goes {
                remove_nulls(schema, value);
            }
            !goes
        }),
        Value::Array(list) => {
            let schema = schema.and_then(|schema| schema.items.as_deref());
            list.iter_mut().for_each(|value| remove_nulls(schema, value));
        }
        _ => {}
    }
}
