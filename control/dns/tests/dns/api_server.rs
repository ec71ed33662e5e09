//! A scripted API server: the lists and watches of a few collections, which the test changes while it runs.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

type Body = BoxBody<Bytes, Infallible>;

pub(crate) struct ApiServer {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    objects: Mutex<Objects>,
    revision: watch::Sender<u64>,
    /// Lists wait for this.
    open: watch::Sender<bool>,
    /// Raised to end all watches.
    epoch: watch::Sender<u64>,
}

#[derive(Default)]
struct Objects {
    revision: u64,
    /// By collection and `namespace/name`.
    current: BTreeMap<(String, String), Value>,
    log: Vec<(u64, String, Value)>,
}

impl ApiServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            objects: Mutex::default(),
            revision: watch::Sender::new(0),
            open: watch::Sender::new(true),
            epoch: watch::Sender::new(0),
        });
        let server = Self { address, state: Arc::clone(&state) };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = Arc::clone(&state);
                let service = service_fn(move |request| {
                    let state = Arc::clone(&state);
                    async move { Ok::<_, Infallible>(answer(state, &request).await) }
                });
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
            }
        });
        server
    }

    pub(crate) fn kubeconfig(&self) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{}", self.address)}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {}}],
        })
        .to_string()
    }

    /// Creates or replaces an object.
    pub(crate) fn apply(&self, collection: &str, namespace: &str, name: &str, mut object: Value) {
        object["metadata"]["name"] = name.into();
        if !namespace.is_empty() {
            object["metadata"]["namespace"] = namespace.into();
        }
        self.record("MODIFIED", collection, format!("{namespace}/{name}"), Some(object));
    }

    pub(crate) fn delete(&self, collection: &str, namespace: &str, name: &str) {
        self.record("DELETED", collection, format!("{namespace}/{name}"), None);
    }

    /// Deletes an object so that no watch shows it: only the next list does.
    pub(crate) fn delete_unseen(&self, collection: &str, namespace: &str, name: &str) {
        let key = (collection.to_owned(), format!("{namespace}/{name}"));
        self.state.objects.lock().unwrap().current.remove(&key).unwrap();
    }

    /// Ends all watches with `410 Gone`, so that clients list anew.
    pub(crate) fn expire_watches(&self) {
        self.state.epoch.send_modify(|epoch| *epoch += 1);
    }

    pub(crate) fn hold_lists(&self, hold: bool) {
        self.state.open.send_replace(!hold);
    }

    fn record(&self, kind: &str, collection: &str, key: String, object: Option<Value>) {
        let mut objects = self.state.objects.lock().unwrap();
        objects.revision += 1;
        let revision = objects.revision;
        let key = (collection.to_owned(), key);
        let object = match object {
            Some(mut object) => {
                object["metadata"]["resourceVersion"] = revision.to_string().into();
                objects.current.insert(key, object.clone());
                object
            }
            None => objects.current.remove(&key).unwrap(),
        };
        objects.log.push((revision, collection.to_owned(), json!({"type": kind, "object": object})));
        self.state.revision.send_replace(revision);
    }
}

async fn answer(state: Arc<State>, request: &Request<Incoming>) -> Response<Body> {
    let collection = request.uri().path().rsplit('/').next().unwrap().to_owned();
    let query: BTreeMap<&str, &str> =
        request.uri().query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')).collect();
    if query.contains_key("watch") {
        let from = query.get("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
        let body = BodyExt::boxed(StreamBody::new(watch_lines(state, collection, from)));
        return Response::builder().header("content-type", "application/json").body(body).unwrap();
    }
    state.open.subscribe().wait_for(|open| *open).await.unwrap();
    let objects = state.objects.lock().unwrap();
    let items: Vec<_> = objects.current.iter().filter(|((of, _), _)| *of == collection).map(|(_, item)| item).collect();
    let list = json!({
        "kind": "List", "apiVersion": "v1", "items": items,
        "metadata": {"resourceVersion": objects.revision.to_string()},
    });
    let body = Full::new(Bytes::from(list.to_string())).boxed();
    Response::builder().header("content-type", "application/json").body(body).unwrap()
}

fn watch_lines(
    state: Arc<State>,
    collection: String,
    from: u64,
) -> impl futures::Stream<Item = Result<Frame<Bytes>, Infallible>> {
    let (revision, epoch) = (state.revision.subscribe(), state.epoch.subscribe());
    let start = Some((from, revision, epoch));
    let batches = futures::stream::unfold(start, move |place| {
        let (state, collection) = (Arc::clone(&state), collection.clone());
        async move {
            let (from, mut revision, mut epoch) = place?;
            loop {
                let (to, lines) = {
                    let objects = state.objects.lock().unwrap();
                    let news = objects.log.iter().filter(|(at, of, _)| *at > from && *of == collection);
                    (objects.revision, news.map(|(.., event)| event.clone()).collect::<Vec<_>>())
                };
                if !lines.is_empty() {
                    return Some((lines, Some((to, revision, epoch))));
                }
                tokio::select! {
                    changed = revision.changed() => changed.ok()?,
                    _ = epoch.changed() => {
                        let status = json!({"kind": "Status", "status": "Failure", "reason": "Expired", "code": 410, "message": "too old"});
                        return Some((vec![json!({"type": "ERROR", "object": status})], None));
                    }
                }
            }
        }
    });
    let lines = batches.flat_map(futures::stream::iter);
    lines.map(|line| Ok(Frame::data(Bytes::from(format!("{line}\n")))))
}
