use serde_json::{Value, json};

use super::*;
use crate::registry::Registry;
use crate::validation::texts;

/// Complaints about a value under a schema for `spec`.
fn complaints(spec: Value, value: Value) -> Vec<String> {
    let schema = Schema::parse(&json!({"type": "object", "properties": {"spec": spec}}));
    texts(|errors| check(&schema, &json!({"spec": value}), None, "", errors))
}

fn definition(name: &str, spec: Value) -> Value {
    let mut object = json!({"metadata": {"name": name, "uid": name, "generation": 1}, "spec": spec});
    object["spec"]["group"] = "example.com".into();
    object
}

fn widgets() -> Value {
    let spec = json!({"scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList", "shortNames": ["w"]},
        "versions": [
            {"name": "v1alpha1", "served": true, "storage": false, "schema": {"openAPIV3Schema": {"type": "object"}}},
            {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}},
            {"name": "v2", "served": false, "storage": false, "schema": {"openAPIV3Schema": {"type": "object"}}}]});
    definition("widgets.example.com", spec)
}

#[test]
fn limits_speak_upstreams_words() {
    let cases = [
        (
            json!({"type": "integer", "minimum": 2}),
            json!(1),
            "spec: Invalid value: 1: spec in body should be greater than or equal to 2",
        ),
        (
            json!({"type": "number", "maximum": 2.5, "exclusiveMaximum": true}),
            json!(2.5),
            "spec: Invalid value: 2.5: spec in body should be less than 2.5",
        ),
        (
            json!({"type": "integer", "multipleOf": 3}),
            json!(4),
            "spec: Invalid value: 4: spec in body should be a multiple of 3",
        ),
        (
            json!({"type": "string", "minLength": 2}),
            json!("é"),
            "spec: Invalid value: \"é\": spec in body should be at least 2 chars long",
        ),
        (json!({"type": "string", "maxLength": 1}), json!("ab"), "spec: Too long: may not be more than 1 byte"),
        (
            json!({"type": "string", "format": "date"}),
            json!("x"),
            "spec: Invalid value: \"x\": spec in body must be of type date: \"x\"",
        ),
        (
            json!({"type": "array", "minItems": 1}),
            json!([]),
            "spec: Invalid value: 0: spec in body should have at least 1 items",
        ),
        (json!({"type": "array", "maxItems": 1}), json!([1, 2]), "spec: Too many: 2: must have at most 1 item"),
        (
            json!({"type": "object", "minProperties": 1}),
            json!({}),
            "spec: Invalid value: 0: spec in body should have at least 1 properties",
        ),
        (
            json!({"type": "object", "maxProperties": 1}),
            json!({"a": 1, "b": 2}),
            "spec: Too many: 2: must have at most 1 item",
        ),
        (
            json!({"type": "string"}),
            Value::Null,
            "spec: Invalid value: \"null\": spec in body must be of type string: \"null\"",
        ),
        (
            json!({"type": "object"}),
            json!([]),
            "spec: Invalid value: \"array\": spec in body must be of type object: \"array\"",
        ),
        (
            json!({"type": "integer", "enum": [1, 2]}),
            json!(3),
            "spec: Unsupported value: 3: supported values: \"1\", \"2\"",
        ),
        (
            json!({"type": "integer", "format": "int32"}),
            json!(3_000_000_000_i64),
            "<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in spec",
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            json!({"a": 1}),
            "spec.a: Invalid value: \"integer\": spec.a in body must be of type string: \"integer\"",
        ),
        (
            json!({"type": "object", "not": {"required": ["a"]}}),
            json!({"a": 1}),
            "<nil>: Invalid value: \"\": \"spec\" must not validate the schema (not)",
        ),
    ];
    for (schema, value, complaint) in cases {
        assert_eq!(complaints(schema.clone(), value), [complaint], "{schema}");
    }
}

#[test]
fn values_that_fit_pass() {
    for (schema, value) in [
        (json!({"type": "number"}), json!(1)),
        (json!({"type": "integer"}), json!(1.0)),
        (json!({"x-kubernetes-int-or-string": true}), json!("80%")),
        (json!({"type": "string", "nullable": true}), Value::Null),
        (json!({"type": "string", "format": "unheard-of"}), json!("x")),
        (json!({"x-kubernetes-preserve-unknown-fields": true}), json!([{"a": 1}])),
        (json!({"type": "array", "items": {"type": "object", "required": ["a"]}}), json!([{"a": 1}])),
    ] {
        assert_eq!(complaints(schema.clone(), value), Vec::<String>::new(), "{schema}");
    }
}

#[test]
fn alternatives_report_the_closest() {
    let one_of = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
    assert_eq!(complaints(one_of.clone(), json!({"a": "x"})), Vec::<String>::new());
    assert_eq!(
        complaints(one_of.clone(), json!({"a": "x", "b": "y"})),
        [
            "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found 2 valid alternatives"
        ]
    );
    assert_eq!(
        complaints(one_of, json!({})),
        [
            "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found none valid",
            "spec.a: Required value"
        ]
    );
    let any_of = json!({"type": "string", "anyOf": [{"maxLength": 1}, {"pattern": "^x"}]});
    assert_eq!(
        complaints(any_of, json!("yy")),
        [
            "<nil>: Invalid value: \"\": \"spec\" must validate at least one schema (anyOf)",
            "spec: Too long: may not be more than 1 byte"
        ]
    );
    let all_of = json!({"type": "string", "allOf": [{"maxLength": 1}, {"pattern": "^y"}]});
    assert_eq!(
        complaints(all_of, json!("yy")),
        [
            "spec: Too long: may not be more than 1 byte",
            "<nil>: Invalid value: \"\": \"spec\" must validate all the schemas (allOf)"
        ]
    );
}

#[test]
fn what_did_not_change_is_not_held_against_anybody() {
    let schema = Schema::parse(&json!({"type": "object", "properties": {
        "size": {"type": "integer", "maximum": 1}, "name": {"type": "string"},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
            "items": {"type": "object", "properties": {"n": {"type": "string"}, "p": {"type": "integer", "maximum": 1}}}}}}));
    let old = json!({"size": 5, "ports": [{"n": "a", "p": 5}]});
    let mut new = json!({"size": 5, "name": "x", "ports": [{"n": "b", "p": 1}, {"n": "a", "p": 5}]});
    assert_eq!(texts(|errors| check(&schema, &new, Some(&old), "", errors)), Vec::<String>::new());
    new["ports"][1]["p"] = 6.into();
    assert_eq!(
        texts(|errors| check(&schema, &new, Some(&old), "", errors)),
        ["ports[1].p: Invalid value: 6: ports[1].p in body should be less than or equal to 1"]
    );
}

#[test]
fn pruning_follows_the_schema_and_keeps_what_it_must() {
    let schema = Schema::parse(&json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "known": {"type": "object", "properties": {"a": {"type": "string"}}},
        "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "string"}}}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
            "inner": {"type": "object", "properties": {"a": {"type": "string"}}}}},
        "template": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
        "bare": {"type": "object"},
        "maybe": {"type": "string", "nullable": true}, "never": {"type": "string"}}}}}));
    let inside = json!({"a": "x", "b": 1});
    let mut object = json!({"apiVersion": "v", "kind": "K", "metadata": {"name": "n", "bogus": 1}, "extra": 1, "spec": {
        "known": inside, "map": {"k": inside}, "free": {"x": {"y": 1}, "inner": inside}, "bare": {"gone": 1},
        "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "bogus": 1}, "spec": {"b": 1}, "b": 1},
        "maybe": null, "never": null}});
    let findings = findings(&schema, &object);
    assert_eq!(
        findings.strict,
        [
            "metadata.bogus",
            "extra",
            "spec.bare.gone",
            "spec.free.inner.b",
            "spec.known.b",
            "spec.map.k.b",
            "spec.template.b",
            "spec.template.metadata.bogus",
            "spec.template.spec.b"
        ]
        .map(|path| format!("unknown field {path:?}"))
    );
    prune(&schema, &mut object);
    assert_eq!(
        object,
        json!({"apiVersion": "v", "kind": "K", "metadata": {"name": "n"}, "spec": {
            "known": {"a": "x"}, "map": {"k": {"a": "x"}}, "free": {"x": {"y": 1}, "inner": {"a": "x"}}, "bare": {},
            "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {}}, "maybe": null}})
    );
    let once = object.clone();
    prune(&schema, &mut object);
    assert_eq!(object, once);
}

#[test]
fn defaults_reach_everywhere_but_through_missing_parents() {
    let schema = Schema::parse(&json!({"type": "object", "properties": {
        "a": {"type": "string", "default": "x"},
        "n": {"type": "string", "nullable": true, "default": "x"},
        "o": {"type": "object", "default": {}, "properties": {"b": {"type": "integer", "default": 1}}},
        "missing": {"type": "object", "properties": {"c": {"type": "integer", "default": 1}}},
        "l": {"type": "array", "items": {"type": "object", "properties": {"d": {"type": "integer", "default": 2}}}},
        "m": {"type": "object", "additionalProperties": {"type": "object", "properties": {"e": {"type": "integer", "default": 3}}}}}}));
    let mut object = json!({"a": null, "n": null, "l": [{}, {"d": 9}], "m": {"k": {}}});
    defaults::apply(&schema, &mut object);
    assert_eq!(object, json!({"a": "x", "n": null, "o": {"b": 1}, "l": [{"d": 2}, {"d": 9}], "m": {"k": {"e": 3}}}));
}

#[test]
fn repeated_items_of_sets_and_maps_are_found() {
    let schema = Schema::parse(&json!({"type": "object", "properties": {
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "map": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a", "b"],
            "items": {"type": "object"}}}}));
    let object = json!({"set": ["x", "y", "x", "x"], "map": [{"a": 1}, {"a": 1, "b": 2}, {"a": 1, "c": 3}]});
    assert_eq!(
        texts(|errors| lists::check(&schema, &object, errors)),
        ["map[2]: Duplicate value: {\"a\":1}", "set[2]: Duplicate value: \"x\""]
    );
}

#[test]
fn embedded_objects_need_a_type_and_sound_metadata() {
    let schema = Schema::parse(&json!({"type": "object", "properties": {
        "t": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}}));
    let object = json!({"t": {"kind": "", "metadata": {"name": "a/b", "labels": {"-": "x"}}}});
    let found = texts(|errors| check_embedded(&schema, &object, "", errors));
    assert_eq!(
        found[..3],
        [
            "t.apiVersion: Required value",
            "t.kind: Invalid value: \"\": must not be empty",
            "t.metadata.name: Invalid value: \"a/b\": may not contain '/'",
        ]
    );
    assert!(found[3].starts_with("t.metadata.labels: Invalid value: \"-\""), "{found:?}");
}

#[test]
fn a_definition_settles_and_then_rests() {
    let mut object = widgets();
    let definition = Definition::of(&object, None);
    assert!(!definition.is_served() && definition.resources().is_empty());
    let settled = definition.settle(&Taken::default()).expect("a first status");
    settled.write(&mut object, "2026-01-01T00:00:00Z".parse().expect("time"));
    let conditions = object["status"]["conditions"].as_array().expect("conditions");
    assert!(is_true(conditions, "NamesAccepted") && is_true(conditions, "Established"));
    let definition = Definition::of(&object, None);
    assert_eq!(definition.settle(&Taken::default()), None);
    let versions: Vec<&str> = definition.resources().iter().map(|resource| resource.version.as_str()).collect();
    assert_eq!(versions, ["v1", "v1alpha1"]);
    // Nothing changed: the resources are the very same.
    let again = Definition::of(&object, Some(&definition));
    assert!(Arc::ptr_eq(&again.resources()[0], &definition.resources()[0]));
    object["metadata"]["generation"] = 2.into();
    let changed = Definition::of(&object, Some(&definition));
    assert!(!Arc::ptr_eq(&changed.resources()[0], &definition.resources()[0]));
}

#[test]
fn the_end_of_a_definition_keeps_its_schema() {
    let mut object = widgets();
    Definition::of(&object, None)
        .settle(&Taken::default())
        .expect("status")
        .write(&mut object, jiff::Timestamp::UNIX_EPOCH);
    let before = Definition::of(&object, None);
    object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    object["metadata"]["generation"] = 2.into();
    let after = Definition::of(&object, Some(&before));
    let kind = |definition: &Definition| definition.resources()[0].custom.as_ref().map(Arc::as_ptr);
    assert!(after.resources()[0].terminating && !before.resources()[0].terminating);
    assert_eq!(kind(&after), kind(&before));
}

#[test]
fn names_that_others_hold_are_not_given() {
    let mut taken = Taken::default();
    taken.resources.insert("w".into());
    taken.kinds.insert("WidgetList".into());
    let settled = Definition::of(&widgets(), None).settle(&taken).expect("status");
    assert_eq!((settled.accepted.plural.as_str(), settled.accepted.list_kind.as_str()), ("widgets", ""));
    let mut object = widgets();
    settled.write(&mut object, jiff::Timestamp::UNIX_EPOCH);
    let conditions = object["status"]["conditions"].as_array().expect("conditions");
    let names = condition(conditions, "NamesAccepted").expect("names");
    assert_eq!(
        (&names["reason"], &names["message"]),
        (&json!("ListKindConflict"), &json!("\"WidgetList\" is already in use"))
    );
    assert!(!is_true(conditions, "Established"));
}

#[test]
fn built_in_resources_are_never_replaced() {
    let mut object = widgets();
    object["spec"]["group"] = "apps".into();
    object["spec"]["names"]["kind"] = "Deployment".into();
    Definition::of(&object, None)
        .settle(&Taken::default())
        .expect("status")
        .write(&mut object, jiff::Timestamp::UNIX_EPOCH);
    let mut registry = Registry::builtin();
    registry.insert_custom([&Definition::of(&object, None)]);
    assert!(registry.get("apps", "v1", "widgets").is_none());
    assert_eq!(registry.by_kind("apps/v1", "Deployment").expect("kind").plural, "deployments");
}
