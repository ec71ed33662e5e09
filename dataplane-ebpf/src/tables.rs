//! The Service tables as `dataplane-logic` asks for them: one lookup each, the value copied at once.

use core::marker::PhantomData;

use dataplane_abi::backend::{Backend, state};
use dataplane_abi::frontend::{Frontend, FrontendKey};
use dataplane_abi::slot::{Slot, SlotKey};
use dataplane_logic::balance::Tables;

use crate::maps::{FamilyMaps, SLOTS};

/// One family's maps, for a client without a past.
pub struct Dialled<A>(PhantomData<A>);

impl<A> Dialled<A> {
    #[inline(always)]
    #[must_use]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<A> Default for Dialled<A> {
    fn default() -> Self {
        Self::new()
    }
}

impl<A: FamilyMaps> Tables<A> for Dialled<A> {
    #[inline(always)]
    fn frontend(&self, key: &FrontendKey<A>) -> Option<Frontend> {
        // SAFETY: copied at once; the agent replaces whole values.
        unsafe { A::FRONTENDS.get(key) }.copied()
    }

    #[inline(always)]
    fn slot(&self, key: &SlotKey) -> Option<Slot> {
        // SAFETY: as above.
        unsafe { SLOTS.get(key) }.copied()
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<Backend<A>> {
        // SAFETY: as above.
        unsafe { A::BACKENDS.get(id) }.copied()
    }
}

/// Whether a backend is there and takes new connections.
#[inline(always)]
#[must_use]
pub fn is_active<A: FamilyMaps>(backend: u32) -> bool {
    // SAFETY: one field is copied at once; the agent replaces whole values.
    unsafe { A::BACKENDS.get(backend) }.is_some_and(|backend| backend.state & state::ACTIVE != 0)
}
