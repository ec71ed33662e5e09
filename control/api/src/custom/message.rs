//! A custom resource as a [`Message`]: the form in which patches, field tracking and apply know types.

use std::sync::Arc;

use super::{Additional, List, Schema, Type};
use crate::schema::{Field, Home, Link, Merging, Message, Shape};

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The message of a kind. Decoding and pruning go by the schema itself, which knows more.
pub(super) fn message(name: &str, group: &str, version: &str, schema: &Arc<Schema>) -> Message {
    let mut message = object(name, schema, true);
    message.kind = Some(Home::Of { group: group.to_owned().into(), version: version.to_owned().into() });
    message.structural = Some(Arc::clone(schema));
    message
}

fn object(name: &str, schema: &Schema, has_metadata: bool) -> Message {
    let mut fields: Vec<Field> = Vec::new();
    if has_metadata {
        fields.extend(["apiVersion", "kind"].map(|name| Field::new(name, Shape::String)));
        let metadata = Link::builtin(OBJECT_META).map_or(Shape::Json, Shape::Message);
        fields.push(Field::new("metadata", metadata));
    }
    for (property, schema) in &schema.properties {
        if !fields.iter().any(|field| field.name == property.as_str()) {
            fields.push(field(name, property, schema));
        }
    }
    if let Some(rules) = &schema.rules {
        for field in &mut fields {
            field.required = rules.required.iter().any(|name| field.name == name.as_str());
        }
    }
    let mut message = Message::new(name.to_owned(), fields);
    message.atomic = schema.atomic;
    message.keeps_unknown = schema.preserves;
    message
}

fn field(owner: &str, name: &str, schema: &Schema) -> Field {
    let mut field = Field::new(name.to_owned(), shape(&format!("{owner}.{name}"), schema));
    field.default.clone_from(&schema.default);
    field.merging = match &schema.list {
        List::Set => Some(Merging::Set),
        List::Map(keys) => Some(Merging::Map(keys.iter().map(|key| key.clone().into()).collect())),
        List::Atomic if schema.atomic => Some(Merging::Atomic),
        List::Atomic => None,
    };
    field
}

fn shape(name: &str, schema: &Schema) -> Shape {
    if schema.int_or_string {
        return Shape::IntOrString;
    }
    match schema.kind {
        Some(Type::Array) => Shape::list(schema.items.as_ref().map_or(Shape::Json, |items| shape(name, items))),
        Some(Type::Boolean) => Shape::Bool,
        Some(Type::Integer) => Shape::Int64,
        Some(Type::Number) => Shape::Double,
        Some(Type::String) => Shape::String,
        Some(Type::Object) | None => match &schema.additional {
            Some(Additional::Of(values)) if schema.properties.is_empty() => Shape::map(shape(name, values)),
            Some(Additional::Any) if schema.properties.is_empty() => Shape::map(Shape::Json),
            _ if schema.properties.is_empty() && !schema.embedded && (schema.preserves || schema.kind.is_none()) => {
                Shape::Json
            }
            _ => Shape::Message(Link::from(Arc::new(object(name, schema, schema.embedded)))),
        },
    }
}

/// The name of a kind in OpenAPI: `com.example.v1.Widget`.
pub(super) fn name(group: &str, version: &str, kind: &str) -> String {
    let reversed: Vec<&str> = group.rsplit('.').collect();
    format!("{}.{version}.{kind}", reversed.join("."))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::managed_fields::{Comparison, compare};

    #[test]
    fn lists_and_maps_are_owned_as_the_schema_says() {
        let schema = Arc::new(Schema::parse(
            &json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
                "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "properties": {"name": {"type": "string"}, "port": {"type": "integer"}}}},
                "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                "plain": {"type": "array", "items": {"type": "string"}},
                "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": {"type": "string"}}},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            }}}}),
        ));
        let message = message(&name("example.com", "v1", "Widget"), "example.com", "v1", &schema);
        assert_eq!((message.name.as_ref(), message.short_name()), ("com.example.v1.Widget", "Widget"));
        let object = json!({"spec": {"ports": [{"name": "a", "port": 1}], "tags": ["x"], "plain": ["y"],
            "whole": {"a": "b"}, "labels": {"l": "m"}, "free": {"f": {"g": 1}}}});
        let Comparison { added, .. } = compare(&message, &json!({}), &object);
        assert_eq!(
            added.to_json(),
            json!({"f:spec": {".": {}, "f:ports": {".": {}, "k:{\"name\":\"a\"}": {".": {}, "f:name": {}, "f:port": {}}},
                "f:tags": {".": {}, "v:\"x\"": {}}, "f:plain": {}, "f:whole": {}, "f:labels": {".": {}, "f:l": {}},
                "f:free": {".": {}, "f:f": {".": {}, "f:g": {}}}}})
        );
    }
}
