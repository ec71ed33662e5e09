//! Slots: the numbered places of a frontend, each naming a backend.

use crate::layout::{Layout, abi_struct};

/// Slots of both families (hash, not preallocated): frontend ids are unique across families.
pub const MAP: Layout = Layout::of::<SlotKey, Slot>("slots", 1, 262_144);

abi_struct! {
    /// One place of one generation of a frontend's slots.
    pub struct SlotKey {
        /// The frontend's id.
        pub frontend: u32,
        /// The generation, as in the frontend's value.
        pub epoch: u32,
        /// The slot's index: 0 for the first.
        pub index: u32,
    }
    size = 12
}

abi_struct! {
    /// Who serves that place.
    pub struct Slot {
        /// A backend id of the frontend's family.
        pub backend: u32,
    }
    size = 4
}
