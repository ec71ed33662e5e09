//! Events: what happened to one connection or packet, for people. Never the source of a decision.

use crate::address::{Be16, Ip6};
use crate::layout::{Layout, abi_struct};

/// The ring that programs write [`Event`]s to (ring buffer; its size is in bytes, a power of two). When it is full,
/// events are lost and [`crate::reason::Reason::EventLost`] counts them.
pub const MAP: Layout = Layout { name: "events", version: 1, key_size: 0, value_size: 0, entries_default: 256 * 1024 };

abi_struct! {
    /// One event.
    pub struct Event {
        /// By the kernel's monotonic clock (`CLOCK_MONOTONIC`).
        pub timestamp_ns: u64,
        /// The socket's cookie; 0 where no socket is known.
        pub cookie: u64,
        /// Source, IPv4 as mapped; unspecified on the socket path, where it is not chosen yet.
        pub source: Ip6,
        /// Destination as the client dialled it, IPv4 as mapped.
        pub destination: Ip6,
        /// Source port; 0 on the socket path.
        pub source_port: Be16,
        /// Destination port.
        pub destination_port: Be16,
        /// IP protocol number.
        pub protocol: u8,
        /// One of [`hook`].
        pub hook: u8,
        /// A [`crate::reason::Reason`] by number.
        pub reason: u8,
        /// Address family: 4 or 6.
        pub family: u8,
        /// The frontend's id; 0 for none.
        pub frontend: u32,
        /// The backend's id; 0 for none.
        pub backend: u32,
        /// The interface; 0 on the socket path.
        pub ifindex: u32,
        /// The packet's length in bytes; 0 on the socket path.
        pub length: u32,
    }
    size = 72
}

/// Where an event comes from.
pub mod hook {
    /// `connect(2)`.
    pub const CONNECT: u8 = 1;
    /// A datagram sent by an unconnected socket.
    pub const SENDMSG: u8 = 2;
    /// A packet from a pod (ingress of the host side of its interface).
    pub const POD_EGRESS: u8 = 3;
    /// A packet on its way to a pod (egress of the host side of its interface).
    pub const POD_INGRESS: u8 = 4;
}
