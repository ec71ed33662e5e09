//! The packet path on pod interfaces: what a packet is, whose it is, what becomes of it.
//!
//! ```text
//!  entry (per direction) ─► family's program by tail call ─► parse ─► endpoint ─► verdict
//! ```
//!
//! Policy, Services that sockets missed, connection tracking and redirects join between endpoint and verdict.

use core::ptr;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes_relative;
use aya_ebpf::programs::TcContext;
use dataplane_abi::event::{Event, hook};
use dataplane_abi::reason::Reason;
use dataplane_logic::packet::{Header, Network};

use crate::maps::FamilyMaps;
use crate::{count, event};

/// What becomes of a packet.
#[must_use]
#[derive(Clone, Copy)]
pub enum Verdict {
    /// On to the next program, then the stack.
    Next,
    /// Gone.
    Drop,
}

impl Verdict {
    /// The number that the kernel expects. `Next` is -1: "no opinion", which TCX and clsact both hand on.
    #[inline(always)]
    pub const fn number(self) -> i32 {
        match self {
            Self::Next => -1,
            Self::Drop => 2,
        }
    }
}

/// Which way a packet crosses a pod's interface.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    FromPod,
    ToPod,
}

/// EtherType of IPv4, in network order as contexts hold it.
pub const ETHERTYPE_IPV4: u32 = 0x0800_u16.to_be() as u32;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u32 = 0x86dd_u16.to_be() as u32;

const ETHERNET_HEADER: u32 = 14;
/// Offsets count from the network header (`BPF_HDR_START_NET`), wherever link headers end.
const FROM_NETWORK_HEADER: u32 = 1;

/// Counts and passes a packet of no family that we know.
#[inline(always)]
pub fn not_ip(ctx: &TcContext) -> Verdict {
    count::reason(Reason::NotIp, ctx.len());
    Verdict::Next
}

/// Counts and passes a packet whose family's program is missing: the generation is being replaced.
#[inline(always)]
pub fn tail_call_missing(ctx: &TcContext) -> Verdict {
    count::reason(Reason::TailCallMissing, ctx.len());
    Verdict::Next
}

/// Turns what a family's program decided into a verdict, and counts and reports drops.
#[inline(always)]
pub fn conclude(ctx: &TcContext, direction: Direction, family: u8, outcome: Result<Verdict, Reason>) -> Verdict {
    match outcome {
        Ok(verdict) => verdict,
        Err(reason) => {
            count::reason(reason, ctx.len());
            event::report(&Event {
                hook: match direction {
                    Direction::FromPod => hook::POD_EGRESS,
                    Direction::ToPod => hook::POD_INGRESS,
                },
                reason: reason.number(),
                family,
                ifindex: ifindex(ctx),
                length: ctx.len(),
                ..Event::default()
            });
            Verdict::Drop
        }
    }
}

/// One family's program.
///
/// # Errors
/// The reason for which the packet must be dropped.
#[inline(always)]
pub fn pod<A: FamilyMaps + Header>(ctx: &TcContext, direction: Direction) -> Result<Verdict, Reason> {
    let network = parse::<A>(ctx)?;
    let (address, passed) = match direction {
        Direction::FromPod => (network.source, Reason::PodEgressPassed),
        Direction::ToPod => (network.destination, Reason::PodIngressPassed),
    };
    // SAFETY: one field is copied at once; the agent replaces whole values.
    let owner = unsafe { A::ENDPOINTS.get(address) }.map(|endpoint| endpoint.ifindex);
    let reason = if owner == Some(ifindex(ctx)) { passed } else { Reason::UnknownEndpoint };
    count::reason(reason, ctx.len());
    Ok(Verdict::Next)
}

#[inline(always)]
fn parse<A: Header>(ctx: &TcContext) -> Result<Network<A>, Reason> {
    let mut bytes = A::Bytes::default();
    // SAFETY: the buffer is as long as the length passed with it; the helper fails rather than read past the packet.
    let result = unsafe {
        bpf_skb_load_bytes_relative(
            ctx.as_ptr(),
            0,
            ptr::from_mut(&mut bytes).cast(),
            size_of::<A::Bytes>() as u32,
            FROM_NETWORK_HEADER,
        )
    };
    if result != 0 {
        return Err(Reason::Truncated);
    }
    A::parse(&bytes, ctx.len().saturating_sub(ETHERNET_HEADER))
}

#[inline(always)]
fn ifindex(ctx: &TcContext) -> u32 {
    // SAFETY: the kernel passes a valid context.
    unsafe { ptr::addr_of!((*ctx.skb.skb).ifindex).read_volatile() }
}
