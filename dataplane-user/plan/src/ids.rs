//! Identifiers: handed out upwards and never twice, because sockets and flows in the kernel may name one long after its
//! entry is gone.

use std::collections::{BTreeSet, HashMap};

use crate::key::FrontendKey;
use crate::observed::Observed;

/// The next identifiers, and those given to frontends that are not published yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ids {
    /// The next frontend id to try.
    pub next_frontend: u32,
    /// The next backend id to try.
    pub next_backend: u32,
    /// Frontends whose slots may be written already, but whose own entry is not: a retry continues under the same id.
    pub pending: HashMap<FrontendKey, u32>,
    /// Ids of deleted frontends that slots or counters may be left of.
    pub retired: BTreeSet<u32>,
}

impl Default for Ids {
    fn default() -> Self {
        Self { next_frontend: 1, next_backend: 1, pending: HashMap::new(), retired: BTreeSet::new() }
    }
}

impl Ids {
    /// Identifiers above everything that the maps hold, and at least at the floors that an earlier run reserved.
    #[must_use]
    pub fn restore(observed: &Observed, frontend_floor: u32, backend_floor: u32) -> Self {
        let contents = observed.contents();
        let frontends = contents.frontends.values().map(|frontend| frontend.id);
        let in_slots = contents.slots.keys().map(|slot| slot.frontend);
        let top_frontend = frontends.chain(in_slots).chain(contents.counters.iter().copied()).max().unwrap_or(0);
        let named = contents.slots.values().copied();
        let top_backend = contents.backends.keys().copied().chain(named).max().unwrap_or(0);
        Self {
            next_frontend: after(top_frontend).max(frontend_floor),
            next_backend: after(top_backend).max(backend_floor),
            pending: HashMap::new(),
            retired: BTreeSet::new(),
        }
    }

    /// Forgets frontends that are published by now, and those that nothing is left of.
    pub fn settle(&mut self, observed: &Observed) {
        self.pending.retain(|key, _| observed.frontend(key).is_none());
        self.retired.retain(|id| observed.slots(*id).next().is_some() || observed.contents().counters.contains(id));
    }

    pub(crate) fn take_frontend(&mut self, observed: &Observed) -> u32 {
        take(&mut self.next_frontend, |id| {
            observed.frontend_key(id).is_some()
                || observed.slots(id).next().is_some()
                || observed.contents().counters.contains(&id)
        })
    }

    pub(crate) fn take_backend(&mut self, observed: &Observed) -> u32 {
        take(&mut self.next_backend, |id| observed.contents().backends.contains_key(&id) || observed.references(id) > 0)
    }
}

/// Skips used numbers: they only appear after the 32 bits have gone round once.
fn take(next: &mut u32, used: impl Fn(u32) -> bool) -> u32 {
    loop {
        let id = *next;
        *next = after(id);
        if id != 0 && !used(id) {
            return id;
        }
    }
}

const fn after(id: u32) -> u32 {
    match id.checked_add(1) {
        Some(next) => next,
        None => 1,
    }
}
