//! What a server needs to know before it starts.

use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use control_store::Store;

use crate::limits::Limits;

/// The configuration of one API server.
pub struct Config {
    /// Bound sockets; all serve the same API over TLS.
    pub listeners: Vec<TcpListener>,
    pub tls: TlsFiles,
    pub service_accounts: ServiceAccountKeys,
    pub store: Arc<dyn Store>,
    /// Service address ranges in CIDR notation, the primary family first: one, or one of each family.
    pub service_cidrs: Vec<String>,
    /// Published as the endpoints of `default/kubernetes`.
    pub advertise_addresses: Vec<IpAddr>,
    pub advertise_port: u16,
    /// Needed to read pod logs from nodes.
    pub kubelet: Option<KubeletClient>,
    pub limits: Limits,
}

/// PEM files of the serving side.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Client certificates are trusted if this authority signed them.
    pub client_ca: PathBuf,
}

/// How service-account tokens are signed and recognised.
#[derive(Debug, Clone)]
pub struct ServiceAccountKeys {
    /// PKCS#8, ECDSA P-256 or RSA.
    pub private_key: PathBuf,
    pub public_key: PathBuf,
    /// Also the audience of tokens for this API server.
    pub issuer: String,
}

impl ServiceAccountKeys {
    /// The issuer that upstream installers use.
    pub const DEFAULT_ISSUER: &'static str = "https://kubernetes.default.svc.cluster.local";
}

/// The identity towards kubelets, and the authority that signs theirs.
#[derive(Debug, Clone)]
pub struct KubeletClient {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub ca: PathBuf,
    /// 10250, except in tests.
    pub port: u16,
}
