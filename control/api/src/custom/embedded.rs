//! Objects inside objects: their type must be there, their metadata must be sound.

use serde_json::Value;

use super::{Additional, Schema};
use crate::names::{self, NameRule};
use crate::validation::{Errors, Path, validate_metadata};

/// Checks every embedded object below a value.
pub(crate) fn check(schema: &Schema, value: &Value, path: &str, errors: &mut Errors) {
    at(schema, value, &Path::new(path), errors);
}

fn at(schema: &Schema, value: &Value, path: &Path, errors: &mut Errors) {
    match value {
        Value::Object(object) => {
            if schema.embedded {
                resource(value, path, errors);
            }
            for (name, value) in object {
                if let Some(property) = schema.properties.get(name) {
                    at(property, value, &path.at(name), errors);
                } else if let Some(Additional::Of(values)) = &schema.additional {
                    at(values, value, &path.key(name), errors);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                for (index, item) in list.iter().enumerate() {
                    at(items, item, &path.index(index), errors);
                }
            }
        }
        _ => {}
    }
}

fn resource(object: &Value, path: &Path, errors: &mut Errors) {
    for field in ["apiVersion", "kind"] {
        let path = path.at(field);
        match &object[field] {
            Value::Null if object.get(field).is_none() => errors.required(&path, ""),
            Value::String(text) if text.is_empty() => errors.invalid(&path, "", "must not be empty"),
            Value::String(text) if field == "apiVersion" => {
                if text.matches('/').count() > 1 {
                    errors.invalid(&path, text.as_str(), &format!("unexpected GroupVersion string: {text}"));
                }
            }
            Value::String(kind) => {
                let complaints = names::dns_label_1035(&kind.to_lowercase());
                if !complaints.is_empty() {
                    let detail = format!("may have mixed case, but should otherwise match: {}", complaints.join(","));
                    errors.invalid(&path, kind.as_str(), &detail);
                }
            }
            other => errors.invalid(&path, other.clone(), "must be a string"),
        }
    }
    if object["metadata"].is_object() {
        validate_metadata(object, NameRule::PathSegment, &path.at("metadata"), errors);
    }
}
