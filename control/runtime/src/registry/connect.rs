//! The HTTP client: sockets from a dialer, through the proxy that the environment names, under TLS.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body_util::Empty;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tower_service::Service;

use super::dial::Dialer;
use super::endpoint::is_loopback;
use super::error::PullError;

pub(super) type Http = hyper_util::client::legacy::Client<HttpsConnector<Connector>, Empty<Bytes>>;

/// Registries close idle connections sooner or later; a pull is over before.
const IDLE_MAX: Duration = Duration::from_secs(30);
const HTTPS_PORT: u16 = 443;
const HTTP_PORT: u16 = 80;

pub(super) fn client(dialer: Dialer) -> Result<Http, PullError> {
    let connector = Connector { dialer, proxies: Arc::new(Matcher::from_env()) };
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls()?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    Ok(hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_MAX)
        .build(connector))
}

/// Trusts whom the machine trusts (`SSL_CERT_FILE` names others).
fn tls() -> Result<ClientConfig, PullError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        // A machine without certificates can still use a registry on its loopback.
        tracing::warn!(errors = ?found.errors, "no certificate authorities are installed; no registry will be trusted");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|error| {
            PullError::Protocol { registry: String::new(), detail: format!("TLS cannot be set up: {error}") }
        })?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Makes the connection for a URI, or a tunnel to it.
#[derive(Clone)]
pub(super) struct Connector {
    dialer: Dialer,
    proxies: Arc<Matcher>,
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TokioIo<TcpStream>>> + Send>>;

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        let dialing = Dialing(self.dialer.clone());
        let local = uri.host().is_some_and(is_loopback);
        match self.proxies.intercept(&uri).filter(|_| !local) {
            None => dialing.connect(uri),
            Some(proxy) => {
                let mut tunnel = Tunnel::new(proxy.uri().clone(), dialing);
                if let Some(credentials) = proxy.basic_auth() {
                    tunnel = tunnel.with_auth(credentials.clone());
                }
                let tunnelling = tunnel.call(uri);
                Box::pin(async move { tunnelling.await.map_err(io::Error::other) })
            }
        }
    }
}

/// Connects to exactly the host that it is given.
#[derive(Clone)]
struct Dialing(Dialer);

impl Dialing {
    fn connect(&self, uri: Uri) -> Connecting {
        let dialer = self.0.clone();
        Box::pin(async move {
            let host = uri.host().ok_or(io::ErrorKind::InvalidInput)?;
            let default = if uri.scheme_str() == Some("http") { HTTP_PORT } else { HTTPS_PORT };
            Ok(TokioIo::new(dialer.dial(host, uri.port_u16().unwrap_or(default)).await?))
        })
    }
}

impl Service<Uri> for Dialing {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        self.connect(uri)
    }
}
