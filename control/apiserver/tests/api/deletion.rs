//! Deletion: at once, gracefully, held by finalizers; and the end of namespaces.

use http::Method;
use serde_json::json;

use crate::support::{TestServer, config_map, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_running_pod_stays_until_its_kubelet_says_so() {
    let server = TestServer::start().await;
    server.namespace("team").await;
    let path = "/api/v1/namespaces/team/pods/p";
    server.admin.post("/api/v1/namespaces/team/pods", pod("p")).await.expect(201);
    let binding = json!({"metadata": {"name": "p"}, "target": {"name": "n1"}});
    server.admin.post(&format!("{path}/binding"), binding).await.expect(201);
    let marked = server.admin.delete(path, json!({"gracePeriodSeconds": 20})).await.expect(200);
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 20);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    server.admin.get(path).await.expect(200);
    server.admin.delete(path, json!({"gracePeriodSeconds": 0})).await.expect(200);
    server.admin.get(path).await.expect(404);
}

#[tokio::test]
async fn an_unscheduled_pod_goes_at_once() {
    let server = TestServer::start().await;
    server.namespace("team").await;
    server.admin.post("/api/v1/namespaces/team/pods", pod("p")).await.expect(201);
    server.admin.delete("/api/v1/namespaces/team/pods/p", json!({})).await.expect(200);
    server.admin.get("/api/v1/namespaces/team/pods/p").await.expect(404);
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let server = TestServer::start().await;
    let mut map = config_map("a", json!({}));
    map["metadata"]["finalizers"] = json!(["example.com/one"]);
    server.admin.post(MAPS, map).await.expect(201);
    let path = format!("{MAPS}/a");
    let marked = server.admin.delete(&path, json!({"propagationPolicy": "Foreground"})).await.expect(200);
    assert_eq!(marked["metadata"]["finalizers"], json!(["example.com/one", "foregroundDeletion"]));
    server.admin.merge(&path, json!({"metadata": {"finalizers": ["foregroundDeletion"]}})).await.expect(200);
    server.admin.get(&path).await.expect(200);
    server.admin.merge(&path, json!({"metadata": {"finalizers": null}})).await.expect(200);
    server.admin.get(&path).await.expect(404);
    server.admin.post(MAPS, config_map("b", json!({}))).await.expect(201);
    let bad = server.admin.delete(&format!("{MAPS}/b"), json!({"propagationPolicy": "Sideways"})).await;
    assert_eq!(bad.code, 400);
}

#[tokio::test]
async fn preconditions_protect_the_successor() {
    let server = TestServer::start().await;
    let path = format!("{MAPS}/a");
    let created = server.admin.post(MAPS, config_map("a", json!({}))).await.expect(201);
    server.admin.delete(&path, json!({"preconditions": {"uid": "another"}})).await.expect(409);
    server.admin.delete(&path, json!({"preconditions": {"resourceVersion": "1"}})).await.expect(409);
    let uid = created["metadata"]["uid"].clone();
    let done = server.admin.delete(&path, json!({"preconditions": {"uid": uid}})).await.expect(200);
    assert_eq!((&done["kind"], &done["status"]), (&json!("Status"), &json!("Success")));
    assert_eq!(done["details"]["uid"], created["metadata"]["uid"]);
    server.admin.delete(&path, json!({})).await.expect(404);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selection() {
    let server = TestServer::start().await;
    for (name, part) in [("a", "x"), ("b", "y"), ("c", "x")] {
        server.admin.post(MAPS, config_map(name, json!({"part": part}))).await.expect(201);
    }
    server.admin.call(Method::DELETE, &format!("{MAPS}?labelSelector=part%3Dx"), "", "").await.expect(200);
    let left = server.admin.get(MAPS).await.expect(200);
    let names: Vec<_> = left["items"].as_array().unwrap().iter().map(|item| &item["metadata"]["name"]).collect();
    assert_eq!(names, ["b"]);
}

#[tokio::test]
async fn a_namespace_ends_once_it_is_finalized() {
    let server = TestServer::start().await;
    server.namespace("team").await;
    let path = "/api/v1/namespaces/team";
    let ending = server.admin.delete(path, json!({})).await.expect(200);
    assert_eq!(ending["status"]["phase"], "Terminating");
    let refused = server.admin.post(&format!("{path}/configmaps"), config_map("a", json!({}))).await.expect(403);
    assert_eq!(refused["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let mut namespace = server.admin.get(path).await.expect(200);
    namespace["spec"]["finalizers"] = json!([]);
    server.admin.put(&format!("{path}/finalize"), namespace).await.expect(200);
    server.admin.get(path).await.expect(404);
    let missing = server.admin.post(&format!("{path}/configmaps"), config_map("a", json!({}))).await;
    assert_eq!(missing.message(404), "namespaces \"team\" not found");
    let immortal = server.admin.delete("/api/v1/namespaces/default", json!({})).await;
    assert!(immortal.message(403).ends_with("this namespace may not be deleted"));
}
