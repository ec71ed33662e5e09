//! What the kubelet needs of a pod network, as a trait, so that pod logic is tested without one.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use async_trait::async_trait;
use control_runtime::Sandbox;
use dataplane_user::cni::{AddRequest, Error, PodNetwork, record, wants_socket_lb};

/// Name of a pod's interface inside.
const POD_IFNAME: &str = "eth0";

#[async_trait]
pub(crate) trait PodNet: Send + Sync + 'static {
    /// Connects a sandbox and returns its addresses, in the order of the node's ranges.
    async fn attach(&self, sandbox: &Sandbox) -> Result<Vec<IpAddr>, Error>;
    /// Disconnects a sandbox; succeeds if it was never connected.
    async fn detach(&self, sandbox_id: &str) -> Result<(), Error>;
    /// The addresses that a sandbox got earlier.
    async fn addresses(&self, sandbox_id: &str) -> Option<Vec<IpAddr>>;
    /// Frees what belongs to sandboxes outside `live`.
    async fn collect(&self, live: &BTreeSet<String>) -> Result<(), Error>;
}

/// The node's bridge network.
pub(crate) struct BridgeNet {
    pub network: PodNetwork,
    pub state_dir: PathBuf,
}

#[async_trait]
impl PodNet for BridgeNet {
    async fn attach(&self, sandbox: &Sandbox) -> Result<Vec<IpAddr>, Error> {
        let attachment = self
            .network
            .add(AddRequest {
                container_id: sandbox.id.clone(),
                netns: sandbox.netns.clone(),
                ifname: POD_IFNAME.into(),
                pod_namespace: sandbox.spec.pod_namespace.clone(),
                pod_name: sandbox.spec.pod_name.clone(),
                pod_uid: sandbox.spec.pod_uid.clone(),
                socket_lb: wants_socket_lb(&sandbox.spec.labels),
            })
            .await?;
        Ok(attachment.ips.iter().map(|net| net.addr()).collect())
    }

    async fn detach(&self, sandbox_id: &str) -> Result<(), Error> {
        self.network.del(sandbox_id).await
    }

    async fn addresses(&self, sandbox_id: &str) -> Option<Vec<IpAddr>> {
        let records = record::list(&self.state_dir).ok()?;
        let record = records.into_iter().find(|record| record.container_id == sandbox_id)?;
        Some(record.ips.iter().map(|net| net.addr()).collect())
    }

    async fn collect(&self, live: &BTreeSet<String>) -> Result<(), Error> {
        let freed = self.network.gc(live).await?;
        if !freed.is_empty() {
            tracing::info!(count = freed.len(), "freed stale pod network attachments");
        }
        Ok(())
    }
}
