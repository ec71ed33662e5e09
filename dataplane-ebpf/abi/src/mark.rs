//! Our bits of `skb->mark`, the one field that travels with a packet between our programs and the stack.
//!
//! Clear of `0x4000` and `0x8000` (kube-proxy: masquerade, drop) and of `0x0f00` (Cilium). Programs set and clear only
//! bits within [`MASK`].

/// All bits that are ours.
pub const MASK: u32 = 0x7000_0000;
/// The receiving pod's policy has been applied; do not apply it again when the packet takes the bridge.
pub const POLICY_APPLIED: u32 = 0x1000_0000;
/// Leaves the cluster: the uplink program gives it the node's address.
pub const MASQUERADE: u32 = 0x2000_0000;
/// Sent by our gateway on behalf of a client.
pub const GATEWAY: u32 = 0x4000_0000;

const _: () = assert!(MASK & 0xcf00 == 0, "mark bits of others");
const _: () = assert!(POLICY_APPLIED | MASQUERADE | GATEWAY == MASK, "mark bits outside the mask");
