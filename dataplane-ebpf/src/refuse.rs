//! Answering a packet to a Service that nobody serves, back into the pod that sent it.

use core::ptr;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_skb_change_tail};
use aya_ebpf::programs::TcContext;
use dataplane_abi::protocol::TCP;
use dataplane_abi::reason::Reason;
use dataplane_abi::{Ip4, Ip6};
use dataplane_logic::packet::{Header, Network};
use dataplane_logic::refusal::{self, TcpHeader};

use crate::nat::store;
use crate::packet::{ETHERNET_HEADER, Step, Verdict, ifindex, load, parse};
use crate::{count, packet};

/// A family in which refusals can be written.
pub trait Refuse: Header {
    /// Answers a TCP segment.
    ///
    /// # Errors
    /// The reason for which the packet must be dropped instead.
    fn reset(ctx: &TcContext, segment: &TcpHeader, data: u32) -> Result<(), Reason>;

    /// Answers a datagram.
    ///
    /// # Errors
    /// The reason for which the packet must be dropped instead.
    fn unreachable(ctx: &TcContext, network: &Network<Self>) -> Result<(), Reason>;
}

/// A packet from a pod to a frontend without endpoints.
///
/// # Errors
/// [`Reason::NoEndpoint`] where no answer is due, or another reason for which the packet must be dropped.
#[inline(always)]
pub fn refuse<A: Refuse>(ctx: &TcContext) -> Result<Step, Reason> {
    let network = parse::<A>(ctx)?;
    let length = ctx.len();
    let links: [[u8; 6]; 2] = load_start(ctx)?;
    if network.protocol == TCP {
        let segment: TcpHeader = load(ctx, network.transport)?;
        let header = u32::from(segment[3].to_ne_bytes()[0] >> 4) * 4;
        let before = ETHERNET_HEADER + network.transport + header;
        // What an Ethernet frame is padded with would be taken for data; a SYN that short has none.
        A::reset(ctx, &segment, length.saturating_sub(before))?;
    } else {
        A::unreachable(ctx, &network)?;
    }
    store(ctx, 0, &[links[1], links[0]])?;
    count::reason(Reason::NoEndpoint, length);
    packet::report(ctx, packet::Direction::FromPod, A::FAMILY, Reason::NoEndpoint, length);
    // SAFETY: the helper only notes where the packet goes after this program.
    unsafe { bpf_redirect(ifindex(ctx), 0) };
    Ok(Step::Done(Verdict::Redirect))
}

impl Refuse for Ip4 {
    #[inline(always)]
    fn reset(ctx: &TcContext, segment: &TcpHeader, data: u32) -> Result<(), Reason> {
        let (header, segment) = refusal::reset4(&load(ctx, 0)?, segment, data).ok_or(Reason::NoEndpoint)?;
        resize(ctx, 40)?;
        store(ctx, ETHERNET_HEADER, &header)?;
        store(ctx, ETHERNET_HEADER + 20, &segment)
    }

    #[inline(always)]
    fn unreachable(ctx: &TcContext, network: &Network<Self>) -> Result<(), Reason> {
        // A header with options is quoted in no fixed size; nobody sends them to a Service.
        if network.transport != 20 {
            return Err(Reason::NoEndpoint);
        }
        let quoted = load(ctx, 0)?;
        let (header, message) = refusal::unreachable4(&quoted);
        resize(ctx, 56)?;
        store(ctx, ETHERNET_HEADER, &header)?;
        store(ctx, ETHERNET_HEADER + 20, &message)?;
        store(ctx, ETHERNET_HEADER + 28, &quoted)
    }
}

impl Refuse for Ip6 {
    #[inline(always)]
    fn reset(ctx: &TcContext, segment: &TcpHeader, data: u32) -> Result<(), Reason> {
        let (header, segment) = refusal::reset6(&load(ctx, 0)?, segment, data).ok_or(Reason::NoEndpoint)?;
        resize(ctx, 60)?;
        store(ctx, ETHERNET_HEADER, &header)?;
        store(ctx, ETHERNET_HEADER + 40, &segment)
    }

    #[inline(always)]
    fn unreachable(ctx: &TcContext, _network: &Network<Self>) -> Result<(), Reason> {
        let quoted = load(ctx, 0)?;
        let (header, message) = refusal::unreachable6(&quoted);
        resize(ctx, 96)?;
        store(ctx, ETHERNET_HEADER, &header)?;
        store(ctx, ETHERNET_HEADER + 40, &message)?;
        store(ctx, ETHERNET_HEADER + 48, &quoted)
    }
}

/// Makes the packet this long behind its link header.
#[inline(always)]
fn resize(ctx: &TcContext, length: u32) -> Result<(), Reason> {
    // SAFETY: the helper takes the program's context.
    let result = unsafe { bpf_skb_change_tail(ctx.as_ptr().cast(), ETHERNET_HEADER + length, 0) };
    if result == 0 { Ok(()) } else { Err(Reason::Unwritable) }
}

/// The two link addresses.
#[inline(always)]
fn load_start(ctx: &TcContext) -> Result<[[u8; 6]; 2], Reason> {
    let mut links = [[0; 6]; 2];
    // SAFETY: the buffer is as long as the length passed with it; the helper fails rather than read past the packet.
    let result = unsafe {
        aya_ebpf::helpers::generated::bpf_skb_load_bytes(
            ctx.as_ptr().cast(),
            0,
            ptr::from_mut(&mut links).cast(),
            size_of::<[[u8; 6]; 2]>() as u32,
        )
    };
    if result == 0 { Ok(links) } else { Err(Reason::Truncated) }
}
