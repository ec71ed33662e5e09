//! What must not be done after an operation has failed, so that the rest of a plan stays safe.

use std::collections::HashSet;

use crate::observed::Observed;
use crate::op::Op;

/// The failures so far while applying one plan.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    backends: HashSet<u32>,
    frontends: HashSet<u32>,
}

impl Failures {
    /// Must this operation be left out? It then counts as failed itself: record it.
    #[must_use]
    pub fn block(&self, op: &Op, observed: &Observed) -> bool {
        if op.frontend().is_some_and(|frontend| self.frontends.contains(&frontend)) {
            return true;
        }
        match op {
            Op::PutSlot { backend, .. } => self.backends.contains(backend),
            // A frontend that could not flip still leads connections there.
            Op::PutBackend { id, backend } if !backend.is_active() => observed.references(*id) > 0,
            Op::DeleteBackend { id, .. } => observed.references(*id) > 0,
            _ => false,
        }
    }

    /// Remembers that an operation was not done.
    pub fn record(&mut self, op: &Op) {
        match op {
            Op::PutBackend { id, .. } | Op::DeleteBackend { id, .. } => drop(self.backends.insert(*id)),
            // Serving matters more than counting.
            Op::PutCounters { .. } => {}
            _ => self.frontends.extend(op.frontend()),
        }
    }

    /// Nothing has failed?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.backends.is_empty() && self.frontends.is_empty()
    }
}
