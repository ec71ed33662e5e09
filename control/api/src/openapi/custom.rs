//! The published schema of a custom resource: its own, with what every object has.

use serde_json::{Map, Value, json};

use crate::custom::Kind;
use crate::registry::Resource;
use crate::value::{entries, set};

const API_VERSION: &str = "The version of the schema in which this object is written; servers convert what they know.";
const KIND: &str = "The type of this object, in CamelCase; it cannot change.";
const METADATA: &str = "The metadata that every object has.";

/// The schemas of a kind and of its lists, by their names.
pub(super) fn schemas(
    resource: &Resource,
    custom: &Kind,
    object_meta: &Value,
    list_meta: &Value,
) -> [(String, Value); 2] {
    let mut object: Value = serde_json::from_str(&custom.published).unwrap_or_default();
    if !object.is_object() {
        object = json!({"type": "object"});
    }
    if custom.schema.preserves || !custom.schema.properties.is_empty() {
        add_metadata(&mut object, object_meta, false);
        add_embedded(&mut object, object_meta);
    }
    set(&mut object, "x-kubernetes-group-version-kind", group_version_kind(resource, &resource.kind));
    if !custom.selectable.is_empty() {
        let fields: Vec<Value> = custom.selectable.iter().map(|path| json!({"fieldPath": path})).collect();
        set(&mut object, "x-kubernetes-selectable-fields", fields);
    }
    let name = custom.message.name.to_string();
    let item = json!({"$ref": format!("#/components/schemas/{name}")});
    let mut list = json!({
        "description": format!("{} is a list of {}", resource.list_kind, resource.kind),
        "type": "object",
        "required": ["items"],
        "properties": {"items": {"type": "array", "items": item, "description": format!("The {} of the list.", resource.plural)}},
        "x-kubernetes-group-version-kind": group_version_kind(resource, &resource.list_kind),
    });
    add_metadata(&mut list, list_meta, false);
    [(name.clone(), object), (list_name(resource, custom), list)]
}

/// `com.example.v1.WidgetList`
pub(super) fn list_name(resource: &Resource, custom: &Kind) -> String {
    let package = custom.message.name.rsplit_once('.').map_or("", |(package, _)| package);
    format!("{package}.{}", resource.list_kind)
}

fn group_version_kind(resource: &Resource, kind: &str) -> Value {
    json!([{"group": resource.group, "version": resource.version, "kind": kind}])
}

fn add_metadata(schema: &mut Value, metadata: &Value, required: bool) {
    let properties = &mut schema["properties"];
    if !properties.is_object() {
        *properties = Value::Object(Map::new());
    }
    set(properties, "apiVersion", json!({"type": "string", "description": API_VERSION}));
    set(properties, "kind", json!({"type": "string", "description": KIND}));
    set(properties, "metadata", json!({"allOf": [metadata], "description": METADATA}));
    if required {
        let mut names = schema["required"].as_array().cloned().unwrap_or_default();
        names.extend(
            ["kind", "apiVersion"]
                .map(Value::from)
                .into_iter()
                .filter(|name| !names.contains(name))
                .collect::<Vec<_>>(),
        );
        set(schema, "required", names);
    }
}

/// Embedded objects have metadata too.
fn add_embedded(schema: &mut Value, object_meta: &Value) {
    if schema["x-kubernetes-embedded-resource"] == true {
        add_metadata(schema, object_meta, true);
    }
    let names: Vec<String> = entries(&schema["properties"]).map(|(name, _)| name.clone()).collect();
    for name in names {
        add_embedded(&mut schema["properties"][&name], object_meta);
    }
    for keyword in ["items", "additionalProperties"] {
        if schema.get(keyword).is_some_and(Value::is_object) {
            add_embedded(&mut schema[keyword], object_meta);
        }
    }
}
