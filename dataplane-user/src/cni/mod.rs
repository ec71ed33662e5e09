//! Pod networking as a library: a veth pair into the pod, a bridge as its gateway, and addresses from the node's ranges.
//!
//! Owns: the bridge, the pods' interfaces, address allocation, the endpoint records that the agent reads.
//! Does not own: eBPF programs (the agent attaches them when it sees a record), routes between nodes.
//! No netfilter rule is ever made. Every step can be repeated: a half-done `add` is finished by the next `add` of the
//! same container, undone by `del`, and found by `gc`.

mod bridge;
mod error;
mod ipam;
mod netlink;
mod netns;
pub mod record;
mod veth;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use sha2::{Digest, Sha256};

pub use error::Error;
use ipam::Ipam;
use netlink::Netlink;
use record::{EndpointRecord, PodName};

use crate::kernel;

/// The pod annotation that switches the translation at sockets off for one pod: `tidegate.dev/socket-lb: "off"`.
pub const SOCKET_LB_ANNOTATION: &str = "tidegate.dev/socket-lb";

/// How long an agent may take to attach its programs to a new interface: longer than its restart takes.
const SERVED_TIMEOUT: Duration = Duration::from_secs(10);
const SERVED_POLL: Duration = Duration::from_millis(1);

/// Result of a pod network operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Where and how this node's pods are connected.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// The bridge's name, `tg0`.
    pub bridge: String,
    /// The node's pod ranges; pods get one address of each. The first host address of each is the gateway.
    pub pod_cidrs: Vec<IpNet>,
    /// MTU of the pods' interfaces; `None` takes it from the interface that holds the default route, else 1500.
    pub mtu: Option<u32>,
    /// Where the agent pins its maps; a pod counts as connected once they know it. `None` waits for no agent.
    pub agent_pin_dir: Option<PathBuf>,
    /// Endpoint records (`*.json`) and address allocations (`ipam/`); must not survive a reboot.
    pub state_dir: PathBuf,
}

/// One container to be connected.
#[derive(Clone, Debug)]
pub struct AddRequest {
    pub container_id: String,
    /// A path that refers to the container's network namespace: `/run/netns/x`, `/proc/PID/ns/net`.
    pub netns: PathBuf,
    /// Name of the interface inside, `eth0`.
    pub ifname: String,
    pub pod_namespace: String,
    pub pod_name: String,
    pub pod_uid: String,
    /// Whether the pod's sockets are translated; otherwise its packets are, one by one.
    pub socket_lb: bool,
}

/// How a container is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Addresses with the prefix length of the pod range, in the order of `pod_cidrs`.
    pub ips: Vec<IpNet>,
    /// One gateway per address, in the same order.
    pub gateways: Vec<IpAddr>,
    /// MAC of the interface inside.
    pub mac: [u8; 6],
    pub host_ifname: String,
    pub host_ifindex: u32,
    pub mtu: u32,
}

/// Connects and disconnects this node's pods.
#[derive(Clone, Debug)]
pub struct PodNetwork {
    config: NetworkConfig,
    ipam: Ipam,
}

impl PodNetwork {
    /// Checks the configuration; touches nothing yet.
    ///
    /// # Errors
    /// If a range is too small for a gateway and a pod, or none is given.
    pub fn new(config: NetworkConfig) -> Result<Self> {
        if config.pod_cidrs.is_empty() {
            return Err(Error::NoPodCidr);
        }
        let ipam = Ipam::new(config.state_dir.join("ipam"), &config.pod_cidrs)?;
        Ok(Self { config, ipam })
    }

    /// Makes the bridge with its gateway addresses and turns forwarding on, in the caller's network namespace.
    ///
    /// # Errors
    /// If netlink or a sysctl refuses.
    pub async fn ensure_bridge(&self) -> Result<()> {
        let netlink = Netlink::open()?;
        let mtu = self.mtu(&netlink).await?;
        bridge::ensure(&netlink, &self.config.bridge, &self.gateways(), mtu).await?;
        bridge::enable_forwarding(self.ipam.has_ipv6())
    }

    /// Connects a container; repeated for the same container it gives the same addresses.
    ///
    /// # Errors
    /// If no address is free, the bridge is missing, the kernel refuses a step, or the agent does not attach its
    /// programs in time. What was done is then undone.
    pub async fn add(&self, request: AddRequest) -> Result<Attachment> {
        validate_id(&request.container_id)?;
        let ips = self.ipam.allocate(&request.container_id)?;
        match self.connect(&request, ips).await {
            Ok(attachment) => Ok(attachment),
            Err(error) => {
                if let Err(undo) = self.del(&request.container_id).await {
                    tracing::warn!(container = %request.container_id, error = %undo, "cannot undo a failed pod connection");
                }
                Err(error)
            }
        }
    }

    /// Disconnects a container and frees its addresses; succeeds if it was never connected.
    ///
    /// # Errors
    /// If the interface exists and cannot be deleted, or a state file cannot be.
    pub async fn del(&self, container_id: &str) -> Result<()> {
        validate_id(container_id)?;
        // The record goes first: the agent must not forward to an interface that is about to vanish.
        record::remove(&self.config.state_dir, container_id)?;
        let netlink = Netlink::open()?;
        netlink.delete_link(&host_ifname(container_id)).await?;
        self.ipam.release(container_id)
    }

    /// Checks that a container is connected as its record says.
    ///
    /// # Errors
    /// Names the first thing that is missing.
    pub async fn check(&self, container_id: &str) -> Result<()> {
        validate_id(container_id)?;
        let record = record::read(&self.config.state_dir, container_id)?
            .ok_or_else(|| Error::Unknown { container_id: container_id.to_owned() })?;
        let netlink = Netlink::open()?;
        let bridge =
            netlink.link(&self.config.bridge).await?.ok_or_else(|| Error::missing("bridge", &self.config.bridge))?;
        let host =
            netlink.link(&record.host_ifname).await?.ok_or_else(|| Error::missing("interface", &record.host_ifname))?;
        if host.controller != Some(bridge.index) {
            return Err(Error::missing("bridge port", &record.host_ifname));
        }
        let ips = record.ips.clone();
        let gateways = record.gateways.clone();
        netns::run(&record.netns, move || veth::check_inside(record.ifname, ips, gateways)).await
    }

    /// Frees everything that belongs to containers outside `live`: records, interfaces and addresses.
    ///
    /// # Errors
    /// If a state folder cannot be read, or a stale container cannot be disconnected.
    pub async fn gc(&self, live: &BTreeSet<String>) -> Result<Vec<String>> {
        let mut known = self.ipam.owners()?;
        known.extend(record::list(&self.config.state_dir)?.into_iter().map(|record| record.container_id));
        let stale: Vec<String> = known.into_iter().filter(|id| !live.contains(id)).collect();
        for id in &stale {
            self.del(id).await?;
        }
        Ok(stale)
    }

    /// The gateway addresses that the bridge holds.
    #[must_use]
    pub fn gateways(&self) -> Vec<IpNet> {
        self.ipam.gateways()
    }

    async fn mtu(&self, netlink: &Netlink) -> Result<u32> {
        match self.config.mtu {
            Some(mtu) => Ok(mtu),
            None => Ok(netlink.uplink_mtu().await?.unwrap_or(1500)),
        }
    }

    async fn connect(&self, request: &AddRequest, ips: Vec<IpNet>) -> Result<Attachment> {
        let netlink = Netlink::open()?;
        let mtu = self.mtu(&netlink).await?;
        let bridge =
            netlink.link(&self.config.bridge).await?.ok_or_else(|| Error::missing("bridge", &self.config.bridge))?;
        let pair = veth::Pair {
            host_ifname: host_ifname(&request.container_id),
            ifname: request.ifname.clone(),
            mac: mac(&request.container_id),
            mtu,
        };
        let host_ifindex = veth::create(&netlink, &pair, bridge.index, &request.netns).await?;
        let gateways: Vec<IpAddr> = self.gateways().iter().map(IpNet::addr).collect();
        let (ifname, inside_ips, inside_gateways) = (request.ifname.clone(), ips.clone(), gateways.clone());
        let netns = request.netns.clone();
        let netns_cookie = netns::run(&request.netns, move || async move {
            veth::configure_inside(ifname, inside_ips, inside_gateways).await?;
            kernel::netns_cookie().map_err(|source| Error::EnterNamespace { path: netns, source })
        })
        .await?;
        let attachment = Attachment { ips, gateways, mac: pair.mac, host_ifname: pair.host_ifname, host_ifindex, mtu };
        record::write(&self.config.state_dir, &EndpointRecord::new(request, &attachment, bridge.mac, netns_cookie))?;
        self.until_served(&attachment).await?;
        Ok(attachment)
    }

    /// Waits for the agent's programs: what a pod sends before them to a Service would be lost.
    async fn until_served(&self, attachment: &Attachment) -> Result<()> {
        let Some(pin_dir) = &self.config.agent_pin_dir else { return Ok(()) };
        let addresses: Vec<IpAddr> = attachment.ips.iter().map(IpNet::addr).collect();
        let started = Instant::now();
        loop {
            let served = kernel::serves(pin_dir, &addresses, attachment.host_ifindex);
            if served.as_ref().is_ok_and(|served| *served) {
                return Ok(());
            }
            if started.elapsed() >= SERVED_TIMEOUT {
                return Err(Error::Unserved {
                    host_ifname: attachment.host_ifname.clone(),
                    waited: SERVED_TIMEOUT,
                    source: served.err(),
                });
            }
            tokio::time::sleep(SERVED_POLL).await;
        }
    }
}

impl EndpointRecord {
    fn new(request: &AddRequest, attachment: &Attachment, gateway_mac: [u8; 6], netns_cookie: u64) -> Self {
        Self {
            container_id: request.container_id.clone(),
            netns: request.netns.clone(),
            ifname: request.ifname.clone(),
            pod: PodName {
                namespace: request.pod_namespace.clone(),
                name: request.pod_name.clone(),
                uid: request.pod_uid.clone(),
            },
            ips: attachment.ips.clone(),
            gateways: attachment.gateways.clone(),
            mac: record::Mac(attachment.mac),
            gateway_mac: record::Mac(gateway_mac),
            host_ifname: attachment.host_ifname.clone(),
            host_ifindex: attachment.host_ifindex,
            mtu: attachment.mtu,
            socket_lb: request.socket_lb,
            netns_cookie,
        }
    }
}

/// Whether a pod with these annotations has its sockets translated: unless it says "off".
#[must_use]
pub fn wants_socket_lb(annotations: &BTreeMap<String, String>) -> bool {
    annotations.get(SOCKET_LB_ANNOTATION).is_none_or(|value| value != "off")
}

/// Name of a container's interface on the host: `tg` and 11 hex digits, 13 of the 15 characters that Linux allows.
#[must_use]
pub fn host_ifname(container_id: &str) -> String {
    let hash = Sha256::digest(container_id.as_bytes());
    let value = hash.iter().take(8).fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    format!("tg{:011x}", value >> 20)
}

/// A locally administered unicast MAC, fixed per container so that a repeated `add` invalidates no neighbour entry.
fn mac(container_id: &str) -> [u8; 6] {
    let hash = Sha256::digest(format!("mac/{container_id}").as_bytes());
    [0x02, hash[0], hash[1], hash[2], hash[3], hash[4]]
}

/// Ids become file names.
fn validate_id(container_id: &str) -> Result<()> {
    let valid = !container_id.is_empty()
        && container_id.len() <= 200
        && !container_id.starts_with('.')
        && container_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if valid { Ok(()) } else { Err(Error::InvalidId { container_id: container_id.to_owned() }) }
}

/// Reads the endpoint records below a run folder; the agent and the inspection commands use it.
#[must_use]
pub fn state_dir(run_dir: &Path) -> PathBuf {
    run_dir.join("cni")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{SOCKET_LB_ANNOTATION, host_ifname, mac, validate_id, wants_socket_lb};

    #[test]
    fn interface_names_fit_and_differ() {
        let name = host_ifname("a");
        assert_eq!(name.len(), 13);
        assert!(name.starts_with("tg") && name[2..].bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(name, host_ifname("b"));
        assert_eq!(name, host_ifname("a"));
    }

    #[test]
    fn only_off_switches_the_sockets_off() {
        let annotated = |value: &str| [(SOCKET_LB_ANNOTATION.to_owned(), value.to_owned())].into();
        assert!(!wants_socket_lb(&annotated("off")));
        assert!(wants_socket_lb(&annotated("on")) && wants_socket_lb(&BTreeMap::new()));
    }

    #[test]
    fn macs_are_local_unicast() {
        assert_eq!(mac("a")[0] & 0b11, 0b10);
        assert_ne!(mac("a"), mac("b"));
    }

    #[test]
    fn ids_that_are_not_file_names_are_refused() {
        for bad in ["", "../x", ".hidden", "a/b", "a b"] {
            assert!(validate_id(bad).is_err(), "{bad:?}");
        }
        assert!(validate_id("0f-A_b.c").is_ok());
    }
}
