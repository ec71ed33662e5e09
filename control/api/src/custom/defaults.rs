//! Defaults of custom resources.

use serde_json::Value;

use super::Schema;

/// Fills in what is missing, or null where null is not allowed.
pub(super) fn apply(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (name, property) in &schema.properties {
                let Some(default) = &property.default else { continue };
                if object.get(name).is_none_or(|value| value.is_null() && !property.nullable) {
                    object.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in object {
                if let Some(schema) = schema.field(name) {
                    replace_null(schema, value);
                    apply(schema, value);
                }
            }
        }
        Value::Array(list) => {
            let Some(schema) = &schema.items else { return };
            for value in list {
                replace_null(schema, value);
                apply(schema, value);
            }
        }
        _ => {}
    }
}

fn replace_null(schema: &Schema, value: &mut Value) {
    if let (true, false, Some(default)) = (value.is_null(), schema.nullable, &schema.default) {
        *value = default.clone();
    }
}
