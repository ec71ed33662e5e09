//! Upstreams: a port of a Service and the endpoints behind it now.
//!
//! An upstream outlives snapshots: rules hold its `Arc`, the control side swaps the endpoints inside it. A request that
//! picks after a swap cannot get an endpoint that the swap removed.

mod budget;
mod endpoint;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;

use self::budget::RetryBudget;
pub(crate) use self::endpoint::{Endpoint, EndpointPool, Health};
use crate::model::{HealthCheck, ObjectKey, Port};

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
    /// The Service is an external name, and the operator has not allowed those.
    ExternalNameForbidden,
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
            Self::ExternalNameForbidden => "external_name_forbidden",
            Self::Exhausted => "endpoints_exhausted",
        }
    }
}

/// What is behind an upstream at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Endpoints {
    members: Result<Box<[Arc<Endpoint>]>, Unavailable>,
    /// How they are checked, if they are.
    pub(crate) check: Option<Arc<HealthCheck>>,
    /// Whether all of them are on their way out, and serve because nobody else does.
    pub(crate) are_leaving: bool,
}

impl PartialEq for Endpoints {
    /// Endpoints are equal if their addresses are: the pool has one endpoint of an address.
    fn eq(&self, other: &Self) -> bool {
        let same_members = match (&self.members, &other.members) {
            (Ok(a), Ok(b)) => a.iter().map(|e| e.address).eq(b.iter().map(|e| e.address)),
            (Err(a), Err(b)) => a == b,
            _ => false,
        };
        same_members && self.check == other.check && self.are_leaving == other.are_leaving
    }
}

impl Endpoints {
    pub(crate) fn missing(why: Unavailable) -> Self {
        Self { members: Err(why), check: None, are_leaving: false }
    }

    /// Sorted and without duplicates, so that equal sets are equal.
    pub(crate) fn new(
        mut addresses: Vec<SocketAddr>,
        check: Option<Arc<HealthCheck>>,
        pool: &mut EndpointPool,
    ) -> Self {
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.is_empty() {
            return Self::missing(Unavailable::NoEndpoints);
        }
        let members = addresses.into_iter().map(|address| pool.get(address)).collect();
        Self { members: Ok(members), check, are_leaving: false }
    }

    pub(crate) fn leaving(self) -> Self {
        Self { are_leaving: true, ..self }
    }

    pub(crate) fn members(&self) -> &[Arc<Endpoint>] {
        self.members.as_deref().unwrap_or_default()
    }

    pub(crate) fn addresses(&self) -> impl ExactSizeIterator<Item = SocketAddr> {
        self.members().iter().map(|endpoint| endpoint.address)
    }

    pub(crate) fn availability(&self) -> Result<(), Unavailable> {
        self.members.as_ref().map(|_| ()).map_err(|why| *why)
    }

    /// Whether so many endpoints seem broken that the fault is more likely elsewhere: then nobody's health is believed,
    /// rather than to lay all load on the rest.
    pub(crate) fn is_panicking(&self, now: Instant) -> bool {
        let available = self.members().iter().filter(|endpoint| self.is_available(endpoint, now)).count();
        available * 2 < self.members().len()
    }

    fn is_available(&self, endpoint: &Endpoint, now: Instant) -> bool {
        endpoint.is_available(self.check.is_some(), now)
    }

    /// The next available endpoint from `first` on that is not among those already tried; if there is none, one that is
    /// not available.
    fn pick(&self, first: usize, tried: &[SocketAddr], now: Instant) -> Result<&Arc<Endpoint>, Unavailable> {
        let members = self.members.as_ref().map_err(|why| *why)?;
        let in_turn = || {
            (0..members.len())
                .map(|step| &members[first.wrapping_add(step) % members.len()])
                .filter(|endpoint| !tried.contains(&endpoint.address))
        };
        let next = in_turn().next().ok_or(Unavailable::Exhausted)?;
        if self.is_available(next, now) || self.is_panicking(now) {
            return Ok(next);
        }
        Ok(in_turn().find(|endpoint| self.is_available(endpoint, now)).unwrap_or(next))
    }
}

#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) key: UpstreamKey,
    pub(crate) budget: RetryBudget,
    endpoints: ArcSwap<Endpoints>,
    turn: AtomicUsize,
}

impl Upstream {
    /// `turn` is where the round robin begins: gateways that start together should not all begin at one endpoint.
    pub(crate) fn new(key: UpstreamKey, endpoints: Endpoints, turn: usize) -> Self {
        Self {
            key,
            budget: RetryBudget::new(Instant::now()),
            endpoints: ArcSwap::from_pointee(endpoints),
            turn: AtomicUsize::new(turn),
        }
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
        self.endpoints.load().availability()
    }

    /// The next endpoint in turn that is not among those already tried; available ones first.
    pub(crate) fn pick(&self, tried: &[SocketAddr], now: Instant) -> Result<Arc<Endpoint>, Unavailable> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        self.endpoints.load().pick(first, tried, now).cloned()
    }

    /// Whether there is an endpoint that is not among those already tried.
    pub(crate) fn has_other(&self, tried: &[SocketAddr]) -> bool {
        self.endpoints.load().addresses().any(|address| !tried.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::SocketAddr;
    use std::time::Instant;

    use super::{EndpointPool, Endpoints, Unavailable, Upstream, UpstreamKey};
    use crate::model::{ObjectKey, Port};

    fn upstream(ports: &[u16]) -> Upstream {
        let key = UpstreamKey { service: ObjectKey::new("ns", "s"), port: Port::Number(80) };
        Upstream::new(key, endpoints(ports), 0)
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn endpoints(ports: &[u16]) -> Endpoints {
        Endpoints::new(ports.iter().map(|port| address(*port)).collect(), None, &mut EndpointPool::default())
    }

    fn picks(upstream: &Upstream, tried: &[SocketAddr], now: Instant) -> HashMap<u16, usize> {
        let mut counts = HashMap::new();
        for _ in 0..300 {
            *counts.entry(upstream.pick(tried, now).unwrap().address.port()).or_insert(0) += 1;
        }
        counts
    }

    fn eject(upstream: &Upstream, port: u16, now: Instant) {
        let endpoints = upstream.endpoints();
        let endpoint = endpoints.members().iter().find(|endpoint| endpoint.address.port() == port).unwrap();
        while endpoint.failed(now).is_none() {}
    }

    #[test]
    fn turns_are_even() {
        let counts = picks(&upstream(&[1, 2, 3]), &[], Instant::now());
        assert_eq!(counts, HashMap::from([(1, 100), (2, 100), (3, 100)]));
    }

    #[test]
    fn a_tried_endpoint_is_not_picked_again() {
        let (upstream, now) = (upstream(&[1, 2]), Instant::now());
        let first = upstream.pick(&[], now).unwrap().address;
        let second = upstream.pick(&[first], now).unwrap().address;
        assert_ne!(first, second);
        assert!(upstream.has_other(&[first]) && !upstream.has_other(&[first, second]));
        assert_eq!(upstream.pick(&[first, second], now).unwrap_err(), Unavailable::Exhausted);
    }

    #[test]
    fn a_removed_endpoint_is_never_picked() {
        let (upstream, now) = (upstream(&[1, 2, 3]), Instant::now());
        assert!(upstream.set(endpoints(&[3, 1])));
        assert!(!upstream.set(endpoints(&[1, 3])), "order is no change");
        assert!(!picks(&upstream, &[], now).contains_key(&2));
        upstream.set(endpoints(&[]));
        assert_eq!(upstream.pick(&[], now).unwrap_err(), Unavailable::NoEndpoints);
    }

    #[test]
    fn an_ejected_endpoint_is_the_last_resort() {
        let (upstream, now) = (upstream(&[1, 2, 3]), Instant::now());
        eject(&upstream, 2, now);
        let counts = picks(&upstream, &[], now);
        assert_eq!((counts.get(&2), counts.len()), (None, 2));
        assert_eq!(picks(&upstream, &[address(1), address(3)], now), HashMap::from([(2, 300)]));
    }

    #[test]
    fn when_most_seem_broken_nobodys_health_is_believed() {
        let (upstream, now) = (upstream(&[1, 2, 3]), Instant::now());
        eject(&upstream, 1, now);
        eject(&upstream, 2, now);
        assert!(upstream.endpoints().is_panicking(now));
        assert_eq!(picks(&upstream, &[], now), HashMap::from([(1, 100), (2, 100), (3, 100)]));
    }
}
