//! Endpoints: servers on loopback addresses that answer with what they were sent.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One endpoint. Dropping it closes its socket; requests in flight are answered.
pub(crate) struct Backend {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    served: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Backend {
    /// Starts on an address of its own; `port` 0 takes a free one.
    pub(crate) async fn start(name: &str, port: u16) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(2);
        let ip = Ipv4Addr::new(127, 1, (std::process::id() % 250) as u8, NEXT.fetch_add(1, Ordering::Relaxed));
        let listener = TcpListener::bind((ip, port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = Arc::new(AtomicU64::new(0));
        let accepting = tokio::spawn(accept(listener, name.to_owned(), Arc::clone(&served)));
        Self { name: name.to_owned(), address, served, accepting }
    }

    /// Several endpoints on one port.
    pub(crate) async fn start_many(name: &str, count: usize) -> Vec<Self> {
        let first = Self::start(&format!("{name}-0"), 0).await;
        let port = first.address.port();
        let mut all = vec![first];
        for index in 1..count {
            all.push(Self::start(&format!("{name}-{index}"), port).await);
        }
        all
    }

    pub(crate) fn ip(&self) -> IpAddr {
        self.address.ip()
    }

    pub(crate) fn served(&self) -> u64 {
        self.served.load(Ordering::SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, name: String, served: Arc<AtomicU64>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (name, served) = (name.clone(), Arc::clone(&served));
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                served.fetch_add(1, Ordering::SeqCst);
                let name = name.clone();
                async move { Ok::<_, Infallible>(echo(&name, request).await) }
            });
            let http = hyper::server::conn::http1::Builder::new();
            let _ = http.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
        });
    }
}

/// `/slow…` takes a second; `/ws` switches protocols and sends everything back.
async fn echo(name: &str, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    if request.uri().path() == "/ws" {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        let builder = Response::builder().status(101).header("upgrade", "websocket").header("connection", "upgrade");
        return builder.header("sec-websocket-accept", "x").body(Full::default()).unwrap();
    }
    let headers: serde_json::Map<_, _> = (request.headers().iter())
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or("?").into()))
        .collect();
    let (method, path) = (request.method().to_string(), request.uri().to_string());
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    if path.starts_with("/slow") {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let answer = json!({
        "backend": name, "method": method, "path": path, "headers": headers, "body": String::from_utf8_lossy(&body),
    });
    Response::new(Full::new(Bytes::from(answer.to_string())))
}
