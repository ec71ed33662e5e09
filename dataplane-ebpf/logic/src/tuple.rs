//! A packet's addresses and ports: what a Service changes of it.

use dataplane_abi::{Address, Be16};

/// Where a packet comes from and goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Source port.
    pub source_port: Be16,
    /// Destination port.
    pub destination_port: Be16,
}

impl<A: Address> Tuple<A> {
    /// The client's packet, on its way to the backend. A pod that is its own backend must not see its own address as
    /// the source, or its answer never leaves it.
    #[must_use]
    #[inline(always)]
    pub fn to_backend(&self, backend: A, port: Be16) -> Self {
        let source = if backend == self.source { A::HAIRPIN } else { self.source };
        Self { source, destination: backend, source_port: self.source_port, destination_port: port }
    }

    /// The backend's packet, on its way to the client as if the frontend had sent it.
    #[must_use]
    #[inline(always)]
    pub fn to_client(&self, frontend: A, port: Be16) -> Self {
        Self {
            source: frontend,
            destination: self.client(),
            source_port: port,
            destination_port: self.destination_port,
        }
    }

    /// The client that a backend's packet is for.
    #[must_use]
    #[inline(always)]
    pub fn client(&self) -> A {
        if self.destination == A::HAIRPIN { self.source } else { self.destination }
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use dataplane_abi::{Address, Be16, Ip4};

    use super::Tuple;

    fn ip(last: u8) -> Ip4 {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    fn request() -> Tuple<Ip4> {
        Tuple { source: ip(1), destination: ip(200), source_port: Be16::new(40_000), destination_port: Be16::new(80) }
    }

    #[test]
    fn a_request_and_its_reply_are_each_other_s_inverse() {
        for backend in [ip(2), ip(1)] {
            let sent = request().to_backend(backend, Be16::new(8080));
            assert_eq!((sent.destination, sent.destination_port), (backend, Be16::new(8080)));
            assert_eq!(sent.source_port, request().source_port);
            assert_ne!(sent.source, sent.destination);
            let answer = Tuple {
                source: sent.destination,
                destination: sent.source,
                source_port: sent.destination_port,
                destination_port: sent.source_port,
            };
            let seen = answer.to_client(request().destination, request().destination_port);
            assert_eq!((seen.source, seen.source_port), (request().destination, request().destination_port));
            assert_eq!((seen.destination, seen.destination_port), (request().source, request().source_port));
        }
        assert_eq!(request().to_backend(ip(1), Be16::new(1)).source, Ip4::HAIRPIN);
    }
}
