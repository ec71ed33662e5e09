//! Fields that field selectors may name.

use serde_json::Value;

use super::{Errors, Path};
use crate::custom::JsonPath;
use crate::value::{items, text};

const SELECTABLE_FIELDS_MAX: usize = 8;

pub(super) fn check(version: &Value, path: &Path, errors: &mut Errors) {
    let schema = &version["schema"]["openAPIV3Schema"];
    let mut seen: Vec<&str> = Vec::new();
    for (at, field) in items(&version["selectableFields"]).iter().enumerate() {
        let (path, json_path) = (path.index(at).at("jsonPath"), text(&field["jsonPath"]));
        if json_path.is_empty() {
            errors.required(&path, "");
            continue;
        }
        let found = match find(schema, json_path) {
            Ok(found) => found,
            Err(why) => {
                errors.invalid(&path, json_path, &format!("is an invalid path: {why}"));
                continue;
            }
        };
        if json_path.starts_with(".metadata.") || json_path == ".metadata" {
            errors.invalid(&path, json_path, "must not point to fields in metadata");
        }
        if !matches!(text(&found["type"]), "string" | "boolean" | "integer") {
            let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings with \
                          formats are allowed.";
            errors.invalid(&path, json_path, detail);
        }
        if seen.contains(&json_path) {
            errors.duplicate(&path, json_path);
        } else {
            seen.push(json_path);
        }
    }
    if seen.len() > SELECTABLE_FIELDS_MAX {
        errors.too_many(path, seen.len(), SELECTABLE_FIELDS_MAX);
    }
}

/// The schema of the field that a path of names leads to.
fn find<'a>(schema: &'a Value, path: &str) -> Result<&'a Value, String> {
    let parsed = JsonPath::parse(path).filter(|_| path.starts_with('.'));
    let names = parsed.as_ref().and_then(JsonPath::fields).ok_or("only names of fields are allowed")?;
    names.iter().try_fold(schema, |schema, name| {
        let found = schema["properties"]
            .get(*name)
            .or_else(|| Some(&schema["additionalProperties"]).filter(|any| any.is_object()));
        found.ok_or_else(|| format!("does not refer to a valid field: {name}"))
    })
}
