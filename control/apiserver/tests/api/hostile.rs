//! Clients that mean harm, and clumsy ones: each gets its answer, and nobody else notices.

mod bodies;
mod connections;
mod http2;
mod requests;

use std::sync::Arc;
use std::time::Duration;

use control_store::{Embedded, Entry, Op, Page, Range, Result, Store, Watch};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::TestServer;

/// What takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection of the administrator, to say on it whatever a test likes.
async fn connect(server: &TestServer, alpn: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let file = |name: &str| server.dir.path().join("pki").join(name);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(file("ca.crt")).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_file(file("admin.crt")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(file("admin.key")).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let stream = TcpStream::connect(("127.0.0.1", server.port)).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// Everything until the server hangs up.
async fn to_the_end(stream: &mut TlsStream<TcpStream>) -> String {
    let mut all = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    let read = async {
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            all.extend_from_slice(&buffer[..read]);
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("the server does not hang up");
    String::from_utf8_lossy(&all).into_owned()
}

/// The code and the body of the answer to a request that is sent as it is, over HTTP/1.
async fn ask(server: &TestServer, request: &[u8]) -> (u16, Value) {
    let mut stream = connect(server, "http/1.1").await.unwrap();
    stream.write_all(request).await.unwrap();
    parse(&to_the_end(&mut stream).await)
}

fn parse(answer: &str) -> (u16, Value) {
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    let code = code.unwrap_or_else(|| panic!("no answer: {answer:?}"));
    (code, serde_json::from_str(body).unwrap_or_else(|_| body.into()))
}

/// A store in which some objects are haunted: reading one panics, reading another takes for ever.
struct Haunted(Arc<Embedded>);

#[async_trait::async_trait]
impl Store for Haunted {
    async fn get(&self, key: &str) -> Result<Option<Entry>> {
        assert!(!key.ends_with("/boom"), "haunted");
        if key.ends_with("/never") {
            std::future::pending::<()>().await;
        }
        self.0.get(key).await
    }

    async fn range(&self, range: Range) -> Result<Page> {
        self.0.range(range).await
    }

    async fn txn(&self, ops: Vec<Op>) -> Result<u64> {
        self.0.txn(ops).await
    }

    async fn watch(&self, prefix: &str, after: u64) -> Result<Watch> {
        self.0.watch(prefix, after).await
    }

    async fn compact(&self, revision: u64) -> Result<()> {
        self.0.compact(revision).await
    }

    fn revision(&self) -> u64 {
        self.0.revision()
    }

    fn compacted(&self) -> u64 {
        self.0.compacted()
    }

    async fn failed(&self) -> control_store::Error {
        self.0.failed().await
    }
}

fn haunt(config: &mut control_apiserver::Config) {
    config.store = Arc::new(Haunted(Arc::new(Embedded::in_memory().unwrap())));
}
