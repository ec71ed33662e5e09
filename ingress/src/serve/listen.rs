//! Listening sockets: handed in by the parent, or bound here.

use std::io;
use std::net::{SocketAddr, TcpListener};

use anyhow::Context;
use daemon::sockets::Inherited;
use socket2::{Domain, Protocol, Socket, Type};

const BACKLOG: i32 = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(crate) const ALL: [Self; 2] = [Self::Http, Self::Https];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The listening sockets of the gateway.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) sockets: Vec<(Scheme, TcpListener)>,
    /// Whether somebody else holds the sockets too: then connections that wait in them are not lost with us.
    pub(crate) inherited: bool,
}

impl Listeners {
    /// Takes the sockets named `http` and `https`; if none of either is handed in, binds these addresses.
    pub(crate) fn open(mut inherited: Inherited, http: &[SocketAddr], https: &[SocketAddr]) -> anyhow::Result<Self> {
        let mut sockets = Vec::new();
        for scheme in Scheme::ALL {
            let taken = inherited.take(scheme.as_str()).context("cannot use an inherited socket")?;
            sockets.extend(taken.into_iter().map(|socket| (scheme, socket)));
        }
        if !sockets.is_empty() {
            return Ok(Self { sockets, inherited: true });
        }
        for (scheme, addresses) in [(Scheme::Http, http), (Scheme::Https, https)] {
            for address in addresses {
                let socket = bind(*address).with_context(|| format!("cannot listen on {address}"))?;
                sockets.push((scheme, socket));
            }
        }
        Ok(Self { sockets, inherited: false })
    }

    pub(crate) fn addresses(&self) -> io::Result<Vec<(Scheme, SocketAddr)>> {
        self.sockets.iter().map(|(scheme, socket)| Ok((*scheme, socket.local_addr()?))).collect()
    }

    /// A second handle to the same sockets, for another thread.
    pub(crate) fn share(&self) -> io::Result<Vec<(Scheme, TcpListener)>> {
        self.sockets.iter().map(|(scheme, socket)| Ok((*scheme, socket.try_clone()?))).collect()
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
