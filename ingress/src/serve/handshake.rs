//! The TLS handshake: the ClientHello is read first, then the name in it picks the configuration.

use std::io;

use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::connection::ClientTls;
use crate::shared::Shared;

#[derive(Debug, Error)]
pub(crate) enum HandshakeError {
    #[error("no handshake in time")]
    Timeout,
    #[error("client hello cannot be read")]
    Hello(#[source] io::Error),
    #[error("handshake failed")]
    Failed(#[source] io::Error),
}

impl HandshakeError {
    /// The value of the metric's `result` label.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Hello(_) => "bad_hello",
            Self::Failed(_) => "failed",
        }
    }
}

/// Returns the encrypted stream, what is to be remembered of it, and whether HTTP/2 was agreed. A client that has not
/// finished in time, counted from its connection on, is cut off.
pub(crate) async fn accept(
    tcp: TcpStream,
    shared: &Shared,
) -> Result<(TlsStream<TcpStream>, ClientTls, bool), HandshakeError> {
    let limit = shared.limits.handshake_timeout;
    timeout(limit, choose_and_accept(tcp, shared)).await.map_err(|_| HandshakeError::Timeout)?
}

async fn choose_and_accept(
    tcp: TcpStream,
    shared: &Shared,
) -> Result<(TlsStream<TcpStream>, ClientTls, bool), HandshakeError> {
    let acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), tcp);
    let start = acceptor.await.map_err(HandshakeError::Hello)?;
    let (named, key, config) = {
        let snapshot = shared.snapshot();
        let hello = start.client_hello();
        let key = hello.server_name().and_then(|name| snapshot.tls_key(name));
        let config = snapshot.identity(&key).config.clone();
        (hello.server_name().is_some(), key, config)
    };
    let stream = start.into_stream(config).await.map_err(HandshakeError::Failed)?;
    let session = stream.get_ref().1;
    let version = session.protocol_version().and_then(|version| version.as_str()).unwrap_or_default();
    let cipher = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or_default();
    let http2 = session.alpn_protocol() == Some(b"h2");
    Ok((stream, ClientTls { named, key, version, cipher }, http2))
}
