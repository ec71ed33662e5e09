//! Datagrams. What is known is answered on the spot; what has to be asked for gets a task of its own.
//!
//! A response leaves from the address that the question came to, also where the socket listens on every address:
//! clients and the kernel's connection tracking take no other.

use std::convert::Infallible;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use nix::libc::{in_pktinfo, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg, sendmsg,
    setsockopt, sockopt,
};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::message::Transport;
use crate::responder::{Responder, Step};

/// Questions are short; a longer one is cut and so refused.
const QUESTION_LEN_MAX: usize = 4096;
/// A pause after an error, so that a lasting one does not take a core.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// A socket that remembers where questions came to.
pub(super) struct Socket {
    socket: UdpSocket,
}

/// Where a question came from, and where to.
struct Route {
    from: SocketAddr,
    to: Option<To>,
}

#[derive(Clone, Copy)]
enum To {
    V4(in_pktinfo),
    V6(in6_pktinfo),
}

pub(super) async fn serve(socket: Arc<Socket>, responder: Arc<Responder>) -> Infallible {
    let mut buffer = [0; QUESTION_LEN_MAX];
    loop {
        let (len, route) = match socket.receive(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "cannot receive");
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        // No service answers from port 0, and what is sent there can only be an attempt at a loop.
        if route.from.port() == 0 {
            continue;
        }
        match responder.begin(&buffer[..len], Transport::Udp) {
            Step::Done(None) => {}
            Step::Done(Some(bytes)) => socket.send(&bytes, &route).await,
            Step::Wait(pending) => {
                let (socket, responder) = (Arc::clone(&socket), Arc::clone(&responder));
                // As many wait as there are clients with patience: the forwarder refuses those that are too many.
                tokio::spawn(async move {
                    let bytes = responder.finish(*pending).await;
                    socket.send(&bytes, &route).await;
                });
            }
        }
    }
}

impl Socket {
    pub(super) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        if socket.local_addr()?.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        }
        Ok(Self { socket: UdpSocket::from_std(socket)? })
    }

    async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Route)> {
        let mut control = nix::cmsg_space!(in6_pktinfo, in_pktinfo);
        self.socket
            .async_io(Interest::READABLE, || {
                let mut parts = [IoSliceMut::new(buffer)];
                let fd = self.socket.as_raw_fd();
                let message = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), MsgFlags::empty())?;
                let from = message.address.as_ref().and_then(address).ok_or(io::ErrorKind::InvalidData)?;
                let to = message.cmsgs()?.find_map(|control| match control {
                    ControlMessageOwned::Ipv4PacketInfo(info) => Some(To::V4(info)),
                    ControlMessageOwned::Ipv6PacketInfo(info) => Some(To::V6(info)),
                    _ => None,
                });
                Ok((message.bytes, Route { from, to }))
            })
            .await
    }

    async fn send(&self, bytes: &[u8], route: &Route) {
        let result = self.socket.async_io(Interest::WRITABLE, || self.try_send(bytes, route)).await;
        if let Err(error) = result {
            tracing::debug!(client = %route.from, %error, "cannot send response");
        }
    }

    fn try_send(&self, bytes: &[u8], route: &Route) -> io::Result<()> {
        let (parts, to) = ([IoSlice::new(bytes)], SockaddrStorage::from(route.from));
        let fd = self.socket.as_raw_fd();
        let send = |control: &[ControlMessage<'_>]| sendmsg(fd, &parts, control, MsgFlags::empty(), Some(&to));
        match route.to {
            None => send(&[]),
            Some(To::V4(info)) => {
                // The routes choose the interface.
                let source = in_pktinfo { ipi_ifindex: 0, ..info };
                send(&[ControlMessage::Ipv4PacketInfo(&source)])
            }
            Some(To::V6(info)) => {
                let is_link_local = info.ipi6_addr.s6_addr[0] == 0xfe && info.ipi6_addr.s6_addr[1] & 0xc0 == 0x80;
                let interface = if is_link_local { info.ipi6_ifindex } else { 0 };
                let source = in6_pktinfo { ipi6_ifindex: interface, ..info };
                send(&[ControlMessage::Ipv6PacketInfo(&source)])
            }
        }?;
        Ok(())
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = |address: &SockaddrIn| SocketAddr::new(IpAddr::V4(address.ip()), address.port());
    let v6 = |address: &SockaddrIn6| SocketAddr::V6((*address).into());
    storage.as_sockaddr_in().map(v4).or_else(|| storage.as_sockaddr_in6().map(v6))
}
