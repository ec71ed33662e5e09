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

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use rustls_pki_types::ServerName;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsConnector;

    use super::*;

    struct Authority {
        params: CertificateParams,
        key: KeyPair,
    }

    impl Authority {
        fn new() -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, "test-ca");
            Self { params, key: KeyPair::generate().unwrap() }
        }

        fn pem(&self) -> String {
            self.params.self_signed(&self.key).unwrap().pem()
        }

        /// Certificate and key of this name, as PEM.
        fn issue(&self, name: &str) -> (String, String) {
            let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            let key = KeyPair::generate().unwrap();
            let issuer = Issuer::from_params(&self.params, &self.key);
            (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
        }
    }

    fn endpoint(authority: &Authority) -> Tls {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (certificate, key) = authority.issue("node");
        Tls::from_files(&file("crt", &certificate), &file("key", &key), &file("ca", &authority.pem())).unwrap()
    }

    /// What a client with this certificate can do: read a byte that the server sends, or nothing.
    async fn connects(tls: Arc<Tls>, server: &Authority, client: Option<(String, String)>) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let mut stream = tls.accept(listener.accept().await.unwrap().0).await?;
            stream.write_all(b"x").await?;
            stream.shutdown().await?;
            anyhow::Ok(())
        });
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(server.pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let config = match client {
            Some((certificate, key)) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                )
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let answered = match TlsConnector::from(Arc::new(config)).connect(name, stream).await {
            Ok(mut stream) => stream.read_u8().await.is_ok(),
            Err(_) => false,
        };
        assert_eq!(serving.await.unwrap().is_ok(), answered);
        answered
    }

    #[tokio::test]
    async fn only_the_api_server_may_talk_to_a_node() {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let tls = Arc::new(endpoint(&authority));
        for (client, allowed) in [
            (Some(authority.issue("kube-apiserver-kubelet-client")), true),
            (Some(authority.issue("system:node:other")), false),
            (Some(stranger.issue("kube-apiserver-kubelet-client")), false),
            (None, false),
        ] {
            assert_eq!(connects(Arc::clone(&tls), &authority, client.clone()).await, allowed, "{client:?}");
        }
    }
}
