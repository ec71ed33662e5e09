use serde_json::json;

use super::*;
use crate::validation::errors::texts;

fn complaints(schema: Value) -> Vec<String> {
    complaints_with(schema, json!({}))
}

fn complaints_with(schema: Value, version: Value) -> Vec<String> {
    let mut full = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
    for (key, value) in crate::value::entries(&version) {
        full[key] = value.clone();
    }
    let object = json!({"metadata": {"name": "widgets.example.com"}, "status": {"storedVersions": ["v1"]}, "spec": {
        "group": "example.com", "scope": "Cluster", "conversion": {"strategy": "None"}, "versions": [full],
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"}}});
    let found = texts(|errors| definition(&object, errors));
    found.iter().map(|text| text.replace("spec.validation.openAPIV3Schema", "$")).collect()
}

fn of_field(field: Value) -> Vec<String> {
    let found = complaints(json!({"type": "object", "properties": {"f": field}}));
    found.iter().map(|text| text.replace("$.properties[f]", "f")).collect()
}

#[test]
fn sound_schemas_pass() {
    for field in [
        json!({"type": "string", "default": "a", "pattern": "^a$"}),
        json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}], "pattern": "^[0-9]+%?$"}),
        json!({"type": "array", "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "x-kubernetes-validations": [{"rule": "self.all(x, x.name != '')", "message": "names"}]}),
        json!({"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 3}),
        json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
            "oneOf": [{"required": ["a"]}, {"required": ["b"], "properties": {"b": {"maxLength": 3}}}]}),
        json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
    ] {
        assert_eq!(of_field(field.clone()), Vec::<String>::new(), "{field}");
    }
}

#[test]
fn schemas_must_be_structural() {
    let cases = [
        (json!({}), "f.type: Required value: must not be empty for specified object fields"),
        (json!({"type": "array"}), "f.items: Required value: must be specified"),
        (
            json!({"type": "array", "items": {}}),
            "f.items.type: Required value: must not be empty for specified array items",
        ),
        (
            json!({"type": "string", "pattern": "("}),
            "f.pattern: Invalid value: \"(\": must be a valid regular expression, but isn't: unclosed group",
        ),
        (
            json!({"type": "string", "allOf": [{"type": "string"}]}),
            "f.allOf[0].type: Forbidden: must be empty to be structural",
        ),
        (
            json!({"type": "string", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}),
            "f.type: Invalid value: \"string\": must be object if x-kubernetes-embedded-resource is true",
        ),
    ];
    for (field, complaint) in cases {
        assert_eq!(of_field(field.clone()), [complaint], "{field}");
    }
    assert_eq!(
        complaints(json!({"type": "object", "anyOf": [{"properties": {"x": {"minimum": 1}}}]})),
        ["$.properties[x]: Required value: because it is defined in $.anyOf[0].properties[x]"]
    );
    assert_eq!(
        complaints(
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}})
        ),
        [
            "$.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified"
        ]
    );
    assert_eq!(
        complaints(json!({"type": "array", "items": {"type": "string"}})),
        ["$.type: Invalid value: \"array\": must be object at the root"]
    );
}

#[test]
fn keywords_and_extensions_must_make_sense() {
    let cases = [
        (
            json!({"type": "text"}),
            "f.type: Unsupported value: \"text\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
        ),
        (
            json!({"type": "array", "uniqueItems": true, "items": {"type": "string"}}),
            "f.uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
            "f.additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "bag"}),
            "f.x-kubernetes-list-type: Unsupported value: \"bag\": supported values: \"atomic\", \"set\", \"map\"",
        ),
        (
            json!({"type": "array", "items": {"type": "object", "properties": {"n": {"type": "string"}}},
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"]}),
            "f.items.properties[n].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
        ),
        (
            json!({"type": "string", "x-kubernetes-map-type": "atomic"}),
            "f.type: Invalid value: \"string\": must be object if x-kubernetes-map-type is specified",
        ),
        (
            json!({"type": "string", "x-kubernetes-validations": [{"rule": " "}]}),
            "f.x-kubernetes-validations[0].rule: Required value: rule is not specified",
        ),
        (
            json!({"type": "integer", "default": "x"}),
            "f.default: Invalid value: \"string\":  in body must be of type integer: \"string\"",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "default": {"b": 1}}),
            "f.default: Invalid value: {\"b\":1}: must not have unknown fields",
        ),
    ];
    for (field, complaint) in cases {
        assert_eq!(of_field(field.clone()), [complaint], "{field}");
    }
    assert_eq!(
        complaints(json!({"type": "object", "properties": {"kind": {"type": "string", "default": "X"}}})),
        ["$.properties[kind].default: Forbidden: must not be set in top-level kind"]
    );
}

#[test]
fn parts_of_versions_are_checked() {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "a": {"type": "string"}, "o": {"type": "object"}}}}});
    let version = json!({
        "deprecationWarning": "x",
        "subresources": {"scale": {"specReplicasPath": ".status.replicas", "statusReplicasPath": ""}},
        "additionalPrinterColumns": [{"name": "", "type": "text", "jsonPath": "spec.a"}],
        "selectableFields": [{"jsonPath": ".spec.a"}, {"jsonPath": ".spec.o"}, {"jsonPath": ".spec.x"}, {"jsonPath": ".spec.a"}]});
    assert_eq!(
        complaints_with(schema, version),
        [
            "spec.versions[0].deprecationWarning: Invalid value: \"x\": can only be set for deprecated versions",
            "spec.subresources.scale.specReplicasPath: Invalid value: \".status.replicas\": should be a json path under .spec",
            "spec.subresources.scale.statusReplicasPath: Required value",
            "spec.additionalPrinterColumns[0].name: Required value",
            "spec.additionalPrinterColumns[0].type: Invalid value: \"text\": must be one of boolean,date,integer,number,string",
            "spec.additionalPrinterColumns[0].JSONPath: Invalid value: \"spec.a\": must be a simple json path starting with .",
            "spec.selectableFields[1].jsonPath: Invalid value: \".spec.o\": must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
            "spec.selectableFields[2].jsonPath: Invalid value: \".spec.x\": is an invalid path: does not refer to a valid field: x",
            "spec.selectableFields[3].jsonPath: Duplicate value: \".spec.a\"",
        ]
    );
}

#[test]
fn what_objects_depend_on_cannot_change() {
    let object = |scope: &str, kind: &str| {
        json!({"metadata": {"name": "w"}, "spec": {"group": "example.com", "scope": scope, "names": {"plural": "ws", "kind": kind}},
            "status": {"conditions": [{"type": "Established", "status": "True"}]}})
    };
    assert_eq!(
        texts(|errors| update(&object("Cluster", "A"), &object("Namespaced", "B"), errors)),
        [
            "spec.scope: Invalid value: \"Namespaced\": field is immutable",
            "spec.names.kind: Invalid value: \"B\": field is immutable"
        ]
    );
    let mut fresh = object("Cluster", "A");
    fresh["status"] = json!({});
    assert!(texts(|errors| update(&fresh, &object("Namespaced", "B"), errors)).is_empty());
}
