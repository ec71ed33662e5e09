//! Frontends: the addresses that clients dial, and which slots serve them.
//!
//! Slots of a frontend are ordered *local only, both, cluster only*, so that each traffic policy's set is one interval.
//! Each set carries its own fallback to terminating endpoints, already decided by the planner: the kernel only picks a
//! slot within an interval. An update writes the slots of the next epoch, then flips `epoch` and both intervals with
//! this one value, then deletes the slots of the last epoch: no lookup sees a mixture.

use crate::address::{Be16, Ip4, Ip6};
use crate::layout::{Layout, abi_struct};

/// IPv4 frontends (hash, not preallocated).
pub const MAP4: Layout = Layout::of::<FrontendKey<Ip4>, Frontend>("frontends4", 1, ENTRIES_DEFAULT);
/// IPv6 frontends (hash, not preallocated).
pub const MAP6: Layout = Layout::of::<FrontendKey<Ip6>, Frontend>("frontends6", 1, ENTRIES_DEFAULT);

/// Frontends per family unless the operator chose otherwise.
pub const ENTRIES_DEFAULT: u32 = 65_536;

abi_struct! {
    /// What a client dials.
    pub struct FrontendKey<A> {
        /// The virtual address; unspecified in [`scope::NODE`] keys.
        pub address: A,
        /// The Service's port.
        pub port: Be16,
        /// One of [`crate::protocol`].
        pub protocol: u8,
        /// One of [`scope`].
        pub scope: u8,
    }
    sizes = 8, 20
}

/// What the address of a frontend's key stands for.
pub mod scope {
    /// Exactly that address: ClusterIP, external IP, load balancer IP, hostPort with a hostIP.
    pub const ADDRESS: u8 = 0;
    /// Every address of this node (the key's address is unspecified): NodePort, hostPort without a hostIP.
    pub const NODE: u8 = 1;
}

abi_struct! {
    /// How a frontend is served.
    pub struct Frontend {
        /// Frontend id and reverse-NAT id, never 0.
        pub id: u32,
        /// The slots' generation that both intervals refer to.
        pub epoch: u32,
        /// Bits of [`flag`].
        pub flags: u32,
        /// Seconds that a client stays with its backend; 0 without affinity.
        pub affinity_timeout_s: u32,
        /// The set for traffic policy Cluster.
        pub cluster: Interval,
        /// The set for traffic policy Local.
        pub local: Interval,
    }
    size = 32
}

abi_struct! {
    /// Slots `start .. start + count` of a frontend.
    pub struct Interval {
        /// Index of the first slot.
        pub start: u32,
        /// How many slots; 0 when the set is empty.
        pub count: u32,
    }
    size = 8
}

/// Bits of [`Frontend::flags`]: what kind of address this is, and which rules hold for it.
pub mod flag {
    /// A ClusterIP: reachable from pods and nodes of the cluster only.
    pub const CLUSTER_IP: u32 = 1 << 0;
    /// A NodePort.
    pub const NODE_PORT: u32 = 1 << 1;
    /// An external IP of a Service.
    pub const EXTERNAL_IP: u32 = 1 << 2;
    /// An IP of a load balancer's status.
    pub const LOAD_BALANCER: u32 = 1 << 3;
    /// A pod's hostPort.
    pub const HOST_PORT: u32 = 1 << 4;
    /// `internalTrafficPolicy: Local`: clients of this node use the local set.
    pub const INTERNAL_LOCAL: u32 = 1 << 5;
    /// `externalTrafficPolicy: Local`: clients outside the cluster use the local set and keep their address.
    pub const EXTERNAL_LOCAL: u32 = 1 << 6;
    /// Clients stay with their backend (`sessionAffinity: ClientIP`).
    pub const AFFINITY: u32 = 1 << 7;
    /// Only sources in the frontend's ranges may connect.
    pub const SOURCE_RANGES: u32 = 1 << 8;
    /// Backends are picked by consistent hashing instead of at random.
    pub const MAGLEV: u32 = 1 << 9;
}
