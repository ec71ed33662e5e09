//! The packet path on pod interfaces: what a packet is, whose it is, what becomes of it.
//!
//! ```text
//!  entry (per direction) ─► family's program by tail call ─► parse ─► endpoint ─► Service (service.rs) ─► verdict
//! ```
//!
//! Policy and redirects to remote pods join between endpoint and verdict.

use core::ptr;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes_relative;
use aya_ebpf::programs::TcContext;
use dataplane_abi::Be16;
use dataplane_abi::endpoint::Endpoint;
use dataplane_abi::event::{Event, hook};
use dataplane_abi::protocol::{TCP, UDP};
use dataplane_abi::reason::Reason;
use dataplane_logic::checksum::Words;
use dataplane_logic::packet::{Header, Network};
use dataplane_logic::tuple::Tuple;

use crate::maps::FamilyMaps;
use crate::service::Packet;
use crate::{count, event};

/// What becomes of a packet.
#[must_use]
#[derive(Clone, Copy)]
pub enum Verdict {
    /// On to the next program, then the stack.
    Next,
    /// Gone.
    Drop,
    /// To where `bpf_redirect` was told.
    Redirect,
}

impl Verdict {
    /// The number that the kernel expects. `Next` is -1: "no opinion", which TCX and clsact both hand on.
    #[inline(always)]
    pub const fn number(self) -> i32 {
        match self {
            Self::Next => -1,
            Self::Drop => 2,
            Self::Redirect => 7,
        }
    }
}

/// What comes after a program.
#[must_use]
#[derive(Clone, Copy)]
pub enum Step {
    /// Nothing.
    Done(Verdict),
    /// The program for packets that open a flow.
    NewFlow,
    /// The program that answers in place of a backend.
    Refuse,
}

/// What was read of a TCP or UDP header.
#[derive(Clone, Copy)]
pub struct Segment<A> {
    pub tuple: Tuple<A>,
    /// TCP's flags; 0 for UDP.
    pub flags: u8,
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

/// Bytes of a link header without tags; tagged packets are not looked into.
pub const ETHERNET_HEADER: u32 = 14;
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

/// Counts and reports a drop.
#[inline(always)]
pub fn drop(ctx: &TcContext, direction: Direction, family: u8, reason: Reason) -> Verdict {
    count::reason(reason, ctx.len());
    report(ctx, direction, family, reason, ctx.len());
    Verdict::Drop
}

/// Reports a packet of this length.
#[inline(always)]
pub fn report(ctx: &TcContext, direction: Direction, family: u8, reason: Reason, length: u32) {
    event::report(&Event {
        hook: match direction {
            Direction::FromPod => hook::POD_EGRESS,
            Direction::ToPod => hook::POD_INGRESS,
        },
        reason: reason.number(),
        family,
        ifindex: ifindex(ctx),
        length,
        ..Event::default()
    });
}

/// One family's program for a direction.
///
/// # Errors
/// The reason for which the packet must be dropped.
#[inline(always)]
pub fn pod<A: FamilyMaps + Header + Words>(ctx: &TcContext, direction: Direction) -> Result<Step, Reason> {
    let passed = match direction {
        Direction::FromPod => Reason::PodEgressPassed,
        Direction::ToPod => Reason::PodIngressPassed,
    };
    match read::<A>(ctx, direction, passed)? {
        Ok(packet) if matches!(direction, Direction::FromPod) => packet.from_pod(),
        Ok(packet) => packet.reply(passed),
        Err(reason) => {
            count::reason(reason, ctx.len());
            Ok(Step::Done(Verdict::Next))
        }
    }
}

/// One family's program for packets that open a flow through a Service.
///
/// # Errors
/// The reason for which the packet must be dropped.
#[inline(always)]
pub fn new_flow<A: FamilyMaps + Header + Words>(ctx: &TcContext) -> Result<Step, Reason> {
    match read::<A>(ctx, Direction::FromPod, Reason::PodEgressPassed)? {
        Ok(packet) => packet.new_flow(),
        Err(reason) => {
            count::reason(reason, ctx.len());
            Ok(Step::Done(Verdict::Next))
        }
    }
}

/// Reads a packet. The inner error is the reason to let it go on without looking at its ports.
#[inline(always)]
fn read<A: FamilyMaps + Header>(
    ctx: &TcContext,
    direction: Direction,
    passed: Reason,
) -> Result<Result<Packet<'_, A>, Reason>, Reason> {
    let network = parse::<A>(ctx)?;
    let address = match direction {
        Direction::FromPod => network.source,
        Direction::ToPod => network.destination,
    };
    let Some(owner) = owner(ctx, address) else {
        return Ok(Err(Reason::UnknownEndpoint));
    };
    if network.fragment {
        return Ok(Err(Reason::Fragment));
    }
    let Some(segment) = segment(ctx, &network)? else {
        return Ok(Err(passed));
    };
    Ok(Ok(Packet { ctx, network, segment, owner }))
}

/// The pod with this address, if this is its interface.
#[inline(always)]
fn owner<A: FamilyMaps>(ctx: &TcContext, address: A) -> Option<&Endpoint> {
    // SAFETY: a found entry lives as long as this program's run; the agent replaces whole values.
    unsafe { A::ENDPOINTS.get(address) }.filter(|endpoint| endpoint.ifindex == ifindex(ctx))
}

/// Reads the transport header; `None` for protocols other than TCP and UDP.
#[inline(always)]
fn segment<A: Header>(ctx: &TcContext, network: &Network<A>) -> Result<Option<Segment<A>>, Reason> {
    // The bytes up to the flags, or the whole of a UDP header.
    let (ports, flags) = match network.protocol {
        TCP => {
            let bytes: [u8; 14] = load(ctx, network.transport)?;
            ([bytes[0], bytes[1], bytes[2], bytes[3]], bytes[13])
        }
        UDP => {
            let bytes: [u8; 8] = load(ctx, network.transport)?;
            ([bytes[0], bytes[1], bytes[2], bytes[3]], 0)
        }
        _ => return Ok(None),
    };
    let tuple = Tuple {
        source: network.source,
        destination: network.destination,
        source_port: Be16(u16::from_ne_bytes([ports[0], ports[1]])),
        destination_port: Be16(u16::from_ne_bytes([ports[2], ports[3]])),
    };
    Ok(Some(Segment { tuple, flags }))
}

/// Reads the network header.
///
/// # Errors
/// [`Reason::Truncated`].
#[inline(always)]
pub fn parse<A: Header>(ctx: &TcContext) -> Result<Network<A>, Reason> {
    A::parse(&load(ctx, 0)?, ctx.len().saturating_sub(ETHERNET_HEADER))
}

/// Reads bytes at an offset from the network header.
///
/// # Errors
/// [`Reason::Truncated`] if the packet ends before.
#[inline(always)]
pub fn load<T: Copy + Default>(ctx: &TcContext, at: u32) -> Result<T, Reason> {
    let mut bytes = T::default();
    // SAFETY: the buffer is as long as the length passed with it, and every type used here may hold any bytes; the
    // helper fails rather than read past the packet.
    let result = unsafe {
        bpf_skb_load_bytes_relative(
            ctx.as_ptr(),
            at,
            ptr::from_mut(&mut bytes).cast(),
            size_of::<T>() as u32,
            FROM_NETWORK_HEADER,
        )
    };
    if result == 0 { Ok(bytes) } else { Err(Reason::Truncated) }
}

/// The interface that the packet is on.
#[inline(always)]
pub fn ifindex(ctx: &TcContext) -> u32 {
    // SAFETY: the kernel passes a valid context.
    unsafe { ptr::addr_of!((*ctx.skb.skb).ifindex).read_volatile() }
}
