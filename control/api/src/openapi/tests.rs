use std::collections::BTreeSet;

use super::*;
use crate::registry::Registry;

fn documents() -> Vec<(String, Value)> {
    let registry = Registry::builtin();
    let versions: BTreeSet<(String, String)> =
        registry.iter().map(|resource| (resource.group.clone(), resource.version.clone())).collect();
    versions.iter().map(|(group, version)| (path(group, version), document(&registry, group, version))).collect()
}

fn apps() -> Value {
    documents().into_iter().find(|(path, _)| path == "apis/apps/v1").unwrap().1
}

#[test]
fn every_reference_leads_somewhere() {
    fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    for (path, document) in documents() {
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(!found.is_empty(), "{path}");
        for reference in found {
            let name = reference.strip_prefix("#/components/schemas/").unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{path}: {reference}");
        }
    }
}

/// Without its text.
fn bare(schema: &Value) -> Value {
    let mut schema = schema.clone();
    let text = schema.as_object_mut().and_then(|schema| schema.remove("description"));
    assert!(text.is_some_and(|text| text.is_string()), "{schema} has no description");
    schema
}

#[test]
fn kinds_and_marks_are_there() {
    let document = apps();
    let deployment = &document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(
        deployment["x-kubernetes-group-version-kind"],
        json!([{"group": "apps", "version": "v1", "kind": "Deployment"}])
    );
    let spec = &document["components"]["schemas"]["io.k8s.api.apps.v1.DeploymentSpec"];
    assert_eq!(spec["required"], json!(["selector", "template"]));
    assert_eq!(
        bare(&spec["properties"]["strategy"]),
        json!({"allOf": [{"$ref": "#/components/schemas/io.k8s.api.apps.v1.DeploymentStrategy"}], "default": {},
            "x-kubernetes-patch-strategy": "retainKeys"})
    );
    let pod = &document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"];
    assert_eq!(
        bare(&pod["properties"]["containers"]),
        json!({"type": "array", "items": {"allOf": [{"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"}], "default": {}},
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name"})
    );
}

#[test]
fn patches_take_field_validation() {
    let document = apps();
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "apps", "version": "v1", "kind": "Deployment"})
    );
    let names: Vec<&str> = patch["parameters"].as_array().unwrap().iter().filter_map(|p| p["name"].as_str()).collect();
    assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    assert_eq!(patch["requestBody"]["content"].as_object().unwrap().len(), 4);
}

#[test]
fn the_index_names_documents_by_their_content() {
    let (first, second) = (hash(b"a"), hash(b"b"));
    assert!(first != second && first == hash(b"a"));
    assert_eq!(
        index([("api/v1", first.as_str())]),
        json!({"paths": {"api/v1": {"serverRelativeURL": format!("/openapi/v3/api/v1?hash={first}")}}})
    );
}
