//! The server's side towards nodes: mutual TLS to a kubelet, one request per connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use control_api::status::Status;
use http::header::{CONNECTION, HeaderName, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, Method, Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::KubeletClient;
use crate::tls;

/// What a client says of the protocol that it wants.
const UPGRADE_HEADERS: [HeaderName; 6] = [
    CONNECTION,
    UPGRADE,
    SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION,
    HeaderName::from_static("x-stream-protocol-version"),
];
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct Kubelet {
    tls: TlsConnector,
    port: u16,
}

impl Kubelet {
    pub(crate) fn new(files: &KubeletClient) -> anyhow::Result<Self> {
        Ok(Self { tls: TlsConnector::from(Arc::new(tls::kubelet_client(files)?)), port: files.port })
    }

    /// Asks the kubelet of a node. The connection lives as long as the answer's body.
    pub(crate) async fn get(&self, node: &Value, path_and_query: &str) -> Result<Response<Incoming>, Status> {
        self.request(node, Request::get(path_and_query)).await
    }

    /// Asks to leave HTTP for what the client wants to speak.
    pub(crate) async fn upgrade(
        &self,
        node: &Value,
        method: Method,
        path_and_query: &str,
        headers: &HeaderMap,
    ) -> Result<Response<Incoming>, Status> {
        let mut request = Request::builder().method(method).uri(path_and_query);
        for name in UPGRADE_HEADERS {
            for value in headers.get_all(&name) {
                request = request.header(&name, value);
            }
        }
        self.request(node, request).await
    }

    async fn request(&self, node: &Value, request: http::request::Builder) -> Result<Response<Incoming>, Status> {
        let what = request.uri_ref().map(ToString::to_string).unwrap_or_default();
        let method = request.method_ref().cloned().unwrap_or_default();
        let address = self.address(node).ok_or_else(|| {
            Status::internal(format!("node {} has no InternalIP address", control_api::meta::name(node)))
        })?;
        let asked = tokio::time::timeout(CONNECT_TIMEOUT, self.ask(address, request)).await;
        let asked = asked.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {CONNECT_TIMEOUT:?}")));
        asked.map_err(|error| Status::internal(format!("{method} \"https://{address}{what}\": {error:#}")))
    }

    fn address(&self, node: &Value) -> Option<SocketAddr> {
        let addresses = node["status"]["addresses"].as_array()?;
        let internal = addresses.iter().find(|address| address["type"] == "InternalIP")?;
        let address: IpAddr = internal["address"].as_str()?.parse().ok()?;
        let reported = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
        let port = reported.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0).unwrap_or(self.port);
        Some(SocketAddr::new(address, port))
    }

    async fn ask(&self, address: SocketAddr, request: http::request::Builder) -> anyhow::Result<Response<Incoming>> {
        let stream = TcpStream::connect(address).await.context("cannot connect")?;
        let name = ServerName::from(address.ip());
        let stream = self.tls.connect(name, stream).await.context("TLS handshake failed")?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "kubelet connection ended");
            }
        });
        let request = request
            .header(http::header::HOST, address.to_string())
            .header(http::header::USER_AGENT, "tidegate-apiserver")
            .body(Empty::<Bytes>::new())?;
        Ok(sender.send_request(request).await?)
    }
}
