//! What one Service publishes: made anew when the Service or one of its slices changes, so that a question costs look-ups
//! only.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hickory_proto::rr::Name;

use crate::model::{Port, Service, ServiceKind, Slice};

#[derive(Debug)]
pub(super) struct View {
    pub(super) kind: Kind,
    /// The ready endpoints by the label that names them.
    pub(super) hosts: BTreeMap<Box<str>, Host>,
}

#[derive(Debug)]
pub(super) enum Kind {
    Alias(Name),
    ClusterIp {
        addresses: Vec<IpAddr>,
        ports: Vec<Port>,
    },
    /// Addresses of all hosts, each once.
    Headless {
        addresses: Vec<IpAddr>,
    },
}

#[derive(Debug, Default)]
pub(super) struct Host {
    /// Sorted, each once.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ports: Vec<Port>,
}

impl View {
    pub(super) fn new<'a>(service: &Service, slices: impl Iterator<Item = &'a Slice>) -> Self {
        let kind = match &service.kind {
            ServiceKind::ExternalName(target) => {
                return Self { kind: Kind::Alias(target.clone()), hosts: BTreeMap::new() };
            }
            ServiceKind::ClusterIp(addresses) => {
                Kind::ClusterIp { addresses: addresses.clone(), ports: service.ports.clone() }
            }
            ServiceKind::Headless => Kind::Headless { addresses: Vec::new() },
        };
        let mut view = Self { kind, hosts: hosts(slices) };
        if let Kind::Headless { addresses } = &mut view.kind {
            *addresses = view.hosts.values().flat_map(|host| host.addresses.iter().copied()).collect();
            sort(addresses);
        }
        view
    }

    /// Addresses and the host of each; none for the Service itself.
    pub(super) fn reverse(&self) -> impl Iterator<Item = (IpAddr, Option<&str>)> {
        let own = match &self.kind {
            Kind::ClusterIp { addresses, .. } => addresses.as_slice(),
            Kind::Alias(_) | Kind::Headless { .. } => &[],
        };
        let of_hosts = self
            .hosts
            .iter()
            .flat_map(|(label, host)| host.addresses.iter().map(move |address| (*address, Some(label.as_ref()))));
        own.iter().map(|address| (*address, None)).chain(of_hosts)
    }

    /// Whether a port with this protocol, and this name if one is given, has a name of its own.
    pub(super) fn has_port(&self, protocol: &str, name: Option<&str>) -> bool {
        let is_it = |port: &Port| {
            !port.name.is_empty() && *port.protocol == *protocol && name.is_none_or(|name| *port.name == *name)
        };
        match &self.kind {
            Kind::Alias(_) => false,
            Kind::ClusterIp { ports, .. } => ports.iter().any(is_it),
            Kind::Headless { .. } => self.hosts.values().any(|host| host.ports.iter().any(is_it)),
        }
    }
}

fn hosts<'a>(slices: impl Iterator<Item = &'a Slice>) -> BTreeMap<Box<str>, Host> {
    let mut hosts: BTreeMap<Box<str>, Host> = BTreeMap::new();
    for slice in slices {
        for endpoint in &slice.endpoints {
            let label = endpoint.hostname.clone().unwrap_or_else(|| dashed(endpoint.address));
            let host = hosts.entry(label).or_default();
            host.addresses.push(endpoint.address);
            host.ports.extend_from_slice(&slice.ports);
        }
    }
    for host in hosts.values_mut() {
        sort(&mut host.addresses);
        sort(&mut host.ports);
    }
    hosts
}

/// The label of an endpoint without a host name.
fn dashed(address: IpAddr) -> Box<str> {
    let text = address.to_string().replace(['.', ':'], "-");
    // A label must not begin or end with a dash, so a leading or trailing `::` gets its zero back.
    match (text.starts_with('-'), text.ends_with('-')) {
        (false, false) => text,
        (true, false) => format!("0{text}"),
        (false, true) => format!("{text}0"),
        (true, true) => format!("0{text}0"),
    }
    .into()
}

fn sort<T: Ord>(values: &mut Vec<T>) {
    values.sort_unstable();
    values.dedup();
}
