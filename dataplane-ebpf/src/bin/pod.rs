//! Packet programs, attached to the host side of each pod's interface, in both directions.

#![no_std]
#![no_main]

use aya_ebpf::btf_maps::ProgramArray;
use aya_ebpf::macros::{btf_map, classifier};
use aya_ebpf::programs::TcContext;
use dataplane_abi::reason::Reason;
use dataplane_abi::{Address, Ip4, Ip6, calls};
use dataplane_ebpf::packet::{self, Direction, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Step, Verdict};
use dataplane_ebpf::refuse::refuse;

/// The programs of this generation, by number.
#[btf_map(name = "calls")]
static CALLS: ProgramArray<{ calls::NUMBERS as usize }> = ProgramArray::new();

#[classifier]
fn pod_from(ctx: TcContext) -> i32 {
    by_family(&ctx, calls::FROM_POD4, calls::FROM_POD6).number()
}

#[classifier]
fn pod_to(ctx: TcContext) -> i32 {
    by_family(&ctx, calls::TO_POD4, calls::TO_POD6).number()
}

#[classifier]
fn pod_from4(ctx: TcContext) -> i32 {
    go_on::<Ip4>(&ctx, Direction::FromPod, packet::pod::<Ip4>(&ctx, Direction::FromPod))
}

#[classifier]
fn pod_from6(ctx: TcContext) -> i32 {
    go_on::<Ip6>(&ctx, Direction::FromPod, packet::pod::<Ip6>(&ctx, Direction::FromPod))
}

#[classifier]
fn pod_to4(ctx: TcContext) -> i32 {
    go_on::<Ip4>(&ctx, Direction::ToPod, packet::pod::<Ip4>(&ctx, Direction::ToPod))
}

#[classifier]
fn pod_to6(ctx: TcContext) -> i32 {
    go_on::<Ip6>(&ctx, Direction::ToPod, packet::pod::<Ip6>(&ctx, Direction::ToPod))
}

#[classifier]
fn new_flow4(ctx: TcContext) -> i32 {
    go_on::<Ip4>(&ctx, Direction::FromPod, packet::new_flow::<Ip4>(&ctx))
}

#[classifier]
fn new_flow6(ctx: TcContext) -> i32 {
    go_on::<Ip6>(&ctx, Direction::FromPod, packet::new_flow::<Ip6>(&ctx))
}

#[classifier]
fn refuse4(ctx: TcContext) -> i32 {
    go_on::<Ip4>(&ctx, Direction::FromPod, refuse::<Ip4>(&ctx))
}

#[classifier]
fn refuse6(ctx: TcContext) -> i32 {
    go_on::<Ip6>(&ctx, Direction::FromPod, refuse::<Ip6>(&ctx))
}

/// The programs that an address family's programs go on with.
trait Next: Address {
    const NEW_FLOW: u32;
    const REFUSE: u32;
}

impl Next for Ip4 {
    const NEW_FLOW: u32 = calls::NEW_FLOW4;
    const REFUSE: u32 = calls::REFUSE4;
}

impl Next for Ip6 {
    const NEW_FLOW: u32 = calls::NEW_FLOW6;
    const REFUSE: u32 = calls::REFUSE6;
}

/// Goes on with the program for the packet's family; returns only when there is none.
#[inline(always)]
fn by_family(ctx: &TcContext, ipv4: u32, ipv6: u32) -> Verdict {
    match ctx.skb.protocol() {
        ETHERTYPE_IPV4 => call(ctx, ipv4),
        ETHERTYPE_IPV6 => call(ctx, ipv6),
        _ => packet::not_ip(ctx),
    }
}

/// Does what a program decided: ends here, or goes on with the next one.
#[inline(always)]
fn go_on<A: Next>(ctx: &TcContext, direction: Direction, outcome: Result<Step, Reason>) -> i32 {
    let verdict = match outcome {
        Ok(Step::Done(verdict)) => verdict,
        Ok(Step::NewFlow) => call(ctx, A::NEW_FLOW),
        Ok(Step::Refuse) => call(ctx, A::REFUSE),
        Err(reason) => packet::drop(ctx, direction, A::FAMILY, reason),
    };
    verdict.number()
}

/// Becomes another program of this generation; returns only when it is missing.
#[inline(always)]
fn call(ctx: &TcContext, program: u32) -> Verdict {
    // SAFETY: the array holds programs of this same context type only; the kernel checks it at insertion.
    unsafe { CALLS.tail_call(ctx, program) };
    packet::tail_call_missing(ctx)
}
