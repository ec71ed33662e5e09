//! Sockets: those handed in under the name `dns`, or our own.

mod tcp;
mod udp;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use daemon::sockets::Inherited;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::responder::Responder;

const NAME: &str = "dns";
const BACKLOG: i32 = 1024;

#[derive(Debug)]
pub(crate) struct Sockets {
    udp: Vec<std::net::UdpSocket>,
    tcp: Vec<std::net::TcpListener>,
}

impl Sockets {
    /// Inherited sockets win.
    pub(crate) fn open(inherited: &mut Inherited, addresses: &[SocketAddr]) -> anyhow::Result<Self> {
        let udp = inherited.take_udp(NAME).context("cannot take inherited datagram sockets")?;
        let tcp = inherited.take(NAME).context("cannot take inherited listeners")?;
        if !udp.is_empty() || !tcp.is_empty() {
            return Ok(Self { udp, tcp });
        }
        let mut sockets = Self { udp: Vec::new(), tcp: Vec::new() };
        for address in addresses {
            let only_v6 = addresses.contains(&SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()));
            sockets.bind(*address, only_v6).with_context(|| format!("cannot listen on {address}"))?;
        }
        Ok(sockets)
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let udp = self.udp.iter().filter_map(|socket| socket.local_addr().ok());
        udp.chain(self.tcp.iter().filter_map(|socket| socket.local_addr().ok())).collect()
    }

    fn bind(&mut self, address: SocketAddr, only_v6: bool) -> io::Result<()> {
        let result = bind(address, only_v6);
        let (udp, tcp) = match result {
            // A kernel without IPv6 still serves IPv4 when told to serve every address.
            Err(error) if is_any_v6(address) && error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) => {
                bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()), false)?
            }
            result => result?,
        };
        self.udp.push(udp.into());
        self.tcp.push(tcp.into());
        Ok(())
    }
}

fn is_any_v6(address: SocketAddr) -> bool {
    matches!(address.ip(), IpAddr::V6(ip) if ip.is_unspecified())
}

fn bind(address: SocketAddr, only_v6: bool) -> io::Result<(Socket, Socket)> {
    let open = |kind, protocol, address: SocketAddr| {
        let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
        if address.is_ipv6() {
            socket.set_only_v6(only_v6)?;
        }
        socket.set_nonblocking(true)?;
        if kind == Type::STREAM {
            socket.set_reuse_address(true)?;
        }
        socket.bind(&address.into())?;
        io::Result::Ok(socket)
    };
    let udp = open(Type::DGRAM, Protocol::UDP, address)?;
    // Port 0 is for tests: both get the same one.
    let port = udp.local_addr()?.as_socket().map_or(address.port(), |bound| bound.port());
    let tcp = open(Type::STREAM, Protocol::TCP, SocketAddr::new(address.ip(), port))?;
    tcp.listen(BACKLOG)?;
    Ok((udp, tcp))
}

/// Serves all sockets until the token is cancelled.
///
/// # Errors
/// If a socket cannot be used.
pub(crate) async fn run(
    sockets: Sockets,
    responder: Arc<Responder>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    for socket in sockets.udp {
        let socket = Arc::new(udp::Socket::new(socket).context("cannot use a datagram socket")?);
        for _ in 0..threads {
            tasks.spawn(udp::serve(Arc::clone(&socket), Arc::clone(&responder)));
        }
    }
    for listener in sockets.tcp {
        let listener = tokio::net::TcpListener::from_std(listener).context("cannot use a listener")?;
        tasks.spawn(tcp::serve(listener, Arc::clone(&responder)));
    }
    tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        ended = tasks.join_next() => match ended {
            Some(Ok(never)) => match never {},
            Some(Err(error)) => Err(error).context("a serving task panicked"),
            None => anyhow::bail!("no sockets to serve"),
        },
    }
}
