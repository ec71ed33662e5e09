//! The socket path: calls to a frontend's address become calls to a backend's, once per connection.
//!
//! ```text
//!  connect ─► decide ─► rewrite the address; remember frontend and backend in the socket's storage
//!  sendmsg ─► decide (stay with the last backend) ─► rewrite; remember by cookie
//!  recvmsg, getpeername ─► the peer is the remembered backend? ─► name the frontend instead
//! ```
//!
//! IPv4-mapped addresses of IPv6 sockets are IPv4 here: they use the IPv4 maps and are mapped again when written back.

use core::marker::PhantomData;
use core::ptr;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_set_retval};
use aya_ebpf::programs::SockAddrContext;
use dataplane_abi::backend::Backend;
use dataplane_abi::config::{flag, setting};
use dataplane_abi::event::{Event, hook};
use dataplane_abi::frontend::{Frontend, FrontendKey};
use dataplane_abi::reason::Reason;
use dataplane_abi::slot::{Slot, SlotKey};
use dataplane_abi::socket::{Reverse, ReverseKey, SocketPeer, Sticky, StickyKey};
use dataplane_abi::{Address, Be16, Ip4, Ip6};
use dataplane_logic::balance::{Decision, Destination, Tables, Translation, decide};
use dataplane_logic::peer;

use crate::maps::{FamilyMaps, SOCKET_OFF, SOCKET_PEERS, SOCKET_REVERSE, SOCKET_STICKY, setting as read_setting};
use crate::tables::Dialled;
use crate::{count, event};

/// Verdicts of the hooks: the call goes on, or fails with the return value that was set.
#[must_use]
#[derive(Clone, Copy)]
pub enum Verdict {
    Proceed,
    Fail,
}

impl Verdict {
    /// The number that the kernel expects.
    #[inline(always)]
    pub const fn number(self) -> i32 {
        match self {
            Self::Proceed => 1,
            Self::Fail => 0,
        }
    }
}

const ECONNREFUSED: i32 = 111;

/// `connect4`.
#[inline(always)]
pub fn connect4(ctx: &SockAddrContext) -> Verdict {
    Call::new(ctx).connect(read4(ctx), Wire::V4)
}

/// `connect6`, also for IPv4-mapped addresses.
#[inline(always)]
pub fn connect6(ctx: &SockAddrContext) -> Verdict {
    let address = read6(ctx);
    match Ip4::from_ip6(address) {
        Some(mapped) => Call::new(ctx).connect(mapped, Wire::V6),
        None => Call::new(ctx).connect(address, Wire::V6),
    }
}

/// `sendmsg4`: datagrams with an address, also of IPv6 sockets to IPv4-mapped ones.
#[inline(always)]
pub fn sendmsg4(ctx: &SockAddrContext) -> Verdict {
    Call::new(ctx).sendmsg(read4(ctx), Wire::V4)
}

/// `sendmsg6`.
#[inline(always)]
pub fn sendmsg6(ctx: &SockAddrContext) -> Verdict {
    Call::new(ctx).sendmsg(read6(ctx), Wire::V6)
}

/// `recvmsg4`, `recvmsg6`, `getpeername4` and `getpeername6`: names the frontend instead of its backend.
#[inline(always)]
pub fn rename_peer(ctx: &SockAddrContext, wire: Wire, unconnected: bool) {
    let address = match wire {
        Wire::V4 => read4(ctx).to_ip6(),
        Wire::V6 => read6(ctx),
    };
    let port = read_port(ctx);
    let name = connected_name(ctx, address, port)
        .or_else(|| if unconnected { unconnected_name(ctx, address, port) } else { None });
    if let Some((address, port)) = name {
        match wire {
            Wire::V4 => write4(ctx, Ip4(address.0[3])),
            Wire::V6 => write6(ctx, address),
        }
        write_port(ctx, port);
    }
}

/// How the context holds the address: an IPv4 address, or an IPv6 one (IPv4 as mapped).
#[derive(Clone, Copy)]
pub enum Wire {
    V4,
    V6,
}

/// One socket call.
struct Call<'a> {
    ctx: &'a SockAddrContext,
    port: Be16,
    protocol: u8,
}

impl<'a> Call<'a> {
    #[inline(always)]
    fn new(ctx: &'a SockAddrContext) -> Self {
        // SAFETY: the kernel passes a valid context; volatile keeps the access as wide as the verifier allows it.
        let protocol = unsafe { ptr::addr_of!((*ctx.sock_addr).protocol).read_volatile() };
        Self { ctx, port: read_port(ctx), protocol: protocol as u8 }
    }

    #[inline(always)]
    fn connect<A: FamilyMaps>(&self, address: A, wire: Wire) -> Verdict {
        if self.skipped() {
            return Verdict::Proceed;
        }
        let destination = Destination { address, port: self.port, protocol: self.protocol };
        match decide(&Dialled::new(), destination, random()) {
            Decision::Pass(reason) => {
                self.forget_peer();
                pass(reason)
            }
            Decision::Refuse { frontend, reason } => self.refuse(address, hook::CONNECT, frontend, reason),
            Decision::Translate(translation) => {
                if !self.remember_peer(address, &translation) {
                    return pass(Reason::SocketStateFull);
                }
                self.translate(&translation, wire)
            }
        }
    }

    #[inline(always)]
    fn sendmsg<A: FamilyMaps>(&self, address: A, wire: Wire) -> Verdict {
        if self.skipped() {
            return Verdict::Proceed;
        }
        // SAFETY: the helper takes the hook's context.
        let cookie = unsafe { bpf_get_socket_cookie(self.ctx.as_ptr()) };
        let destination = Destination { address, port: self.port, protocol: self.protocol };
        match decide(&Sent { cookie, family: PhantomData }, destination, random()) {
            Decision::Pass(reason) => pass(reason),
            Decision::Refuse { frontend, reason } => self.refuse(address, hook::SENDMSG, frontend, reason),
            Decision::Translate(translation) => {
                if !self.remember_datagram(cookie, address, &translation) {
                    return pass(Reason::SocketStateFull);
                }
                self.translate(&translation, wire)
            }
        }
    }

    /// Whether the socket path is switched off for this socket's network namespace: for it alone, or for all but the node's.
    #[inline(always)]
    fn skipped(&self) -> bool {
        // SAFETY: the helper takes the hook's context.
        let cookie = unsafe { bpf_get_netns_cookie(self.ctx.as_ptr()) };
        let host_only = read_setting(setting::FLAGS) & flag::SOCKET_HOST_ONLY != 0;
        // SAFETY: only asked whether it is there.
        let skipped =
            host_only && cookie != read_setting(setting::HOST_NETNS) || unsafe { SOCKET_OFF.get(cookie) }.is_some();
        if skipped {
            count::reason(Reason::SocketSkipped, 0);
        }
        skipped
    }

    #[inline(always)]
    fn translate<A: FamilyMaps>(&self, translation: &Translation<A>, wire: Wire) -> Verdict {
        let address = translation.address.to_ip6();
        match wire {
            Wire::V4 => write4(self.ctx, Ip4(address.0[3])),
            Wire::V6 => write6(self.ctx, address),
        }
        write_port(self.ctx, translation.port);
        if translation.selected {
            count::connection(translation.frontend);
        }
        count::reason(Reason::SocketTranslated, 0);
        Verdict::Proceed
    }

    #[inline(always)]
    fn refuse<A: FamilyMaps>(&self, address: A, hook: u8, frontend: u32, reason: Reason) -> Verdict {
        count::rejection(frontend);
        count::reason(reason, 0);
        event::report(&Event {
            // SAFETY: the helper takes the hook's context.
            cookie: unsafe { bpf_get_socket_cookie(self.ctx.as_ptr()) },
            destination: address.to_ip6(),
            destination_port: self.port,
            protocol: self.protocol,
            hook,
            reason: reason.number(),
            family: A::FAMILY,
            frontend,
            ..Event::default()
        });
        // SAFETY: the helper only stores the value that the call returns.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
        Verdict::Fail
    }

    /// Keeps the translation in the socket; the value of an earlier connect of the same socket is replaced.
    #[inline(always)]
    fn remember_peer<A: FamilyMaps>(&self, dialled: A, translation: &Translation<A>) -> bool {
        let mut peer = SocketPeer {
            frontend: dialled.to_ip6(),
            backend: translation.address.to_ip6(),
            frontend_port: self.port,
            backend_port: translation.port,
            frontend_id: translation.frontend,
            backend_id: translation.backend,
            protocol: u32::from(self.protocol),
        };
        // SAFETY: the context holds the calling socket.
        let stored = unsafe { SOCKET_PEERS.get_or_insert_ptr_mut(self.ctx, Some(&mut peer)) };
        if stored.is_null() {
            return false;
        }
        // SAFETY: not null, and the socket is locked by the call that this hook serves.
        unsafe { *stored = peer };
        true
    }

    /// Forgets the translation of an earlier connect: what is dialled now may be that backend's own address.
    #[inline(always)]
    fn forget_peer(&self) {
        // SAFETY: the context holds the calling socket.
        let stored = unsafe { SOCKET_PEERS.get_ptr_mut(self.ctx) };
        // SAFETY: null or this socket's own value, and the socket is locked by the call that this hook serves.
        if let Some(peer) = unsafe { stored.as_mut() } {
            *peer = SocketPeer::default();
        }
    }

    /// Keeps the translation by the socket's cookie, both ways.
    #[inline(always)]
    fn remember_datagram<A: FamilyMaps>(&self, cookie: u64, dialled: A, translation: &Translation<A>) -> bool {
        let reverse_key = ReverseKey {
            cookie,
            backend: translation.address.to_ip6(),
            backend_port: translation.port,
            reserved: [0; 3],
        };
        let reverse = Reverse {
            frontend: dialled.to_ip6(),
            frontend_port: self.port,
            reserved: 0,
            frontend_id: translation.frontend,
        };
        // An update per datagram would cost a lock each; the entry of a kept backend is already there.
        // SAFETY: the value is compared at once, before anything can replace it for this socket.
        let known = unsafe { SOCKET_REVERSE.get(reverse_key) }.is_some_and(|stored| *stored == reverse);
        if !known && SOCKET_REVERSE.insert(reverse_key, reverse, 0).is_err() {
            return false;
        }
        let key = StickyKey { cookie, frontend: translation.frontend, reserved: 0 };
        let sticky = Sticky { backend: translation.backend, epoch: translation.epoch };
        // SAFETY: as above.
        let known = unsafe { SOCKET_STICKY.get(key) }.is_some_and(|stored| *stored == sticky);
        known || SOCKET_STICKY.insert(key, sticky, 0).is_ok()
    }
}

#[inline(always)]
fn pass(reason: Reason) -> Verdict {
    count::reason(reason, 0);
    Verdict::Proceed
}

#[inline(always)]
fn random() -> u32 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_prandom_u32() }
}

/// What `sendmsg` looks at: also what this socket used last.
struct Sent<A> {
    cookie: u64,
    family: PhantomData<A>,
}

impl<A: FamilyMaps> Tables<A> for Sent<A> {
    #[inline(always)]
    fn frontend(&self, key: &FrontendKey<A>) -> Option<Frontend> {
        Dialled::new().frontend(key)
    }

    #[inline(always)]
    fn slot(&self, key: &SlotKey) -> Option<Slot> {
        Tables::<A>::slot(&Dialled::new(), key)
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<Backend<A>> {
        Dialled::new().backend(id)
    }

    #[inline(always)]
    fn sticky(&self, frontend: u32) -> Option<Sticky> {
        // SAFETY: copied at once; only this socket's own calls write the entry.
        unsafe { SOCKET_STICKY.get(StickyKey { cookie: self.cookie, frontend, reserved: 0 }) }.copied()
    }
}

#[inline(always)]
fn connected_name(ctx: &SockAddrContext, address: Ip6, port: Be16) -> Option<(Ip6, Be16)> {
    // SAFETY: the context holds the calling socket.
    let stored = unsafe { SOCKET_PEERS.get_ptr_mut(ctx) };
    // SAFETY: null or this socket's own value, which only its own connect writes.
    peer::connected(unsafe { stored.as_ref() }?, address, port)
}

#[inline(always)]
fn unconnected_name(ctx: &SockAddrContext, address: Ip6, port: Be16) -> Option<(Ip6, Be16)> {
    // SAFETY: the helper takes the hook's context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let key = ReverseKey { cookie, backend: address, backend_port: port, reserved: [0; 3] };
    // SAFETY: copied at once.
    unsafe { SOCKET_REVERSE.get(key) }.map(peer::unconnected)
}

// The verifier rewrites each access to a context field by its exact offset and width, so every access below is one
// volatile word: the compiler may not widen, merge or move it.

#[inline(always)]
fn read4(ctx: &SockAddrContext) -> Ip4 {
    // SAFETY: the kernel passes a valid context.
    Ip4(unsafe { ptr::addr_of!((*ctx.sock_addr).user_ip4).read_volatile() })
}

#[inline(always)]
fn write4(ctx: &SockAddrContext, address: Ip4) {
    // SAFETY: as above; IPv4 hooks may write this field.
    unsafe { ptr::addr_of_mut!((*ctx.sock_addr).user_ip4).write_volatile(address.0) }
}

#[inline(always)]
fn read6(ctx: &SockAddrContext) -> Ip6 {
    let context: *mut bpf_sock_addr = ctx.sock_addr;
    // SAFETY: as above.
    unsafe {
        Ip6([
            ptr::addr_of!((*context).user_ip6[0]).read_volatile(),
            ptr::addr_of!((*context).user_ip6[1]).read_volatile(),
            ptr::addr_of!((*context).user_ip6[2]).read_volatile(),
            ptr::addr_of!((*context).user_ip6[3]).read_volatile(),
        ])
    }
}

#[inline(always)]
fn write6(ctx: &SockAddrContext, address: Ip6) {
    let context: *mut bpf_sock_addr = ctx.sock_addr;
    let [first, second, third, last] = address.0;
    // SAFETY: as above; IPv6 hooks may write this field.
    unsafe {
        ptr::addr_of_mut!((*context).user_ip6[0]).write_volatile(first);
        ptr::addr_of_mut!((*context).user_ip6[1]).write_volatile(second);
        ptr::addr_of_mut!((*context).user_ip6[2]).write_volatile(third);
        ptr::addr_of_mut!((*context).user_ip6[3]).write_volatile(last);
    }
}

#[inline(always)]
fn read_port(ctx: &SockAddrContext) -> Be16 {
    // SAFETY: as above. The field is a word whose first two bytes are the port in network order.
    let word = unsafe { ptr::addr_of!((*ctx.sock_addr).user_port).read_volatile() };
    Be16(word as u16)
}

#[inline(always)]
fn write_port(ctx: &SockAddrContext, port: Be16) {
    // SAFETY: as above.
    unsafe { ptr::addr_of_mut!((*ctx.sock_addr).user_port).write_volatile(u32::from(port.0)) }
}
