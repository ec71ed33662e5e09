//! Reading a `JSONSchemaProps` into a [`Schema`]. Total: what validation would have refused is left out.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::format;
use super::{Additional, List, Pattern, Rule, Rules, Schema, Type};
use crate::value::{entries, items, text};

/// The patterns of a definition, each kept once.
#[derive(Default)]
pub(super) struct Patterns(HashMap<String, Arc<Pattern>>);

impl Patterns {
    fn get(&mut self, text: &str) -> Arc<Pattern> {
        let made = || Arc::new(Pattern::new(text));
        Arc::clone(self.0.entry(text.to_owned()).or_insert_with(made))
    }
}

impl Schema {
    /// Reads a schema from its JSON form.
    #[must_use]
    pub fn parse(json: &Value) -> Self {
        Self::parse_with(json, &mut Patterns::default())
    }

    pub(super) fn parse_with(json: &Value, patterns: &mut Patterns) -> Self {
        let kind = Type::parse(text(&json["type"]));
        let flag = |name: &str| json[name] == true;
        let nested = |json: &Value, patterns: &mut Patterns| Box::new(Self::parse_with(json, patterns));
        let mut schema = Self {
            kind,
            int_or_string: flag("x-kubernetes-int-or-string"),
            nullable: flag("nullable"),
            embedded: flag("x-kubernetes-embedded-resource"),
            preserves: flag("x-kubernetes-preserve-unknown-fields"),
            default: json.get("default").filter(|default| !default.is_null()).cloned(),
            properties: entries(&json["properties"])
                .map(|(name, schema)| (name.clone(), Self::parse_with(schema, patterns)))
                .collect(),
            additional: match &json["additionalProperties"] {
                Value::Bool(false) => Some(Additional::Refused),
                Value::Bool(true) => Some(Additional::Any),
                schema @ Value::Object(_) => Some(Additional::Of(nested(schema, patterns))),
                _ => None,
            },
            items: json["items"].is_object().then(|| nested(&json["items"], patterns)),
            list: match text(&json["x-kubernetes-list-type"]) {
                "set" => List::Set,
                "map" => List::Map(strings(&json["x-kubernetes-list-map-keys"])),
                _ => List::Atomic,
            },
            atomic: json["x-kubernetes-map-type"] == "atomic",
            rules: Rules::parse(json, kind, patterns).map(Box::new),
            cel: Rule::parse_all(json),
            has_cel: false,
        };
        let additional = match &schema.additional {
            Some(Additional::Of(values)) => Some(&**values),
            _ => None,
        };
        let mut below = schema.properties.values().chain(schema.items.as_deref()).chain(additional);
        schema.has_cel = !schema.cel.is_empty() || below.any(|schema| schema.has_cel);
        schema
    }
}

impl Rules {
    fn parse(json: &Value, kind: Option<Type>, patterns: &mut Patterns) -> Option<Self> {
        const KEYS: [&str; 20] = [
            "allOf",
            "anyOf",
            "enum",
            "exclusiveMaximum",
            "exclusiveMinimum",
            "format",
            "maxItems",
            "maxLength",
            "maxProperties",
            "maximum",
            "minItems",
            "minLength",
            "minProperties",
            "minimum",
            "multipleOf",
            "not",
            "oneOf",
            "pattern",
            "required",
            "uniqueItems",
        ];
        if KEYS.iter().all(|key| json[*key].is_null()) {
            return None;
        }
        let mut all = |name: &str| items(&json[name]).iter().map(|json| Schema::parse_with(json, patterns)).collect();
        let (all_of, any_of, one_of) = (all("allOf"), all("anyOf"), all("oneOf"));
        let count = |name: &str| json[name].as_u64();
        let int_or_string = json["x-kubernetes-int-or-string"] == true;
        let format = text(&json["format"]);
        Some(Self {
            format: if int_or_string || !format::is_known(format, kind) { String::new() } else { format.to_owned() },
            maximum: json["maximum"].as_f64(),
            exclusive_maximum: json["exclusiveMaximum"] == true,
            minimum: json["minimum"].as_f64(),
            exclusive_minimum: json["exclusiveMinimum"] == true,
            multiple_of: json["multipleOf"].as_f64(),
            max_length: count("maxLength"),
            min_length: count("minLength"),
            not: json["not"].is_object().then(|| Schema::parse_with(&json["not"], patterns)),
            pattern: Some(text(&json["pattern"])).filter(|text| !text.is_empty()).map(|text| patterns.get(text)),
            max_items: count("maxItems"),
            min_items: count("minItems"),
            max_properties: count("maxProperties"),
            min_properties: count("minProperties"),
            required: strings(&json["required"]),
            allowed: items(&json["enum"]).to_vec(),
            all_of,
            any_of,
            one_of,
        })
    }
}

pub(super) fn strings(list: &Value) -> Vec<String> {
    items(list).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
