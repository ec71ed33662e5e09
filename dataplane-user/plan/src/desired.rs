//! What the maps should hold: Services by name, and the indexes that make one change cost only that change.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use dataplane_abi::backend::state;
use dataplane_abi::frontend::flag;

use crate::key::{BackendKey, FrontendKey};
use crate::placement::{Endpoint, Placed, Placement};

/// A Service's namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// A Service as this node should serve it.
#[derive(Clone, Debug)]
pub struct Service {
    pub name: ServiceName,
    pub frontends: Vec<(FrontendKey, Frontend)>,
}

/// Why an address is a frontend; later kinds join here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontendKind {
    ClusterIp,
}

/// How one address of a Service is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    pub service: ServiceName,
    /// The Service port's name; empty if it has none.
    pub port_name: Arc<str>,
    pub kind: FrontendKind,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    pub placement: Placement,
}

/// Two Services want the same address: the one whose name sorts first has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub key: FrontendKey,
    pub holder: ServiceName,
    pub refused: ServiceName,
}

/// What a change may have an effect on: the scope of an incremental plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    pub frontends: BTreeSet<FrontendKey>,
    pub backends: BTreeSet<BackendKey>,
}

/// Everything that this node should serve.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    services: HashMap<ServiceName, Vec<FrontendKey>>,
    /// Claims by address, sorted by Service name; the first one holds it.
    claims: BTreeMap<FrontendKey, Vec<Frontend>>,
    uses: HashMap<BackendKey, Uses>,
}

/// How often the holders of frontends name a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Uses {
    slotted: u32,
    draining: u32,
    terminating: u32,
    local: u32,
}

impl Desired {
    /// Adds or replaces a Service; returns what that touches (nothing if nothing changed).
    pub fn put(&mut self, service: Service) -> Touched {
        let Service { name, mut frontends } = service;
        frontends.sort_by_key(|(key, _)| *key);
        // The first of two ports with the same number and protocol counts; the API server refuses such Services.
        frontends.dedup_by_key(|(key, _)| *key);
        let mut touched = Touched::default();
        let keys: Vec<FrontendKey> = frontends.iter().map(|(key, _)| *key).collect();
        let old = self.services.get(&name).cloned().unwrap_or_default();
        for key in old.iter().filter(|key| keys.binary_search(key).is_err()) {
            self.change_claim(*key, &name, None, &mut touched);
        }
        for (key, frontend) in frontends {
            self.change_claim(key, &name, Some(frontend), &mut touched);
        }
        if keys.is_empty() {
            self.services.remove(&name);
        } else {
            self.services.insert(name, keys);
        }
        touched
    }

    /// Removes a Service; returns what that touches.
    pub fn remove(&mut self, name: &ServiceName) -> Touched {
        let mut touched = Touched::default();
        for key in self.services.remove(name).unwrap_or_default() {
            self.change_claim(key, name, None, &mut touched);
        }
        touched
    }

    /// The holder of an address.
    #[must_use]
    pub fn frontend(&self, key: &FrontendKey) -> Option<&Frontend> {
        self.claims.get(key).and_then(|claims| claims.first())
    }

    /// All addresses and their holders, in key order.
    pub fn frontends(&self) -> impl Iterator<Item = (&FrontendKey, &Frontend)> {
        self.claims.iter().filter_map(|(key, claims)| Some((key, claims.first()?)))
    }

    /// All backends that anyone names.
    pub fn backends(&self) -> impl Iterator<Item = &BackendKey> {
        self.uses.keys()
    }

    /// Names of all Services with frontends.
    pub fn services(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.keys()
    }

    /// Claims that lost.
    pub fn conflicts(&self) -> impl Iterator<Item = Conflict> {
        self.claims.iter().flat_map(|(key, claims)| {
            let holder = claims.first().map(|claim| claim.service.clone());
            claims.iter().skip(1).filter_map(move |claim| {
                Some(Conflict { key: *key, holder: holder.clone()?, refused: claim.service.clone() })
            })
        })
    }

    /// The state bits that a backend should have; `None` if nobody names it.
    #[must_use]
    pub fn backend_state(&self, key: &BackendKey) -> Option<u8> {
        let uses = self.uses.get(key)?;
        let bit = |count: u32, bit: u8| if count > 0 { bit } else { 0 };
        Some(
            bit(uses.slotted, state::ACTIVE)
                | bit(uses.terminating, state::TERMINATING)
                | bit(uses.local, state::LOCAL),
        )
    }

    fn change_claim(
        &mut self,
        key: FrontendKey,
        service: &ServiceName,
        frontend: Option<Frontend>,
        touched: &mut Touched,
    ) {
        let claims = self.claims.entry(key).or_default();
        let position = claims.binary_search_by(|claim| claim.service.cmp(service));
        let holder = claims.first().cloned();
        match (position, frontend) {
            (Ok(at), Some(frontend)) if claims[at] == frontend => return,
            (Ok(at), Some(frontend)) => claims[at] = frontend,
            (Ok(at), None) => drop(claims.remove(at)),
            (Err(at), Some(frontend)) => claims.insert(at, frontend),
            (Err(_), None) => {}
        }
        let new_holder = claims.first().cloned();
        if claims.is_empty() {
            self.claims.remove(&key);
        }
        if holder == new_holder {
            return;
        }
        touched.frontends.insert(key);
        for (frontend, sign) in [(&holder, -1), (&new_holder, 1)] {
            let Some(frontend) = frontend else { continue };
            self.count(&frontend.placement, sign);
            touched.backends.extend(frontend.placement.backends().iter().map(|placed| placed.key));
        }
    }

    fn count(&mut self, placement: &Placement, sign: i32) {
        let slotted = placement.slots().len();
        for (index, Placed { key, local, terminating }) in placement.backends().iter().enumerate() {
            let uses = self.uses.entry(*key).or_default();
            let add = |count: &mut u32, condition: bool| {
                if condition {
                    *count = count.saturating_add_signed(sign);
                }
            };
            add(&mut uses.slotted, index < slotted);
            add(&mut uses.draining, index >= slotted);
            add(&mut uses.terminating, *terminating);
            add(&mut uses.local, *local);
            if uses.slotted == 0 && uses.draining == 0 {
                self.uses.remove(key);
            }
        }
    }
}

impl Frontend {
    /// A ClusterIP of a Service.
    #[must_use]
    pub fn cluster_ip(service: ServiceName, port_name: Arc<str>, internal_local: bool, endpoints: &[Endpoint]) -> Self {
        let placement = Placement::of(endpoints);
        Self { service, port_name, kind: FrontendKind::ClusterIp, internal_local, placement }
    }

    /// The flag bits of its map value.
    #[must_use]
    pub fn flags(&self) -> u32 {
        let kind = match self.kind {
            FrontendKind::ClusterIp => flag::CLUSTER_IP,
        };
        if self.internal_local { kind | flag::INTERNAL_LOCAL } else { kind }
    }
}

impl Touched {
    /// Nothing to do?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frontends.is_empty() && self.backends.is_empty()
    }

    /// Adds what another change touches.
    pub fn merge(&mut self, other: Self) {
        self.frontends.extend(other.frontends);
        self.backends.extend(other.backends);
    }
}

impl ServiceName {
    /// A name from its two parts.
    #[must_use]
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
