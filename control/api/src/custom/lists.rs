//! Lists of type set and map hold no item twice.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{Additional, List, Schema};
use crate::validation::{Errors, Path};

/// Complains about repeated items anywhere in an object.
pub(super) fn check(schema: &Schema, object: &Value, errors: &mut Errors) {
    object_at(schema, object, &Path::new(""), errors);
}

fn object_at(schema: &Schema, value: &Value, path: &Path, errors: &mut Errors) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                if let Some(property) = schema.properties.get(name) {
                    object_at(property, value, &path.at(name), errors);
                } else if let Some(Additional::Of(values)) = &schema.additional {
                    object_at(values, value, &path.key(name), errors);
                }
            }
        }
        Value::Array(list) => {
            match &schema.list {
                List::Atomic => {}
                List::Set => repeated(list, |at| errors.duplicate(&path.index(at), list[at].clone())),
                List::Map(keys) => map(list, keys, path, errors),
            }
            if let Some(items) = &schema.items {
                for (at, item) in list.iter().enumerate() {
                    object_at(items, item, &path.index(at), errors);
                }
            }
        }
        _ => {}
    }
}

fn map(list: &[Value], keys: &[String], path: &Path, errors: &mut Errors) {
    if let Some(at) = list.iter().position(|item| !item.is_null() && !item.is_object()) {
        errors.invalid(&path.index(at), list[at].clone(), "must be an object for an array of list-type map");
        return;
    }
    let keys_of = |item: &Value| {
        let found = keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
        Value::Object(found.collect::<Map<String, Value>>())
    };
    let named: Vec<Value> = list.iter().map(keys_of).collect();
    repeated(&named, |at| errors.duplicate(&path.index(at), named[at].clone()));
}

/// Calls once for each value that occurs more than once, with its second place.
fn repeated(list: &[Value], mut found: impl FnMut(usize)) {
    let mut seen: HashMap<String, usize> = HashMap::with_capacity(list.len());
    for (at, value) in list.iter().enumerate() {
        let times = seen.entry(value.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            found(at);
        }
    }
}
