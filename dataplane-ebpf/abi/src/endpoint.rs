//! Endpoints: the pods of this node by address, the first and exact question about any address.

use crate::address::{Ip4, Ip6};
use crate::layout::{Layout, abi_struct};

/// Local pods by IPv4 address (hash, not preallocated).
pub const MAP4: Layout = Layout::of::<Ip4, Endpoint>("endpoints4", 1, ENTRIES_DEFAULT);
/// Local pods by IPv6 address (hash, not preallocated).
pub const MAP6: Layout = Layout::of::<Ip6, Endpoint>("endpoints6", 1, ENTRIES_DEFAULT);

/// Local pods per family unless the operator chose otherwise.
pub const ENTRIES_DEFAULT: u32 = 4_096;

abi_struct! {
    /// Where a local pod is, and who it is.
    pub struct Endpoint {
        /// The host side of the pod's interface.
        pub ifindex: u32,
        /// The pod's identity; 0 when it has none yet.
        pub identity: u32,
        /// Bits of [`flag`].
        pub flags: u32,
        /// The pod's own link address.
        pub mac: [u8; 6],
        /// The link address that the pod sees as its gateway's.
        pub gateway_mac: [u8; 6],
    }
    size = 24
}

/// Bits of [`Endpoint::flags`].
pub mod flag {
    /// Packets to this pod must pass its host-side queue (a bandwidth limit): `redirect`, not `redirect_peer`.
    pub const LIMITED: u32 = 1 << 0;
    /// Policy selects this pod for incoming traffic.
    pub const INGRESS_ISOLATED: u32 = 1 << 1;
    /// Policy selects this pod for outgoing traffic.
    pub const EGRESS_ISOLATED: u32 = 1 << 2;
    /// The pod's sockets are left alone: its packets are translated one by one.
    pub const SOCKET_OFF: u32 = 1 << 3;
}
