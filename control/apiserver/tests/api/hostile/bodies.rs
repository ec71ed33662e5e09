//! Bodies that are slow, huge, deep, wide, or grow when they are read.

use std::time::{Duration, Instant};

use control_apiserver::Limits;
use http::{Method, Request};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use super::{PATIENCE, ask, connect, parse, to_the_end};
use crate::support::TestServer;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const JSON: &str = "application/json";

fn post(length: &str) -> Vec<u8> {
    format!("POST {MAPS} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: {JSON}\r\n{length}\r\n\r\n")
        .into_bytes()
}

#[tokio::test]
async fn a_slow_body_keeps_nobody_waiting_and_is_given_up() {
    let limits = Limits { in_flight: 1, body: Duration::from_millis(1500), ..Limits::default() };
    let server = TestServer::with(|config| config.limits = limits).await;
    let mut slow = Vec::new();
    for _ in 0..5 {
        let mut stream = connect(&server, "http/1.1").await.unwrap();
        stream.write_all(&[post("Content-Length: 100"), b"{".to_vec()].concat()).await.unwrap();
        slow.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    for _ in 0..5 {
        server.admin.get("/api/v1/namespaces").await.expect(200);
    }
    for mut stream in slow {
        let (code, body) = parse(&to_the_end(&mut stream).await);
        assert_eq!((code, &body["reason"]), (408, &json!("Timeout")));
        assert_eq!(body["message"], "Timeout: the body of the request did not arrive within 1.5s");
    }
}

#[tokio::test]
async fn the_refusal_of_a_large_body_is_read_by_who_still_sends() {
    let server = TestServer::start().await;
    let size = 9 << 20;
    let chunk = [b"100000\r\n".to_vec(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
    let chunked = [chunk.repeat(9), b"0\r\n\r\n".to_vec()].concat();
    for (head, body) in
        [(post(&format!("Content-Length: {size}")), vec![b' '; size]), (post("Transfer-Encoding: chunked"), chunked)]
    {
        let mut stream = connect(&server, "http/1.1").await.unwrap();
        stream.write_all(&head).await.unwrap();
        stream.write_all(&body).await.expect("the server takes what it refuses");
        let (code, body) = parse(&to_the_end(&mut stream).await);
        assert_eq!((code, &body["reason"]), (413, &json!("RequestEntityTooLarge")));
        assert_eq!(body["message"], "Request entity too large: limit is 3145728");
    }
    let answer = server.admin.call(Method::POST, MAPS, JSON, vec![b' '; size]).await;
    assert_eq!(answer.expect(413)["reason"], "RequestEntityTooLarge");
    // Who has no business here is told so likewise.
    let nobody = server.bearer(None).await;
    nobody.call(Method::POST, MAPS, JSON, vec![b' '; size]).await.expect(401);
}

#[tokio::test]
async fn all_bodies_together_have_a_limit() {
    let limits = Limits { bodies_bytes: 1 << 20, ..Limits::default() };
    let server = TestServer::with(|config| config.limits = limits).await;
    let mut held = connect(&server, "http/1.1").await.unwrap();
    held.write_all(&[post("Content-Length: 900000"), vec![b' '; 800_000]].concat()).await.unwrap();
    // Else the others might have been first.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let big = || server.admin.call(Method::POST, MAPS, JSON, vec![b' '; 700_000]);
    let refused = async {
        while big().await.code != 429 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("there is no limit");
    server.admin.get(MAPS).await.expect(200);
    drop(held);
    let free = async {
        while big().await.code == 429 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, free).await.expect("room is not given back");
}

/// Sends a body to be created, and says how it was answered, and that it did not take long.
async fn answered(server: &TestServer, path: &str, kind: &str, body: impl Into<Vec<u8>>) -> (u16, String) {
    let started = Instant::now();
    let answer = tokio::time::timeout(PATIENCE, server.admin.call(Method::POST, path, kind, body)).await;
    let answer = answer.expect("no answer in time");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    let text = answer.body["message"].as_str().unwrap_or_default().to_owned();
    (answer.code.as_u16(), text)
}

#[tokio::test]
async fn aliases_do_not_explode() {
    let server = TestServer::start().await;
    let mut bomb = String::from("kind: ConfigMap\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for at in 1..12 {
        let before = vec![format!("*a{}", at - 1); 10].join(", ");
        bomb.push_str(&format!("a{at}: &a{at} [{before}]\n"));
    }
    let (code, text) = answered(&server, MAPS, "application/yaml", bomb.clone()).await;
    assert_eq!(code, 400, "{text}");
    let apply = format!("{MAPS}/a?fieldManager=m");
    let answer = server.admin.call(Method::PATCH, &apply, "application/apply-patch+yaml", bomb).await;
    answer.expect(400);
    // A few aliases are nothing bad.
    let few = "metadata: {name: a}\ndata: {a: &x text, b: *x}\n";
    assert_eq!(answered(&server, MAPS, "application/yaml", few).await.0, 201);
}

#[tokio::test]
async fn depth_has_an_end_in_every_encoding() {
    let server = TestServer::start().await;
    for depth in [200, 10_000, 500_000] {
        let lists = format!("{{\"data\": {}", "[".repeat(depth));
        let maps = "{\"a\":".repeat(depth);
        for text in [&lists, &maps] {
            for kind in [JSON, "application/yaml"] {
                let (code, _) = answered(&server, MAPS, kind, text.as_bytes()).await;
                assert_eq!(code, 400, "{kind} {depth}");
            }
            for kind in ["merge-patch+json", "json-patch+json", "strategic-merge-patch+json", "apply-patch+yaml"] {
                let path = "/api/v1/namespaces/default?fieldManager=m";
                let kind = format!("application/{kind}");
                let answer = server.admin.call(Method::PATCH, path, &kind, text.as_bytes()).await;
                assert_eq!(answer.code, 400, "{kind} {depth}");
            }
        }
        let selector = "(".repeat(depth.min(10_000));
        server.admin.get(&format!("{MAPS}?labelSelector={selector}")).await.expect(400);
    }
    // CBOR is not spoken here, and protobuf has a depth of its own.
    server.admin.call(Method::POST, MAPS, "application/cbor", vec![0x81; 1 << 20]).await.expect(415);
    let mut message = Vec::new();
    for _ in 0..5000 {
        let length = message.len();
        let mut outer = vec![0x12];
        let mut rest = length;
        while rest >= 0x80 {
            outer.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        outer.push(rest as u8);
        outer.extend(&message);
        message = outer;
    }
    let body = [b"k8s\0".to_vec(), b"\x0a\x11\x0a\x02v1\x12\x09ConfigMap".to_vec(), message].concat();
    let (code, _) = answered(&server, MAPS, "application/vnd.kubernetes.protobuf", body).await;
    assert_eq!(code, 400);
}

#[tokio::test]
async fn a_patch_cannot_grow_what_it_patches_without_end() {
    let server = TestServer::start().await;
    let namespace = "/api/v1/namespaces/default";
    let send = async |patch: Value| {
        let started = Instant::now();
        let answer =
            server.admin.call(Method::PATCH, namespace, "application/json-patch+json", patch.to_string()).await;
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        answer.code.as_u16()
    };
    let test = json!({"op": "test", "path": "/kind", "value": "Namespace"});
    assert_eq!(send(vec![test.clone(); 10_001].into()).await, 413);
    assert_eq!(send(vec![test; 10_000].into()).await, 200);
    // Each copy doubles the depth: fifteen would be more than any stack bears.
    let mut deeper = vec![json!({"op": "add", "path": "/x", "value": {}})];
    let mut path = "/x".to_owned();
    for _ in 0..20 {
        deeper.push(json!({"op": "copy", "from": "/x", "path": format!("{path}/y")}));
        path = if path.len() < 100_000 { path.replace("/x", "/x/y") + &path[2..] } else { path };
    }
    assert_eq!(send(deeper.into()).await, 422);
    let wider: Vec<Value> = std::iter::once(json!({"op": "add", "path": "/x", "value": ["y".repeat(1000)]}))
        .chain((0..20).map(|_| json!({"op": "copy", "from": "/x", "path": "/x/-"})))
        .collect();
    assert_eq!(send(wider.into()).await, 422);
    server.admin.get(namespace).await.expect(200);
}

#[tokio::test]
async fn what_is_stored_can_always_be_read_again() {
    let server = TestServer::start().await;
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let names = json!({"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"});
    let definition = json!({"metadata": {"name": "things.example.com"}, "spec": {"group": "example.com", "names": names,
        "scope": "Cluster", "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    server.admin.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await.expect(201);
    let path = "/apis/example.com/v1/things";
    for (depth, code) in [(100, 201), (118, 400), (125, 400)] {
        let nested = (0..depth).fold(json!("leaf"), |inner, _| json!({"a": inner}));
        let name = format!("n{depth}");
        let thing =
            json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": name}, "spec": nested});
        let answer = server.admin.post(path, thing).await;
        assert_eq!(answer.code.as_u16(), code, "{depth}: {}", answer.body);
    }
    assert_eq!(server.admin.get(path).await.expect(200)["items"].as_array().unwrap().len(), 1);
    let table = Request::get(path).header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    server.admin.send(table.body(Vec::new()).unwrap()).await.expect(200);
}

#[tokio::test]
async fn wide_objects_take_no_more_time_than_they_are_wide() {
    let server = TestServer::start().await;
    let many = |count: usize, item: &dyn Fn(usize) -> String| (0..count).map(item).collect::<Vec<_>>().join(",");
    // A long key above many short ones: their paths together would be hundreds of gigabytes.
    let long = "k".repeat(1_000_000);
    let body =
        format!("{{\"metadata\":{{\"name\":\"a\"}},\"{long}\":{{{}}}}}", many(200_000, &|at| format!("\"{at}\":1")));
    let (code, _) = answered(&server, MAPS, JSON, body).await;
    assert_eq!(code, 201, "unknown fields are a warning");
    let unknown = format!("{{\"metadata\":{{\"name\":\"b\"}},{}}}", many(100_000, &|at| format!("\"unknown{at}\":1")));
    let (code, _) = answered(&server, MAPS, JSON, unknown).await;
    assert_eq!(code, 201);
    let repeated =
        format!("{{\"metadata\":{{\"name\":\"c\"}},\"data\":{{{}}}}}", many(300_000, &|_| "\"a\":\"\"".into()));
    let (code, _) = answered(&server, MAPS, JSON, repeated).await;
    assert_eq!(code, 201);
    let containers = many(20_000, &|at| format!("{{\"name\":\"c{at}\",\"image\":\"i\"}}"));
    let pod = format!("{{\"metadata\":{{\"name\":\"p\"}},\"spec\":{{\"containers\":[{containers}]}}}}");
    let (code, _) = answered(&server, "/api/v1/namespaces/default/pods", JSON, pod).await;
    assert!(matches!(code, 201 | 403 | 413 | 422 | 500), "{code}");
    let owners =
        many(20_000, &|at| format!("{{\"apiVersion\":\"v1\",\"kind\":\"K\",\"name\":\"n\",\"uid\":\"{at}\"}}"));
    let map = format!("{{\"metadata\":{{\"name\":\"o\",\"ownerReferences\":[{owners}]}}}}");
    let (code, _) = answered(&server, MAPS, JSON, map).await;
    assert!(matches!(code, 201 | 413 | 422), "{code}");
}

#[tokio::test]
async fn text_that_is_none_is_refused() {
    let server = TestServer::start().await;
    for kind in [JSON, "application/yaml"] {
        let (code, _) = answered(&server, MAPS, kind, b"{\"metadata\":{\"name\":\"\xff\xfe\"}}".to_vec()).await;
        assert_eq!(code, 400, "{kind}");
    }
    for body in [&b"k8s\0\xff\xff\xff\xff\xff\xff"[..], b"k8s\0", b"k8s\0\x0a\xff\xff\xff\xff\x0f", b"\0", b"{\"a\":1"]
    {
        for kind in [JSON, "application/vnd.kubernetes.protobuf"] {
            let (code, _) = answered(&server, MAPS, kind, body.to_vec()).await;
            assert!(matches!(code, 400 | 422), "{kind} {body:?}: {code}");
        }
    }
    assert_eq!(ask(&server, &[post("Content-Length: 2"), b"[]".to_vec()].concat()).await.0, 400);
}
