//! The few rtnetlink requests that pod networking needs, each repeatable.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::{Handle, LinkBridgePort, LinkUnspec, RouteMessageBuilder};

use super::{Error, Result};

/// What is known of an interface.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) mtu: Option<u32>,
    pub(super) controller: Option<u32>,
    pub(super) up: bool,
    pub(super) mac: [u8; 6],
}

/// A netlink socket in the network namespace of the thread that opened it.
pub(super) struct Netlink {
    handle: Handle,
    connection: tokio::task::JoinHandle<()>,
}

impl Netlink {
    pub(super) fn open() -> Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::OpenNetlink)?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    pub(super) async fn link(&self, name: &str) -> Result<Option<Link>> {
        let answer = self.handle.link().get().match_name(name.to_owned()).execute().try_next().await;
        match answer {
            Ok(message) => Ok(message.map(|message| parse_link(&message))),
            Err(error) if is(&error, nix::errno::Errno::ENODEV) => Ok(None),
            Err(source) => Err(Error::Netlink { action: format!("look up interface {name}"), source }),
        }
    }

    pub(super) async fn create_link(&self, message: LinkMessage, name: &str) -> Result<()> {
        let answer = self.handle.link().add(message).execute().await;
        answer.map_err(|source| Error::Netlink { action: format!("create interface {name}"), source })
    }

    pub(super) async fn delete_link(&self, name: &str) -> Result<()> {
        let Some(link) = self.link(name).await? else { return Ok(()) };
        match self.handle.link().del(link.index).execute().await {
            Err(error) if !is(&error, nix::errno::Errno::ENODEV) => {
                Err(Error::Netlink { action: format!("delete interface {name}"), source: error })
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn set_up(&self, index: u32, mtu: Option<u32>) -> Result<()> {
        let mut message = LinkUnspec::new_with_index(index).up();
        if let Some(mtu) = mtu {
            message = message.mtu(mtu);
        }
        let answer = self.handle.link().change(message.build()).execute().await;
        answer.map_err(|source| Error::Netlink { action: format!("set interface {index} up"), source })
    }

    /// Lets a pod reach itself through its own Service: frames may leave by the port they came in.
    pub(super) async fn set_hairpin(&self, index: u32) -> Result<()> {
        let message = LinkBridgePort::new(index).hairpin(true).build();
        let answer = self.handle.link().set_port(message).execute().await;
        answer.map_err(|source| Error::Netlink { action: format!("set hairpin on port {index}"), source })
    }

    /// Adds an address without duplicate address detection: addresses come from our own allocation.
    pub(super) async fn add_address(&self, index: u32, address: IpNet) -> Result<()> {
        let mut request = self.handle.address().add(index, address.addr(), address.prefix_len()).replace();
        if address.addr().is_ipv6() {
            let message = request.message_mut();
            message.header.flags |= AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let answer = request.execute().await;
        answer.map_err(|source| Error::Netlink { action: format!("add address {address}"), source })
    }

    pub(super) async fn addresses(&self, index: u32) -> Result<Vec<IpNet>> {
        let request = self.handle.address().get().set_link_index_filter(index).execute();
        let messages: Vec<_> = request
            .try_collect()
            .await
            .map_err(|source| Error::Netlink { action: format!("list addresses of interface {index}"), source })?;
        let parse = |message: &netlink_packet_route::address::AddressMessage| {
            message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => IpNet::new(*address, message.header.prefix_len).ok(),
                _ => None,
            })
        };
        Ok(messages.iter().filter_map(parse).collect())
    }

    pub(super) async fn add_default_route(&self, index: u32, gateway: IpAddr) -> Result<()> {
        let message = match gateway {
            IpAddr::V4(gateway) => {
                RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).output_interface(index).build()
            }
            IpAddr::V6(gateway) => {
                RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).output_interface(index).build()
            }
        };
        let answer = self.handle.route().add(message).replace().execute().await;
        answer.map_err(|source| Error::Netlink { action: format!("add the default route via {gateway}"), source })
    }

    /// The default routes as (interface index, gateway).
    pub(super) async fn default_routes(&self) -> Result<Vec<(u32, Option<IpAddr>)>> {
        let mut found = Vec::new();
        for request in [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()]
        {
            let routes: Vec<RouteMessage> = self
                .handle
                .route()
                .get(request)
                .execute()
                .try_collect()
                .await
                .map_err(|source| Error::Netlink { action: "list routes".to_owned(), source })?;
            found.extend(routes.iter().filter(|route| is_main_default(route)).filter_map(parse_default));
        }
        Ok(found)
    }

    /// MTU of the interface that holds the default route, if there is one.
    pub(super) async fn uplink_mtu(&self) -> Result<Option<u32>> {
        let mut smallest: Option<u32> = None;
        for (index, _) in self.default_routes().await? {
            let request = self.handle.link().get().match_index(index).execute().try_next().await;
            let message =
                request.map_err(|source| Error::Netlink { action: format!("look up interface {index}"), source })?;
            let mtu = message.and_then(|message| parse_link(&message).mtu);
            smallest = smallest.into_iter().chain(mtu).min();
        }
        Ok(smallest)
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn parse_link(message: &LinkMessage) -> Link {
    let up = message.header.flags.contains(LinkFlags::Up);
    let mut link = Link { index: message.header.index, mtu: None, controller: None, up, mac: [0; 6] };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => link.mtu = Some(*mtu),
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            // Other lengths are other link layers' addresses.
            LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().unwrap_or_default(),
            _ => {}
        }
    }
    link
}

fn is_main_default(route: &RouteMessage) -> bool {
    route.header.destination_prefix_length == 0 && route.header.kind == netlink_packet_route::route::RouteType::Unicast
}

fn parse_default(route: &RouteMessage) -> Option<(u32, Option<IpAddr>)> {
    let mut gateway = None;
    let mut index = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(oif) => index = Some(*oif),
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => gateway = Some(IpAddr::V4(*address)),
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) => gateway = Some(IpAddr::V6(*address)),
            _ => {}
        }
    }
    Some((index?, gateway))
}

fn is(error: &rtnetlink::Error, errno: nix::errno::Errno) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -(errno as i32))
}
