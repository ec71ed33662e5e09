use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::schema;

const TIME: &str = "2024-01-01T00:00:00Z";

struct Write<'a> {
    manager: &'a str,
    subresource: &'a str,
    time: &'a str,
}

impl Default for Write<'_> {
    fn default() -> Self {
        Self { manager: "me", subresource: "", time: TIME }
    }
}

/// Stores `new` over `old` in the way of the server: normal form first, then tracking.
fn store(kind: &str, old: Option<&Value>, mut new: Value, write: Write<'_>) -> Value {
    let api_version = if kind == "Deployment" { "apps/v1" } else { "v1" };
    let message = schema::of_type(api_version, kind).unwrap();
    prune(message, &mut new);
    let Write { manager, subresource, time } = write;
    track(TrackUpdate { old, new: &mut new, manager, subresource, api_version, time, message });
    new
}

fn entries(object: &Value) -> &Value {
    &object["metadata"]["managedFields"]
}

fn config(data: Value) -> Value {
    json!({"metadata": {"name": "c", "namespace": "n"}, "data": data})
}

/// The entry that a real API server (1.36) writes for `kubectl create deployment web --image=nginx`, after defaults.
#[test]
fn a_create_owns_what_it_sets() {
    let deployment = json!({
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {
            "replicas": 1, "progressDeadlineSeconds": 600, "revisionHistoryLimit": 10,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
                "containers": [{"name": "nginx", "image": "nginx", "imagePullPolicy": "Always",
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
                "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
                "securityContext": {}, "terminationGracePeriodSeconds": 30}},
        },
    });
    let stored = store("Deployment", None, deployment, Write { manager: "kubectl-create", ..Write::default() });
    assert_eq!(
        *entries(&stored),
        json!([{"manager": "kubectl-create", "operation": "Update", "apiVersion": "apps/v1", "time": TIME,
            "fieldsType": "FieldsV1", "fieldsV1": {
                "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {
                    "f:progressDeadlineSeconds": {}, "f:replicas": {}, "f:revisionHistoryLimit": {}, "f:selector": {},
                    "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}}, "f:type": {}},
                    "f:template": {
                        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                        "f:spec": {
                            "f:containers": {"k:{\"name\":\"nginx\"}": {".": {}, "f:image": {}, "f:imagePullPolicy": {},
                                "f:name": {}, "f:resources": {}, "f:terminationMessagePath": {},
                                "f:terminationMessagePolicy": {}}},
                            "f:dnsPolicy": {}, "f:restartPolicy": {}, "f:schedulerName": {}, "f:securityContext": {},
                            "f:terminationGracePeriodSeconds": {}}}}}}])
    );
}

#[test]
fn an_update_takes_what_it_changes_and_leaves_the_rest() {
    let created =
        store("ConfigMap", None, config(json!({"a": "1", "b": "1"})), Write { manager: "first", ..Write::default() });
    let later = "2024-01-02T00:00:00Z";
    let updated = store(
        "ConfigMap",
        Some(&created),
        config(json!({"a": "1", "b": "2", "c": "1"})),
        Write { manager: "second", time: later, ..Write::default() },
    );
    assert_eq!(
        *entries(&updated),
        json!([
            {"manager": "first", "operation": "Update", "apiVersion": "v1", "time": TIME, "fieldsType": "FieldsV1",
                "fieldsV1": {"f:data": {".": {}, "f:a": {}}}},
            {"manager": "second", "operation": "Update", "apiVersion": "v1", "time": later, "fieldsType": "FieldsV1",
                "fieldsV1": {"f:data": {"f:b": {}, "f:c": {}}}},
        ])
    );
    let emptied = store("ConfigMap", Some(&updated), json!({"metadata": {"name": "c"}}), Write::default());
    assert_eq!(*entries(&emptied), Value::Null);
}

#[test]
fn nothing_changes_when_nothing_changed() {
    let created = store("ConfigMap", None, config(json!({"a": "1"})), Write::default());
    let time = "2030-01-01T00:00:00Z";
    let again = store("ConfigMap", Some(&created), config(json!({"a": "1"})), Write { time, ..Write::default() });
    assert_eq!(again, created);
    let other =
        store("ConfigMap", Some(&created), config(json!({"a": "1"})), Write { manager: "x", time, ..Write::default() });
    assert_eq!(other, created);
}

#[test]
fn subresources_have_entries_of_their_own_and_cannot_edit_others() {
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}});
    let created = store("Pod", None, pod.clone(), Write::default());
    let mut with_status = created.clone();
    with_status["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    with_status["metadata"]["managedFields"] = json!([{}]);
    let write = Write { manager: "kubelet", subresource: "status", ..Write::default() };
    let updated = store("Pod", Some(&created), with_status, write);
    assert_eq!(entries(&updated)[1], entries(&created)[0]);
    assert_eq!(
        entries(&updated)[0],
        json!({"manager": "kubelet", "operation": "Update", "apiVersion": "v1", "time": TIME, "fieldsType": "FieldsV1",
            "subresource": "status", "fieldsV1": {"f:status": {"f:phase": {}, "f:conditions": {
                ".": {}, "k:{\"type\":\"Ready\"}": {".": {}, "f:status": {}, "f:type": {}}}}}})
    );
}

#[test]
fn clients_may_reset_and_edit_entries() {
    let created = store("ConfigMap", None, config(json!({"a": "1"})), Write::default());
    for reset in [json!([]), json!([{}])] {
        let mut sent = created.clone();
        sent["metadata"]["managedFields"] = reset;
        assert_eq!(*entries(&store("ConfigMap", Some(&created), sent, Write::default())), Value::Null);
    }
    let mut edited = created.clone();
    edited["metadata"]["managedFields"][0]["manager"] = json!("renamed");
    let stored = store("ConfigMap", Some(&created), edited, Write::default());
    assert_eq!(entries(&stored)[0]["manager"], json!("renamed"));
    let mut malformed = created.clone();
    malformed["metadata"]["managedFields"][0]["operation"] = json!("Bogus");
    assert_eq!(entries(&store("ConfigMap", Some(&created), malformed, Write::default())), entries(&created));
}

#[test]
fn old_updaters_are_merged() {
    let mut object = store("ConfigMap", None, config(json!({"k0": "1"})), Write { manager: "m0", ..Write::default() });
    for at in 1..14 {
        let mut next = object.clone();
        next["data"][format!("k{at}")] = json!("1");
        let (manager, time) = (format!("m{at}"), format!("2024-02-{:02}T00:00:00Z", at + 1));
        object = store("ConfigMap", Some(&object), next, Write { manager: &manager, time: &time, ..Write::default() });
    }
    let entries = entries(&object).as_array().unwrap();
    assert_eq!(entries.len(), UPDATE_MANAGERS_MAX);
    let ancient = entries.iter().find(|entry| entry["manager"] == "ancient-changes").unwrap();
    let owned: Vec<&String> = ancient["fieldsV1"]["f:data"].as_object().unwrap().keys().collect();
    assert_eq!(owned, [".", "f:k0", "f:k1", "f:k2", "f:k3", "f:k4"]);
    assert_eq!(ancient["time"], json!("2024-02-05T00:00:00Z"));
}

#[test]
fn repeated_keys_are_owned_as_a_whole() {
    let service = |ports: Value| json!({"metadata": {"name": "s"}, "spec": {"ports": ports}});
    let one = store("Service", None, service(json!([{"port": 1, "protocol": "TCP"}])), Write::default());
    let two = json!([{"port": 1, "protocol": "TCP", "name": "a"}, {"port": 1, "protocol": "TCP", "name": "b"}]);
    let both = store("Service", Some(&one), service(two), Write { manager: "x", ..Write::default() });
    let x = entries(&both).as_array().unwrap().iter().find(|entry| entry["manager"] == "x").unwrap().clone();
    assert_eq!(x["fieldsV1"], json!({"f:spec": {"f:ports": {"k:{\"port\":1,\"protocol\":\"TCP\"}": {}}}}));
}

#[test]
fn times_alone_are_no_change() {
    let a = store("ConfigMap", None, config(json!({"a": "1"})), Write::default());
    let b =
        store("ConfigMap", None, config(json!({"a": "1"})), Write { time: "2031-01-01T00:00:00Z", ..Write::default() });
    assert!(a != b && same_but_for_times(&a, &b));
    assert!(!same_but_for_times(&a, &store("ConfigMap", None, config(json!({"a": "2"})), Write::default())));
}

fn data() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[a-d]", "[12]", 0..4).prop_map(|map| config(json!(map)))
}

proptest! {
    /// Whatever happens, each field has exactly one updater, and every entry names only fields that exist.
    #[test]
    fn every_field_has_one_owner(writes in proptest::collection::vec((0usize..3, data()), 1..8)) {
        let message = schema::of_type("v1", "ConfigMap").unwrap();
        let mut stored: Option<Value> = None;
        for (who, mut next) in writes {
            if let Some(stored) = &stored {
                next["metadata"] = stored["metadata"].clone();
            }
            let write = Write { manager: ["x", "y", "z"][who], ..Write::default() };
            stored = Some(store("ConfigMap", stored.as_ref(), next, write));
        }
        let stored = stored.unwrap();
        let managers = Managers::from_json(entries(&stored)).unwrap_or_default();
        let mut all = FieldSet::new();
        for (_, fields) in managers.iter() {
            prop_assert!(all.intersection(fields).is_empty());
            all = all.union(fields);
        }
        let mut bare = stored;
        remove(&mut bare);
        let mut expected = compare(message, &empty(message), &bare).added;
        expected = expected.difference(&unowned());
        prop_assert_eq!(all, expected);
    }
}
