//! Swagger 2.0 (`/openapi/v2`): all group versions in one document, made from their OpenAPI v3 documents.
//!
//! Older clients merge and check by it. They read it as protobuf, which [`wire`] writes.

mod wire;

use serde_json::{Map, Value, json};

pub use wire::encode;

use crate::registry::Registry;

/// The protobuf form, as clients ask for it.
pub const PROTOBUF_MEDIA_TYPES: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    // Clients since 1.26 ask for a spelling that media type parsers accept.
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
];
const REQUEST_TYPES: [&str; 3] = ["application/json", "application/yaml", crate::protobuf::MEDIA_TYPE];
const DEFINITIONS: &str = "#/definitions/";

/// The document of everything that a registry serves.
#[must_use]
pub fn document(registry: &Registry) -> Value {
    let _unpacked = super::Descriptions::get();
    let (mut paths, mut definitions) = (Map::new(), Map::new());
    for group in registry.groups() {
        for version in registry.versions(group) {
            let mut part = super::document(registry, group, version);
            for (path, item) in entries(part["paths"].take()) {
                paths.insert(path, path_item(item));
            }
            for (name, schema) in entries(part["components"]["schemas"].take()) {
                let schema = self::schema(schema);
                match definitions.get_mut(&name) {
                    Some(known) => join_kinds(known, &schema),
                    None => drop(definitions.insert(name, schema)),
                }
            }
        }
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": super::API_RELEASE},
        "paths": paths,
        "definitions": definitions,
    })
}

fn entries(value: Value) -> Map<String, Value> {
    if let Value::Object(map) = value { map } else { Map::new() }
}

/// Types such as `DeleteOptions` belong to every group; each document names its own.
fn join_kinds(known: &mut Value, other: &Value) {
    const KINDS: &str = "x-kubernetes-group-version-kind";
    let (Some(known), Some(other)) = (known.get_mut(KINDS).and_then(Value::as_array_mut), other[KINDS].as_array())
    else {
        return;
    };
    for kind in other {
        if !known.contains(kind) {
            known.push(kind.clone());
        }
    }
}

/// Swagger has no alternatives, defaults that Go fills in by itself are left out, and a reference may have siblings.
fn schema(schema: Value) -> Value {
    let Value::Object(schema) = schema else { return schema };
    let alternatives = schema.contains_key("oneOf") || schema.contains_key("anyOf");
    let is_number_or_text = schema.get("format").is_some_and(|format| format == "int-or-string");
    let mut out = Map::new();
    for (key, value) in schema {
        match (key.as_str(), value) {
            ("oneOf" | "anyOf" | "not" | "nullable" | "default", _) => {}
            ("$ref", Value::String(target)) => drop(out.insert(key, reference(&target).into())),
            ("allOf", Value::Array(parts)) => {
                parts.into_iter().for_each(|part| out.extend(entries(self::schema(part))))
            }
            ("properties", properties) => {
                let properties = entries(properties).into_iter().map(|(name, value)| (name, self::schema(value)));
                out.insert(key, Value::Object(properties.collect()));
            }
            ("items" | "additionalProperties", value) => drop(out.insert(key, self::schema(value))),
            (_, value) => drop(out.insert(key, value)),
        }
    }
    if (alternatives || is_number_or_text) && !out.contains_key("type") && !out.contains_key("$ref") {
        out.insert("type".into(), "string".into());
    }
    out.into()
}

fn reference(target: &str) -> String {
    target.rsplit('/').next().map_or_else(String::new, |name| format!("{DEFINITIONS}{name}"))
}

fn path_item(item: Value) -> Value {
    let converted = entries(item).into_iter().map(|(key, value)| {
        let value = if key == "parameters" { parameters(value).into() } else { operation(value) };
        (key, value)
    });
    Value::Object(converted.collect())
}

fn operation(operation: Value) -> Value {
    let mut operation = entries(operation);
    let mut parameters = operation.remove("parameters").map(parameters).unwrap_or_default();
    if let Some(body) = operation.remove("requestBody") {
        let content = entries(body["content"].clone());
        let wanted = content.values().next().map(|content| schema(content["schema"].clone())).unwrap_or_default();
        let required = body["required"] == true;
        parameters.push(json!({"name": "body", "in": "body", "required": required, "schema": wanted}));
        let any = content.contains_key("*/*");
        let types: Vec<&str> = if any { REQUEST_TYPES.to_vec() } else { content.keys().map(String::as_str).collect() };
        operation.insert("consumes".into(), json!(types));
    }
    operation.insert("produces".into(), json!(["application/json", "application/yaml"]));
    operation.insert("parameters".into(), parameters.into());
    let responses = entries(operation.remove("responses").unwrap_or_default()).into_iter().map(|(code, response)| {
        let answer =
            entries(response["content"].clone()).into_iter().next().map(|(_, content)| content["schema"].clone());
        let mut converted = json!({"description": response["description"]});
        if let Some(answer) = answer {
            converted["schema"] = schema(answer);
        }
        (code, converted)
    });
    let responses: Map<String, Value> = responses.collect();
    operation.insert("responses".into(), responses.into());
    operation.into()
}

/// A parameter's type stands beside its name.
fn parameters(parameters: Value) -> Vec<Value> {
    let Value::Array(parameters) = parameters else { return Vec::new() };
    let flat = parameters.into_iter().map(|parameter| {
        let mut parameter = entries(parameter);
        let schema = entries(parameter.remove("schema").unwrap_or_default());
        parameter.extend(schema);
        parameter.into()
    });
    flat.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builtin() -> Value {
        document(&Registry::builtin())
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn check(value: &Value, definitions: &Value, seen: &mut usize) {
            match value {
                Value::Object(map) => {
                    if let Some(target) = map.get("$ref").and_then(Value::as_str) {
                        *seen += 1;
                        assert!(definitions[target.strip_prefix(DEFINITIONS).unwrap()].is_object(), "{target}");
                        assert!(!map.contains_key("type") && !map.contains_key("properties"), "{map:?}");
                    }
                    map.values().for_each(|value| check(value, definitions, seen));
                }
                Value::Array(items) => items.iter().for_each(|value| check(value, definitions, seen)),
                _ => {}
            }
        }
        let (document, mut seen) = (builtin(), 0);
        check(&document, &document["definitions"], &mut seen);
        assert!(seen > 500, "{seen}");
    }

    #[test]
    fn types_and_operations_are_swagger() {
        let document = builtin();
        let spec = &document["definitions"]["io.k8s.api.apps.v1.DeploymentSpec"]["properties"];
        assert_eq!(
            spec["strategy"],
            json!({"description": "The deployment strategy to use to replace existing pods with new ones.",
                "$ref": "#/definitions/io.k8s.api.apps.v1.DeploymentStrategy",
                "x-kubernetes-patch-strategy": "retainKeys"})
        );
        let number = &document["definitions"]["io.k8s.apimachinery.pkg.util.intstr.IntOrString"];
        assert_eq!(*number, json!({"type": "string", "format": "int-or-string"}));
        let options = &document["definitions"]["io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"];
        assert!(options["x-kubernetes-group-version-kind"].as_array().unwrap().len() > 5);
        let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
        let validation =
            patch["parameters"].as_array().unwrap().iter().find(|p| p["name"] == "fieldValidation").unwrap();
        assert_eq!(
            *validation,
            json!({"name": "fieldValidation", "in": "query", "type": "string", "uniqueItems": true})
        );
        assert_eq!(patch["responses"]["200"]["schema"]["$ref"], "#/definitions/io.k8s.api.core.v1.Pod");
        assert_eq!(patch["consumes"].as_array().unwrap().len(), 4);
    }
}
