//! Who may talk to this node: clients with a certificate of the cluster's CA and one of a few identities.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Common names that may use the node's API.
const ALLOWED: [&str; 1] = ["kube-apiserver-kubelet-client"];

/// A TLS endpoint that knows its clients.
pub(crate) struct Tls {
    acceptor: TlsAcceptor,
}

impl Tls {
    /// Reads the serving certificate, its key, and the CA of the clients.
    pub(crate) fn from_files(certificate: &Path, key: &Path, client_ca: &Path) -> anyhow::Result<Self> {
        let chain = certificates(certificate)?;
        let key =
            PrivateKeyDer::from_pem_file(key).with_context(|| format!("cannot read private key {}", key.display()))?;
        let mut roots = RootCertStore::empty();
        for authority in certificates(client_ca)? {
            roots.add(authority).with_context(|| format!("{} holds no usable CA", client_ca.display()))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(rustls::DEFAULT_VERSIONS)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .context("the serving certificate does not fit its key")?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// Shakes hands; an error says why the client was turned away.
    pub(crate) async fn accept(&self, stream: TcpStream) -> anyhow::Result<TlsStream<TcpStream>> {
        stream.set_nodelay(true)?;
        let stream = timeout(HANDSHAKE_MAX, self.acceptor.accept(stream)).await.context("handshake timed out")??;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let client = certificates.first().context("client sent no certificate")?;
        let name = common_name(client)?;
        if !ALLOWED.contains(&name.as_str()) {
            bail!("client {name:?} may not use this node's API");
        }
        Ok(stream)
    }
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || format!("cannot read certificates {}", path.display());
    let list: Vec<_> =
        CertificateDer::pem_file_iter(path).with_context(read)?.collect::<Result<_, _>>().with_context(read)?;
    if list.is_empty() {
        bail!("{} holds no certificate", path.display());
    }
    Ok(list)
}

fn common_name(certificate: &CertificateDer<'_>) -> anyhow::Result<String> {
    let (_, certificate) =
        x509_parser::parse_x509_certificate(certificate).context("client certificate is malformed")?;
    let name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    Ok(name.unwrap_or_default().to_owned())
}
