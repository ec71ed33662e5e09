//! Whatever a client sends, preparing, checking and printing it ends in an answer, never in a panic.

use control_api::custom::{Definition, Taken};
use control_api::registry::Registry;
use control_api::strategy::{Birth, apply_scale, prepare_for_create, prepare_for_update, scale_of, service};
use control_api::table::{IncludeObject, TableOptions, table_of_one};
use control_api::{defaults, validation};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Field names that some rule looks at, so that random objects are looked at too.
const FIELDS: &[&str] = &[
    "metadata",
    "spec",
    "status",
    "name",
    "namespace",
    "labels",
    "annotations",
    "finalizers",
    "ownerReferences",
    "generation",
    "template",
    "selector",
    "matchLabels",
    "matchExpressions",
    "key",
    "operator",
    "values",
    "containers",
    "initContainers",
    "image",
    "ports",
    "port",
    "targetPort",
    "nodePort",
    "containerPort",
    "hostPort",
    "protocol",
    "env",
    "valueFrom",
    "fieldRef",
    "volumes",
    "configMap",
    "secret",
    "projected",
    "sources",
    "items",
    "volumeMounts",
    "resources",
    "limits",
    "requests",
    "cpu",
    "memory",
    "readinessProbe",
    "httpGet",
    "lifecycle",
    "preStop",
    "strategy",
    "type",
    "rollingUpdate",
    "maxSurge",
    "maxUnavailable",
    "replicas",
    "clusterIP",
    "clusterIPs",
    "ipFamilies",
    "ipFamilyPolicy",
    "externalIPs",
    "sessionAffinity",
    "sessionAffinityConfig",
    "clientIP",
    "data",
    "stringData",
    "binaryData",
    "immutable",
    "rules",
    "http",
    "paths",
    "backend",
    "service",
    "tls",
    "hosts",
    "host",
    "parameters",
    "ingress",
    "egress",
    "from",
    "to",
    "ipBlock",
    "cidr",
    "except",
    "podSelector",
    "policyTypes",
    "subjects",
    "roleRef",
    "kind",
    "verbs",
    "aggregationRule",
    "clusterRoleSelectors",
    "endpoints",
    "addresses",
    "addressType",
    "subsets",
    "taints",
    "tolerations",
    "affinity",
    "nodeAffinity",
    "podAffinity",
    "loadBalancer",
    "conditions",
    "phase",
    "containerStatuses",
    "initContainerStatuses",
    "state",
    "terminated",
    "waiting",
    "restartCount",
    "series",
    "involvedObject",
    "firstTimestamp",
    "creationTimestamp",
    "deletionTimestamp",
    "capacity",
    "overhead",
    "hostNetwork",
    "topologySpreadConstraints",
    "schedulingGates",
    "readinessGates",
    "serviceAccountName",
    "value",
    "preemptionPolicy",
    "resourceVersion",
    "uid",
    "nodeInfo",
    "activeDeadlineSeconds",
    "generateName",
    "downwardAPI",
    "defaultMode",
];
const TEXTS: &[&str] = &[
    "",
    "a",
    "A-",
    "None",
    "ClusterIP",
    "LoadBalancer",
    "ExternalName",
    "NodePort",
    "RollingUpdate",
    "10.0.0.1",
    "fd00::1",
    "10.0.0.0/8",
    "1Gi",
    "25%",
    "2026-01-01T00:00:00Z",
    "ü\u{1F600}-",
    "In",
    "Exists",
    "ClientIP",
    "IPv4",
    "IPv6",
    "Recreate",
    "9999-12-31T23:59:59Z",
    "-009999-01-02T01:59:59Z",
    "1e99",
    "kubernetes.io/tls",
];

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop_oneof![Just(i64::MIN), Just(i64::MAX), -2..70_000_i64].prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        proptest::sample::select(TEXTS).prop_map(Value::from),
    ];
    leaf.prop_recursive(7, 120, 8, |inner| {
        prop_oneof![
            1 => vec(inner.clone(), 0..4).prop_map(Value::from),
            4 => btree_map(proptest::sample::select(FIELDS).prop_map(str::to_owned), inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Value> {
    (json(), json(), json(), json()).prop_map(|(rest, metadata, spec, status)| {
        let mut object = if rest.is_object() { rest } else { Value::Object(serde_json::Map::new()) };
        for (key, value) in [("metadata", metadata), ("spec", spec), ("status", status)] {
            object[key] = value;
        }
        object
    })
}

/// The built-in resources and a custom one with a bit of everything.
fn registry() -> Registry {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["replicas"], "properties": {
            "replicas": {"type": "integer", "minimum": 1, "default": 1},
            "selector": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "template": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string", "pattern": "^a"}}}}},
            "oneOf": [{"required": ["ports"]}, {"required": ["template"]}]},
        "data": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 2, "nullable": true}},
        "status": {"type": "object", "properties": {"phase": {"type": "string", "enum": ["A", "B"]}}}}});
    let names = json!({"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"});
    let mut definition = json!({"metadata": {"name": "widgets.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": names, "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}}}]}});
    let settled = Definition::of(&definition, None).settle(&Taken::default()).expect("a new definition");
    settled.write(&mut definition, jiff::Timestamp::UNIX_EPOCH);
    let mut registry = Registry::builtin();
    registry.insert_custom([&Definition::of(&definition, None)]);
    registry
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_kind_survives_every_object(first in object(), second in object()) {
        let now = "2026-01-01T00:00:00Z".parse().expect("time");
        for resource in registry().iter() {
            let namespace = if resource.namespaced { "default" } else { "" };
            let birth = Birth { namespace, now, uid: "u", suffix: "x2z4c" };
            let mut old = first.clone();
            defaults::apply(resource, &mut old);
            // Refusing it is an answer as well.
            let _ = prepare_for_create(resource, &mut old, &birth);
            let _ = validation::validate_create(resource, &old);
            for subresource in ["", "status", "scale", "finalize", "binding"] {
                let mut new = second.clone();
                defaults::apply(resource, &mut new);
                prepare_for_update(resource, subresource, &old, &mut new);
                let _ = validation::validate_update(resource, subresource, &old, &new);
                let options = TableOptions { version: "v1", include: IncludeObject::Metadata, with_columns: true, now };
                let table = table_of_one(resource, &new, options);
                let cells = table["rows"][0]["cells"].as_array().map(Vec::len);
                prop_assert_eq!(cells, table["columnDefinitions"].as_array().map(Vec::len));
            }
            let _ = service::plan_addresses(&mut old.clone(), &[service::Family::V4, service::Family::V6]);
            if let Ok(scale) = scale_of(resource, &old) {
                let _ = apply_scale(resource, &mut old, &scale);
            }
            let _ = Definition::of(&old, None).settle(&Taken::default());
        }
    }

    #[test]
    fn defaulting_twice_equals_defaulting_once(object in object()) {
        for resource in registry().iter() {
            let mut once = object.clone();
            defaults::apply(resource, &mut once);
            let mut twice = once.clone();
            defaults::apply(resource, &mut twice);
            prop_assert_eq!(&once, &twice, "{}", resource.qualified());
        }
    }
}
