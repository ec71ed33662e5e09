//! Defaults in a schema must themselves be valid.

use serde_json::Value;

use super::{Errors, Path};
use crate::custom::{Schema, check as check_value, check_embedded, is_pruned};

pub(super) fn check(schema: &Value, path: &Path, errors: &mut Errors) {
    at(&Schema::parse(schema), path, true, errors);
}

fn at(schema: &Schema, path: &Path, is_root: bool, errors: &mut Errors) {
    if let Some(default) = &schema.default {
        let path = path.at("default");
        let mut found = Errors::default();
        if !is_pruned(schema, default) {
            found.invalid(&path, default.clone(), "must not have unknown fields");
        }
        check_embedded(schema, default, path.as_str(), &mut found);
        if found.is_empty() {
            check_value(schema, default, None, path.as_str(), &mut found);
        }
        errors.extend(found);
    }
    if let Some(items) = &schema.items {
        at(items, &path.at("items"), false, errors);
    }
    for (name, property) in &schema.properties {
        // Defaults of metadata are refused elsewhere.
        if !((is_root || schema.embedded) && name == "metadata") {
            at(property, &path.at("properties").key(name), false, errors);
        }
    }
}
