//! Settings that programs read at run time: an array of 64-bit numbers.

use crate::layout::Layout;

/// The settings by [`setting`] number (array).
pub const MAP: Layout = Layout::of::<u32, u64>("config", 1, setting::NUMBERS);

/// Indices of the settings; an unset one is 0.
pub mod setting {
    /// Bits of [`super::flag`].
    pub const FLAGS: u32 = 0;
    /// The cookie of the node's own network namespace.
    pub const HOST_NETNS: u32 = 1;
    /// How many there are room for.
    pub const NUMBERS: u32 = 16;
}

/// Bits of the setting [`setting::FLAGS`].
pub mod flag {
    /// Translate at the socket only in the node's own network namespace (service meshes, sandboxed runtimes); pods'
    /// packets are then left to the per-packet path.
    pub const SOCKET_HOST_ONLY: u64 = 1 << 0;
    /// Write refusals and drops to the event ring.
    pub const EVENTS: u64 = 1 << 1;
}
