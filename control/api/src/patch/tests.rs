use serde_json::json;

use super::*;
use crate::schema;

fn pod() -> &'static Message {
    schema::kind("", "v1", "Pod").unwrap()
}

fn deployment() -> &'static Message {
    schema::kind("apps", "v1", "Deployment").unwrap()
}

fn patched(message: &Message, before: Value, patch: Value) -> Value {
    strategic(message, &before, &patch).unwrap()
}

#[test]
fn merge_patch_follows_the_rfc() {
    for (before, patch, after) in [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
        (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
        (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
        (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
    ] {
        assert_eq!(merge(&before, &patch).unwrap(), after, "{before} + {patch}");
    }
    assert_eq!(merge(&json!({}), &json!([1])).unwrap_err().code, 400);
}

#[test]
fn json_patch_is_all_or_nothing() {
    let before = json!({"spec": {"replicas": 1}});
    let patch = json!([{"op": "test", "path": "/spec/replicas", "value": 1}, {"op": "replace", "path": "/spec/replicas", "value": 2}]);
    assert_eq!(json(&before, &patch).unwrap(), json!({"spec": {"replicas": 2}}));
    let failed = json(&before, &json!([{"op": "remove", "path": "/spec/paused"}])).unwrap_err();
    assert_eq!((failed.code, failed.reason), (422, "Invalid"));
    for (patch, expected) in [
        (json!({"op": "remove"}), "object into Go value of type []handlers.jsonPatchOp"),
        (json!(["x"]), "string into Go value of type handlers.jsonPatchOp"),
        (json!([{"op": 1}]), "number into Go struct field jsonPatchOp.op of type string"),
        (json!([{"op": "add", "path": ["x"]}]), "array into Go struct field jsonPatchOp.path of type string"),
    ] {
        let refused = json(&before, &patch).unwrap_err();
        let message = format!("error decoding patch: json: cannot unmarshal {expected}");
        assert_eq!((refused.code, refused.message), (400, message), "{patch}");
    }
    // Operations that make no sense are found only when they are applied.
    for patch in [json!([{"op": "destroy", "path": "/spec"}]), json!([{"op": "add", "value": 1}]), json!([null])] {
        assert_eq!(json(&before, &patch).unwrap_err().code, 422, "{patch}");
    }
    assert_eq!(json(&before, &json!(null)).unwrap(), before);
    assert_eq!(unknown_fields(&json!([{"op": "x", "y": 1}])), ["unknown field \"[0].y\""]);
    assert_eq!(json(&before, &Value::Array(vec![json!({}); OPERATIONS_MAX + 1])).unwrap_err().code, 413);
}

#[test]
fn json_patch_cannot_grow_without_bound() {
    let double = json!({"op": "copy", "from": "/a", "path": "/a/-"});
    let doubled = json(&json!({"a": ["0123456789"]}), &Value::Array(vec![double; 40])).unwrap_err();
    assert_eq!(doubled.code, 422);
}

#[test]
fn lists_with_a_merge_key_are_merged_by_it() {
    let before = json!({"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}});
    let patch = json!({"spec": {"containers": [{"name": "b", "image": "2"}, {"name": "c", "image": "2"}]}});
    let after = json!({"spec": {"containers": [
        {"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c", "image": "2"}]}});
    assert_eq!(patched(pod(), before, patch), after);
}

#[test]
fn table_of_directives() {
    let containers = |list: Value| json!({"spec": {"containers": list}});
    for (name, before, patch, after) in [
        (
            "an item is deleted by its key",
            containers(json!([{"name": "a"}, {"name": "b"}])),
            containers(json!([{"name": "a", "$patch": "delete"}])),
            containers(json!([{"name": "b"}])),
        ),
        (
            "a list is replaced",
            containers(json!([{"name": "a"}, {"name": "b"}])),
            containers(json!([{"name": "c"}, {"$patch": "replace"}])),
            containers(json!([{"name": "c"}])),
        ),
        (
            "a map is replaced",
            json!({"metadata": {"labels": {"a": "1", "b": "2"}}}),
            json!({"metadata": {"labels": {"c": "3", "$patch": "replace"}}}),
            json!({"metadata": {"labels": {"c": "3"}}}),
        ),
        (
            "a map is emptied",
            json!({"metadata": {"labels": {"a": "1"}}}),
            json!({"metadata": {"labels": {"$patch": "delete"}}}),
            json!({"metadata": {"labels": {}}}),
        ),
        (
            "null deletes, at any depth and where nothing was",
            json!({"spec": {"nodeName": "n", "hostname": "h"}}),
            json!({"spec": {"nodeName": null, "securityContext": {"runAsUser": null, "runAsGroup": 1}}}),
            json!({"spec": {"hostname": "h", "securityContext": {"runAsGroup": 1}}}),
        ),
        (
            "lists of scalars are united where the field merges",
            json!({"metadata": {"finalizers": ["a", "b"]}}),
            json!({"metadata": {"finalizers": ["b", "c"]}}),
            json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
        ),
        (
            "scalars are deleted from a list",
            json!({"metadata": {"finalizers": ["a", "b"]}}),
            json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}),
            json!({"metadata": {"finalizers": ["b"]}}),
        ),
        (
            "lists without a strategy are replaced",
            containers(json!([{"name": "a", "args": ["x", "y"]}])),
            containers(json!([{"name": "a", "args": ["z"]}])),
            containers(json!([{"name": "a", "args": ["z"]}])),
        ),
        (
            "an order is set, and what it does not name stays ahead of its old successors",
            containers(json!([{"name": "a"}, {"name": "b"}, {"name": "c"}])),
            json!({"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
                "containers": [{"name": "a", "image": "i"}]}}),
            containers(json!([{"name": "b"}, {"name": "c"}, {"name": "a", "image": "i"}])),
        ),
        (
            "an order is set for a list that the patch leaves alone",
            json!({"metadata": {"finalizers": ["a", "b"]}}),
            json!({"metadata": {"$setElementOrder/finalizers": ["b", "a"]}}),
            json!({"metadata": {"finalizers": ["b", "a"]}}),
        ),
    ] {
        assert_eq!(patched(pod(), before, patch), after, "{name}");
    }
}

#[test]
fn retained_keys_drop_the_others() {
    let before = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_eq!(patched(deployment(), before.clone(), patch), json!({"spec": {"strategy": {"type": "Recreate"}}}));
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}});
    let status = strategic(deployment(), &before, &patch).unwrap_err();
    assert_eq!((status.code, status.message.as_str()), (400, "invalid patch format of retainKeys"));
}

#[test]
fn a_template_is_replaced_as_a_rollback_does() {
    let before =
        json!({"spec": {"template": {"metadata": {"labels": {"a": "1"}}, "spec": {"containers": [{"name": "new"}]}}}});
    let patch = json!({"spec": {"template": {"$patch": "replace", "spec": {"containers": [{"name": "old"}]}}}});
    assert_eq!(
        patched(deployment(), before, patch),
        json!({"spec": {"template": {"spec": {"containers": [{"name": "old"}]}}}})
    );
}

#[test]
fn service_ports_merge_by_port_alone() {
    let service = schema::kind("", "v1", "Service").unwrap();
    let before = json!({"spec": {"ports": [{"port": 53, "protocol": "UDP"}]}});
    let patch = json!({"spec": {"ports": [{"port": 53, "protocol": "TCP"}]}});
    assert_eq!(patched(service, before, patch), json!({"spec": {"ports": [{"port": 53, "protocol": "TCP"}]}}));
}

#[test]
fn bad_patches_are_refused_in_upstreams_words() {
    let before = json!({"metadata": {"finalizers": ["a"]}, "spec": {"containers": [{"name": "a"}]}});
    for (patch, code, message) in [
        (
            json!({"spec": {"containers": [{"image": "i"}]}}),
            500,
            "map: map[image:i] does not contain declared merge key: name",
        ),
        (json!({"spec": {"containers": ["a"]}}), 500, "list element types are not identical: [[map[name:a]] [a]]"),
        (
            json!({"spec": {"containers": [{"name": "a", "$patch": "bogus"}]}}),
            500,
            "unknown patch type: bogus in map: map[$patch:bogus name:a]",
        ),
        (json!({"spec": {"$patch": "merge"}}), 500, "unknown patch type: merge in map: map[$patch:merge]"),
        (
            json!({"metadata": {"$deleteFromPrimitiveListfinalizers": ["a"]}}),
            400,
            "invalid patch format of primitive list",
        ),
        (json!({"spec": {"$setElementOrder": []}}), 400, "invalid patch format of setElementOrder list"),
        (
            json!({"spec": {"bogus": {}, "containers": [[]]}}),
            422,
            "the server rejected our request due to an error in our request",
        ),
        (
            json!({"spec": {"$setElementOrder/containers": [{"name": "b"}], "containers": [{"name": "a"}]}}),
            500,
            "The order in patch list:\n[map[name:a]]\n doesn't match $setElementOrder list:\n[map[name:b]]\n",
        ),
    ] {
        let status = strategic(pod(), &before, &patch).unwrap_err();
        assert_eq!((status.code, status.message.as_str()), (code, message), "{patch}");
    }
}

#[test]
fn results_that_do_not_fit_are_refused() {
    let patch = json!({"spec": {"replicas": "x"}});
    let merged = merge(&json!({"kind": "Deployment"}), &patch).unwrap();
    let status = finish(deployment(), merged.clone(), None).unwrap_err();
    let error = "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32";
    let shown = r#""{\"kind\":\"Deployment\",\"spec\":{\"replicas\":\"x\"}}""#;
    assert_eq!(status.message, format!(" \"\" is invalid: patch: Invalid value: {shown}: {error}"));
    let status = finish(deployment(), merged, Some(&patch)).unwrap_err();
    assert_eq!(
        status.message,
        format!(" \"\" is invalid: patch: Invalid value: \"map[spec:map[replicas:x]]\": {error}")
    );
}

#[test]
fn unknown_fields_of_a_result_are_reported_and_pruned() {
    let merged = merge(&json!({"spec": {}}), &json!({"spec": {"bogus": 1}})).unwrap();
    let patched = finish(deployment(), merged, None).unwrap();
    assert_eq!(patched.strict, [r#"unknown field "spec.bogus""#]);
    assert_eq!(patched.value["spec"].get("bogus"), None);
    let status = patched.strict_status(&["json patch unknown field \"[0].x\"".into()]).unwrap();
    assert_eq!(status.code, 422);
    assert!(
        status
            .message
            .ends_with("strict decoding error: json patch unknown field \"[0].x\", unknown field \"spec.bogus\"")
    );
}
