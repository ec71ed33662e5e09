//! A scripted API server for three kinds: lists in pages, watches with history, and the failures that tests ask for.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// The kinds that this server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Service,
    Slice,
    Node,
}

/// What it does when asked for initial events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InitialEvents {
    Supported,
    /// Answers 422, as Kubernetes does where the feature is off.
    Refused,
    /// Takes the request for an ordinary watch, as Kubernetes before 1.27 does.
    Ignored,
}

/// A running server.
#[derive(Clone)]
pub(crate) struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
}

struct Shared {
    state: Mutex<State>,
    /// Ticks when anything changes.
    changed: watch::Sender<u64>,
    /// Ticks when every open watch must break.
    broken: watch::Sender<u64>,
}

struct State {
    initial_events: InitialEvents,
    version: u64,
    /// Watches from before this version are answered with 410.
    compacted: u64,
    objects: BTreeMap<(Kind, String), Value>,
    history: Vec<(u64, Kind, Value)>,
    refuse: bool,
    refuse_kind: Option<Kind>,
    requests: HashMap<String, usize>,
}

type Body = BoxBody<Bytes, Infallible>;

impl Server {
    pub(crate) async fn start(initial_events: InitialEvents) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            initial_events,
            version: 1,
            compacted: 0,
            objects: BTreeMap::new(),
            history: Vec::new(),
            refuse: false,
            refuse_kind: None,
            requests: HashMap::new(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: watch::Sender::new(0),
            broken: watch::Sender::new(0),
        });
        let server = Self { shared: Arc::clone(&shared), address };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let response = answer(&shared, &request);
                        async move { Ok::<_, Infallible>(response) }
                    });
                    // A client that goes away is no failure.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        server
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn put(&self, kind: Kind, object: Value) {
        let metadata = &object["metadata"];
        let name = metadata["name"].as_str().unwrap();
        let key = metadata["namespace"].as_str().map_or(name.to_owned(), |namespace| format!("{namespace}/{name}"));
        let event = if self.state().objects.contains_key(&(kind, key.clone())) { "MODIFIED" } else { "ADDED" };
        let object = self.record(kind, event, object);
        self.state().objects.insert((kind, key), object);
        self.shared.changed.send_modify(|tick| *tick += 1);
    }

    pub(crate) fn delete(&self, kind: Kind, key: &str) {
        let object = self.state().objects.remove(&(kind, key.to_owned())).unwrap();
        self.record(kind, "DELETED", object);
        self.shared.changed.send_modify(|tick| *tick += 1);
    }

    /// Breaks every open watch.
    pub(crate) fn disconnect(&self) {
        self.shared.broken.send_modify(|tick| *tick += 1);
    }

    /// Forgets the history.
    pub(crate) fn compact(&self) {
        let mut state = self.state();
        state.version += 1;
        state.compacted = state.version;
        state.history.clear();
    }

    /// Answers everything with 503, or goes back to work.
    pub(crate) fn refuse(&self, refuse: bool) {
        self.state().refuse = refuse;
    }

    /// Answers one kind with 503.
    pub(crate) fn refuse_kind(&self, kind: Option<Kind>) {
        self.state().refuse_kind = kind;
    }

    pub(crate) fn requests(&self, name: &str) -> usize {
        self.state().requests.get(name).copied().unwrap_or_default()
    }

    fn record(&self, kind: Kind, event: &str, mut object: Value) -> Value {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        object["apiVersion"] = kind.api_version().into();
        object["kind"] = kind.name().into();
        state.history.push((version, kind, json!({"type": event, "object": object})));
        object
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Slice => "EndpointSlice",
            Self::Node => "Node",
        }
    }

    const fn api_version(self) -> &'static str {
        match self {
            Self::Slice => "discovery.k8s.io/v1",
            Self::Service | Self::Node => "v1",
        }
    }

    fn of_path(path: &str) -> Option<Self> {
        match path {
            "/api/v1/services" => Some(Self::Service),
            "/apis/discovery.k8s.io/v1/endpointslices" => Some(Self::Slice),
            "/api/v1/nodes" => Some(Self::Node),
            _ => None,
        }
    }
}

fn answer(shared: &Arc<Shared>, request: &Request<Incoming>) -> Response<Body> {
    let query: HashMap<String, String> = request
        .uri()
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let Some(kind) = Kind::of_path(request.uri().path()) else { return status(404, "NotFound") };
    let mut state = shared.state.lock().unwrap();
    if state.refuse || state.refuse_kind == Some(kind) {
        return status(503, "ServiceUnavailable");
    }
    let watching = query.get("watch").is_some_and(|value| value == "1" || value == "true");
    *state.requests.entry(format!("GET {}", if watching { "watch" } else { "list" })).or_default() += 1;
    if !watching {
        return list(&state, kind, &query);
    }
    let initial = query.get("sendInitialEvents").is_some_and(|value| value == "true");
    if initial && state.initial_events == InitialEvents::Refused {
        return status(422, "Invalid");
    }
    let from: u64 = query.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
    drop(state);
    let (sender, body) = Channel::new(64);
    tokio::spawn(stream(Arc::clone(shared), kind, from, initial, sender));
    json_response(200, body.boxed())
}

fn list(state: &State, kind: Kind, query: &HashMap<String, String>) -> Response<Body> {
    let all: Vec<&Value> =
        state.objects.iter().filter(|((found, _), _)| *found == kind).map(|(_, object)| object).collect();
    let number = |name: &str| query.get(name).and_then(|value| value.parse::<usize>().ok());
    let (start, limit) = (number("continue").unwrap_or(0), number("limit").unwrap_or(usize::MAX));
    let end = start.saturating_add(limit).min(all.len());
    let mut metadata = json!({"resourceVersion": state.version.to_string()});
    if end < all.len() {
        metadata["continue"] = end.to_string().into();
    }
    let answer = json!({
        "apiVersion": kind.api_version(), "kind": format!("{}List", kind.name()),
        "metadata": metadata, "items": &all[start..end],
    });
    json_response(200, Full::new(Bytes::from(answer.to_string())).boxed())
}

/// One watch: initial state if it is due, history, then events until something breaks it.
async fn stream(shared: Arc<Shared>, kind: Kind, from: u64, initial: bool, mut sender: Sender<Bytes>) {
    let (mut changed, mut broken) = (shared.changed.subscribe(), shared.broken.subscribe());
    let Some((mut seen, first)) = first_events(&shared, kind, from, initial) else {
        let expired = json!({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "status": "Failure",
            "message": "too old resource version", "reason": "Expired", "code": 410}});
        // A client that is gone needs no answer.
        let _ = send(&mut sender, &[expired]).await;
        return;
    };
    if send(&mut sender, &first).await.is_err() {
        return;
    }
    loop {
        let events: Vec<Value> = {
            let state = shared.state.lock().unwrap();
            let since = seen;
            seen = seen.max(state.version);
            let news = state.history.iter().filter(|(version, found, _)| *found == kind && *version > since);
            news.map(|(_, _, event)| event.clone()).collect()
        };
        if send(&mut sender, &events).await.is_err() {
            return;
        }
        tokio::select! {
            _ = changed.changed() => {}
            _ = broken.changed() => return,
            () = tokio::time::sleep(Duration::from_secs(60)) => return,
        }
    }
}

/// What a watch starts with, and the version up to which that goes; `None` if its version is forgotten.
fn first_events(shared: &Shared, kind: Kind, from: u64, initial: bool) -> Option<(u64, Vec<Value>)> {
    let state = shared.state.lock().unwrap();
    if from != 0 {
        return (from >= state.compacted).then_some((from, Vec::new()));
    }
    let objects = state.objects.iter().filter(|((found, _), _)| *found == kind);
    let mut first: Vec<Value> = objects.map(|(_, object)| json!({"type": "ADDED", "object": object})).collect();
    if initial && state.initial_events == InitialEvents::Supported {
        first.push(json!({"type": "BOOKMARK", "object": {"kind": kind.name(), "apiVersion": kind.api_version(),
            "metadata": {"resourceVersion": state.version.to_string(),
            "annotations": {"k8s.io/initial-events-end": "true"}}}}));
    }
    Some((state.version, first))
}

async fn send(sender: &mut Sender<Bytes>, events: &[Value]) -> Result<(), ()> {
    for event in events {
        sender.send_data(Bytes::from(format!("{event}\n"))).await.map_err(|_| ())?;
    }
    Ok(())
}

fn status(code: u16, reason: &str) -> Response<Body> {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": reason,
        "reason": reason, "code": code});
    json_response(code, Full::new(Bytes::from(body.to_string())).boxed())
}

fn json_response(code: u16, body: Body) -> Response<Body> {
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}
