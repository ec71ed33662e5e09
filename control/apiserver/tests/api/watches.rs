//! Watches: order, selectors, bookmarks, streaming lists, and their ends.

use crate::support::{TestServer, compact, config_map, version};
use serde_json::json;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn event(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

#[tokio::test]
async fn a_watch_from_a_version_sees_everything_after_it() {
    let server = TestServer::start().await;
    let first = server.admin.post(MAPS, config_map("a", json!({}))).await.expect(201);
    server.admin.post(MAPS, config_map("b", json!({}))).await.expect(201);
    let mut watch = server.admin.watch(&format!("{MAPS}?watch=true&resourceVersion={}", version(&first))).await;
    assert_eq!(watch.brief().await, event("ADDED", "b"));
    server.admin.merge(&format!("{MAPS}/a"), json!({"data": {"x": "y"}})).await.expect(200);
    let changed = watch.next().await.unwrap();
    assert_eq!((&changed["type"], &changed["object"]["data"]["x"]), (&json!("MODIFIED"), &json!("y")));
    server.admin.delete(&format!("{MAPS}/a"), json!({})).await.expect(200);
    let deleted = watch.next().await.unwrap();
    assert_eq!(deleted["type"], "DELETED");
    // The deletion has a version of its own.
    assert!(version(&deleted["object"]) > version(&changed["object"]));
    assert_eq!(deleted["object"]["data"]["x"], "y");
}

#[tokio::test]
async fn what_enters_and_leaves_a_selection_is_added_and_deleted() {
    let server = TestServer::start().await;
    server.admin.post(MAPS, config_map("a", json!({"on": "no"}))).await.expect(201);
    let mut watch = server.admin.watch(&format!("{MAPS}?watch=true&resourceVersion=0&labelSelector=on%3Dyes")).await;
    let label = |value: &'static str| json!({"metadata": {"labels": {"on": value}}});
    let path = format!("{MAPS}/a");
    server.admin.merge(&path, label("yes")).await.expect(200);
    assert_eq!(watch.brief().await, event("ADDED", "a"));
    server.admin.merge(&path, json!({"data": {"n": "1"}})).await.expect(200);
    assert_eq!(watch.brief().await, event("MODIFIED", "a"));
    let left = server.admin.merge(&path, label("no")).await.expect(200);
    let gone = watch.next().await.unwrap();
    assert_eq!(gone["type"], "DELETED");
    assert_eq!(version(&gone["object"]), version(&left));
    server.admin.delete(&path, json!({})).await.expect(200);
    server.admin.post(MAPS, config_map("b", json!({"on": "yes"}))).await.expect(201);
    assert_eq!(watch.brief().await, event("ADDED", "b"));
}

#[tokio::test]
async fn a_watch_of_one_name_sees_that_name_alone() {
    let server = TestServer::start().await;
    let mut watch = server.admin.watch(&format!("{MAPS}?watch=true&fieldSelector=metadata.name%3Db")).await;
    for name in ["a", "b", "c"] {
        server.admin.post(MAPS, config_map(name, json!({}))).await.expect(201);
        server.admin.delete(&format!("{MAPS}/{name}"), json!({})).await.expect(200);
    }
    assert_eq!(watch.brief().await, event("ADDED", "b"));
    assert_eq!(watch.brief().await, event("DELETED", "b"));
}

#[tokio::test]
async fn a_streaming_list_ends_with_its_bookmark() {
    let server = TestServer::start().await;
    for name in ["a", "b"] {
        server.admin.post(MAPS, config_map(name, json!({}))).await.expect(201);
    }
    let stream = "watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut watch = server.admin.watch(&format!("{MAPS}?{stream}")).await;
    assert_eq!(watch.brief().await, event("ADDED", "a"));
    assert_eq!(watch.brief().await, event("ADDED", "b"));
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["kind"], "ConfigMap");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let from = version(&bookmark["object"]);
    let third = server.admin.post(MAPS, config_map("c", json!({}))).await.expect(201);
    assert!(version(&third) > from);
    assert_eq!(watch.brief().await, event("ADDED", "c"));
    server.admin.get(&format!("{MAPS}?watch=true&sendInitialEvents=true")).await.expect(422);
    server.admin.get(&format!("{MAPS}?watch=true&resourceVersionMatch=NotOlderThan")).await.expect(422);
}

#[tokio::test]
async fn a_watch_ends_in_time_with_a_bookmark_of_all_it_has_seen() {
    let server = TestServer::start().await;
    let query = "watch=true&timeoutSeconds=1&allowWatchBookmarks=true";
    let mut watch = server.admin.watch(&format!("{MAPS}?{query}")).await;
    let created = server.admin.post(MAPS, config_map("a", json!({}))).await.expect(201);
    assert_eq!(watch.brief().await, event("ADDED", "a"));
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert!(version(&bookmark["object"]) >= version(&created));
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn versions_too_old_and_too_new_are_refused() {
    let server = TestServer::start().await;
    let created = server.admin.post(MAPS, config_map("a", json!({}))).await.expect(201);
    server.admin.post(MAPS, config_map("b", json!({}))).await.expect(201);
    compact(&server).await;
    let old = server.admin.get(&format!("{MAPS}?watch=true&resourceVersion={}", version(&created))).await;
    let event = old.expect(200);
    assert_eq!((event["type"].as_str(), event["object"]["code"].as_u64()), (Some("ERROR"), Some(410)));
    assert!(event["object"]["message"].as_str().unwrap().starts_with("too old resource version"));
    let new = server.admin.get(&format!("{MAPS}?watch=true&resourceVersion=999999")).await.expect(504);
    assert_eq!(new["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

#[tokio::test]
async fn a_watch_can_be_a_table_whose_columns_come_once() {
    let server = TestServer::start().await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let mut watch = server.admin.watch_as(&format!("{MAPS}?watch=true"), accept).await;
    for name in ["a", "b"] {
        server.admin.post(MAPS, config_map(name, json!({}))).await.expect(201);
    }
    let first = watch.next().await.unwrap();
    assert_eq!(first["object"]["kind"], "Table");
    assert_eq!(first["object"]["rows"][0]["cells"][0], "a");
    assert!(first["object"]["columnDefinitions"].is_array());
    assert!(watch.next().await.unwrap()["object"]["columnDefinitions"].is_null());
}

#[tokio::test]
async fn both_event_kinds_are_watched_in_their_own_form() {
    let server = TestServer::start().await;
    let mut core = server.admin.watch("/api/v1/namespaces/default/events?watch=true").await;
    let mut new = server.admin.watch("/apis/events.k8s.io/v1/namespaces/default/events?watch=true").await;
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"},
        "reason": "Tested", "message": "hello", "type": "Normal", "source": {"component": "test"}, "count": 1});
    server.admin.post("/api/v1/namespaces/default/events", event).await.expect(201);
    assert_eq!(core.next().await.unwrap()["object"]["message"], "hello");
    let seen = new.next().await.unwrap();
    assert_eq!((&seen["object"]["note"], &seen["object"]["apiVersion"]), (&json!("hello"), &json!("events.k8s.io/v1")));
}
