//! Session affinity: which backend a client used last.
//!
//! The client is always an address, so that the socket path and the packet path share entries: the socket path turns
//! its network namespace's cookie into the pod's address with [`NETNS`]. An entry counts only while its pair is in
//! [`MATCH`]: affinity ends with the backend without a sweep. It holds for `last_used <= now < last_used + timeout`.

use crate::address::{Ip4, Ip6};
use crate::layout::{Layout, abi_struct};

/// IPv4 clients (LRU hash).
pub const MAP4: Layout = Layout::of::<AffinityKey<Ip4>, Affinity>("affinity4", 1, ENTRIES_DEFAULT);
/// IPv6 clients (LRU hash).
pub const MAP6: Layout = Layout::of::<AffinityKey<Ip6>, Affinity>("affinity6", 1, ENTRIES_DEFAULT);
/// The pairs for which affinity holds (hash; the value is 1).
pub const MATCH: Layout = Layout::of::<AffinityMatch, u32>("affinity_match", 1, ENTRIES_DEFAULT);
/// Pod addresses by the cookie of their network namespace (hash).
pub const NETNS: Layout = Layout::of::<u64, PodAddresses>("netns_pods", 1, 4_096);

/// Clients per family unless the operator chose otherwise.
pub const ENTRIES_DEFAULT: u32 = 65_536;

abi_struct! {
    /// One client of one frontend.
    pub struct AffinityKey<A> {
        /// The client's address.
        pub client: A,
        /// The frontend's id.
        pub frontend: u32,
    }
    sizes = 8, 20
}

abi_struct! {
    /// The backend that the client used last.
    pub struct Affinity {
        /// When, by the kernel's monotonic clock.
        pub last_used_ns: u64,
        /// The backend's id.
        pub backend: u32,
        /// Always 0.
        pub reserved: u32,
    }
    size = 16
}

abi_struct! {
    /// A backend that serves a frontend with affinity.
    pub struct AffinityMatch {
        /// The backend's id.
        pub backend: u32,
        /// The frontend's id.
        pub frontend: u32,
    }
    size = 8
}

abi_struct! {
    /// The addresses of the pod that owns a network namespace; unspecified where it has none.
    pub struct PodAddresses {
        /// Its IPv4 address.
        pub ipv4: Ip4,
        /// Its IPv6 address.
        pub ipv6: Ip6,
    }
    size = 20
}
