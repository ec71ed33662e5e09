//! A client: hyper over plain TCP or rustls, with the server name, the `Host` and the protocol chosen apart.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::{HeaderMap, Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How to connect.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wire<'a> {
    Http,
    /// TLS with this server name (none if empty).
    Https1(&'a str),
    Https2(&'a str),
}

pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{}: {:?}", self.status, self.body))
    }

    /// The name of the endpoint that answered.
    pub(crate) fn backend(&self) -> String {
        self.json()["backend"].as_str().unwrap().to_owned()
    }
}

/// One connection.
pub(crate) enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>, Option<Vec<u8>>),
    Http2(http2::SendRequest<Full<Bytes>>, Option<Vec<u8>>),
}

impl Connection {
    pub(crate) async fn open(
        address: SocketAddr,
        wire: Wire<'_>,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let tcp = TcpStream::connect(address).await?;
        let (name, http2) = match wire {
            Wire::Http => {
                let (sender, connection) = http1::handshake(TokioIo::new(tcp)).await?;
                tokio::spawn(connection.with_upgrades());
                return Ok(Self::Http1(sender, None));
            }
            Wire::Https1(name) => (name, false),
            Wire::Https2(name) => (name, true),
        };
        let verifier = Arc::new(TakeAny(Mutex::new(None)));
        let tls = handshake(tcp, name, if http2 { b"h2" } else { b"http/1.1" }, Arc::clone(&verifier)).await?;
        let certificate = verifier.0.lock().unwrap().take();
        if http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await?;
            tokio::spawn(connection);
            Ok(Self::Http2(sender, certificate))
        } else {
            let (sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
            tokio::spawn(connection);
            Ok(Self::Http1(sender, certificate))
        }
    }

    /// The certificate that the server showed, in DER.
    pub(crate) fn certificate(&self) -> Option<&[u8]> {
        let (Self::Http1(_, certificate) | Self::Http2(_, certificate)) = self;
        certificate.as_deref()
    }

    pub(crate) async fn get(&mut self, host: &str, path: &str) -> hyper::Result<Reply> {
        self.send(Request::get(path), host, path, "").await
    }

    pub(crate) async fn send(
        &mut self,
        request: http::request::Builder,
        host: &str,
        path: &str,
        body: &str,
    ) -> hyper::Result<Reply> {
        let body = Full::new(Bytes::from(body.to_owned()));
        let response = match self {
            Self::Http1(sender, _) => {
                sender.ready().await?;
                sender.send_request(request.header("host", host).body(body).unwrap()).await?
            }
            Self::Http2(sender, _) => {
                sender.ready().await?;
                let request = request.uri(format!("https://{host}{path}")).version(Version::HTTP_2);
                sender.send_request(request.body(body).unwrap()).await?
            }
        };
        let (parts, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Reply {
            status: parts.status.as_u16(),
            version: parts.version,
            headers: parts.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }
}

/// One request on a connection of its own.
pub(crate) async fn get(address: SocketAddr, wire: Wire<'_>, host: &str, path: &str) -> Reply {
    let mut connection = Connection::open(address, wire).await.unwrap();
    connection.get(host, path).await.unwrap()
}

/// A bare TLS connection.
pub(crate) async fn tls(address: SocketAddr, name: &str, protocol: &[u8]) -> TlsStream<TcpStream> {
    tls_over(TcpStream::connect(address).await.unwrap(), name, protocol).await
}

pub(crate) async fn tls_over(tcp: TcpStream, name: &str, protocol: &[u8]) -> TlsStream<TcpStream> {
    handshake(tcp, name, protocol, Arc::new(TakeAny(Mutex::new(None)))).await.unwrap()
}

async fn handshake(
    tcp: TcpStream,
    name: &str,
    protocol: &[u8],
    verifier: Arc<TakeAny>,
) -> Result<TlsStream<TcpStream>, Box<dyn std::error::Error + Send + Sync>> {
    let mut config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    config.enable_sni = !name.is_empty();
    let server = ServerName::try_from(if name.is_empty() { "unnamed" } else { name }.to_owned())?;
    Ok(TlsConnector::from(Arc::new(config)).connect(server, tcp).await?)
}

/// A WebSocket to an endpoint that echoes; frames do not matter here.
pub(crate) struct WebSocket(TcpStream);

impl WebSocket {
    pub(crate) async fn open(address: SocketAddr, host: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        Self(stream)
    }

    pub(crate) async fn echo(&mut self, message: &[u8]) {
        self.0.write_all(message).await.unwrap();
        let mut echo = vec![0; message.len()];
        self.0.read_exact(&mut echo).await.unwrap();
        assert_eq!(echo, message);
    }
}

/// Trusts every certificate and remembers the last.
#[derive(Debug)]
struct TakeAny(Mutex<Option<Vec<u8>>>);

impl ServerCertVerifier for TakeAny {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap() = Some(end_entity.to_vec());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
