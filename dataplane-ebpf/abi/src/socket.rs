//! What a socket dialled: enough to name its peer again, and to keep unconnected UDP with one backend.
//!
//! Addresses are IPv6 with IPv4 as mapped (`::ffff:a.b.c.d`): a dual-stack socket may hold either, so one map serves
//! both families.

use crate::address::{Be16, Ip6};
use crate::layout::{Layout, abi_struct};

/// The frontend behind a connected socket (socket storage: it lives and dies with the socket, whoever runs).
pub const PEERS: Layout = Layout::of::<u32, SocketPeer>("socket_peers", 1, 0);
/// The backend that an unconnected UDP socket uses for a frontend (LRU hash).
pub const STICKY: Layout = Layout::of::<StickyKey, Sticky>("socket_sticky", 1, 65_536);
/// The frontend behind a backend that an unconnected UDP socket has sent to (LRU hash).
pub const REVERSE: Layout = Layout::of::<ReverseKey, Reverse>("socket_reverse", 1, 65_536);
/// Network namespaces whose sockets are left alone, by cookie (hash; the value is 1): pods that asked for it.
pub const OFF: Layout = Layout::of::<u64, u32>("socket_off", 1, crate::endpoint::ENTRIES_DEFAULT);

abi_struct! {
    /// A connected socket's translation.
    pub struct SocketPeer {
        /// The address that the program dialled.
        pub frontend: Ip6,
        /// The address that the kernel connected to. A peer that no longer equals it was dialled directly.
        pub backend: Ip6,
        /// The port that the program dialled.
        pub frontend_port: Be16,
        /// The port that the kernel connected to.
        pub backend_port: Be16,
        /// The frontend's id.
        pub frontend_id: u32,
        /// The backend's id.
        pub backend_id: u32,
        /// IP protocol number.
        pub protocol: u32,
    }
    size = 48
}

abi_struct! {
    /// One unconnected socket and one frontend.
    pub struct StickyKey {
        /// The socket's cookie.
        pub cookie: u64,
        /// The frontend's id.
        pub frontend: u32,
        /// Always 0.
        pub reserved: u32,
    }
    size = 16
}

abi_struct! {
    /// The backend it uses. It counts while that backend is active and the frontend has not changed, or still serves it.
    pub struct Sticky {
        /// The backend's id.
        pub backend: u32,
        /// The frontend's epoch when it was chosen.
        pub epoch: u32,
    }
    size = 8
}

abi_struct! {
    /// One unconnected socket and the backend that it hears from.
    pub struct ReverseKey {
        /// The socket's cookie.
        pub cookie: u64,
        /// The backend's address.
        pub backend: Ip6,
        /// The backend's port.
        pub backend_port: Be16,
        /// Always 0.
        pub reserved: [u16; 3],
    }
    size = 32
}

abi_struct! {
    /// The frontend that the socket sent to.
    pub struct Reverse {
        /// The address that the program sent to.
        pub frontend: Ip6,
        /// The port that the program sent to.
        pub frontend_port: Be16,
        /// Always 0.
        pub reserved: u16,
        /// The frontend's id.
        pub frontend_id: u32,
    }
    size = 24
}
