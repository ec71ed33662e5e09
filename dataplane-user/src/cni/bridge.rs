//! The pod bridge: the pods' visible gateway, like docker0.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use rtnetlink::LinkBridge;
use sha2::{Digest, Sha256};

use super::netlink::Netlink;
use super::{Error, Result};

/// Makes the bridge, or completes one that a previous start left.
pub(super) async fn ensure(netlink: &Netlink, name: &str, gateways: &[IpNet], mtu: u32) -> Result<()> {
    if netlink.link(name).await?.is_none() {
        let message = LinkBridge::new(name).address(mac(name, gateways)).mtu(mtu).mcast_snooping(false).build();
        let created = netlink.create_link(message, name).await;
        // Another caller may have been faster.
        if netlink.link(name).await?.is_none() {
            created?;
        }
    }
    let link = netlink.link(name).await?.ok_or_else(|| Error::missing("bridge", name))?;
    if gateways.iter().any(|gateway| gateway.addr().is_ipv6()) {
        set(Path::new("/proc/sys/net/ipv6/conf").join(name).join("disable_ipv6"), "0")?;
        set(Path::new("/proc/sys/net/ipv6/conf").join(name).join("accept_dad"), "0")?;
    }
    netlink.set_up(link.index, Some(mtu)).await?;
    for gateway in gateways {
        netlink.add_address(link.index, *gateway).await?;
    }
    Ok(())
}

/// Turns on forwarding between interfaces, in this network namespace only.
pub(super) fn enable_forwarding(ipv6: bool) -> Result<()> {
    set("/proc/sys/net/ipv4/ip_forward", "1")?;
    if ipv6 {
        keep_accepting_router_advertisements()?;
        set("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

/// A forwarding host ignores router advertisements unless told otherwise: without this a node that learns its own
/// default route from one would lose it.
fn keep_accepting_router_advertisements() -> Result<()> {
    let conf = Path::new("/proc/sys/net/ipv6/conf");
    let entries = fs::read_dir(conf).map_err(|source| Error::Sysctl { path: conf.to_owned(), source })?;
    for entry in entries.flatten() {
        let path = entry.path().join("accept_ra");
        if fs::read_to_string(&path).is_ok_and(|value| value.trim() == "1") {
            set(path, "2")?;
        }
    }
    Ok(())
}

/// Writes a sysctl unless it has the value already, so that a read-only `/proc/sys` with the right values is enough.
pub(super) fn set(path: impl Into<PathBuf>, value: &str) -> Result<()> {
    let path = path.into();
    let change = |path: &Path| -> io::Result<()> {
        if fs::read_to_string(path)?.trim() != value {
            fs::write(path, value)?;
        }
        Ok(())
    };
    change(&path).map_err(|source| Error::Sysctl { path, source })
}

/// A fixed MAC: a bridge without one takes the lowest of its ports, and pods would lose their gateway's neighbour
/// entry whenever a port comes or goes.
fn mac(name: &str, gateways: &[IpNet]) -> Vec<u8> {
    let hash = Sha256::digest(format!("{name}/{gateways:?}").as_bytes());
    vec![0x02, hash[0], hash[1], hash[2], hash[3], hash[4]]
}
