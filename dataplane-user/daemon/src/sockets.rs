//! Listening sockets handed in by the parent, by the `LISTEN_FDS`/`LISTEN_FDNAMES` convention of `sd_listen_fds(3)`.
//!
//! A socket keeps the network namespace that it was made in, so a supervisor in the host's namespace can give a
//! sandboxed process a port of the host's loopback. `LISTEN_PID` is not required: our supervisor cannot know it
//! before the exec.

use std::collections::HashMap;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, bail};
use nix::sys::socket::{SockType, getsockopt, sockopt};

const FIRST_FD: RawFd = 3;

/// Sockets by the name their parent gave them; several may share one name.
#[derive(Debug, Default)]
pub struct Inherited {
    by_name: HashMap<String, Vec<OwnedFd>>,
}

impl Inherited {
    /// Takes the inherited sockets from the environment. Only the first call in a process gets them.
    ///
    /// # Errors
    /// If `LISTEN_FDS` is not a number, or `LISTEN_FDNAMES` names another count.
    pub fn from_env() -> anyhow::Result<Self> {
        static TAKEN: std::sync::Once = std::sync::Once::new();
        let mut sockets = Ok(Self::default());
        TAKEN.call_once(|| {
            let count = std::env::var("LISTEN_FDS").ok();
            let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
            sockets = count.map_or_else(|| Ok(Self::default()), |count| Self::parse(&count, &names));
        });
        sockets
    }

    fn parse(count: &str, names: &str) -> anyhow::Result<Self> {
        let count: RawFd = count.parse().with_context(|| format!("LISTEN_FDS is not a number: {count:?}"))?;
        let names: Vec<&str> =
            if names.is_empty() { vec!["unknown"; count as usize] } else { names.split(':').collect() };
        if names.len() != count as usize {
            bail!("LISTEN_FDNAMES holds {} names for LISTEN_FDS={count}", names.len());
        }
        let mut by_name: HashMap<String, Vec<OwnedFd>> = HashMap::new();
        for (fd, name) in (FIRST_FD..FIRST_FD + count).zip(names) {
            nix::fcntl::fcntl(
                // SAFETY: the parent passed this descriptor open; it is borrowed for one call.
                unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) },
                nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC),
            )
            .with_context(|| format!("inherited socket {name:?} (descriptor {fd}) is not open"))?;
            // SAFETY: the descriptor is open (checked above) and the `Once` makes this its only owner.
            by_name.entry(name.to_owned()).or_default().push(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        Ok(Self { by_name })
    }

    /// Takes the datagram sockets with this name, non-blocking and ready for tokio, and leaves its listeners.
    ///
    /// # Errors
    /// If a descriptor is not a socket, or cannot be made non-blocking.
    pub fn take_udp(&mut self, name: &str) -> std::io::Result<Vec<UdpSocket>> {
        let mut datagram = Vec::new();
        let mut others = Vec::new();
        for fd in self.by_name.remove(name).unwrap_or_default() {
            if getsockopt(&fd, sockopt::SockType)? == SockType::Datagram {
                let socket = UdpSocket::from(fd);
                socket.set_nonblocking(true)?;
                datagram.push(socket);
            } else {
                others.push(fd);
            }
        }
        if !others.is_empty() {
            self.by_name.insert(name.to_owned(), others);
        }
        Ok(datagram)
    }

    /// Takes the listeners with this name, non-blocking and ready for tokio.
    ///
    /// # Errors
    /// If a socket cannot be made non-blocking.
    pub fn take(&mut self, name: &str) -> std::io::Result<Vec<TcpListener>> {
        self.by_name
            .remove(name)
            .unwrap_or_default()
            .into_iter()
            .map(|fd| {
                let listener = TcpListener::from(fd);
                listener.set_nonblocking(true)?;
                Ok(listener)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::OwnedFd;

    use super::Inherited;

    #[test]
    fn sockets_of_one_name_are_told_apart_by_their_kind() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (tcp_address, udp_address) = (tcp.local_addr().unwrap(), udp.local_addr().unwrap());
        let sockets = vec![OwnedFd::from(tcp), OwnedFd::from(udp)];
        let mut inherited = Inherited { by_name: [("dns".to_owned(), sockets)].into() };
        let datagram = inherited.take_udp("dns").unwrap();
        assert_eq!(datagram.iter().map(|s| s.local_addr().unwrap()).collect::<Vec<_>>(), [udp_address]);
        let listeners = inherited.take("dns").unwrap();
        assert_eq!(listeners.iter().map(|s| s.local_addr().unwrap()).collect::<Vec<_>>(), [tcp_address]);
        assert!(inherited.take_udp("dns").unwrap().is_empty());
    }

    #[test]
    fn names_must_match_the_count() {
        assert!(Inherited::parse("2", "api").is_err());
        assert!(Inherited::parse("x", "").is_err());
        assert!(Inherited::parse("0", "").is_ok());
    }
}
