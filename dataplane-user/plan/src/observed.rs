//! What the maps hold: a dump, and the indexes that the planner needs of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use dataplane_abi::backend::state;
use dataplane_abi::frontend::Frontend;
use dataplane_abi::slot::SlotKey;

use crate::key::{BackendKey, Family, FrontendKey};
use crate::op::Op;

/// A backend as the map holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    pub key: BackendKey,
    /// Bits of [`dataplane_abi::backend::state`].
    pub state: u8,
}

/// The plain contents of the Service maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    pub frontends: BTreeMap<FrontendKey, Frontend>,
    pub slots: BTreeMap<SlotKey, u32>,
    pub backends: BTreeMap<u32, Backend>,
    /// Frontend ids that have counters.
    pub counters: BTreeSet<u32>,
}

/// The contents of the maps with indexes, kept true by [`Observed::apply`].
#[derive(Clone, Debug, Default)]
pub struct Observed {
    contents: Contents,
    backend_ids: HashMap<BackendKey, u32>,
    frontend_keys: HashMap<u32, FrontendKey>,
    references: HashMap<u32, u32>,
    frontends_ipv6: usize,
    backends_ipv6: usize,
}

impl Backend {
    /// May new connections use it?
    #[must_use]
    pub const fn is_active(&self) -> bool {
        self.state & state::ACTIVE != 0
    }
}

impl Contents {
    /// Applies one operation.
    pub fn apply(&mut self, op: &Op) {
        match *op {
            Op::PutBackend { id, backend } => drop(self.backends.insert(id, backend)),
            Op::PutCounters { frontend } => drop(self.counters.insert(frontend)),
            Op::PutSlot { slot, backend } => drop(self.slots.insert(slot, backend)),
            Op::PutFrontend { key, value } => drop(self.frontends.insert(key, value)),
            Op::DeleteFrontend { key, .. } => drop(self.frontends.remove(&key)),
            Op::DeleteSlot { slot } => drop(self.slots.remove(&slot)),
            Op::DeleteCounters { frontend } => drop(self.counters.remove(&frontend)),
            Op::DeleteBackend { id, .. } => drop(self.backends.remove(&id)),
        }
    }
}

impl From<Contents> for Observed {
    fn from(contents: Contents) -> Self {
        let mut observed = Self::default();
        for (id, backend) in &contents.backends {
            // Of two ids for one backend the lower one counts; the other is an orphan.
            observed.backend_ids.entry(backend.key).or_insert(*id);
            observed.backends_ipv6 += usize::from(backend.key.family() == Family::Ipv6);
        }
        for (key, frontend) in &contents.frontends {
            observed.frontend_keys.entry(frontend.id).or_insert(*key);
            observed.frontends_ipv6 += usize::from(key.family() == Family::Ipv6);
        }
        for backend in contents.slots.values() {
            *observed.references.entry(*backend).or_default() += 1;
        }
        observed.contents = contents;
        observed
    }
}

impl Observed {
    /// The plain contents.
    #[must_use]
    pub const fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The id of a backend.
    #[must_use]
    pub fn backend_id(&self, key: &BackendKey) -> Option<u32> {
        self.backend_ids.get(key).copied()
    }

    /// The frontend that has this id.
    #[must_use]
    pub fn frontend_key(&self, id: u32) -> Option<&FrontendKey> {
        self.frontend_keys.get(&id)
    }

    /// A frontend's value, if its id is its own (a damaged map may hold an id twice, or 0).
    #[must_use]
    pub fn frontend(&self, key: &FrontendKey) -> Option<&Frontend> {
        self.contents
            .frontends
            .get(key)
            .filter(|frontend| self.frontend_keys.get(&frontend.id) == Some(key) && frontend.id != 0)
    }

    /// All slots of a frontend id, every epoch, in order.
    pub fn slots(&self, frontend: u32) -> impl Iterator<Item = (&SlotKey, u32)> {
        let first = SlotKey { frontend, epoch: 0, index: 0 };
        let last = SlotKey { frontend, epoch: u32::MAX, index: u32::MAX };
        self.contents.slots.range(first..=last).map(|(slot, backend)| (slot, *backend))
    }

    /// How many slots of any epoch name a backend.
    #[must_use]
    pub fn references(&self, backend: u32) -> u32 {
        self.references.get(&backend).copied().unwrap_or_default()
    }

    /// Frontends in the map of a family.
    #[must_use]
    pub fn frontend_count(&self, family: Family) -> usize {
        of_family(self.contents.frontends.len(), self.frontends_ipv6, family)
    }

    /// Backends in the map of a family.
    #[must_use]
    pub fn backend_count(&self, family: Family) -> usize {
        of_family(self.contents.backends.len(), self.backends_ipv6, family)
    }

    /// Records that one operation has been done.
    pub fn apply(&mut self, op: &Op) {
        match *op {
            Op::PutBackend { id, backend } => {
                self.forget_backend(id);
                self.backend_ids.entry(backend.key).or_insert(id);
                self.backends_ipv6 += usize::from(backend.key.family() == Family::Ipv6);
            }
            Op::DeleteBackend { id, .. } => self.forget_backend(id),
            Op::PutSlot { slot, backend } => {
                self.forget_slot(&slot);
                *self.references.entry(backend).or_default() += 1;
            }
            Op::DeleteSlot { slot } => self.forget_slot(&slot),
            Op::PutFrontend { key, value } => {
                self.forget_frontend(&key);
                self.frontend_keys.entry(value.id).or_insert(key);
                self.frontends_ipv6 += usize::from(key.family() == Family::Ipv6);
            }
            Op::DeleteFrontend { key, .. } => self.forget_frontend(&key),
            Op::PutCounters { .. } | Op::DeleteCounters { .. } => {}
        }
        self.contents.apply(op);
    }

    fn forget_backend(&mut self, id: u32) {
        let Some(old) = self.contents.backends.get(&id) else { return };
        self.backends_ipv6 -= usize::from(old.key.family() == Family::Ipv6);
        if self.backend_ids.get(&old.key) == Some(&id) {
            self.backend_ids.remove(&old.key);
        }
    }

    fn forget_frontend(&mut self, key: &FrontendKey) {
        let Some(old) = self.contents.frontends.get(key) else { return };
        self.frontends_ipv6 -= usize::from(key.family() == Family::Ipv6);
        if self.frontend_keys.get(&old.id) == Some(key) {
            self.frontend_keys.remove(&old.id);
        }
    }

    fn forget_slot(&mut self, slot: &SlotKey) {
        let Some(backend) = self.contents.slots.get(slot) else { return };
        if let Some(count) = self.references.get_mut(backend) {
            *count -= 1;
            if *count == 0 {
                self.references.remove(backend);
            }
        }
    }
}

const fn of_family(all: usize, ipv6: usize, family: Family) -> usize {
    match family {
        Family::Ipv4 => all - ipv6,
        Family::Ipv6 => ipv6,
    }
}
