//! Which endpoints serve a frontend, in which slots: the traffic policies and their terminating fallbacks.

use std::collections::BTreeMap;

use dataplane_abi::frontend::Interval;

use crate::key::BackendKey;

/// One endpoint of one frontend, as the EndpointSlices describe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub key: BackendKey,
    /// It runs on this node.
    pub local: bool,
    /// It takes new connections.
    pub ready: bool,
    /// It passes its readiness checks, whether or not it is going away.
    pub serving: bool,
    /// It is going away.
    pub terminating: bool,
}

/// A backend in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    pub key: BackendKey,
    pub local: bool,
    pub terminating: bool,
}

/// The slots of a frontend, and who only drains.
///
/// Slots are ordered *local only, both, cluster only*, so that each traffic policy's set is one interval.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The slots in order, then the draining backends, which have none.
    backends: Vec<Placed>,
    slots: usize,
    /// The set for traffic policy Cluster.
    pub cluster: Interval,
    /// The set for traffic policy Local.
    pub local: Interval,
}

impl Placement {
    /// Places endpoints. Each policy's set is its ready endpoints or, if there is none, its endpoints that terminate
    /// but still serve (KEP-1669). Endpoints listed twice are merged in favour of readiness.
    #[must_use]
    pub fn of(endpoints: &[Endpoint]) -> Self {
        let mut merged: BTreeMap<BackendKey, Endpoint> = BTreeMap::new();
        for endpoint in endpoints {
            merged.entry(endpoint.key).and_modify(|known| merge(known, endpoint)).or_insert(*endpoint);
        }
        let cluster = choose(&merged, |_| true);
        let local = choose(&merged, |endpoint| endpoint.local);
        let mut groups: [Vec<Placed>; 4] = Default::default();
        for endpoint in merged.values() {
            let group = match (local(endpoint), cluster(endpoint)) {
                (true, false) => 0,
                (true, true) => 1,
                (false, true) => 2,
                (false, false) if endpoint.terminating => 3,
                (false, false) => continue,
            };
            let Endpoint { key, local, terminating, .. } = *endpoint;
            groups[group].push(Placed { key, local, terminating });
        }
        let count = |group: usize| u32::try_from(groups[group].len()).unwrap_or(u32::MAX);
        let (local_only, both, cluster_only) = (count(0), count(1), count(2));
        let slots = groups[..3].iter().map(Vec::len).sum();
        Self {
            local: interval(0, local_only + both),
            cluster: interval(local_only, both + cluster_only),
            slots,
            backends: groups.concat(),
        }
    }

    /// The backends that have slots, in slot order.
    #[must_use]
    pub fn slots(&self) -> &[Placed] {
        &self.backends[..self.slots]
    }

    /// Terminating backends that no policy selects: they keep the connections that they have.
    #[must_use]
    pub fn draining(&self) -> &[Placed] {
        &self.backends[self.slots..]
    }

    /// Everyone: slots, then draining.
    #[must_use]
    pub fn backends(&self) -> &[Placed] {
        &self.backends
    }
}

fn merge(known: &mut Endpoint, other: &Endpoint) {
    known.local |= other.local;
    known.ready |= other.ready;
    known.serving |= other.serving;
    known.terminating &= other.terminating;
}

/// The rule that selects one policy's set among `candidates`.
fn choose(
    endpoints: &BTreeMap<BackendKey, Endpoint>,
    candidates: impl Fn(&Endpoint) -> bool,
) -> impl Fn(&Endpoint) -> bool {
    let any_ready = endpoints.values().any(|endpoint| candidates(endpoint) && endpoint.ready);
    move |endpoint| {
        let usable = if any_ready { endpoint.ready } else { endpoint.serving && endpoint.terminating };
        candidates(endpoint) && usable
    }
}

/// An empty set starts at 0, so that equal sets have equal values.
fn interval(start: u32, count: u32) -> Interval {
    Interval { start: if count == 0 { 0 } else { start }, count }
}

#[cfg(test)]
mod tests {
    use dataplane_abi::frontend::Interval;

    use super::{Endpoint, Placement};
    use crate::key::{BackendKey, Protocol};

    /// `local`/`remote` then one of ready, draining (serving, terminating), dying (terminating only), unready.
    fn endpoint(last: u8, place: &str, state: &str) -> Endpoint {
        let key = BackendKey { address: [10, 244, 0, last].into(), port: 80, protocol: Protocol::Tcp };
        let (ready, serving, terminating) = match state {
            "ready" => (true, true, false),
            "draining" => (false, true, true),
            "dying" => (false, false, true),
            _ => (false, false, false),
        };
        Endpoint { key, local: place == "local", ready, serving, terminating }
    }

    fn placed(endpoints: &[(u8, &str, &str)]) -> (Vec<u8>, Interval, Interval, Vec<u8>) {
        let endpoints: Vec<_> = endpoints.iter().map(|(last, place, state)| endpoint(*last, place, state)).collect();
        let placement = Placement::of(&endpoints);
        let last = |placed: &super::Placed| match placed.key.address {
            std::net::IpAddr::V4(address) => address.octets()[3],
            std::net::IpAddr::V6(_) => 0,
        };
        let slots = placement.slots().iter().map(last).collect();
        (slots, placement.local, placement.cluster, placement.draining().iter().map(last).collect())
    }

    fn set(start: u32, count: u32) -> Interval {
        Interval { start, count }
    }

    #[test]
    fn local_endpoints_come_first_and_both_policies_see_them() {
        let endpoints =
            [(1, "remote", "ready"), (2, "local", "ready"), (3, "remote", "unready"), (4, "local", "ready")];
        assert_eq!(placed(&endpoints), (vec![2, 4, 1], set(0, 2), set(0, 3), vec![]));
    }

    #[test]
    fn a_terminating_local_endpoint_serves_only_the_local_policy_while_others_are_ready() {
        let endpoints = [(1, "local", "draining"), (2, "remote", "ready"), (3, "remote", "draining")];
        assert_eq!(placed(&endpoints), (vec![1, 2], set(0, 1), set(1, 1), vec![3]));
    }

    #[test]
    fn terminating_endpoints_serve_both_policies_when_nothing_is_ready() {
        let endpoints = [(1, "local", "draining"), (2, "remote", "draining"), (3, "remote", "dying")];
        assert_eq!(placed(&endpoints), (vec![1, 2], set(0, 1), set(0, 2), vec![3]));
    }

    #[test]
    fn no_usable_endpoint_gives_two_empty_sets() {
        assert_eq!(placed(&[(1, "local", "unready"), (2, "remote", "dying")]), (vec![], set(0, 0), set(0, 0), vec![2]));
        assert_eq!(placed(&[]), (vec![], set(0, 0), set(0, 0), vec![]));
    }

    #[test]
    fn an_endpoint_in_two_slices_is_placed_once() {
        assert_eq!(placed(&[(1, "remote", "unready"), (1, "local", "ready")]), (vec![1], set(0, 1), set(0, 1), vec![]));
    }
}
