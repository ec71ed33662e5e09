//! Waits for the node's pod address ranges, which a controller assigns, and makes the pod network of them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dataplane_user::cni::{NetworkConfig, PodNetwork};
use futures::StreamExt;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::watcher;
use kube::runtime::{WatchStreamExt, watcher::Config};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::network::{BridgeNet, PodNet};
use crate::runtime::PodRuntime;

const RETRY: Duration = Duration::from_secs(1);

pub(crate) struct Ranges {
    pub client: Client,
    pub node_name: String,
    pub bridge: String,
    pub state_dir: PathBuf,
    pub agent_pin_dir: PathBuf,
    pub runtime: Arc<dyn PodRuntime>,
}

impl Ranges {
    /// Publishes the network once it stands. Ranges of a node never change afterwards.
    pub(crate) async fn run(self, network: watch::Sender<Option<Arc<dyn PodNet>>>) {
        let ranges = self.assigned().await;
        loop {
            match self.network(&ranges).await {
                Ok(net) => {
                    tracing::info!(node = %self.node_name, ranges = ?ranges, "pod network is ready");
                    network.send_replace(Some(Arc::new(net)));
                    return;
                }
                Err(error) => {
                    tracing::warn!(node = %self.node_name, error = %format!("{error:#}"), "cannot set up the pod network")
                }
            }
            sleep(RETRY).await;
        }
    }

    async fn assigned(&self) -> Vec<IpNet> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let only = Config::default().fields(&format!("metadata.name={}", self.node_name));
        let mut changes = watcher(nodes, only).default_backoff().applied_objects().boxed();
        loop {
            match changes.next().await {
                Some(Ok(node)) => {
                    let ranges = ranges(&node);
                    if !ranges.is_empty() {
                        return ranges;
                    }
                }
                Some(Err(error)) => tracing::debug!(%error, "node watch failed"),
                None => sleep(RETRY).await,
            }
        }
    }

    async fn network(&self, ranges: &[IpNet]) -> anyhow::Result<BridgeNet> {
        let network = PodNetwork::new(NetworkConfig {
            bridge: self.bridge.clone(),
            pod_cidrs: ranges.to_vec(),
            mtu: None,
            agent_pin_dir: Some(self.agent_pin_dir.clone()),
            state_dir: self.state_dir.clone(),
        })?;
        network.ensure_bridge().await?;
        let net = BridgeNet { network, state_dir: self.state_dir.clone() };
        // Pods are connected only once the network is published: whatever is not of a known sandbox now is stale.
        let live: BTreeSet<String> = self.runtime.sandboxes().await.into_iter().map(|sandbox| sandbox.id).collect();
        net.collect(&live).await?;
        Ok(net)
    }
}

fn ranges(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let list = spec.pod_cidrs.clone().or_else(|| spec.pod_cidr.clone().map(|range| vec![range]));
    list.into_iter().flatten().filter_map(|range| range.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_from_the_spec() {
        let of = |spec| ranges(&serde_json::from_value(serde_json::json!({"spec": spec})).unwrap());
        let both =
            of(serde_json::json!({"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24", "fd00:10:244::/64"]}));
        assert_eq!(both, ["10.244.0.0/24".parse().unwrap(), "fd00:10:244::/64".parse::<IpNet>().unwrap()]);
        assert_eq!(of(serde_json::json!({"podCIDR": "10.244.0.0/24"})).len(), 1);
        assert!(of(serde_json::json!({})).is_empty());
    }
}
