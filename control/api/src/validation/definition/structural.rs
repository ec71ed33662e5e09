//! Whether a schema is structural: every field that is validated is also described, and the types are plain.

use serde_json::{Value, json};

use super::{Errors, Path};
use crate::custom::Pattern;
use crate::value::{entries, is_set, items, text};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";
const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";

/// A keyword that keeps a schema from being looked at as a structural one.
pub(super) fn unsupported(schema: &Value) -> Option<String> {
    const KEYWORDS: [(&str, &str); 7] = [
        ("id", "id"),
        ("$schema", "schema"),
        ("$ref", "$ref"),
        ("patternProperties", "patternProperties"),
        ("dependencies", "dependencies"),
        ("additionalItems", "additionalItems"),
        ("definitions", "definitions"),
    ];
    if let Some((_, name)) = KEYWORDS.iter().find(|(keyword, _)| is_set(&schema[*keyword])) {
        return Some(format!("OpenAPIV3Schema '{name}' is not supported"));
    }
    if schema["items"].is_array() {
        return Some("OpenAPIV3Schema 'items' must be a schema, but is an array".into());
    }
    if schema[PRESERVE] == false {
        return Some("internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined".into());
    }
    let lists = ["allOf", "anyOf", "oneOf"].into_iter().flat_map(|junctor| items(&schema[junctor]));
    let single = ["not", "items", "additionalProperties"].into_iter().map(|keyword| &schema[keyword]);
    let properties = entries(&schema["properties"]).map(|(_, property)| property);
    lists.chain(single).chain(properties).filter(|schema| schema.is_object()).find_map(unsupported)
}

/// Complaints, in the order of their texts.
pub(super) fn check(schema: &Value, path: &Path, errors: &mut Errors) {
    let mut found = Errors::default();
    invariants(schema, Level::Root, path, &mut found);
    completeness(schema, Some(schema), path, path, &mut found);
    found.sort();
    errors.extend(found);
}

fn invariants(schema: &Value, level: Level, path: &Path, errors: &mut Errors) {
    let kind = text(&schema["type"]);
    let flag = |name: &str| schema[name] == true;
    if kind == "array" && !schema["items"].is_object() {
        errors.required(&path.at("items"), "must be specified");
    }
    if schema["items"].is_object() {
        invariants(&schema["items"], Level::Item, &path.at("items"), errors);
    }
    for (name, property) in entries(&schema["properties"]) {
        invariants(property, Level::Field, &path.at("properties").key(name), errors);
    }
    let additional = &schema["additionalProperties"];
    if is_set(additional) {
        if level == Level::Root {
            errors.forbidden(&path.at("additionalProperties"), "must not be used at the root");
        }
        if additional.is_object() {
            invariants(additional, Level::Field, &path.at("additionalProperties"), errors);
        }
    }
    for extension in [PRESERVE, EMBEDDED] {
        if flag(INT_OR_STRING) && flag(extension) {
            let detail = "must be false if x-kubernetes-int-or-string is true";
            errors.invalid(&path.at(extension), true, detail);
        }
    }
    let int_or_string = json!([{"type": "integer"}, {"type": "string"}]);
    let skip_any = schema["anyOf"] == int_or_string;
    let skip_all = items(&schema["allOf"]).first().is_some_and(|first| first["anyOf"] == int_or_string);
    rules(schema, skip_any, skip_all, path, errors);
    type_invariants(schema, level, path, errors);
    metadata_invariants(schema, level, path, errors);
}

fn type_invariants(schema: &Value, level: Level, path: &Path, errors: &mut Errors) {
    let kind = text(&schema["type"]);
    let flag = |name: &str| schema[name] == true;
    let path_of_type = path.at("type");
    if flag(EMBEDDED) && kind != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        match kind {
            "" => errors.required(&path_of_type, detail),
            kind => errors.invalid(&path_of_type, kind, detail),
        }
    } else if kind.is_empty() && !flag(INT_OR_STRING) && !flag(PRESERVE) {
        let place = match level {
            Level::Root => "at the root",
            Level::Item => "for specified array items",
            Level::Field => "for specified object fields",
        };
        errors.required(&path_of_type, &format!("must not be empty {place}"));
    }
    if flag(EMBEDDED) && is_set(&schema["additionalProperties"]) {
        let detail = "must not be used if x-kubernetes-embedded-resource is set";
        errors.forbidden(&path.at("additionalProperties"), detail);
    }
    if level == Level::Root && !matches!(kind, "" | "object") {
        errors.invalid(&path_of_type, kind, "must be object at the root");
    }
    if flag(EMBEDDED) && !flag(PRESERVE) && entries(&schema["properties"]).next().is_none() {
        let detail = "must not be empty if x-kubernetes-embedded-resource is true without \
                      x-kubernetes-preserve-unknown-fields";
        errors.required(&path.at("properties"), detail);
    }
}

/// Of type and metadata, a schema may say little.
fn metadata_invariants(schema: &Value, level: Level, path: &Path, errors: &mut Errors) {
    let has_metadata = level == Level::Root || schema[EMBEDDED] == true;
    let path = path.at("properties");
    for name in ["kind", "apiVersion"] {
        if let Some(found) = schema["properties"].get(name).filter(|found| has_metadata && found["type"] != "string") {
            errors.invalid(&path.key(name).at("type"), text(&found["type"]), "must be string");
        }
    }
    let Some(metadata) = schema["properties"].get("metadata") else { return };
    let path = path.key("metadata");
    if has_metadata && metadata["type"] != "object" {
        errors.invalid(&path.at("type"), text(&metadata["type"]), "must be object");
    }
    if level == Level::Root {
        let names_only = entries(&metadata["properties"]).all(|(name, _)| name == "name" || name == "generateName");
        let mut others = entries(metadata).map(|(key, _)| key.as_str());
        let is_bare = others.all(|key| matches!(key, "type" | "default") || (key == "properties" && names_only));
        if !is_bare {
            let detail =
                "must not specify anything other than name and generateName, but metadata is implicitly specified";
            errors.forbidden(&path, detail);
        }
    }
}

/// The value rules of a schema, and of the schemas nested in them.
fn rules(schema: &Value, skip_any: bool, skip_all: bool, path: &Path, errors: &mut Errors) {
    for (index, nested_schema) in items(&schema["anyOf"]).iter().enumerate().filter(|_| !skip_any) {
        nested(nested_schema, false, &path.at("anyOf").index(index), errors);
    }
    for (index, nested_schema) in items(&schema["allOf"]).iter().enumerate() {
        nested(nested_schema, skip_all && index == 0, &path.at("allOf").index(index), errors);
    }
    for (index, nested_schema) in items(&schema["oneOf"]).iter().enumerate() {
        nested(nested_schema, false, &path.at("oneOf").index(index), errors);
    }
    if schema["not"].is_object() {
        nested(&schema["not"], false, &path.at("not"), errors);
    }
    let pattern = text(&schema["pattern"]);
    if let Err(why) = Pattern::new(pattern).compiled() {
        let detail = format!("must be a valid regular expression, but isn't: {why}");
        errors.invalid(&path.at("pattern"), pattern, &detail);
    }
}

/// A schema inside `allOf` and its like only restricts values; it describes nothing.
fn nested(schema: &Value, skip_any: bool, path: &Path, errors: &mut Errors) {
    rules(schema, skip_any, false, path, errors);
    if schema["items"].is_object() {
        nested(&schema["items"], false, &path.at("items"), errors);
    }
    for (name, property) in entries(&schema["properties"]) {
        nested(property, false, &path.at("properties").key(name), errors);
    }
    const FORBIDDEN: [(&str, &str); 12] = [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        (PRESERVE, "must be false to be structural"),
        (EMBEDDED, "must be false to be structural"),
        (INT_OR_STRING, "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
    ];
    for (keyword, detail) in FORBIDDEN {
        let found = &schema[keyword];
        if is_set(found) && *found != Value::Bool(false) {
            errors.forbidden(&path.at(keyword), detail);
        }
    }
    if !items(&schema["x-kubernetes-validations"]).is_empty() {
        errors.forbidden(&path.at("x-kubernetes-validations"), "must be empty to be structural");
    }
    if schema["properties"].get("metadata").is_some() {
        let path = path.at("properties").key("metadata");
        errors.forbidden(&path, "must not be specified in a nested context");
    }
}

/// What the rules speak of must be described.
fn completeness(rules: &Value, schema: Option<&Value>, path: &Path, rule_path: &Path, errors: &mut Errors) {
    let single = rules["not"].is_object().then(|| (&rules["not"], rule_path.at("not")));
    let lists = ["allOf", "anyOf", "oneOf"].into_iter().flat_map(|junctor| {
        let each = items(&rules[junctor]).iter().enumerate();
        each.map(move |(index, rules)| (rules, rule_path.at(junctor).index(index)))
    });
    for (rules, rule_path) in single.into_iter().chain(lists) {
        nested_completeness(rules, schema, path, &rule_path, errors);
    }
}

fn nested_completeness(rules: &Value, schema: Option<&Value>, path: &Path, rule_path: &Path, errors: &mut Errors) {
    let Some(described) = schema else {
        errors.required(path, &format!("because it is defined in {}", rule_path.as_str()));
        return;
    };
    completeness(rules, schema, path, rule_path, errors);
    if rules["items"].is_object() {
        let items = Some(&described["items"]).filter(|items| items.is_object());
        nested_completeness(&rules["items"], items, &path.at("items"), &rule_path.at("items"), errors);
    }
    for (name, rules) in entries(&rules["properties"]) {
        let (path, rule_path) = (path.at("properties").key(name), rule_path.at("properties").key(name));
        nested_completeness(rules, described["properties"].get(name), &path, &rule_path, errors);
    }
}
