//! Changing a packet's addresses and ports, with every checksum that covers them.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::generated::{bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_skb_store_bytes};
use aya_ebpf::programs::TcContext;
use dataplane_abi::protocol::TCP;
use dataplane_abi::reason::Reason;
use dataplane_logic::checksum::{self, Words};
use dataplane_logic::packet::{Header, Network};
use dataplane_logic::tuple::Tuple;

use crate::packet::ETHERNET_HEADER;

const TCP_CHECKSUM: u32 = 16;
const UDP_CHECKSUM: u32 = 6;

/// Gives a TCP or UDP packet other addresses and ports.
///
/// The checksums go through the kernel's helpers, because the packet may carry only half of one, to be completed by the
/// interface: then ports must not be added, and addresses differently.
///
/// # Errors
/// [`Reason::Unwritable`] if the kernel refuses; the packet may be half changed then.
#[inline(always)]
pub fn rewrite<A: Header + Words>(
    ctx: &TcContext,
    network: &Network<A>,
    old: &Tuple<A>,
    new: &Tuple<A>,
) -> Result<(), Reason> {
    let transport = ETHERNET_HEADER + network.transport;
    let addresses = u64::from(checksum::addresses(old, new));
    let ports = u64::from(checksum::ports(old, new));
    // A UDP checksum of 0 means "none": it stays none, and a computed one never becomes 0.
    let (at, flags) = if network.protocol == TCP {
        (transport + TCP_CHECKSUM, 0)
    } else {
        (transport + UDP_CHECKSUM, u64::from(BPF_F_MARK_MANGLED_0))
    };
    // SAFETY: the helpers take the program's context, and refuse offsets outside the packet.
    let result = unsafe {
        bpf_l4_csum_replace(ctx.skb.skb, at, 0, addresses, u64::from(BPF_F_PSEUDO_HDR) | flags)
            | bpf_l4_csum_replace(ctx.skb.skb, at, 0, ports, flags)
            | match A::CHECKSUM {
                Some(own) => bpf_l3_csum_replace(ctx.skb.skb, ETHERNET_HEADER + own, 0, addresses, 0),
                None => 0,
            }
    };
    if result != 0 {
        return Err(Reason::Unwritable);
    }
    store(ctx, ETHERNET_HEADER + A::ADDRESSES, &[new.source, new.destination])?;
    store(ctx, transport, &[new.source_port, new.destination_port])
}

/// Writes a value's bytes at an offset from the packet's beginning.
///
/// # Errors
/// [`Reason::Unwritable`] if the kernel refuses.
#[inline(always)]
pub fn store<T>(ctx: &TcContext, at: u32, value: &T) -> Result<(), Reason> {
    let bytes: *const c_void = ptr::from_ref(value).cast();
    // SAFETY: the value is as long as the length says; every type used here is plain bytes without padding.
    let result = unsafe { bpf_skb_store_bytes(ctx.as_ptr().cast(), at, bytes, size_of::<T>() as u32, 0) };
    if result == 0 { Ok(()) } else { Err(Reason::Unwritable) }
}
