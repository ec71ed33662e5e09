//! How many connections each client has, so that one cannot take them all.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Of an IPv6 address, what one client gets assigned.
const V6_PREFIX: u128 = !0 << 64;

/// Counts connections by client. An entry lives as long as its client has a connection, so that there are never more
/// entries than connections.
#[derive(Debug)]
pub(super) struct Crowd {
    max: usize,
    connections: Mutex<HashMap<IpAddr, usize>>,
}

/// The place of one connection; dropping it makes room.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Arc<Crowd>,
    client: IpAddr,
}

impl Crowd {
    pub(super) fn new(max: usize) -> Self {
        Self { max, connections: Mutex::default() }
    }

    /// A place for one more connection of a client, if it may have one.
    pub(super) fn admit(self: &Arc<Self>, ip: IpAddr) -> Option<Place> {
        let client = network(ip);
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let count = connections.entry(client).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Place { crowd: Arc::clone(self), client })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut connections = self.crowd.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let count = connections.get_mut(&self.client).map(|count| {
            *count -= 1;
            *count
        });
        if count == Some(0) {
            connections.remove(&self.client);
        }
    }
}

fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & V6_PREFIX).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::Crowd;

    #[test]
    fn a_client_has_so_many_places_and_leaves_nothing_behind() {
        let crowd = Arc::new(Crowd::new(2));
        let admit = |ip: &str| crowd.admit(ip.parse().unwrap());
        let places = [admit("192.0.2.1"), admit("::ffff:192.0.2.1")];
        assert!(places.iter().all(Option::is_some));
        assert!(admit("192.0.2.1").is_none());
        assert!(admit("192.0.2.2").is_some());
        let of_one_network = [admit("2001:db8::1"), admit("2001:db8::2")];
        assert!(admit("2001:db8::3").is_none() && admit("2001:db8:0:1::3").is_some());
        drop((places, of_one_network));
        assert!(crowd.connections.lock().unwrap().is_empty());
    }
}
