//! Identities by prefix: who an address is, when it is not a local pod. Remote pods, nodes, ipBlocks.

use crate::address::{Ip4, Ip6};
use crate::layout::{Layout, abi_struct};

/// IPv4 prefixes (longest prefix match; the key's data is the address).
pub const MAP4: Layout = Layout::prefixes_of::<Ip4, Identity>("identities4", 1, ENTRIES_DEFAULT);
/// IPv6 prefixes (longest prefix match; the key's data is the address).
pub const MAP6: Layout = Layout::prefixes_of::<Ip6, Identity>("identities6", 1, ENTRIES_DEFAULT);

/// Prefixes per family unless the operator chose otherwise.
pub const ENTRIES_DEFAULT: u32 = 65_536;

abi_struct! {
    /// Who the addresses of a prefix are.
    pub struct Identity {
        /// The identity; 0 when only the place is known.
        pub identity: u32,
        /// The node that hosts them, by the agent's node number; 0 when they are outside the cluster.
        pub node: u32,
        /// Bits of [`flag`].
        pub flags: u32,
    }
    size = 12
}

/// Bits of [`Identity::flags`].
pub mod flag {
    /// Pod addresses.
    pub const POD: u32 = 1 << 0;
    /// A node's own address.
    pub const NODE: u32 = 1 << 1;
    /// Reached through the overlay rather than by a route.
    pub const OVERLAY: u32 = 1 << 2;
}
