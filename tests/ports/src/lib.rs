//! Ports of loopback for processes that bind them by themselves.
//!
//! A port that the kernel chose and that was closed again can be anybody's outgoing port a moment later. These lie
//! below the range that the kernel chooses from (`net.ipv4.ip_local_port_range`, from 32768 on by default).

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 12_000;
const COUNT: u32 = 18_000;
/// Test processes run side by side and have neighbouring ids: each starts this far from the next.
const STRIDE: u32 = 16;

/// A loopback address whose port nobody uses at this moment, for neither protocol.
///
/// # Panics
/// If every port is in use.
#[must_use]
pub fn free() -> SocketAddr {
    static HANDED_OUT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..COUNT {
        let offset = process::id().wrapping_mul(STRIDE).wrapping_add(HANDED_OUT.fetch_add(1, Ordering::Relaxed).into());
        let port = FIRST + u16::try_from(offset % COUNT).expect("the range is one of ports");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
    panic!("every port from {FIRST} on is in use");
}

#[cfg(test)]
mod tests {
    use super::free;

    #[test]
    fn every_caller_gets_a_port_of_its_own() {
        let addresses = [free(), free(), free()];
        assert!(addresses[0] != addresses[1] && addresses[1] != addresses[2] && addresses[0] != addresses[2]);
        assert!(addresses.iter().all(|address| (12_000..30_000).contains(&address.port())));
    }
}
