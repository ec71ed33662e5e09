//! Naming a peer again: from the backend that the kernel knows to the frontend that the program dialled.
//!
//! Addresses are IPv6 with IPv4 as mapped, so that a dual-stack socket needs no second path.

use dataplane_abi::socket::{Reverse, SocketPeer};
use dataplane_abi::{Be16, Ip6};

/// The name that a program should see instead of this peer, if the socket dialled a frontend and this is its backend.
///
/// The comparison matters: a socket may have dialled elsewhere since, and a datagram may come from anyone.
#[must_use]
#[inline(always)]
pub fn connected(stored: &SocketPeer, address: Ip6, port: Be16) -> Option<(Ip6, Be16)> {
    (stored.backend == address && stored.backend_port == port).then_some((stored.frontend, stored.frontend_port))
}

/// The name of the frontend that an unconnected socket sent to.
#[must_use]
#[inline(always)]
pub const fn unconnected(stored: &Reverse) -> (Ip6, Be16) {
    (stored.frontend, stored.frontend_port)
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use dataplane_abi::socket::SocketPeer;
    use dataplane_abi::{Address, Be16, Ip4, Ip6};

    use super::connected;

    fn mapped(last: u8) -> Ip6 {
        Ip4::from(Ipv4Addr::new(10, 0, 0, last)).to_ip6()
    }

    #[test]
    fn only_the_backend_of_this_socket_is_renamed() {
        let stored = SocketPeer {
            frontend: mapped(1),
            frontend_port: Be16::new(80),
            backend: mapped(2),
            backend_port: Be16::new(8080),
            ..SocketPeer::default()
        };
        assert_eq!(connected(&stored, mapped(2), Be16::new(8080)), Some((mapped(1), Be16::new(80))));
        assert_eq!(connected(&stored, mapped(2), Be16::new(8081)), None);
        assert_eq!(connected(&stored, mapped(3), Be16::new(8080)), None);
        assert_eq!(connected(&stored, mapped(1), Be16::new(80)), None);
    }
}
