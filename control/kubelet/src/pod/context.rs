//! What every pod worker shares.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::events::Events;
use crate::metrics::Metrics;
use crate::network::PodNet;
use crate::runtime::PodRuntime;
use crate::spec::dns::DnsSettings;
use crate::spec::fields::PodFacts;
use crate::volume::Volumes;

pub(crate) struct Context {
    pub runtime: Arc<dyn PodRuntime>,
    /// `None` until the node has its pod ranges.
    pub network: watch::Receiver<Option<Arc<dyn PodNet>>>,
    pub cluster: Arc<dyn Cluster>,
    pub volumes: Volumes,
    pub events: Events,
    pub settings: Settings,
    /// False while images are still being imported at start.
    pub images_loaded: watch::Receiver<bool>,
    /// How many images may be pulled at the same time.
    pub pulls: Semaphore,
    pub metrics: Metrics,
    pub started: Instant,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    pub node_name: String,
    pub node_ips: Vec<IpAddr>,
    pub pods_dir: PathBuf,
    pub dns: DnsSettings,
    pub node_hosts_file: String,
    pub machine_memory: u64,
    pub allocatable_cpu_milli: i64,
    pub allocatable_memory: i64,
}

impl Context {
    /// The pod network, once there is one.
    pub(crate) fn network(&self) -> Option<Arc<dyn PodNet>> {
        self.network.borrow().clone()
    }

    pub(crate) fn facts(&self, pod_ips: &[IpAddr]) -> PodFacts {
        PodFacts {
            node_name: self.settings.node_name.clone(),
            host_ips: self.settings.node_ips.clone(),
            pod_ips: pod_ips.to_vec(),
            allocatable_cpu_milli: self.settings.allocatable_cpu_milli,
            allocatable_memory: self.settings.allocatable_memory,
        }
    }

    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.settings.pods_dir.join(uid)
    }
}
