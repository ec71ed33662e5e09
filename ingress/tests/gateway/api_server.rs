//! A scripted API server: lists, watches and writes over JSON objects that the test changes while it runs. It shares no
//! code with the gateway and knows nothing of what the objects mean.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// How the server takes `sendInitialEvents`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Streaming {
    Supported,
    /// As a server with the feature switched off.
    Refused,
    /// As a server that has never heard of it.
    Ignored,
}

#[derive(Clone)]
pub(crate) struct ApiServer {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    streaming: Streaming,
    state: Mutex<State>,
    revision: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    revision: u64,
    /// By collection, namespace, name.
    objects: BTreeMap<(String, String, String), Value>,
    /// Every change: revision, collection, type, object.
    log: Vec<(u64, String, &'static str, Value)>,
    /// Every request that wrote something.
    writes: Vec<String>,
    /// Names of Secrets that a client got to see, by read, list or watch.
    secret_reads: Vec<String>,
}

impl ApiServer {
    pub(crate) async fn start(streaming: Streaming) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (revision, _) = watch::channel(0);
        let shared = Arc::new(Shared { streaming, state: Mutex::default(), revision });
        let server = Self { address, shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let shared = Arc::clone(&shared);
                        async move { Ok::<_, Infallible>(answer(shared, request).await) }
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        server
    }

    pub(crate) fn kubeconfig(&self) -> String {
        let server = format!("http://{}", self.address);
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {}}],
        })
        .to_string()
    }

    /// Creates or replaces an object; status and uid of an existing one are kept unless given.
    pub(crate) fn apply(&self, collection: &str, mut object: Value) {
        let mut state = self.shared.state.lock().unwrap();
        let key = key_of(collection, &object);
        let existing = state.objects.get(&key).cloned();
        let meta = object["metadata"].as_object_mut().unwrap();
        let uid = existing
            .as_ref()
            .map_or_else(|| format!("uid-{}", state.revision), |o| o["metadata"]["uid"].as_str().unwrap().to_owned());
        meta.entry("uid").or_insert(uid.into());
        meta.entry("creationTimestamp").or_insert(json!("2026-01-01T00:00:00Z"));
        if let (Some(existing), None) = (&existing, object.get("status")) {
            object["status"] = existing["status"].clone();
            object["metadata"]["managedFields"] = existing["metadata"]["managedFields"].clone();
        }
        state.put(key, object, if existing.is_some() { "MODIFIED" } else { "ADDED" });
        self.shared.revision.send_replace(state.revision);
    }

    pub(crate) fn delete(&self, collection: &str, namespace: &str, name: &str) {
        let mut state = self.shared.state.lock().unwrap();
        let key = (collection.to_owned(), namespace.to_owned(), name.to_owned());
        let object = state.objects.remove(&key).unwrap();
        state.record(collection, "DELETED", object);
        self.shared.revision.send_replace(state.revision);
    }

    pub(crate) fn get(&self, collection: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (collection.to_owned(), namespace.to_owned(), name.to_owned());
        self.shared.state.lock().unwrap().objects.get(&key).cloned()
    }

    /// Every object of a collection.
    pub(crate) fn all(&self, collection: &str) -> Vec<Value> {
        let state = self.shared.state.lock().unwrap();
        state.objects.iter().filter(|((of, ..), _)| of == collection).map(|(_, object)| object.clone()).collect()
    }

    pub(crate) fn writes(&self) -> Vec<String> {
        self.shared.state.lock().unwrap().writes.clone()
    }

    pub(crate) fn secret_reads(&self) -> Vec<String> {
        self.shared.state.lock().unwrap().secret_reads.clone()
    }
}

impl State {
    fn put(&mut self, key: (String, String, String), object: Value, kind: &'static str) {
        let collection = key.0.clone();
        let object = self.record(&collection, kind, object);
        self.objects.insert(key, object);
    }

    fn record(&mut self, collection: &str, kind: &'static str, mut object: Value) -> Value {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = self.revision.to_string().into();
        self.log.push((self.revision, collection.to_owned(), kind, object.clone()));
        object
    }
}

fn key_of(collection: &str, object: &Value) -> (String, String, String) {
    let meta = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    (collection.to_owned(), meta("namespace"), meta("name"))
}

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

fn reply(status: StatusCode, body: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(body.to_string())).boxed();
    Response::builder().status(status).header("content-type", "application/json").body(body).unwrap()
}

fn failure(code: u16, reason: &str, message: &str) -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": message});
    reply(StatusCode::from_u16(code).unwrap(), &status)
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().trim_start_matches("/apis/").trim_start_matches("/api/").to_owned();
    let query: BTreeMap<String, String> = request
        .uri()
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.replace("%3D", "=").replace("%2F", "/")))
        .collect();
    let mut parts: Vec<&str> = path.split('/').collect();
    // The collection is the last word of the group and version: "v1/…" or "group/v1/…".
    parts.drain(..if parts[0] == "v1" { 1 } else { 2 });
    let namespace = if parts[0] == "namespaces" { parts.drain(..2).nth(1).unwrap() } else { "" }.to_owned();
    let method = request.method().clone();
    match (method, &parts[..]) {
        (Method::GET, [collection]) if query.get("watch").is_some_and(|w| w == "true" || w == "1") => {
            watch_collection(&shared, collection, &query)
        }
        (Method::GET, [collection]) => list(&shared, collection, &query),
        (Method::GET, [collection, name]) => {
            let mut state = shared.state.lock().unwrap();
            state.secret_reads.push((*name).to_owned());
            let key = ((*collection).to_owned(), namespace, (*name).to_owned());
            state
                .objects
                .get(&key)
                .map_or_else(|| failure(404, "NotFound", name), |object| reply(StatusCode::OK, object))
        }
        (Method::PATCH, [collection, name, "status"]) => {
            let (collection, name) = ((*collection).to_owned(), (*name).to_owned());
            let patch: Value =
                serde_json::from_slice(&request.into_body().collect().await.unwrap().to_bytes()).unwrap();
            patch_status(&shared, (collection, namespace, name), &patch, query.get("fieldManager"))
        }
        (Method::POST, [collection]) => {
            let collection = (*collection).to_owned();
            let object: Value =
                serde_json::from_slice(&request.into_body().collect().await.unwrap().to_bytes()).unwrap();
            let mut state = shared.state.lock().unwrap();
            state.writes.push(format!("create {collection}"));
            state.put(key_of(&collection, &object), object.clone(), "ADDED");
            reply(StatusCode::CREATED, &object)
        }
        (method, parts) => failure(405, "MethodNotAllowed", &format!("{method} {parts:?}")),
    }
}

/// Whether a field selector (`metadata.name=…` or `type=…`) lets an object pass.
fn selected(object: &Value, query: &BTreeMap<String, String>) -> bool {
    let Some(selector) = query.get("fieldSelector") else { return true };
    match selector.split_once('=') {
        Some(("type", wanted)) => object["type"] == wanted,
        Some(("metadata.name", wanted)) => object["metadata"]["name"] == wanted,
        _ => panic!("unexpected field selector {selector}"),
    }
}

fn list(shared: &Shared, collection: &str, query: &BTreeMap<String, String>) -> Response<Body> {
    let mut state = shared.state.lock().unwrap();
    let items: Vec<_> = (state.objects.iter())
        .filter(|((of, ..), object)| of == collection && selected(object, query))
        .map(|(_, object)| object.clone())
        .collect();
    note_secrets(&mut state, collection, &items);
    let revision = state.revision.to_string();
    reply(
        StatusCode::OK,
        &json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": revision}, "items": items}),
    )
}

fn note_secrets(state: &mut State, collection: &str, items: &[Value]) {
    if collection == "secrets" {
        state.secret_reads.extend(items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()));
    }
}

fn watch_collection(shared: &Arc<Shared>, collection: &str, query: &BTreeMap<String, String>) -> Response<Body> {
    let initial = query.get("sendInitialEvents").is_some_and(|value| value == "true");
    if initial && shared.streaming == Streaming::Refused {
        return failure(422, "Invalid", "sendInitialEvents is forbidden for watch unless the feature is enabled");
    }
    let mut state = shared.state.lock().unwrap();
    let revision: u64 = query.get("resourceVersion").and_then(|r| r.parse().ok()).unwrap_or(0);
    let mut lines = Vec::new();
    let mut from = revision;
    if initial || revision == 0 {
        let items: Vec<_> = (state.objects.iter())
            .filter(|((of, ..), object)| of == collection && selected(object, query))
            .map(|(_, object)| object.clone())
            .collect();
        note_secrets(&mut state, collection, &items);
        lines.extend(items.iter().map(|object| json!({"type": "ADDED", "object": object})));
        from = state.revision;
        if initial && shared.streaming == Streaming::Supported {
            let annotations = json!({"k8s.io/initial-events-end": "true"});
            let metadata = json!({"resourceVersion": from.to_string(), "annotations": annotations});
            lines
                .push(json!({"type": "BOOKMARK", "object": {"kind": "Any", "apiVersion": "v1", "metadata": metadata}}));
        }
    }
    drop(state);
    let body = watch_body(Arc::clone(shared), collection.to_owned(), query.clone(), lines, from);
    Response::builder().header("content-type", "application/json").body(body).unwrap()
}

fn watch_body(
    shared: Arc<Shared>,
    collection: String,
    query: BTreeMap<String, String>,
    lines: Vec<Value>,
    from: u64,
) -> Body {
    let receiver = shared.revision.subscribe();
    let events = futures::stream::unfold((shared, receiver, from), move |(shared, mut receiver, from)| {
        let (collection, query) = (collection.clone(), query.clone());
        async move {
            loop {
                let (to, lines) = {
                    let state = shared.state.lock().unwrap();
                    let lines: Vec<_> = (state.log.iter())
                        .filter(|(revision, of, _, object)| {
                            *revision > from && *of == collection && selected(object, &query)
                        })
                        .map(|(_, _, kind, object)| json!({"type": kind, "object": object}))
                        .collect();
                    (state.revision, lines)
                };
                if !lines.is_empty() {
                    return Some((futures::stream::iter(lines), (shared, receiver, to)));
                }
                receiver.changed().await.ok()?;
            }
        }
    });
    let all = futures::stream::iter(lines).chain(events.flatten());
    let frames = all.map(|line| Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{line}\n")))));
    BodyExt::boxed(StreamBody::new(frames))
}

fn patch_status(
    shared: &Shared,
    key: (String, String, String),
    patch: &Value,
    manager: Option<&String>,
) -> Response<Body> {
    let mut state = shared.state.lock().unwrap();
    let Some(mut object) = state.objects.get(&key).cloned() else { return failure(404, "NotFound", &key.2) };
    assert_eq!(patch.as_object().unwrap().keys().collect::<Vec<_>>(), ["status"]);
    state.writes.push(format!("status {}/{}", key.1, key.2));
    merge(&mut object["status"], &patch["status"]);
    let entry = json!({"manager": manager, "operation": "Update", "subresource": "status"});
    object["metadata"]["managedFields"] = json!([entry]);
    state.put(key.clone(), object, "MODIFIED");
    shared.revision.send_replace(state.revision);
    reply(StatusCode::OK, &state.objects[&key])
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let target = target.as_object_mut().unwrap();
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// Waits until a condition holds, or panics.
#[track_caller]
pub(crate) fn eventually<'a>(what: &'a str, condition: impl Fn() -> bool + 'a) -> impl Future<Output = ()> + 'a {
    let at = std::panic::Location::caller();
    async move {
        for _ in 0..1000 {
            if condition() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what}: not within 10 s ({at})");
    }
}
