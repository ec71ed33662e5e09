//! What is known of a client's connection, for every request on it.

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderValue;
use pingora::protocols::Digest;
use pingora::protocols::raw_connect::ProxyDigest;

use super::progress::Progress;
use crate::snapshot::TlsKey;

#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    /// The address without the port, ready for headers.
    pub(crate) ip: HeaderValue,
    /// The local port that the client dialled.
    pub(crate) port: u16,
    pub(crate) tls: Option<ClientTls>,
    pub(crate) progress: Arc<Progress>,
}

#[derive(Clone, Debug)]
pub(crate) struct ClientTls {
    /// Whether the client named a server; if not, any host may be asked for.
    pub(crate) named: bool,
    /// Whose TLS configuration the connection got.
    pub(crate) key: TlsKey,
    pub(crate) version: &'static str,
    pub(crate) cipher: &'static str,
}

impl Client {
    pub(crate) fn new(address: SocketAddr, port: u16) -> Self {
        // What a dual-stack socket reports for IPv4 is not the client's address.
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        // An address is printed in characters that every header may hold.
        let ip = HeaderValue::try_from(address.ip().to_string()).unwrap_or(HeaderValue::from_static("unknown"));
        Self { address, ip, port, tls: None, progress: Arc::default() }
    }

    /// The client of a request's connection.
    pub(crate) fn of(digest: &Digest) -> Option<&Self> {
        digest.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
    }

    /// Pingora hands the proxy digest of a stream to each of its requests, also over HTTP/2, where they run in other
    /// tasks. Its user data is the one place that the transport may fill, so the client travels there.
    pub(crate) fn into_digest(self) -> Option<Arc<ProxyDigest>> {
        let unused = pingora::http::ResponseHeader::build_no_case(200, Some(0)).ok()?;
        Some(Arc::new(ProxyDigest::new(Box::new(unused), Some(Box::new(self)))))
    }
}
