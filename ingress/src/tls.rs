//! TLS of connections from clients: the policy that all configurations share, and one configuration per certificate.

use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;

use crate::model::TlsSecret;

const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// TLS 1.2 sessions to remember; TLS 1.3 and most of 1.2 resume by ticket.
const SESSIONS_MAX: usize = 8192;
/// No zone has this name, so the certificate can be mistaken for nobody's.
const DEFAULT_NAME: &str = "default.tidegate.invalid";

/// What a certificate needs to be served.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) config: Arc<ServerConfig>,
}

/// Why a Secret is no certificate.
#[derive(Debug, Error)]
pub(crate) enum IdentityError {
    #[error("secret is not of type kubernetes.io/tls")]
    WrongType,
    #[error("tls.crt holds no certificate")]
    NoCertificate,
    #[error("tls.crt is not PEM")]
    BadCertificate(#[source] rustls_pki_types::pem::Error),
    #[error("tls.key holds no private key")]
    BadKey(#[source] rustls_pki_types::pem::Error),
    #[error("certificate and key do not fit or cannot be used")]
    Unusable(#[source] rustls::Error),
    #[error("the default certificate cannot be made")]
    Generate(#[source] rcgen::Error),
}

/// Protocol versions, resumption and ALPN: one policy for every certificate. A ticket carries the name it was issued
/// for and is refused for another, so that the configurations can share the key.
#[derive(Debug)]
pub(crate) struct TlsPolicy {
    provider: Arc<CryptoProvider>,
    tickets: Arc<dyn ProducesTickets>,
    sessions: Arc<dyn StoresServerSessions>,
}

impl TlsPolicy {
    pub(crate) fn new() -> Result<Self, rustls::Error> {
        Ok(Self {
            provider: Arc::new(aws_lc_rs::default_provider()),
            tickets: aws_lc_rs::Ticketer::new()?,
            sessions: ServerSessionMemoryCache::new(SESSIONS_MAX),
        })
    }

    /// The identity in a TLS Secret.
    pub(crate) fn identity(&self, secret: &TlsSecret) -> Result<Arc<Identity>, IdentityError> {
        if !secret.is_tls {
            return Err(IdentityError::WrongType);
        }
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&secret.certificate)
            .collect::<Result<_, _>>()
            .map_err(IdentityError::BadCertificate)?;
        if chain.is_empty() {
            return Err(IdentityError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(&secret.private_key).map_err(IdentityError::BadKey)?;
        self.certified(chain, key)
    }

    /// A fresh self-signed identity for hosts without a certificate.
    pub(crate) fn self_signed(&self) -> Result<Arc<Identity>, IdentityError> {
        let mut params = CertificateParams::new([DEFAULT_NAME.to_owned()]).map_err(IdentityError::Generate)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Tidegate Default Certificate");
        let key = KeyPair::generate().map_err(IdentityError::Generate)?;
        let certificate = params.self_signed(&key).map_err(IdentityError::Generate)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        self.certified(vec![certificate.der().clone()], key.into())
    }

    fn certified(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Arc<Identity>, IdentityError> {
        let certified = CertifiedKey::from_der(chain, key, &self.provider).map_err(IdentityError::Unusable)?;
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(IdentityError::Unusable)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = ALPN.iter().map(|protocol| protocol.to_vec()).collect();
        config.ticketer = Arc::clone(&self.tickets);
        config.session_storage = Arc::clone(&self.sessions);
        Ok(Arc::new(Identity { config: Arc::new(config) }))
    }
}

#[cfg(test)]
mod tests {
    use super::{IdentityError, TlsPolicy};
    use crate::model::{ObjectKey, TlsSecret};

    fn secret(certificate: &str, private_key: &str) -> TlsSecret {
        TlsSecret {
            key: ObjectKey::new("ns", "s"),
            is_tls: true,
            certificate: certificate.into(),
            private_key: private_key.into(),
        }
    }

    #[test]
    fn a_good_secret_is_an_identity_and_a_bad_one_says_why_not() {
        let policy = TlsPolicy::new().unwrap();
        let pair = || rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let (good, other) = (pair(), pair());
        let (certificate, key) = (good.cert.pem(), good.signing_key.serialize_pem());
        assert!(policy.identity(&secret(&certificate, &key)).is_ok());

        let why = |certificate: &str, key: &str| policy.identity(&secret(certificate, key)).unwrap_err();
        assert!(matches!(why("", &key), IdentityError::NoCertificate));
        assert!(matches!(why("garbage", &key), IdentityError::NoCertificate));
        assert!(matches!(why(&certificate, "garbage"), IdentityError::BadKey(_)));
        assert!(matches!(why(&certificate, &other.signing_key.serialize_pem()), IdentityError::Unusable(_)));
        let truncated = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(why(truncated, &key), IdentityError::Unusable(_)));
        let opaque = TlsSecret { is_tls: false, ..secret(&certificate, &key) };
        assert!(matches!(policy.identity(&opaque), Err(IdentityError::WrongType)));
    }

    #[test]
    fn the_default_identity_offers_both_protocols() {
        let identity = TlsPolicy::new().unwrap().self_signed().unwrap();
        assert_eq!(identity.config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    }
}
