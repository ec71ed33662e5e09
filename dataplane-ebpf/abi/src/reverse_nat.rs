//! Reverse NAT: from a frontend's id back to the address that a reply must come from.
//!
//! For the per-packet path. Sockets keep the address itself (see [`crate::socket`]), so that a connection still knows
//! its peer's name after the Service is gone.

use crate::address::{Be16, Ip4, Ip6};
use crate::layout::{Layout, abi_struct};

/// IPv4 frontends by id (hash).
pub const MAP4: Layout = Layout::of::<u32, ReverseNat<Ip4>>("reverse_nat4", 1, crate::frontend::ENTRIES_DEFAULT);
/// IPv6 frontends by id (hash).
pub const MAP6: Layout = Layout::of::<u32, ReverseNat<Ip6>>("reverse_nat6", 1, crate::frontend::ENTRIES_DEFAULT);

abi_struct! {
    /// The frontend that an id stands for.
    pub struct ReverseNat<A> {
        /// The virtual address; unspecified where the node's address that the client dialled is kept by conntrack.
        pub address: A,
        /// The Service's port.
        pub port: Be16,
        /// One of [`crate::protocol`].
        pub protocol: u8,
        /// One of [`crate::frontend::scope`].
        pub scope: u8,
    }
    sizes = 8, 20
}
