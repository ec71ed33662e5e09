//! Source ranges: who may use a frontend with `loadBalancerSourceRanges`.

use crate::address::{Ip4, Ip6};
use crate::layout::{Layout, abi_struct};

/// IPv4 ranges (longest prefix match). The value is 1: allowed.
pub const MAP4: Layout = Layout::prefixes_of::<SourceRange<Ip4>, u32>("source_ranges4", 1, ENTRIES_DEFAULT);
/// IPv6 ranges (longest prefix match). The value is 1: allowed.
pub const MAP6: Layout = Layout::prefixes_of::<SourceRange<Ip6>, u32>("source_ranges6", 1, ENTRIES_DEFAULT);

/// Ranges per family unless the operator chose otherwise.
pub const ENTRIES_DEFAULT: u32 = 16_384;
/// The bits of a key before the address: its prefix length is these plus the range's own.
pub const FRONTEND_BITS: u32 = 32;

abi_struct! {
    /// A range of one frontend; an exact lookup uses all bits.
    pub struct SourceRange<A> {
        /// The frontend's id.
        pub frontend: u32,
        /// The range's address, or the client's in a lookup.
        pub address: A,
    }
    sizes = 8, 20
}
