//! Writes: creating, replacing, patching, and what is refused.

use http::Method;
use serde_json::{Value, json};

use crate::support::{Caller, TestServer, config_map, pod, version};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn deployment(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}},
            "spec": {"containers": [{"name": "main", "image": "a"}, {"name": "side", "image": "b"}]}}}})
}

async fn strategic(caller: &Caller, path: &str, patch: Value) -> crate::support::Answer {
    caller.call(Method::PATCH, path, "application/strategic-merge-patch+json", patch.to_string()).await
}

#[tokio::test]
async fn an_object_is_born_with_an_identity_and_only_once() {
    let server = TestServer::start().await;
    let created = server.admin.post(MAPS, config_map("a", json!({}))).await.expect(201);
    for field in ["uid", "creationTimestamp", "resourceVersion"] {
        assert!(created["metadata"][field].is_string(), "{field}");
    }
    assert_eq!(created["metadata"]["managedFields"][0]["operation"], "Update");
    let again = server.admin.post(MAPS, config_map("a", json!({}))).await;
    assert_eq!(again.message(409), "configmaps \"a\" already exists");
    let generated = server.admin.post(MAPS, json!({"metadata": {"generateName": "g-"}})).await.expect(201);
    assert_eq!(generated["metadata"]["name"].as_str().unwrap().len(), 7);
    let missing = server.admin.get(&format!("{MAPS}/nope")).await;
    assert_eq!(missing.message(404), "configmaps \"nope\" not found");
    server.admin.post(MAPS, json!({"metadata": {"name": "UPPER"}})).await.expect(422);
    server.admin.post(MAPS, json!({"metadata": {"name": "x", "namespace": "other"}})).await.expect(400);
    server.admin.post(MAPS, json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "x"}})).await.expect(400);
}

#[tokio::test]
async fn the_older_write_loses() {
    let server = TestServer::start().await;
    let mut first = server.admin.post(MAPS, config_map("a", json!({}))).await.expect(201);
    let path = format!("{MAPS}/a");
    server.admin.merge(&path, json!({"data": {"x": "1"}})).await.expect(200);
    first["data"]["x"] = "2".into();
    let message = server.admin.put(&path, first.clone()).await.message(409);
    assert_eq!(
        message,
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to \
         the latest version and try again"
    );
    first["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert_eq!(server.admin.put(&path, first.clone()).await.expect(200)["data"]["x"], "2");
    first["metadata"]["uid"] = "another".into();
    assert!(server.admin.put(&path, first).await.message(409).contains("UID in precondition"));
    let stale = json!({"metadata": {"resourceVersion": "1"}});
    server.admin.merge(&path, stale).await.expect(409);
}

#[tokio::test]
async fn a_write_that_changes_nothing_makes_no_version() {
    let server = TestServer::start().await;
    let created = server.admin.post(MAPS, config_map("a", json!({"l": "v"}))).await.expect(201);
    let path = format!("{MAPS}/a");
    let patched = server.admin.merge(&path, json!({"metadata": {"labels": {"l": "v"}}})).await.expect(200);
    assert_eq!(version(&patched), version(&created));
    let mut same = created.clone();
    same["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert_eq!(version(&server.admin.put(&path, same).await.expect(200)), version(&created));
}

#[tokio::test]
async fn patches_of_many_clients_all_go_through() {
    let server = TestServer::start().await;
    server.admin.post(MAPS, config_map("a", json!({}))).await.expect(201);
    let path = format!("{MAPS}/a");
    let patches = (0..12).map(|n| {
        let (caller, path) = (server.admin.clone(), path.clone());
        async move { caller.merge(&path, json!({"data": {format!("k{n}"): "v"}})).await.expect(200) }
    });
    futures::future::join_all(patches).await;
    let map = server.admin.get(&path).await.expect(200);
    assert_eq!(map["data"].as_object().unwrap().len(), 13);
}

#[tokio::test]
async fn a_strategic_patch_merges_containers_by_name() {
    let server = TestServer::start().await;
    server.admin.post(DEPLOYMENTS, deployment("d")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/d");
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "c"}]}}}});
    let patched = strategic(&server.admin, &path, patch).await.expect(200);
    let images: Vec<&Value> =
        patched["spec"]["template"]["spec"]["containers"].as_array().unwrap().iter().map(|c| &c["image"]).collect();
    assert_eq!(images, ["a", "c"]);
    assert_eq!(patched["metadata"]["generation"], 2);
    let json_patch = json!([{"op": "test", "path": "/spec/replicas", "value": 1}, {"op": "replace", "path": "/spec/replicas", "value": 4}]);
    let patched = server.admin.call(Method::PATCH, &path, "application/json-patch+json", json_patch.to_string()).await;
    assert_eq!(patched.expect(200)["spec"]["replicas"], 4);
    server.admin.call(Method::PATCH, &path, "application/json", "{}").await.expect(415);
}

#[tokio::test]
async fn no_patch_changes_what_an_object_is() {
    let server = TestServer::start().await;
    server.admin.post(DEPLOYMENTS, deployment("d")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/d");
    let named = json!({"apiVersion": "v9", "kind": "Zork"});
    let replaced = json!([{"op": "replace", "path": "/kind", "value": "Zork"}]).to_string();
    for (answer, message) in [
        (
            server.admin.merge(&path, named.clone()).await,
            "the API version in the data (v9) does not match the expected API version (apps/v1)",
        ),
        (
            strategic(&server.admin, &path, json!({"kind": "Zork"})).await,
            "the kind in the data (Zork) does not match the expected kind (Deployment)",
        ),
        (
            server.admin.call(Method::PATCH, &path, "application/json-patch+json", replaced).await,
            "the kind in the data (Zork) does not match the expected kind (Deployment)",
        ),
    ] {
        assert_eq!(answer.expect(400)["message"], message);
    }
    let kept = server.admin.merge(&path, json!({"kind": null, "spec": {"replicas": 2}})).await.expect(200);
    assert_eq!((&kept["kind"], &kept["spec"]["replicas"]), (&json!("Deployment"), &json!(2)));
}

#[tokio::test]
async fn each_writer_keeps_to_its_half() {
    let server = TestServer::start().await;
    server.admin.post(DEPLOYMENTS, deployment("d")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/d");
    let both = json!({"spec": {"replicas": 3}, "status": {"replicas": 3}});
    let status = server.admin.merge(&format!("{path}/status"), both.clone()).await.expect(200);
    assert_eq!((&status["spec"]["replicas"], &status["status"]["replicas"]), (&json!(1), &json!(3)));
    assert_eq!(status["metadata"]["generation"], 1);
    let spec = server.admin.merge(&path, json!({"spec": {"replicas": 5}, "status": {"replicas": 9}})).await.expect(200);
    assert_eq!((&spec["spec"]["replicas"], &spec["status"]["replicas"]), (&json!(5), &json!(3)));
    let managers: Vec<&str> = spec["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|entry| entry["subresource"].as_str())
        .collect();
    assert_eq!(managers, ["status"]);
}

#[tokio::test]
async fn scale_is_a_view_of_replicas() {
    let server = TestServer::start().await;
    server.admin.post(DEPLOYMENTS, deployment("d")).await.expect(201);
    let path = format!("{DEPLOYMENTS}/d/scale");
    let mut scale = server.admin.get(&path).await.expect(200);
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(1)));
    assert_eq!(scale["status"]["selector"], "app=d");
    scale["spec"]["replicas"] = 4.into();
    assert_eq!(server.admin.put(&path, scale.clone()).await.expect(200)["spec"]["replicas"], 4);
    server.admin.put(&path, scale).await.expect(409);
    assert_eq!(server.admin.merge(&path, json!({"spec": {"replicas": 2}})).await.expect(200)["spec"]["replicas"], 2);
    server.admin.merge(&path, json!({"spec": {"replicas": -1}})).await.expect(422);
    let workload = server.admin.get(&format!("{DEPLOYMENTS}/d")).await.expect(200);
    assert_eq!((&workload["spec"]["replicas"], &workload["metadata"]["generation"]), (&json!(2), &json!(3)));
}

#[tokio::test]
async fn unknown_fields_warn_or_fail_as_asked() {
    let server = TestServer::start().await;
    let map = json!({"metadata": {"name": "a"}, "dta": {"x": "y"}});
    let strict = server.admin.post(&format!("{MAPS}?fieldValidation=Strict"), map.clone()).await.message(400);
    assert!(strict.contains("strict decoding error: unknown field \"dta\""), "{strict}");
    let twice = r#"{"metadata": {"name": "a"}, "data": {"x": "1"}, "data": {"x": "2"}}"#;
    let strict =
        server.admin.call(Method::POST, &format!("{MAPS}?fieldValidation=Strict"), "application/json", twice).await;
    assert!(strict.message(400).contains("duplicate field \"data\""));
    let ignored = server.admin.post(&format!("{MAPS}?fieldValidation=Ignore&dryRun=All"), map.clone()).await;
    assert!(!ignored.headers.contains_key("warning"));
    ignored.expect(201);
    let warned = server.admin.post(MAPS, map).await;
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"dta\\\"\"");
    assert_eq!(warned.expect(201).get("dta"), None);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let server = TestServer::start().await;
    let revision = || control_store::Store::revision(&*server.store);
    server.admin.post(MAPS, config_map("a", json!({}))).await.expect(201);
    let before = revision();
    server.admin.post(&format!("{MAPS}?dryRun=All"), config_map("b", json!({}))).await.expect(201);
    server.admin.post(&format!("{MAPS}?dryRun=All"), config_map("a", json!({}))).await.expect(409);
    let patched = server.admin.merge(&format!("{MAPS}/a?dryRun=All"), json!({"data": {"n": "1"}})).await.expect(200);
    assert_eq!(patched["data"]["n"], "1");
    server.admin.delete(&format!("{MAPS}/a?dryRun=All"), json!({})).await.expect(200);
    server.admin.delete(&format!("{MAPS}/a"), json!({"dryRun": ["All"]})).await.expect(200);
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    server.admin.post("/api/v1/namespaces/default/services?dryRun=All", service).await.expect(201);
    server.admin.post(&format!("{MAPS}?dryRun=maybe"), config_map("b", json!({}))).await.expect(400);
    assert_eq!(revision(), before);
}

#[tokio::test]
async fn bodies_may_be_yaml_or_protobuf_but_not_huge() {
    let server = TestServer::start().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: from-yaml\ndata:\n  a: b\n";
    let created = server.admin.call(Method::POST, MAPS, "application/yaml", yaml).await.expect(201);
    assert_eq!(created["data"]["a"], "b");
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "p"}, "data": {"a": "c"}});
    let protobuf = control_api::protobuf::encode(&object).unwrap();
    let created = server.admin.call(Method::POST, MAPS, control_api::protobuf::MEDIA_TYPE, protobuf).await.expect(201);
    assert_eq!(created["data"]["a"], "c");
    server.admin.call(Method::POST, MAPS, "text/plain", "x").await.expect(415);
    server.admin.call(Method::POST, MAPS, "application/json", "{").await.expect(400);
    let huge = json!({"metadata": {"name": "h"}, "data": {"x": "x".repeat(4 << 20)}});
    server.admin.post(MAPS, huge).await.expect(413);
}

#[tokio::test]
async fn a_put_creates_only_where_the_kind_allows_it() {
    let server = TestServer::start().await;
    server.admin.put(&format!("{MAPS}/new"), config_map("new", json!({}))).await.expect(404);
    let lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "x", "leaseDurationSeconds": 40}});
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l";
    let created = server.admin.put(path, lease.clone()).await.expect(201);
    server.admin.put(path, lease).await.expect(422);
    server.admin.put(path, created).await.expect(200);
    server.admin.put(&format!("{MAPS}/one"), config_map("two", json!({}))).await.expect(400);
}

#[tokio::test]
async fn a_pod_is_completed_and_bound_once() {
    let server = TestServer::start().await;
    server.namespace("team").await;
    let pods = "/api/v1/namespaces/team/pods";
    let created = server.admin.post(pods, pod("p")).await.expect(201);
    let spec = &created["spec"];
    assert_eq!((&spec["serviceAccountName"], &spec["priority"]), (&json!("default"), &json!(0)));
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    let mount = &spec["containers"][0]["volumeMounts"][0];
    assert!(mount["name"].as_str().unwrap().starts_with("kube-api-access-"));
    let binding = |node: &str| json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": node}});
    server.admin.post(&format!("{pods}/p/binding"), binding("n1")).await.expect(201);
    let again = server.admin.post(&format!("{pods}/p/binding"), binding("n2")).await;
    assert!(again.message(409).contains("already assigned to node \"n1\""));
    let bound = server.admin.get(&format!("{pods}/p")).await.expect(200);
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    let changed = server.admin.merge(&format!("{pods}/p"), json!({"spec": {"nodeName": "n2"}})).await;
    assert_eq!(changed.code, 422);
}
