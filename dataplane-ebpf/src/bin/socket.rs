//! Socket programs, attached to the node's cgroup: a Service's address is translated once, at the socket.

#![no_std]
#![no_main]

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use dataplane_ebpf::socket::{self, Wire};

#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    socket::connect4(&ctx).number()
}

#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    socket::connect6(&ctx).number()
}

#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(ctx: SockAddrContext) -> i32 {
    socket::sendmsg4(&ctx).number()
}

#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(ctx: SockAddrContext) -> i32 {
    socket::sendmsg6(&ctx).number()
}

// The kernel lets the hooks below answer nothing but 1.

#[cgroup_sock_addr(recvmsg4)]
fn recvmsg4(ctx: SockAddrContext) -> i32 {
    socket::rename_peer(&ctx, Wire::V4, true);
    1
}

#[cgroup_sock_addr(recvmsg6)]
fn recvmsg6(ctx: SockAddrContext) -> i32 {
    socket::rename_peer(&ctx, Wire::V6, true);
    1
}

#[cgroup_sock_addr(getpeername4)]
fn getpeername4(ctx: SockAddrContext) -> i32 {
    socket::rename_peer(&ctx, Wire::V4, false);
    1
}

#[cgroup_sock_addr(getpeername6)]
fn getpeername6(ctx: SockAddrContext) -> i32 {
    socket::rename_peer(&ctx, Wire::V6, false);
    1
}
