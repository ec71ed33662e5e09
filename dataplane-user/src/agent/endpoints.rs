//! This node's pods: keeps the endpoint maps and the packet programs in step with the endpoint records.
//!
//! Records are written by the pod network library. Changes come by inotify and by netlink (an interface that appears or
//! goes); a slow poll heals what both missed. Every pass is complete and repeatable, so nothing depends on events.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dataplane_abi::endpoint::{self, Endpoint};
use dataplane_abi::{Ip4, Ip6};
use futures::StreamExt;
use ipnet::IpNet;
use nix::net::if_::if_nametoindex;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use rtnetlink::MulticastGroup;
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;
use crate::cni::record::{self, EndpointRecord};
use crate::kernel::{DeviceClass, Kernel, KernelError, Maps};

/// How often everything is compared without any event, programs included.
const FULL_INTERVAL: Duration = Duration::from_secs(30);
/// Events that come closer than this are handled together.
const QUIET: Duration = Duration::from_millis(2);

/// Owns the programs on pod interfaces and the endpoint maps.
pub(super) struct Endpoints {
    kernel: Kernel,
    records: PathBuf,
    metrics: Metrics,
    /// Interfaces that have their programs, by name and index.
    attached: BTreeSet<(String, u32)>,
    written: Option<BTreeMap<IpAddr, Endpoint>>,
}

impl Endpoints {
    pub(super) fn new(kernel: Kernel, records: PathBuf, metrics: Metrics) -> Self {
        Self { kernel, records, metrics, attached: BTreeSet::new(), written: None }
    }

    /// Works until the token is cancelled.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let mut events = Events::open(&self.records);
        loop {
            self.pass();
            let full = tokio::select! {
                () = shutdown.cancelled() => return,
                () = events.wait() => false,
                () = tokio::time::sleep(FULL_INTERVAL) => true,
            };
            if full {
                self.attached.clear();
                self.written = None;
            }
        }
    }

    fn pass(&mut self) {
        let records = match record::list(&self.records) {
            Ok(records) => records,
            Err(error) => {
                tracing::warn!(error = %super::health::chain(&error), "cannot read the endpoint records");
                return;
            }
        };
        // Before the programs: a pod's first call must already find its switch.
        if let Err(error) = self.switch_sockets(&records) {
            tracing::warn!(error = %super::health::chain(&error), "cannot switch pods' sockets");
        }
        let written = match self.written.take().map_or_else(|| self.dump(), Ok) {
            Ok(written) => written,
            Err(error) => {
                tracing::warn!(error = %super::health::chain(&error), "cannot read the endpoint maps");
                self.metrics.pods(records.len(), 1);
                return;
            }
        };
        let mut wanted = BTreeMap::new();
        let mut failed = 0;
        let mut present = BTreeSet::new();
        for found in &records {
            // A record may be a moment older than its interface's end, or than the interface's successor.
            let Ok(ifindex) = if_nametoindex(found.host_ifname.as_str()) else { continue };
            present.insert((found.host_ifname.clone(), ifindex));
            let attached = self.attach(found, ifindex);
            if let Err(error) = &attached {
                failed += 1;
                let pod = format!("{}/{}", found.pod.namespace, found.pod.name);
                tracing::warn!(pod, error = %super::health::chain(error), "cannot attach the pod's programs");
            }
            // An endpoint says that its programs are there; one that had them stays, whatever a later check says.
            let endpoint = endpoint(found, ifindex);
            let addresses = found.ips.iter().map(IpNet::addr);
            wanted.extend(
                addresses
                    .filter(|address| attached.is_ok() || written.get(address) == Some(&endpoint))
                    .map(|address| (address, endpoint)),
            );
        }
        self.attached.retain(|interface| present.contains(interface));
        failed += self.write(&written, wanted);
        self.metrics.pods(records.len(), failed);
    }

    fn attach(&mut self, record: &EndpointRecord, ifindex: u32) -> Result<(), KernelError> {
        let interface = (record.host_ifname.clone(), ifindex);
        if self.attached.contains(&interface) {
            return Ok(());
        }
        self.kernel.attach(&record.host_ifname, DeviceClass::Pod)?;
        tracing::info!(
            pod = %format!("{}/{}", record.pod.namespace, record.pod.name),
            interface = record.host_ifname,
            "pod interface attached"
        );
        self.attached.insert(interface);
        Ok(())
    }

    /// Leaves the sockets of pods alone that asked for it, and only theirs.
    fn switch_sockets(&mut self, records: &[EndpointRecord]) -> Result<(), KernelError> {
        let wanted: BTreeSet<u64> = records
            .iter()
            .filter(|record| !record.socket_lb && record.netns_cookie != 0)
            .map(|record| record.netns_cookie)
            .collect();
        let off = &mut self.kernel.maps.socket_off;
        let present = off.dump()?;
        for cookie in present.keys().filter(|cookie| !wanted.contains(cookie)) {
            off.remove(cookie)?;
        }
        for cookie in wanted.iter().filter(|cookie| !present.contains_key(cookie)) {
            off.insert(cookie, &1)?;
        }
        Ok(())
    }

    /// Makes the maps hold these endpoints, and returns how many they do not take. What goes makes room first; what one
    /// does not fit costs no other one.
    fn write(&mut self, written: &BTreeMap<IpAddr, Endpoint>, wanted: BTreeMap<IpAddr, Endpoint>) -> u64 {
        let maps = &mut self.kernel.maps;
        let mut failures = Vec::new();
        for address in written.keys().filter(|address| !wanted.contains_key(address)) {
            failures.extend(remove(maps, *address).err());
        }
        for (address, endpoint) in wanted.iter().filter(|(address, endpoint)| written.get(address) != Some(*endpoint)) {
            failures.extend(insert(maps, *address, endpoint).err());
        }
        // After a failure everything is compared again at the next pass.
        self.written = failures.is_empty().then_some(wanted);
        if let Some(error) = failures.first() {
            tracing::warn!(failed = failures.len(), error = %super::health::chain(error), "cannot write all endpoints");
        }
        failures.len() as u64
    }

    fn dump(&self) -> Result<BTreeMap<IpAddr, Endpoint>, KernelError> {
        let ipv4 = self.kernel.maps.v4.endpoints.dump()?;
        let ipv6 = self.kernel.maps.v6.endpoints.dump()?;
        let ipv4 = ipv4.into_iter().map(|(address, endpoint)| (IpAddr::from(address), endpoint));
        Ok(ipv4.chain(ipv6.into_iter().map(|(address, endpoint)| (IpAddr::from(address), endpoint))).collect())
    }
}

fn insert(maps: &mut Maps, address: IpAddr, endpoint: &Endpoint) -> Result<(), KernelError> {
    match address {
        IpAddr::V4(address) => maps.v4.endpoints.insert(&Ip4::from(address), endpoint),
        IpAddr::V6(address) => maps.v6.endpoints.insert(&Ip6::from(address), endpoint),
    }
}

fn remove(maps: &mut Maps, address: IpAddr) -> Result<bool, KernelError> {
    match address {
        IpAddr::V4(address) => maps.v4.endpoints.remove(&Ip4::from(address)),
        IpAddr::V6(address) => maps.v6.endpoints.remove(&Ip6::from(address)),
    }
}

fn endpoint(record: &EndpointRecord, ifindex: u32) -> Endpoint {
    let flags = if record.socket_lb { 0 } else { endpoint::flag::SOCKET_OFF };
    Endpoint { ifindex, identity: 0, flags, mac: record.mac.0, gateway_mac: record.gateway_mac.0 }
}

/// What wakes us.
struct Events {
    records: Option<AsyncFd<OwnedFd>>,
    links: Option<futures::channel::mpsc::UnboundedReceiver<LinkEvent>>,
}

type LinkEvent =
    (rtnetlink::packet_core::NetlinkMessage<netlink_packet_route::RouteNetlinkMessage>, rtnetlink::sys::SocketAddr);

impl Events {
    /// Without one of the two the slow poll still works.
    fn open(records: &Path) -> Self {
        let watch = || -> std::io::Result<AsyncFd<OwnedFd>> {
            std::fs::create_dir_all(records)?;
            let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
            let flags = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_CLOSE_WRITE;
            inotify.add_watch(records, flags)?;
            // SAFETY: an owned descriptor stays the same and open until the `AsyncFd` drops it.
            Ok(unsafe { AsyncFd::register(OwnedFd::from(inotify)) }?)
        };
        let links = rtnetlink::new_multicast_connection(&[MulticastGroup::Link]).map(|(connection, _, messages)| {
            tokio::spawn(connection);
            messages
        });
        let warn = |error: &std::io::Error| tracing::warn!(%error, "pods are only polled");
        Self { records: watch().inspect_err(warn).ok(), links: links.inspect_err(warn).ok() }
    }

    /// Returns when something may have changed, after the burst has passed.
    async fn wait(&mut self) {
        self.next().await;
        while tokio::time::timeout(QUIET, self.next()).await.is_ok() {}
    }

    async fn next(&mut self) {
        let records = async {
            match &self.records {
                Some(inotify) => {
                    // A failing descriptor must not spin: the poll takes over.
                    let Ok(mut guard) = inotify.readable().await else { return std::future::pending().await };
                    // What happened does not matter: every pass reads all records.
                    while nix::unistd::read(inotify.get_ref(), &mut [0; 4_096]).is_ok_and(|length| length > 0) {}
                    guard.clear_ready();
                }
                None => std::future::pending().await,
            }
        };
        let links = async {
            let event = match &mut self.links {
                Some(messages) => messages.next().await,
                None => None,
            };
            if event.is_none() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = records => {}
            () = links => {}
        }
    }
}
