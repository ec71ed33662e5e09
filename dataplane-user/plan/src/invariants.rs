//! Checks map contents without knowing how they came about: what the kernel programs rely on.

use std::collections::BTreeMap;
use std::fmt;

use dataplane_abi::slot::SlotKey;

use crate::key::FrontendKey;
use crate::observed::Contents;

/// Something that the kernel programs rely on and that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A frontend has the id 0.
    ZeroId { key: FrontendKey },
    /// Two frontends share an id.
    SharedId { id: u32, first: FrontendKey, second: FrontendKey },
    /// A frontend has no counters, so its traffic is not counted.
    NoCounters { key: FrontendKey, id: u32 },
    /// A slot that a frontend's sets reach is not there.
    MissingSlot { key: FrontendKey, slot: SlotKey },
    /// A reachable slot names a backend that is not there.
    MissingBackend { key: FrontendKey, slot: SlotKey, backend: u32 },
    /// A reachable slot names a backend that takes no new connections.
    InactiveBackend { key: FrontendKey, slot: SlotKey, backend: u32 },
    /// A reachable slot names a backend of another family or protocol.
    ForeignBackend { key: FrontendKey, slot: SlotKey, backend: u32 },
}

/// Everything that is wrong, in key order; empty means safe for every lookup.
#[must_use]
pub fn check(contents: &Contents) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut ids: BTreeMap<u32, FrontendKey> = BTreeMap::new();
    for (key, frontend) in &contents.frontends {
        if frontend.id == 0 {
            violations.push(Violation::ZeroId { key: *key });
        }
        if let Some(first) = ids.insert(frontend.id, *key) {
            violations.push(Violation::SharedId { id: frontend.id, first, second: *key });
        }
        if !contents.counters.contains(&frontend.id) {
            violations.push(Violation::NoCounters { key: *key, id: frontend.id });
        }
        for set in [frontend.cluster, frontend.local] {
            for index in set.start..set.start.saturating_add(set.count) {
                let slot = SlotKey { frontend: frontend.id, epoch: frontend.epoch, index };
                violations.extend(check_slot(contents, *key, slot));
            }
        }
    }
    violations
}

fn check_slot(contents: &Contents, key: FrontendKey, slot: SlotKey) -> Option<Violation> {
    let Some(&backend) = contents.slots.get(&slot) else { return Some(Violation::MissingSlot { key, slot }) };
    let Some(value) = contents.backends.get(&backend) else {
        return Some(Violation::MissingBackend { key, slot, backend });
    };
    if value.key.family() != key.family() || value.key.protocol != key.protocol {
        return Some(Violation::ForeignBackend { key, slot, backend });
    }
    (!value.is_active()).then_some(Violation::InactiveBackend { key, slot, backend })
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroId { key } => write!(f, "frontend {key} has id 0"),
            Self::SharedId { id, first, second } => write!(f, "frontends {first} and {second} share id {id}"),
            Self::NoCounters { key, id } => write!(f, "frontend {key} (id {id}) has no counters"),
            Self::MissingSlot { key, slot } => {
                write!(f, "frontend {key} reaches slot {} of epoch {}, which is missing", slot.index, slot.epoch)
            }
            Self::MissingBackend { key, slot, backend } => {
                write!(f, "slot {} of frontend {key} names backend {backend}, which is missing", slot.index)
            }
            Self::InactiveBackend { key, slot, backend } => {
                write!(f, "slot {} of frontend {key} names backend {backend}, which is not active", slot.index)
            }
            Self::ForeignBackend { key, slot, backend } => {
                write!(f, "slot {} of frontend {key} names backend {backend} of another family or protocol", slot.index)
            }
        }
    }
}
