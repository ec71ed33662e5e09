//! Joins Services with their EndpointSlices, and knows which Services a change has made stale.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use dataplane_plan::{BackendKey, Endpoint, Frontend, FrontendKey, Protocol, Scope, Service, ServiceName};

use crate::source::{Change, Delta, NodeSpec, ServicePort, ServiceSpec, SliceName, SliceSpec};

/// Everything that the sources have told.
#[derive(Debug, Default)]
pub struct Inventory {
    services: HashMap<ServiceName, ServiceSpec>,
    slices: HashMap<ServiceName, BTreeMap<Arc<str>, SliceSpec>>,
    /// The Service of every slice, to find it when the slice goes or moves.
    owners: HashMap<SliceName, ServiceName>,
    node: Option<NodeSpec>,
    stale: BTreeSet<ServiceName>,
    services_synced: bool,
    slices_synced: bool,
    node_synced: bool,
}

impl Inventory {
    /// Takes a change in; returns how many objects it changed.
    pub fn apply(&mut self, change: Change) -> usize {
        match change {
            Change::Services(delta) => self.apply_services(delta),
            Change::Slices(delta) => self.apply_slices(delta),
            Change::Node(delta) => self.apply_node(delta),
        }
    }

    /// Has every source told its whole state once? Before that nothing may be removed.
    #[must_use]
    pub const fn is_synced(&self) -> bool {
        self.services_synced && self.slices_synced && self.node_synced
    }

    /// This node, if the API server knows it.
    #[must_use]
    pub const fn node(&self) -> Option<&NodeSpec> {
        self.node.as_ref()
    }

    /// Is anything stale?
    #[must_use]
    pub fn has_stale(&self) -> bool {
        !self.stale.is_empty()
    }

    /// The Services that changed since the last call, as they are now; `None` for those that are gone.
    pub fn take_stale(&mut self) -> Vec<(ServiceName, Option<Service>)> {
        let stale = std::mem::take(&mut self.stale);
        stale.into_iter().map(|name| (name.clone(), self.service(&name))).collect()
    }

    fn apply_services(&mut self, delta: Delta<ServiceName, ServiceSpec>) -> usize {
        let changed = match delta {
            Delta::Replace(all) => {
                self.services_synced = true;
                replace(&mut self.services, all)
            }
            Delta::Put(name, spec) => put(&mut self.services, name, spec).into_iter().collect(),
            Delta::Remove(name) => self.services.remove(&name).map(|_| name).into_iter().collect(),
        };
        let count = changed.len();
        self.stale.extend(changed);
        count
    }

    fn apply_slices(&mut self, delta: Delta<SliceName, SliceSpec>) -> usize {
        match delta {
            Delta::Replace(all) => {
                self.slices_synced = true;
                let kept: BTreeSet<SliceName> = all.iter().map(|(name, _)| name.clone()).collect();
                let gone: Vec<SliceName> = self.owners.keys().filter(|name| !kept.contains(*name)).cloned().collect();
                let removed: usize = gone.into_iter().map(|name| usize::from(self.remove_slice(&name))).sum();
                removed + all.into_iter().map(|(name, spec)| usize::from(self.put_slice(name, spec))).sum::<usize>()
            }
            Delta::Put(name, spec) => self.put_slice(name, spec).into(),
            Delta::Remove(name) => self.remove_slice(&name).into(),
        }
    }

    fn apply_node(&mut self, delta: Delta<Arc<str>, NodeSpec>) -> usize {
        let node = match delta {
            Delta::Replace(all) => {
                self.node_synced = true;
                all.into_iter().next().map(|(_, spec)| spec)
            }
            Delta::Put(_, spec) => Some(spec),
            Delta::Remove(_) => None,
        };
        let changed = node != self.node;
        self.node = node;
        changed.into()
    }

    fn put_slice(&mut self, name: SliceName, spec: SliceSpec) -> bool {
        if self.owners.get(&name).is_some_and(|owner| *owner != spec.service) {
            self.remove_slice(&name);
        }
        let slices = self.slices.entry(spec.service.clone()).or_default();
        if slices.get(&name.name) == Some(&spec) {
            return false;
        }
        self.stale.insert(spec.service.clone());
        self.owners.insert(name.clone(), spec.service.clone());
        slices.insert(name.name, spec);
        true
    }

    fn remove_slice(&mut self, name: &SliceName) -> bool {
        let Some(owner) = self.owners.remove(name) else { return false };
        if let Some(slices) = self.slices.get_mut(&owner) {
            slices.remove(&name.name);
            if slices.is_empty() {
                self.slices.remove(&owner);
            }
        }
        self.stale.insert(owner);
        true
    }

    fn service(&self, name: &ServiceName) -> Option<Service> {
        let spec = self.services.get(name)?;
        let slices = self.slices.get(name);
        let mut frontends = Vec::with_capacity(spec.ports.len() * spec.cluster_ips.len());
        for port in &spec.ports {
            for address in &spec.cluster_ips {
                let key =
                    FrontendKey { address: *address, port: port.port, protocol: port.protocol, scope: Scope::Address };
                let of_family: Vec<Endpoint> = slices
                    .into_iter()
                    .flat_map(BTreeMap::values)
                    .flat_map(|slice| endpoints(slice, port))
                    .filter(|endpoint| endpoint.key.address.is_ipv4() == address.is_ipv4())
                    .collect();
                let frontend = Frontend::cluster_ip(name.clone(), port.name.clone(), spec.internal_local, &of_family);
                frontends.push((key, frontend));
            }
        }
        Some(Service { name: name.clone(), frontends })
    }
}

/// A slice's endpoints for a Service port: matched by name and protocol, the number is the slice's own.
fn endpoints<'a>(slice: &'a SliceSpec, port: &ServicePort) -> impl Iterator<Item = Endpoint> + use<'a> {
    let protocol: Protocol = port.protocol;
    let found = slice.ports.iter().find(|candidate| candidate.name == port.name && candidate.protocol == protocol);
    found.into_iter().flat_map(move |target| {
        slice.endpoints.iter().map(move |endpoint| Endpoint {
            key: BackendKey { address: endpoint.address, port: target.port, protocol },
            local: endpoint.local,
            ready: endpoint.ready,
            serving: endpoint.serving,
            terminating: endpoint.terminating,
        })
    })
}

fn put<K: Hash + Eq + Clone, V: PartialEq>(map: &mut HashMap<K, V>, key: K, value: V) -> Option<K> {
    if map.get(&key) == Some(&value) {
        return None;
    }
    map.insert(key.clone(), value);
    Some(key)
}

/// Makes a map hold exactly these pairs; returns the keys whose value changed.
fn replace<K: Hash + Eq + Clone, V: PartialEq>(map: &mut HashMap<K, V>, all: Vec<(K, V)>) -> Vec<K> {
    let mut old = std::mem::take(map);
    let mut changed = Vec::new();
    for (key, value) in all {
        if old.remove(&key).as_ref() != Some(&value) {
            changed.push(key.clone());
        }
        map.insert(key, value);
    }
    changed.extend(old.into_keys());
    changed
}
