//! Connection tracking of the per-packet path, in two stages.
//!
//! A flow starts in the small *new* map (LRU): a flood of first packets can push out only other unanswered flows. Its
//! first reply moves it to the *replied* map (preallocated hash), where it stays until its state's timeout (collected
//! by the agent) or its close, which moves it back. Replied flows are never evicted; when that map is full the flow
//! stays in the first and [`crate::reason::Reason::ConntrackFull`] counts.
//!
//! A flow has two entries, one per direction, so that each packet costs one lookup. Each entry
//! knows enough to find the other.
//!
//! TCP keeps the stored backend address until close, even when the endpoint has left; only SYN, UDP and unanswered
//! flows select again.

use crate::address::{Be16, Ip4, Ip6};
use crate::layout::{Layout, abi_struct};

/// Unanswered and closing IPv4 flows (LRU hash).
pub const NEW4: Layout = Layout::of::<FlowKey<Ip4>, Flow<Ip4>>("ct_new4", 1, 65_536);
/// Unanswered and closing IPv6 flows (LRU hash).
pub const NEW6: Layout = Layout::of::<FlowKey<Ip6>, Flow<Ip6>>("ct_new6", 1, 65_536);
/// Answered IPv4 flows (preallocated hash).
pub const REPLIED4: Layout = Layout::of::<FlowKey<Ip4>, Flow<Ip4>>("ct_replied4", 1, 131_072);
/// Answered IPv6 flows (preallocated hash).
pub const REPLIED6: Layout = Layout::of::<FlowKey<Ip6>, Flow<Ip6>>("ct_replied6", 1, 131_072);

abi_struct! {
    /// One direction of a flow, as its packets look where they are seen.
    pub struct FlowKey<A> {
        /// Source address.
        pub source: A,
        /// Destination address.
        pub destination: A,
        /// Source port; the identifier of an ICMP echo.
        pub source_port: Be16,
        /// Destination port; 0 for ICMP.
        pub destination_port: Be16,
        /// IP protocol number.
        pub protocol: u8,
        /// One of [`direction`].
        pub direction: u8,
        /// Always 0.
        pub reserved: u16,
    }
    sizes = 16, 40
}

/// Values of [`FlowKey::direction`].
pub mod direction {
    /// From the client, before translation.
    pub const ORIGINAL: u8 = 0;
    /// From the backend, before reverse translation. A pod that reaches itself answers to
    /// [`crate::Address::HAIRPIN`].
    pub const REPLY: u8 = 1;
}

abi_struct! {
    /// What is known of a flow.
    pub struct Flow<A> {
        /// The last packet's time, by the kernel's monotonic clock.
        pub last_seen_ns: u64,
        /// The frontend's address that replies carry; unspecified when nothing is translated.
        pub frontend: A,
        /// The backend's address that requests are sent to; unspecified when nothing is translated.
        pub backend: A,
        /// The frontend's port.
        pub frontend_port: Be16,
        /// The backend's port.
        pub backend_port: Be16,
        /// The frontend's id; 0 when nothing is translated.
        pub frontend_id: u32,
        /// The backend's id; 0 when nothing is translated.
        pub backend_id: u32,
        /// The identity that policy allowed the flow for.
        pub identity: u32,
        /// Interface that the client's packets arrive on.
        pub ifindex: u32,
        /// One of [`flow_state`].
        pub state: u8,
        /// Bits for source translation and policy, given by the programs that use them.
        pub flags: u8,
        /// TCP flags seen from the client, all packets or-ed.
        pub tcp_flags_original: u8,
        /// TCP flags seen from the backend, all packets or-ed.
        pub tcp_flags_reply: u8,
    }
    sizes = 40, 64
}

/// Values of [`Flow::state`]; each has its own timeout.
pub mod flow_state {
    /// Only the client has spoken.
    pub const UNREPLIED: u8 = 0;
    /// Both sides have spoken.
    pub const ESTABLISHED: u8 = 1;
    /// One side has closed.
    pub const CLOSING: u8 = 2;
    /// Both sides have closed, or a reset was seen.
    pub const CLOSED: u8 = 3;
}
