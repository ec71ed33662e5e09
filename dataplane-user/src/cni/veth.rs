//! One pod's veth pair: the host's end on the bridge, the other made inside the pod's namespace (making it there takes
//! half the time of moving it there).

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::Path;

use ipnet::IpNet;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::bridge::set;
use super::netlink::Netlink;
use super::{Error, Result};

/// The names and properties of a pair to be made.
pub(super) struct Pair {
    pub(super) host_ifname: String,
    pub(super) ifname: String,
    /// MAC of the end inside.
    pub(super) mac: [u8; 6],
    pub(super) mtu: u32,
}

/// Creates the pair and returns the host end's index. A pair of the same name is a leftover: it is replaced.
pub(super) async fn create(netlink: &Netlink, pair: &Pair, bridge: u32, netns: &Path) -> Result<u32> {
    netlink.delete_link(&pair.host_ifname).await?;
    let namespace = File::open(netns).map_err(|source| Error::EnterNamespace { path: netns.to_owned(), source })?;
    let peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(pair.ifname.clone())
        .address(pair.mac.to_vec())
        .mtu(pair.mtu)
        .setns_by_fd(namespace.as_raw_fd())
        .build();
    let message = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(pair.host_ifname.clone())
        .mtu(pair.mtu)
        .controller(bridge)
        .up()
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    netlink.create_link(message, &pair.host_ifname).await?;
    let link = netlink.link(&pair.host_ifname).await?.ok_or_else(|| Error::missing("interface", &pair.host_ifname))?;
    netlink.set_hairpin(link.index).await?;
    Ok(link.index)
}

/// Inside the pod: loopback, addresses, default routes.
pub(super) async fn configure_inside(ifname: String, ips: Vec<IpNet>, gateways: Vec<IpAddr>) -> Result<()> {
    let netlink = Netlink::open()?;
    let link = netlink.link(&ifname).await?.ok_or_else(|| Error::missing("interface", &ifname))?;
    if ips.iter().any(|ip| ip.addr().is_ipv6()) {
        let conf = Path::new("/proc/sys/net/ipv6/conf").join(&ifname);
        set(conf.join("disable_ipv6"), "0")?;
        set(conf.join("accept_dad"), "0")?;
        set(conf.join("accept_ra"), "0")?;
    }
    if let Some(loopback) = netlink.link("lo").await? {
        netlink.set_up(loopback.index, None).await?;
    }
    netlink.set_up(link.index, None).await?;
    for ip in ips {
        netlink.add_address(link.index, ip).await?;
    }
    for gateway in gateways {
        netlink.add_default_route(link.index, gateway).await?;
    }
    Ok(())
}

/// Inside the pod: is everything still as `configure_inside` left it?
pub(super) async fn check_inside(ifname: String, ips: Vec<IpNet>, gateways: Vec<IpAddr>) -> Result<()> {
    let netlink = Netlink::open()?;
    let link = netlink.link(&ifname).await?.ok_or_else(|| Error::missing("interface", &ifname))?;
    if !link.up {
        return Err(Error::missing("carrier of interface", &ifname));
    }
    let addresses = netlink.addresses(link.index).await?;
    if let Some(ip) = ips.iter().find(|ip| !addresses.contains(ip)) {
        return Err(Error::missing("address", ip.to_string()));
    }
    let routes = netlink.default_routes().await?;
    if let Some(gateway) = gateways.iter().find(|gateway| !routes.contains(&(link.index, Some(**gateway)))) {
        return Err(Error::missing("default route via", gateway.to_string()));
    }
    Ok(())
}
