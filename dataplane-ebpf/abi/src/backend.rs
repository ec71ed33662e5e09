//! Backends: the endpoints that serve frontends, by id. One backend may serve many frontends.

use crate::address::{Be16, Ip4, Ip6};
use crate::layout::{Layout, abi_struct};

/// IPv4 backends by id (hash, not preallocated).
pub const MAP4: Layout = Layout::of::<u32, Backend<Ip4>>("backends4", 1, ENTRIES_DEFAULT);
/// IPv6 backends by id (hash, not preallocated).
pub const MAP6: Layout = Layout::of::<u32, Backend<Ip6>>("backends6", 1, ENTRIES_DEFAULT);

/// Backends per family unless the operator chose otherwise.
pub const ENTRIES_DEFAULT: u32 = 65_536;

abi_struct! {
    /// One endpoint's port.
    pub struct Backend<A> {
        /// The endpoint's address.
        pub address: A,
        /// The endpoint's port.
        pub port: Be16,
        /// One of [`crate::protocol`].
        pub protocol: u8,
        /// Bits of [`state`].
        pub state: u8,
    }
    sizes = 8, 20
}

/// Bits of [`Backend::state`].
pub mod state {
    /// New connections and datagrams may use it, and unconnected UDP sockets stay with it. Without this bit it only
    /// serves connections that it already has.
    pub const ACTIVE: u8 = 1 << 0;
    /// The endpoint is going away; it still serves (set together with `ACTIVE` where it is the fallback).
    pub const TERMINATING: u8 = 1 << 1;
    /// The endpoint is on this node.
    pub const LOCAL: u8 = 1 << 2;
}
