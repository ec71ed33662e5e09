//! Counters, per CPU: the reader sums. The kernel only ever adds.

use crate::layout::{Layout, abi_struct};

/// Counters of a frontend by its id (per-CPU hash, not preallocated).
///
/// The agent writes zeroes before it publishes the frontend and deletes the entry after it; the programs count only
/// where an entry exists, so nothing outlives its frontend.
pub const FRONTENDS: Layout =
    Layout::of::<u32, FrontendCounters>("frontend_stats", 1, crate::frontend::ENTRIES_DEFAULT * 2);
/// Counters of a [`crate::reason::Reason`] by its number (per-CPU array).
pub const REASONS: Layout = Layout::of::<u32, ReasonCounters>("reason_stats", 1, crate::reason::NUMBERS);

abi_struct! {
    /// What happened at one frontend. Sockets count connections; only the per-packet path knows packets and bytes.
    pub struct FrontendCounters {
        /// Connections (and first datagrams of unconnected sockets) given a backend.
        pub connections: u64,
        /// Connections refused for want of an endpoint.
        pub rejections: u64,
        /// Packets translated one by one.
        pub packets: u64,
        /// Bytes of those packets.
        pub bytes: u64,
    }
    size = 32
}

abi_struct! {
    /// How often a reason was given.
    pub struct ReasonCounters {
        /// Packets, or socket calls on the socket path.
        pub count: u64,
        /// Bytes of those packets; 0 for socket calls.
        pub bytes: u64,
    }
    size = 16
}
