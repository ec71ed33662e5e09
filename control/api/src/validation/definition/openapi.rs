//! What a schema may use of OpenAPI v3, and that its Kubernetes extensions make sense together.

use serde_json::Value;

use super::{Errors, Path};
use crate::custom::{Schema, Type, check_rule as check_expression};
use crate::value::{entries, is_set, items, text};

const LIST_TYPE: &str = "x-kubernetes-list-type";
const LIST_KEYS: &str = "x-kubernetes-list-map-keys";
const MAP_TYPE: &str = "x-kubernetes-map-type";
const RULES: &str = "x-kubernetes-validations";
const RULE_REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// What the root may hold where the status is validated apart: its JSON name, and its name in upstream's error.
const AT_ROOT: [(&str, &str); 22] = [
    ("description", "Description"),
    ("type", "Type"),
    ("format", "Format"),
    ("title", "Title"),
    ("maximum", "Maximum"),
    ("exclusiveMaximum", "ExclusiveMaximum"),
    ("minimum", "Minimum"),
    ("exclusiveMinimum", "ExclusiveMinimum"),
    ("maxLength", "MaxLength"),
    ("minLength", "MinLength"),
    ("pattern", "Pattern"),
    ("maxItems", "MaxItems"),
    ("minItems", "MinItems"),
    ("uniqueItems", "UniqueItems"),
    ("multipleOf", "MultipleOf"),
    ("required", "Required"),
    ("items", "Items"),
    ("properties", "Properties"),
    ("externalDocs", "ExternalDocs"),
    ("example", "Example"),
    ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields"),
    ("x-kubernetes-validations", "XValidations"),
];

pub(super) fn root_with_status(schema: &Value, path: &Path, errors: &mut Errors) {
    if !matches!(text(&schema["type"]), "" | "object") {
        let detail =
            "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        errors.invalid(&path.at("type"), schema["type"].clone(), detail);
    } else if entries(schema).any(|(key, _)| AT_ROOT.iter().all(|(name, _)| name != key)) {
        let allowed: Vec<&str> = AT_ROOT.iter().map(|(_, name)| *name).collect();
        let detail = format!(
            "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
            allowed.join(" ")
        );
        errors.invalid(path, schema.clone(), &detail);
    }
}

pub(super) fn check(schema: &Value, path: &Path, errors: &mut Errors) {
    let place = Place { is_root: true, ..Place::default() };
    at(schema, path, &place, errors);
}

#[derive(Default, Clone)]
struct Place {
    is_root: bool,
    in_metadata: bool,
    /// Why no default may be set here.
    no_defaults: Option<String>,
}

impl Place {
    fn below(&self) -> Self {
        Self { is_root: false, ..self.clone() }
    }

    fn property(&self, schema: &Value, name: &str) -> Self {
        let mut below = self.below();
        let has_metadata = self.is_root || schema["x-kubernetes-embedded-resource"] == true;
        if has_metadata && ["metadata", "kind", "apiVersion"].contains(&name) {
            below.in_metadata = true;
            if self.is_root {
                below.no_defaults = Some(format!("in top-level {name}"));
            }
        }
        below
    }
}

fn at(schema: &Value, path: &Path, place: &Place, errors: &mut Errors) {
    if !schema.is_object() {
        return;
    }
    keywords(schema, path, place, errors);
    if schema["uniqueItems"] == true {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.forbidden(&path.at("uniqueItems"), detail);
    }
    let additional = &schema["additionalProperties"];
    if is_set(additional) {
        if entries(&schema["properties"]).next().is_some() && *additional != Value::Bool(true) {
            let detail = "additionalProperties and properties are mutual exclusive";
            errors.forbidden(&path.at("additionalProperties"), detail);
        }
        let mut below = place.below();
        if place.in_metadata {
            below.no_defaults = Some("inside additionalProperties applying to object metadata".into());
        }
        at(additional, &path.at("additionalProperties"), &below, errors);
    }
    for (name, property) in entries(&schema["properties"]) {
        at(property, &path.at("properties").key(name), &place.property(schema, name), errors);
    }
    at(&schema["not"], &path.at("not"), &place.below(), errors);
    for junctor in ["allOf", "oneOf", "anyOf"] {
        for (index, schema) in items(&schema[junctor]).iter().enumerate() {
            at(schema, &path.at(junctor).index(index), &place.below(), errors);
        }
    }
    at(&schema["items"], &path.at("items"), &place.below(), errors);
    extensions(schema, path, errors);
    list_map(schema, path, errors);
    list_items(schema, path, errors);
    let rules = items(&schema[RULES]);
    let parsed = (!rules.is_empty()).then(|| Schema::parse(schema));
    for (index, rule) in rules.iter().enumerate() {
        let path = path.at(RULES).index(index);
        check_rule(rule, &path, errors);
        compiles(rule, parsed.as_ref(), &path, errors);
    }
}

/// Keywords that are not supported, or not here.
fn keywords(schema: &Value, path: &Path, place: &Place, errors: &mut Errors) {
    let kind = text(&schema["type"]);
    if !kind.is_empty() && !Type::NAMES.contains(&kind) {
        errors.not_supported(&path.at("type"), kind, &Type::NAMES);
    }
    if let (true, Some(reason)) = (is_set(&schema["default"]), &place.no_defaults) {
        errors.forbidden(&path.at("default"), &format!("must not be set {reason}"));
    }
    for keyword in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        if is_set(&schema[keyword]) {
            errors.forbidden(&path.at(keyword), &format!("{keyword} is not supported"));
        }
    }
    if kind == "null" {
        errors.forbidden(&path.at("type"), "type cannot be set to null, use nullable as an alternative");
    }
    if schema["items"].is_array() {
        errors.forbidden(&path.at("items"), "items must be a schema object and not an array");
    }
    if place.in_metadata && schema["x-kubernetes-embedded-resource"] == true {
        let detail = "must not be used inside of resource meta";
        errors.forbidden(&path.at("x-kubernetes-embedded-resource"), detail);
    }
}

fn extensions(schema: &Value, path: &Path, errors: &mut Errors) {
    let preserve = "x-kubernetes-preserve-unknown-fields";
    if schema[preserve] == false {
        errors.invalid(&path.at(preserve), false, "must be true or undefined");
    }
    let kind = text(&schema["type"]);
    let mut wants = |extension: &str, wanted: &str| {
        if schema[extension].is_string() && kind != wanted {
            let detail = format!("must be {wanted} if {extension} is specified");
            match kind {
                "" => errors.required(&path.at("type"), &detail),
                kind => errors.invalid(&path.at("type"), kind, &detail),
            }
        }
    };
    wants(MAP_TYPE, "object");
    wants(LIST_TYPE, "array");
    let mut one_of = |extension: &str, supported: &[&str]| {
        if let Some(found) = schema[extension].as_str().filter(|found| !supported.contains(found)) {
            errors.not_supported(&path.at(extension), found, supported);
        }
    };
    one_of(MAP_TYPE, &["atomic", "granular"]);
    one_of(LIST_TYPE, &["atomic", "set", "map"]);
    let item = &schema["items"];
    if schema[LIST_TYPE] == "set" && kind == "array" && item.is_object() {
        let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let is_atomic = |extension: &str, implied: bool| match item[extension].as_str() {
            None => implied,
            Some(found) => found == "atomic",
        };
        for (wanted, extension, implied) in [("array", LIST_TYPE, true), ("object", MAP_TYPE, false)] {
            if item["type"] == wanted && !is_atomic(extension, implied) {
                errors.invalid(&path.at("items").at(extension), item[extension].clone(), detail);
            }
        }
    }
}

fn list_map(schema: &Value, path: &Path, errors: &mut Errors) {
    let (kind, keys, item) = (schema[LIST_TYPE].as_str(), items(&schema[LIST_KEYS]), &schema["items"]);
    if !keys.is_empty() && kind != Some("map") {
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        match kind {
            None => errors.required(&path.at(LIST_TYPE), detail),
            Some(kind) => errors.invalid(&path.at(LIST_TYPE), kind, detail),
        }
    }
    if kind != Some("map") {
        return;
    }
    if keys.is_empty() {
        errors.required(&path.at(LIST_KEYS), "must not be empty if x-kubernetes-list-type is map");
    }
    if !is_set(item) {
        errors.required(&path.at("items"), "must have a schema if x-kubernetes-list-type is map");
        return;
    }
    if item["type"] != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        errors.invalid(&path.at("items").at("type"), text(&item["type"]), detail);
        return;
    }
    for (index, key) in keys.iter().enumerate() {
        match item["properties"].get(text(key)) {
            Some(property) if matches!(text(&property["type"]), "array" | "object") => {
                let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                let path = path.at("items").at("properties").key(text(key)).at("type");
                errors.invalid(&path, text(&item["type"]), detail);
            }
            Some(_) => {}
            None => {
                let detail = "entries must all be names of item properties";
                errors.invalid(&path.at(LIST_KEYS), keys.to_vec(), detail);
            }
        }
        if keys[..index].contains(key) {
            errors.invalid(&path.at(LIST_KEYS), keys.to_vec(), "must not contain duplicate entries");
        }
    }
}

/// Items that are told apart need what tells them apart.
fn list_items(schema: &Value, path: &Path, errors: &mut Errors) {
    let (kind, item) = (text(&schema[LIST_TYPE]), &schema["items"]);
    if !matches!(kind, "set" | "map") || !item.is_object() {
        return;
    }
    let path = path.at("items");
    if item["nullable"] == true {
        errors.forbidden(&path.at("nullable"), &format!("cannot be nullable when x-kubernetes-list-type is {kind}"));
    }
    for key in items(&schema[LIST_KEYS]).iter().filter(|_| kind == "map") {
        let Some(property) = item["properties"].get(text(key)) else { continue };
        let path = path.at("properties").key(text(key));
        if !items(&item["required"]).contains(key) && !is_set(&property["default"]) {
            let detail =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.required(&path.at("default"), detail);
        }
        if property["nullable"] == true {
            let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.forbidden(&path.at("nullable"), detail);
        }
    }
}

/// Whether the expressions of a rule mean anything where they stand.
fn compiles(rule: &Value, schema: Option<&Schema>, path: &Path, errors: &mut Errors) {
    let Some(schema) = schema else { return };
    for (field, wants_bool) in [("rule", true), ("messageExpression", false)] {
        let expression = text(&rule[field]);
        if expression.trim().is_empty() {
            continue;
        }
        if let Err(why) = check_expression(expression, schema, wants_bool) {
            errors.invalid(&path.at(field), expression, &why);
        }
    }
}

/// The form of a CEL rule.
fn check_rule(rule: &Value, path: &Path, errors: &mut Errors) {
    let breaks = |text: &str| text.contains(['\n', '\r']);
    let (expression, message) = (text(&rule["rule"]).trim(), text(&rule["message"]));
    if expression.is_empty() {
        errors.required(&path.at("rule"), "rule is not specified");
    } else if !message.is_empty() && message.trim().is_empty() {
        errors.invalid(&path.at("message"), message, "must be non-empty if specified");
    } else if breaks(message.trim()) {
        errors.invalid(&path.at("message"), message, "must not contain line breaks");
    } else if breaks(expression) && message.trim().is_empty() {
        errors.required(&path.at("message"), "message must be specified if rule contains line breaks");
    }
    let expression = text(&rule["messageExpression"]);
    if !expression.is_empty() && expression.trim().is_empty() {
        errors.required(&path.at("messageExpression"), "messageExpression must be non-empty if specified");
    }
    if let Some(reason) = rule["reason"].as_str().filter(|reason| !RULE_REASONS.contains(reason)) {
        errors.not_supported(&path.at("reason"), reason, &RULE_REASONS);
    }
    let field = text(&rule["fieldPath"]);
    if !field.is_empty() && field.trim().is_empty() {
        errors.invalid(&path.at("fieldPath"), field, "must be non-empty if specified");
    }
    if breaks(field) {
        errors.invalid(&path.at("fieldPath"), field, "must not contain line breaks");
    }
}
