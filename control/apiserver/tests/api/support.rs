//! A server in the test's own process, on a loopback port, with a store in memory and keys of its own.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use control_apiserver::{Config, KubeletClient, Limits, ServiceAccountKeys, TlsFiles};
use control_store::{Embedded, Store};
use futures::{AsyncBufReadExt, TryStreamExt};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};

#[path = "../../examples/dev/pki.rs"]
pub(crate) mod pki;

const START_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct TestServer {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) port: u16,
    pub(crate) store: Arc<Embedded>,
    pub(crate) admin: Caller,
    _shutdown: DropGuard,
}

/// One identity at the server.
#[derive(Clone)]
pub(crate) struct Caller {
    client: kube::Client,
}

/// An answer, its body parsed if it is JSON.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        Self::with_kubelet(10250).await
    }

    /// The kubelet of every node is asked on this port.
    pub(crate) async fn with_kubelet(kubelet_port: u16) -> Self {
        Self::with(|config| {
            if let Some(kubelet) = &mut config.kubelet {
                kubelet.port = kubelet_port;
            }
        })
        .await
    }

    /// With something else than usual in its configuration.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        pki::ensure(dir.path(), port, "node-1", &[Ipv4Addr::new(192, 168, 77, 10).into()]).unwrap();
        let store = Arc::new(Embedded::in_memory().unwrap());
        let shutdown = CancellationToken::new();
        let mut config = config(dir.path(), listener, Arc::clone(&store));
        change(&mut config);
        let server = tokio::spawn(control_apiserver::serve(config, shutdown.clone()));
        let admin = Caller::new(&dir.path().join("kubeconfig/admin.yaml"), None).await;
        let ready = async {
            while admin.try_get("/readyz").await.is_none_or(|answer| answer.code != StatusCode::OK) {
                assert!(!server.is_finished(), "the server ended before it was ready");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(START_TIMEOUT, ready).await.expect("the server is not ready in time");
        Self { dir, port, store, admin, _shutdown: shutdown.drop_guard() }
    }

    /// The owner of one of the kubeconfigs: `admin`, `scheduler`, `node-node-1` …
    pub(crate) async fn caller(&self, kubeconfig: &str) -> Caller {
        Caller::new(&self.kubeconfig(kubeconfig), None).await
    }

    pub(crate) fn kubeconfig(&self, name: &str) -> PathBuf {
        self.dir.path().join("kubeconfig").join(format!("{name}.yaml"))
    }

    /// Somebody with a token, or nobody.
    pub(crate) async fn bearer(&self, token: Option<&str>) -> Caller {
        Caller::new(&self.kubeconfig("admin"), Some(token.map(str::to_owned))).await
    }

    /// A namespace with its default service account, as the controllers would make it.
    pub(crate) async fn namespace(&self, name: &str) {
        self.admin.post("/api/v1/namespaces", json!({"metadata": {"name": name}})).await.expect(201);
        let path = format!("/api/v1/namespaces/{name}/serviceaccounts");
        self.admin.post(&path, json!({"metadata": {"name": "default"}})).await.expect(201);
    }
}

fn config(dir: &Path, listener: TcpListener, store: Arc<Embedded>) -> Config {
    let file = |name: &str| dir.join("pki").join(name);
    Config {
        listeners: vec![listener],
        tls: TlsFiles { certificate: file("apiserver.crt"), key: file("apiserver.key"), client_ca: file("ca.crt") },
        service_accounts: ServiceAccountKeys {
            private_key: file("sa.key"),
            public_key: file("sa.pub"),
            issuer: ServiceAccountKeys::DEFAULT_ISSUER.into(),
        },
        store,
        service_cidrs: vec!["10.96.0.0/16".into(), "fd00:10:96::/112".into()],
        advertise_addresses: vec![Ipv4Addr::new(192, 168, 77, 10).into()],
        advertise_port: 6443,
        kubelet: Some(KubeletClient {
            certificate: file("apiserver-kubelet-client.crt"),
            key: file("apiserver-kubelet-client.key"),
            ca: file("ca.crt"),
            port: 10250,
        }),
        limits: Limits::default(),
    }
}

impl Caller {
    /// With a token (or explicitly none) instead of the kubeconfig's certificate.
    async fn new(kubeconfig: &Path, token: Option<Option<String>>) -> Self {
        // Of several providers compiled in, rustls wants one chosen.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut config = Kubeconfig::read_from(kubeconfig).unwrap();
        if let Some(token) = token {
            for user in config.auth_infos.iter_mut().filter_map(|named| named.auth_info.as_mut()) {
                *user = Default::default();
                user.token = token.clone().map(Into::into);
            }
        }
        let mut config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
        // Refusals are what many tests are about.
        config.default_retry = false;
        Self { client: kube::Client::try_from(config).unwrap() }
    }

    pub(crate) async fn send(&self, request: Request<Vec<u8>>) -> Answer {
        let response = self.client.send(request.map(Into::into)).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = || String::from_utf8_lossy(&bytes).into_owned().into();
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| text());
        Answer { code: parts.status, headers: parts.headers, body }
    }

    async fn try_get(&self, path: &str) -> Option<Answer> {
        let request = Request::get(path).body(Vec::new()).unwrap();
        let response = self.client.send(request.map(Into::into)).await.ok()?;
        Some(Answer { code: response.status(), headers: response.headers().clone(), body: Value::Null })
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: impl Into<Vec<u8>>,
    ) -> Answer {
        let request = Request::builder().method(method).uri(path).header("content-type", content_type);
        self.send(request.body(body.into()).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Vec::new()).unwrap()).await
    }

    /// How a request is answered whose answer may have no end.
    pub(crate) async fn begin(&self, path: &str) -> u16 {
        let request = Request::get(path).body(Vec::new()).unwrap();
        self.client.send(request.map(Into::into)).await.unwrap().status().as_u16()
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, "application/json", body.to_string()).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PUT, path, "application/json", body.to_string()).await
    }

    /// A merge patch.
    pub(crate) async fn merge(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PATCH, path, "application/merge-patch+json", body.to_string()).await
    }

    pub(crate) async fn delete(&self, path: &str, options: Value) -> Answer {
        self.call(Method::DELETE, path, "application/json", options.to_string()).await
    }

    /// Opens a watch; fails unless it begins with 200.
    pub(crate) async fn watch(&self, path: &str) -> Watcher {
        self.watch_as(path, "application/json").await
    }

    pub(crate) async fn watch_as(&self, path: &str, accept: &str) -> Watcher {
        let request = Request::get(path).header("accept", accept).body(Vec::new()).unwrap();
        let response = self.client.send(request.map(Into::into)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let chunks = response.into_body().into_data_stream().map_err(std::io::Error::other);
        let lines = futures::io::BufReader::new(chunks.into_async_read()).lines();
        Watcher { lines: Box::pin(lines) }
    }
}

pub(crate) struct Watcher {
    lines: std::pin::Pin<Box<dyn futures::Stream<Item = std::io::Result<String>> + Send>>,
}

impl Watcher {
    /// The next event; `None` at the end of the watch.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        let line = tokio::time::timeout(Duration::from_secs(20), self.lines.try_next()).await;
        let line = line.expect("no event in time").unwrap()?;
        Some(serde_json::from_str(&line).unwrap())
    }

    /// The next event's type and object name.
    pub(crate) async fn brief(&mut self) -> (String, String) {
        let event = self.next().await.expect("the watch ended");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&event["type"]), text(&event["object"]["metadata"]["name"]))
    }
}

impl Answer {
    #[track_caller]
    pub(crate) fn expect(self, code: u16) -> Value {
        assert_eq!(self.code.as_u16(), code, "{:#}", self.body);
        self.body
    }

    #[track_caller]
    pub(crate) fn message(self, code: u16) -> String {
        self.expect(code)["message"].as_str().unwrap_or_default().to_owned()
    }
}

pub(crate) fn config_map(name: &str, labels: Value) -> Value {
    json!({"metadata": {"name": name, "labels": labels}, "data": {"key": name}})
}

pub(crate) fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "main", "image": "busybox:dev"}]}})
}

pub(crate) fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

/// The store behind a server, for what the API has no word for.
pub(crate) async fn compact(server: &TestServer) {
    server.store.compact(server.store.revision()).await.unwrap();
}
