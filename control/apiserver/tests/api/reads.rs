//! Reads: lists in pages, old and future versions, forms of an answer, discovery.

use crate::support::{TestServer, compact, config_map, version};
use http::Request;
use serde_json::json;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn with_maps(count: usize) -> TestServer {
    let server = TestServer::start().await;
    for n in 0..count {
        let part = if n % 2 == 0 { "even" } else { "odd" };
        server.admin.post(MAPS, config_map(&format!("m{n}"), json!({"part": part}))).await.expect(201);
    }
    server
}

fn names(list: &serde_json::Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn pages_of_a_list_show_one_moment() {
    let server = with_maps(5).await;
    let first = server.admin.get(&format!("{MAPS}?limit=2")).await.expect(200);
    assert_eq!(names(&first), ["m0", "m1"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    server.admin.delete(&format!("{MAPS}/m3"), json!({})).await.expect(200);
    server.admin.post(MAPS, config_map("m2a", json!({}))).await.expect(201);
    let next = first["metadata"]["continue"].as_str().unwrap();
    let second = server.admin.get(&format!("{MAPS}?limit=9&continue={next}")).await.expect(200);
    assert_eq!(names(&second), ["m2", "m3", "m4"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert_eq!(second["metadata"].get("continue"), None);
}

#[tokio::test]
async fn a_negative_limit_is_none_and_endpoints_are_deprecated() {
    let server = with_maps(3).await;
    let all = server.admin.get(&format!("{MAPS}?limit=-1")).await;
    assert!(!all.headers.contains_key("warning"));
    let all = all.expect(200);
    assert_eq!((names(&all), all["metadata"].get("continue")), (vec!["m0", "m1", "m2"], None));
    let refused = server.admin.get(&format!("{MAPS}?limit=x")).await.expect(400);
    assert_eq!(refused["message"], "strconv.ParseInt: parsing \"x\": invalid syntax");
    let endpoints = server.admin.get("/api/v1/endpoints").await;
    assert_eq!(
        endpoints.headers["warning"],
        "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice\""
    );
}

#[tokio::test]
async fn a_page_that_expired_can_be_continued_inconsistently() {
    let server = with_maps(4).await;
    let first = server.admin.get(&format!("{MAPS}?limit=2")).await.expect(200);
    let next = first["metadata"]["continue"].as_str().unwrap();
    server.admin.delete(&format!("{MAPS}/m3"), json!({})).await.expect(200);
    compact(&server).await;
    let gone = server.admin.get(&format!("{MAPS}?limit=2&continue={next}")).await.expect(410);
    assert_eq!(gone["reason"], "Expired");
    let next = gone["metadata"]["continue"].as_str().unwrap();
    let rest = server.admin.get(&format!("{MAPS}?limit=2&continue={next}")).await.expect(200);
    assert_eq!(names(&rest), ["m2"]);
}

#[tokio::test]
async fn versions_ask_for_exact_any_and_not_older() {
    let server = with_maps(2).await;
    let list = server.admin.get(MAPS).await.expect(200);
    let then = version(&list);
    server.admin.post(MAPS, config_map("later", json!({}))).await.expect(201);
    let exact =
        server.admin.get(&format!("{MAPS}?resourceVersion={then}&resourceVersionMatch=Exact")).await.expect(200);
    assert_eq!(names(&exact), ["m0", "m1"]);
    for query in [format!("resourceVersion={then}&resourceVersionMatch=NotOlderThan"), "resourceVersion=0".into()] {
        assert_eq!(names(&server.admin.get(&format!("{MAPS}?{query}")).await.expect(200)).len(), 3, "{query}");
    }
    let future = server.admin.get(&format!("{MAPS}?resourceVersion={}", then + 1000)).await.expect(504);
    assert_eq!(future["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    server.admin.get(&format!("{MAPS}?resourceVersionMatch=Exact")).await.expect(422);
    server.admin.get(&format!("{MAPS}?resourceVersion=x")).await.expect(400);
    compact(&server).await;
    server.admin.get(&format!("{MAPS}?resourceVersion={then}&resourceVersionMatch=Exact")).await.expect(410);
}

#[tokio::test]
async fn selectors_select() {
    let server = with_maps(4).await;
    let cases = [
        ("labelSelector=part%3Deven", vec!["m0", "m2"]),
        ("labelSelector=part+in+(odd)", vec!["m1", "m3"]),
        ("labelSelector=!part", vec![]),
        ("fieldSelector=metadata.name%3Dm1", vec!["m1"]),
        ("fieldSelector=metadata.name!%3Dm1&labelSelector=part%3Dodd", vec!["m3"]),
        ("labelSelector=part%3Deven&limit=1", vec!["m0"]),
    ];
    for (query, expected) in cases {
        assert_eq!(names(&server.admin.get(&format!("{MAPS}?{query}")).await.expect(200)), expected, "{query}");
    }
    let unknown = server.admin.get(&format!("{MAPS}?fieldSelector=spec.foo%3D1")).await.message(400);
    assert!(unknown.starts_with("\"spec.foo\" is not a known field selector"), "{unknown}");
    let page = server.admin.get(&format!("{MAPS}?labelSelector=part%3Deven&limit=1")).await.expect(200);
    assert_eq!(page["metadata"].get("remainingItemCount"), None);
    let next = page["metadata"]["continue"].as_str().unwrap();
    let rest = server.admin.get(&format!("{MAPS}?labelSelector=part%3Deven&limit=1&continue={next}")).await.expect(200);
    assert_eq!(names(&rest), ["m2"]);
}

#[tokio::test]
async fn an_answer_has_the_form_that_was_asked_for() {
    let server = with_maps(1).await;
    let get = |path: &'static str, accept: &'static str| {
        let request = Request::get(path).header("accept", accept).body(Vec::new()).unwrap();
        server.admin.send(request)
    };
    const ONE: &str = "/api/v1/namespaces/default/configmaps/m0";
    let table = get(MAPS, "application/json;as=Table;v=v1;g=meta.k8s.io").await.expect(200);
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["rows"][0]["cells"][0], "m0");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let list = get(MAPS, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io").await.expect(200);
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["items"][0].get("data"), None);
    let one = get(ONE, "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io").await.expect(200);
    assert_eq!(one["metadata"]["name"], "m0");
    let yaml = get(ONE, "application/yaml").await;
    assert_eq!(yaml.headers["content-type"], "application/yaml");
    assert!(yaml.body.as_str().unwrap().contains("name: m0"), "{}", yaml.body);
    get(ONE, "text/html").await.expect(406);
    get("/api/v1/namespaces/default/serviceaccounts/x/token", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .await
        .expect(405);
    let protobuf_first = get(ONE, "application/vnd.kubernetes.protobuf,application/json").await;
    assert_eq!(protobuf_first.headers["content-type"], "application/json");
}

#[tokio::test]
async fn a_large_list_is_whole_and_can_be_compressed() {
    let server = TestServer::start().await;
    let text = "x".repeat(20_000);
    for n in 0..30 {
        let map = json!({"metadata": {"name": format!("big{n:02}")}, "data": {"text": text}});
        server.admin.post(MAPS, map).await.expect(201);
    }
    let plain = server.admin.get(MAPS).await.expect(200);
    assert_eq!(names(&plain).len(), 30);
    let request = Request::get(MAPS).header("accept-encoding", "gzip").body(Vec::new()).unwrap();
    let compressed = server.admin.send(request).await;
    // The client may have undone the encoding itself.
    if compressed.headers.get("content-encoding").is_some() {
        return;
    }
    assert_eq!(compressed.body, plain);
}

#[tokio::test]
async fn discovery_is_tagged_and_openapi_is_there() {
    let server = TestServer::start().await;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let request = || Request::get("/apis").header("accept", accept);
    let tree = server.admin.send(request().body(Vec::new()).unwrap()).await;
    assert_eq!(tree.body["kind"], "APIGroupDiscoveryList");
    let tag = tree.headers["etag"].clone();
    let again = server.admin.send(request().header("if-none-match", tag).body(Vec::new()).unwrap()).await;
    assert_eq!(again.code, 304);
    assert_eq!(server.admin.get("/api/v1").await.expect(200)["kind"], "APIResourceList");
    assert_eq!(server.admin.get("/apis").await.expect(200)["kind"], "APIGroupList");
    let index = server.admin.get("/openapi/v3").await.expect(200);
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    assert!(server.admin.get(&url).await.expect(200)["components"]["schemas"].is_object());
    assert_eq!(server.admin.get("/openapi/v2").await.expect(200)["swagger"], "2.0");
    let protobuf = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let request = Request::get("/openapi/v2").header("accept", protobuf).body(Vec::new()).unwrap();
    let answer = server.admin.send(request).await;
    assert_eq!(answer.headers["content-type"], "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    assert!(answer.body.as_str().unwrap().starts_with("\n\u{3}2.0"));
    server.admin.get("/apis/nothing/v1/things").await.expect(404);
}

#[tokio::test]
async fn health_version_and_metrics() {
    let server = TestServer::start().await;
    assert_eq!(server.admin.get("/readyz").await.expect(200), "ok");
    let verbose = server.admin.get("/readyz?verbose").await.expect(200);
    assert!(verbose.as_str().unwrap().ends_with("readyz check passed\n"), "{verbose}");
    assert!(server.admin.get("/version").await.expect(200)["gitVersion"].as_str().unwrap().starts_with("v1.36."));
    let metrics = server.admin.get("/metrics").await.expect(200);
    assert!(metrics.as_str().unwrap().contains("apiserver_request_total{"), "{metrics}");
    let answer = server.admin.get("/livez").await;
    assert!(answer.headers.contains_key("audit-id"));
}
