//! Upstreams: a port of a Service and the endpoints behind it now.
//!
//! An upstream outlives snapshots: rules hold its `Arc`, the control side swaps the endpoints inside it. A request that
//! picks after a swap cannot get an endpoint that the swap removed.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;

use crate::model::{ObjectKey, Port};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct UpstreamKey {
    pub(crate) service: ObjectKey,
    pub(crate) port: Port,
}

impl fmt::Display for UpstreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.port {
            Port::Number(number) => write!(f, "{}:{number}", self.service),
            Port::Name(name) => write!(f, "{}:{name}", self.service),
        }
    }
}

/// Why an upstream cannot take a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unavailable {
    /// The Ingress names something else than a port of a Service.
    UnsupportedBackend,
    ServiceMissing,
    PortMissing,
    NoEndpoints,
    /// Every endpoint has been tried by this request.
    Exhausted,
}

impl Unavailable {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::UnsupportedBackend => "unsupported_backend",
            Self::ServiceMissing => "service_missing",
            Self::PortMissing => "service_port_missing",
            Self::NoEndpoints => "no_endpoints",
            Self::Exhausted => "endpoints_exhausted",
        }
    }
}

/// What is behind an upstream at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoints(Result<Box<[SocketAddr]>, Unavailable>);

impl Endpoints {
    pub(crate) fn missing(why: Unavailable) -> Self {
        Self(Err(why))
    }

    /// Sorted and without duplicates, so that equal sets are equal.
    pub(crate) fn from_addresses(mut addresses: Vec<SocketAddr>) -> Self {
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.is_empty() { Self(Err(Unavailable::NoEndpoints)) } else { Self(Ok(addresses.into())) }
    }

    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        self.0.as_deref().unwrap_or_default()
    }
}

#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) key: UpstreamKey,
    endpoints: ArcSwap<Endpoints>,
    turn: AtomicUsize,
}

impl Upstream {
    /// `turn` is where the round robin begins: gateways that start together should not all begin at one endpoint.
    pub(crate) fn new(key: UpstreamKey, endpoints: Endpoints, turn: usize) -> Self {
        Self { key, endpoints: ArcSwap::from_pointee(endpoints), turn: AtomicUsize::new(turn) }
    }

    /// Makes these the endpoints; returns whether they were others before.
    pub(crate) fn set(&self, endpoints: Endpoints) -> bool {
        let changed = **self.endpoints.load() != endpoints;
        if changed {
            self.endpoints.store(Arc::new(endpoints));
        }
        changed
    }

    pub(crate) fn endpoints(&self) -> Arc<Endpoints> {
        self.endpoints.load_full()
    }

    pub(crate) fn check(&self) -> Result<(), Unavailable> {
        self.endpoints.load().0.as_ref().map(|_| ()).map_err(|why| *why)
    }

    /// The next endpoint in turn that is not among those already tried.
    pub(crate) fn pick(&self, tried: &[SocketAddr]) -> Result<SocketAddr, Unavailable> {
        let endpoints = self.endpoints.load();
        let addresses = endpoints.0.as_ref().map_err(|why| *why)?;
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        (0..addresses.len())
            .map(|step| addresses[first.wrapping_add(step) % addresses.len()])
            .find(|address| !tried.contains(address))
            .ok_or(Unavailable::Exhausted)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::SocketAddr;

    use super::{Endpoints, Unavailable, Upstream, UpstreamKey};
    use crate::model::{ObjectKey, Port};

    fn upstream(ports: &[u16]) -> Upstream {
        let key = UpstreamKey { service: ObjectKey::new("ns", "s"), port: Port::Number(80) };
        Upstream::new(key, endpoints(ports), 0)
    }

    fn endpoints(ports: &[u16]) -> Endpoints {
        Endpoints::from_addresses(ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect())
    }

    #[test]
    fn turns_are_even() {
        let upstream = upstream(&[1, 2, 3]);
        let mut counts = HashMap::new();
        for _ in 0..300 {
            *counts.entry(upstream.pick(&[]).unwrap().port()).or_insert(0) += 1;
        }
        assert_eq!(counts, HashMap::from([(1, 100), (2, 100), (3, 100)]));
    }

    #[test]
    fn a_tried_endpoint_is_not_picked_again() {
        let upstream = upstream(&[1, 2]);
        let first = upstream.pick(&[]).unwrap();
        let second = upstream.pick(&[first]).unwrap();
        assert_ne!(first, second);
        assert_eq!(upstream.pick(&[first, second]), Err(Unavailable::Exhausted));
    }

    #[test]
    fn a_removed_endpoint_is_never_picked() {
        let upstream = upstream(&[1, 2, 3]);
        assert!(upstream.set(endpoints(&[3, 1])));
        assert!(!upstream.set(endpoints(&[1, 3])), "order is no change");
        assert!((0..100).all(|_| upstream.pick(&[]).unwrap().port() != 2));
        upstream.set(endpoints(&[]));
        assert_eq!(upstream.pick(&[]), Err(Unavailable::NoEndpoints));
    }
}
