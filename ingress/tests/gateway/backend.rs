//! Endpoints: servers on loopback addresses that answer with what they were sent.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// How an endpoint treats its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Answers with what it was sent.
    Echo,
    /// Reads a request and closes.
    Close,
    /// Reads a request and says nothing.
    Hang,
    /// Answers with this status.
    Status(u16),
    /// Answers with a header and then a byte from time to time.
    Drip,
}

/// One endpoint. Dropping it closes its socket; requests in flight are answered.
pub(crate) struct Backend {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    served: Arc<AtomicU64>,
    /// Whether it answers `/health` well.
    pub(crate) healthy: Arc<AtomicBool>,
    accepting: JoinHandle<()>,
}

impl Backend {
    /// Starts on an address of its own; `port` 0 takes a free one.
    pub(crate) async fn start(name: &str, port: u16) -> Self {
        Self::start_with(name, port, Manner::Echo).await
    }

    pub(crate) async fn start_with(name: &str, port: u16, manner: Manner) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(2);
        let ip = Ipv4Addr::new(127, 1, (std::process::id() % 250) as u8, NEXT.fetch_add(1, Ordering::Relaxed));
        Self::start_at(name, ip, port, manner).await
    }

    pub(crate) async fn start_at(name: &str, ip: Ipv4Addr, port: u16, manner: Manner) -> Self {
        let listener = TcpListener::bind((ip, port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (served, healthy) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(true)));
        let accepting = if manner == Manner::Echo {
            tokio::spawn(accept(listener, name.to_owned(), Arc::clone(&served), Arc::clone(&healthy)))
        } else {
            tokio::spawn(accept_badly(listener, manner, Arc::clone(&served)))
        };
        Self { name: name.to_owned(), address, served, healthy, accepting }
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

async fn accept_badly(listener: TcpListener, manner: Manner, served: Arc<AtomicU64>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let served = Arc::clone(&served);
        tokio::spawn(async move {
            let mut request = vec![0; 4096];
            while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                served.fetch_add(1, Ordering::SeqCst);
                match manner {
                    Manner::Echo | Manner::Hang => {}
                    Manner::Close => return,
                    Manner::Status(status) => {
                        let answer = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: 3\r\n\r\nbad");
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                    Manner::Drip => {
                        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await.unwrap();
                        while stream.write_all(b"x").await.is_ok() {
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                    }
                }
            }
        });
    }
}

async fn accept(listener: TcpListener, name: String, served: Arc<AtomicU64>, healthy: Arc<AtomicBool>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (name, served, healthy) = (name.clone(), Arc::clone(&served), Arc::clone(&healthy));
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                if request.uri().path() == "/health" {
                    let status = if healthy.load(Ordering::SeqCst) { 200 } else { 500 };
                    let answer = Response::builder().status(status).body(Full::default()).unwrap();
                    return futures::future::Either::Left(std::future::ready(Ok::<_, Infallible>(answer)));
                }
                served.fetch_add(1, Ordering::SeqCst);
                let name = name.clone();
                futures::future::Either::Right(async move { Ok(echo(&name, request).await) })
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
