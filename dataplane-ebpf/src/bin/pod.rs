//! Packet programs, attached to the host side of each pod's interface, in both directions.

#![no_std]
#![no_main]

use aya_ebpf::btf_maps::ProgramArray;
use aya_ebpf::macros::{btf_map, classifier};
use aya_ebpf::programs::TcContext;
use dataplane_abi::{Address, Ip4, Ip6, calls};
use dataplane_ebpf::packet::{self, Direction, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Verdict};

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
    let outcome = packet::pod::<Ip4>(&ctx, Direction::FromPod);
    packet::conclude(&ctx, Direction::FromPod, Ip4::FAMILY, outcome).number()
}

#[classifier]
fn pod_from6(ctx: TcContext) -> i32 {
    let outcome = packet::pod::<Ip6>(&ctx, Direction::FromPod);
    packet::conclude(&ctx, Direction::FromPod, Ip6::FAMILY, outcome).number()
}

#[classifier]
fn pod_to4(ctx: TcContext) -> i32 {
    let outcome = packet::pod::<Ip4>(&ctx, Direction::ToPod);
    packet::conclude(&ctx, Direction::ToPod, Ip4::FAMILY, outcome).number()
}

#[classifier]
fn pod_to6(ctx: TcContext) -> i32 {
    let outcome = packet::pod::<Ip6>(&ctx, Direction::ToPod);
    packet::conclude(&ctx, Direction::ToPod, Ip6::FAMILY, outcome).number()
}

/// Goes on with the program for the packet's family; returns only when there is none.
#[inline(always)]
fn by_family(ctx: &TcContext, ipv4: u32, ipv6: u32) -> Verdict {
    let program = match ctx.skb.protocol() {
        ETHERTYPE_IPV4 => ipv4,
        ETHERTYPE_IPV6 => ipv6,
        _ => return packet::not_ip(ctx),
    };
    // SAFETY: the array holds programs of this same context type only; the kernel checks it at insertion.
    unsafe { CALLS.tail_call(ctx, program) };
    packet::tail_call_missing(ctx)
}
