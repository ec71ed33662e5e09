//! What can go wrong while connecting a pod.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::kernel::KernelError;

/// A failed pod network operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no pod range is given")]
    NoPodCidr,
    #[error("pod range {cidr} is too small for a gateway and a pod")]
    CidrTooSmall { cidr: IpNet },
    #[error("no free address is left in {cidr}")]
    Exhausted { cidr: IpNet },
    #[error("container id {container_id:?} is not usable as a file name")]
    InvalidId { container_id: String },
    #[error("container {container_id} is not connected")]
    Unknown { container_id: String },
    #[error("{kind} {name} is missing")]
    Missing { kind: &'static str, name: String },
    #[error("the node agent has not taken up interface {host_ifname} within {} s: is it running?", .waited.as_secs())]
    Unserved {
        host_ifname: String,
        waited: Duration,
        #[source]
        source: Option<KernelError>,
    },
    #[error("cannot open a netlink socket")]
    OpenNetlink(#[source] io::Error),
    #[error("netlink refused to {action}")]
    Netlink {
        action: String,
        #[source]
        source: rtnetlink::Error,
    },
    #[error("cannot enter network namespace {path}")]
    EnterNamespace {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the thread inside network namespace {path} ended without an answer")]
    NamespaceThread { path: PathBuf },
    #[error("cannot set {path}")]
    Sysctl {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot {action} {path}")]
    State {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is not an endpoint record")]
    Record {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    pub(super) fn missing(kind: &'static str, name: impl Into<String>) -> Self {
        Self::Missing { kind, name: name.into() }
    }

    pub(super) fn state(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::State { action, path, source }
    }
}
