//! Services that sockets missed: the client's packets go to a backend, the backend's come from the frontend again.
//!
//! ```text
//!  from the pod ─► answered flow? ─────────────────────────────► its backend
//!                    │ no: a frontend? ─► (new-flow program) ─► unanswered flow? ─► its backend
//!                    │ no: passes                                 │ no: select, remember both directions
//!  to the pod ───► answered flow? ─► the frontend as the source   └ nobody serves ─► (refusal program)
//!                    │ no: unanswered? ─► it is answered now
//! ```
//! A packet to a local backend gets that pod's link address: the bridge hands it on as it hands back the answer, so the
//! host's stack sees both directions or neither.

#![expect(clippy::needless_borrows_for_generic_args, reason = "a key by value is another copy on a small stack")]

use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_coarse_ns, bpf_redirect};
use aya_ebpf::programs::TcContext;
use dataplane_abi::conntrack::{Flow, FlowKey, flow_state};
use dataplane_abi::endpoint::Endpoint;
use dataplane_abi::frontend::{FrontendKey, scope};
use dataplane_abi::reason::Reason;
use dataplane_logic::balance::{Decision, Destination, Translation, decide};
use dataplane_logic::checksum::Words;
use dataplane_logic::flow::{self, Side};
use dataplane_logic::packet::{Header, Network};

use crate::maps::FamilyMaps;
use crate::packet::{Segment, Step, Verdict};
use crate::tables::{Dialled, is_active};
use crate::{count, nat};

/// Flows say to the second when they were last seen: a write per packet would cost more than it tells.
const SEEN_INTERVAL_NS: u64 = 1_000_000_000;

/// A TCP or UDP packet with all that was read of it.
pub struct Packet<'a, A> {
    pub ctx: &'a TcContext,
    pub network: Network<A>,
    pub segment: Segment<A>,
    /// The pod whose interface this is.
    pub owner: &'a Endpoint,
}

impl<A: FamilyMaps + Header + Words> Packet<'_, A> {
    /// A packet from a pod.
    ///
    /// # Errors
    /// The reason for which it must be dropped.
    #[inline(always)]
    pub fn from_pod(&self) -> Result<Step, Reason> {
        if self.segment.tuple.destination == A::HAIRPIN {
            return self.reply(Reason::PodEgressPassed);
        }
        let key = flow::original(&self.segment.tuple, self.network.protocol);
        let Some(stored) = A::ANSWERED.get_ptr_mut(&key) else {
            // SAFETY: only asked whether it is there.
            if unsafe { A::FRONTENDS.get(self.frontend_key()) }.is_none() {
                return Ok(self.pass(Reason::PodEgressPassed));
            }
            return Ok(Step::NewFlow);
        };
        // SAFETY: a found entry lives as long as this program's run; another CPU's write at worst loses a time stamp.
        let stored = unsafe { &mut *stored };
        if !self.keeps(stored) {
            return Ok(Step::NewFlow);
        }
        let (backend, port, frontend) = (stored.backend, stored.backend_port, stored.frontend_id);
        touch(stored);
        if flow::is_closing(self.segment.flags) {
            self.advance(&key, stored, Side::Client);
        }
        self.send_on(backend, port, frontend)
    }

    /// A packet from a pod to a frontend, without an answered flow that it belongs to.
    ///
    /// # Errors
    /// The reason for which it must be dropped.
    #[inline(always)]
    pub fn new_flow(&self) -> Result<Step, Reason> {
        let key = flow::original(&self.segment.tuple, self.network.protocol);
        if let Some(stored) = A::UNANSWERED.get_ptr_mut(&key) {
            // SAFETY: as in `from_pod`.
            let stored = unsafe { &mut *stored };
            if self.keeps(stored) {
                flow::observe(stored, Side::Client, self.network.protocol, self.segment.flags);
                touch(stored);
                return self.send_on(stored.backend, stored.backend_port, stored.frontend_id);
            }
        }
        let tuple = &self.segment.tuple;
        let destination =
            Destination { address: tuple.destination, port: tuple.destination_port, protocol: self.network.protocol };
        // SAFETY: the helper has no preconditions.
        let random = unsafe { bpf_get_prandom_u32() };
        match decide(&Dialled::new(), destination, random) {
            Decision::Pass(Reason::NoLocalEndpoint) => Err(Reason::NoLocalEndpointDropped),
            // The frontend went between two programs.
            Decision::Pass(_) => Ok(self.pass(Reason::PodEgressPassed)),
            Decision::Refuse { frontend, .. } => {
                count::rejection(frontend);
                Ok(Step::Refuse)
            }
            Decision::Translate(translation) => {
                self.remember(&key, &translation)?;
                count::connection(translation.frontend);
                self.send_on(translation.address, translation.port, translation.frontend)
            }
        }
    }

    /// A packet to a pod, or from a pod to itself: gives it its frontend as the source if it is a backend's.
    ///
    /// # Errors
    /// The reason for which it must be dropped.
    #[inline(always)]
    pub fn reply(&self, passed: Reason) -> Result<Step, Reason> {
        let tuple = &self.segment.tuple;
        let key = flow::reply(tuple, self.network.protocol);
        let (frontend, port, id) = if let Some(stored) = A::ANSWERED.get_ptr_mut(&key) {
            // SAFETY: as in `from_pod`.
            let stored = unsafe { &mut *stored };
            let found = (stored.frontend, stored.frontend_port, stored.frontend_id);
            touch(stored);
            if flow::is_closing(self.segment.flags) {
                self.advance(&key, stored, Side::Backend);
            }
            found
        } else if let Some(stored) = A::UNANSWERED.get_ptr_mut(&key) {
            // SAFETY: as in `from_pod`.
            let stored = unsafe { &mut *stored };
            let found = (stored.frontend, stored.frontend_port, stored.frontend_id);
            touch(stored);
            self.promote(&key, stored);
            found
        } else {
            return Ok(self.pass(passed));
        };
        let own = tuple.client() == tuple.source;
        nat::rewrite(self.ctx, &self.network, tuple, &tuple.to_client(frontend, port))?;
        count::reason(Reason::ServiceReply, self.ctx.len());
        count::packet(id, self.ctx.len());
        if own { self.send_back() } else { Ok(Step::Done(Verdict::Next)) }
    }

    #[inline(always)]
    fn pass(&self, reason: Reason) -> Step {
        count::reason(reason, self.ctx.len());
        Step::Done(Verdict::Next)
    }

    #[inline(always)]
    fn keeps(&self, stored: &Flow<A>) -> bool {
        let backend = stored.backend_id;
        flow::keeps(stored, self.network.protocol, self.segment.flags, || is_active::<A>(backend))
    }

    #[inline(always)]
    fn frontend_key(&self) -> FrontendKey<A> {
        let tuple = &self.segment.tuple;
        FrontendKey {
            address: tuple.destination,
            port: tuple.destination_port,
            protocol: self.network.protocol,
            scope: scope::ADDRESS,
        }
    }

    /// Translates a client's packet and sends it on: to the stack, to a pod behind the same bridge, or back.
    #[inline(always)]
    fn send_on(&self, backend: A, port: dataplane_abi::Be16, frontend: u32) -> Result<Step, Reason> {
        let tuple = &self.segment.tuple;
        nat::rewrite(self.ctx, &self.network, tuple, &tuple.to_backend(backend, port))?;
        count::reason(Reason::ServiceTranslated, self.ctx.len());
        count::packet(frontend, self.ctx.len());
        if backend == tuple.source {
            return self.send_back();
        }
        // SAFETY: one field is copied at once; the agent replaces whole values.
        if let Some(mac) = unsafe { A::ENDPOINTS.get(backend) }.map(|endpoint| endpoint.mac) {
            nat::store(self.ctx, 0, &mac)?;
        }
        Ok(Step::Done(Verdict::Next))
    }

    /// Sends a packet back into the pod that it came from: neither the bridge nor routing would.
    #[inline(always)]
    fn send_back(&self) -> Result<Step, Reason> {
        nat::store(self.ctx, 0, &[self.owner.mac, self.owner.gateway_mac])?;
        // SAFETY: the helper only notes where the packet goes after this program.
        unsafe { bpf_redirect(self.owner.ifindex, 0) };
        Ok(Step::Done(Verdict::Redirect))
    }

    /// Stores both directions of a new flow, instead of an earlier one from the same port.
    #[inline(always)]
    fn remember(&self, key: &FlowKey<A>, translation: &Translation<A>) -> Result<(), Reason> {
        let tuple = &self.segment.tuple;
        let protocol = self.network.protocol;
        let mut new = Flow {
            last_seen_ns: now(),
            frontend: tuple.destination,
            backend: translation.address,
            frontend_port: tuple.destination_port,
            backend_port: translation.port,
            frontend_id: translation.frontend,
            backend_id: translation.backend,
            identity: 0,
            ifindex: self.owner.ifindex,
            state: flow_state::UNREPLIED,
            flags: 0,
            tcp_flags_original: 0,
            tcp_flags_reply: 0,
        };
        flow::observe(&mut new, Side::Client, protocol, self.segment.flags);
        let reply = flow::other(key, &new);
        // SAFETY: compared at once.
        if let Some(taken) = unsafe { A::ANSWERED.get(&reply) }
            && (taken.frontend != new.frontend || taken.frontend_port != new.frontend_port)
            && taken.state < flow_state::CLOSED
        {
            return Err(Reason::FlowCollision);
        }
        self.forget(key);
        let stored = A::UNANSWERED.insert(key, new, 0).and_then(|()| A::UNANSWERED.insert(&reply, new, 0));
        stored.map_err(|_| Reason::FlowUnstored)
    }

    /// Removes both directions of an earlier flow from the same port.
    #[inline(always)]
    fn forget(&self, key: &FlowKey<A>) {
        if let Some(stored) = A::ANSWERED.get_ptr_mut(key) {
            // SAFETY: as in `from_pod`.
            let reply = flow::other(key, unsafe { &*stored });
            // Missing entries are what is wanted.
            let _ = A::ANSWERED.remove(key);
            let _ = A::ANSWERED.remove(&reply);
        } else if let Some(stored) = A::UNANSWERED.get_ptr_mut(key) {
            // SAFETY: as in `from_pod`.
            let reply = flow::other(key, unsafe { &*stored });
            let _ = A::UNANSWERED.remove(&reply);
        }
    }

    /// Moves a flow that has its first answer among the answered ones, where nothing pushes it out.
    #[inline(always)]
    fn promote(&self, key: &FlowKey<A>, stored: &mut Flow<A>) {
        let original = flow::other(key, stored);
        if let Some(other) = A::UNANSWERED.get_ptr_mut(&original) {
            // SAFETY: as in `from_pod`.
            let other = unsafe { &mut *other };
            stored.tcp_flags_original |= other.tcp_flags_original;
            flow::observe(stored, Side::Backend, self.network.protocol, self.segment.flags);
            other.state = stored.state;
        } else {
            flow::observe(stored, Side::Backend, self.network.protocol, self.segment.flags);
        }
        if stored.state == flow_state::CLOSED {
            return;
        }
        let flow = *stored;
        if A::ANSWERED.insert(&original, flow, 0).is_err() {
            count::reason(Reason::ConntrackFull, self.ctx.len());
        } else if A::ANSWERED.insert(key, flow, 0).is_err() {
            let _ = A::ANSWERED.remove(&original);
            count::reason(Reason::ConntrackFull, self.ctx.len());
        } else {
            let _ = A::UNANSWERED.remove(&original);
            let _ = A::UNANSWERED.remove(key);
        }
    }

    /// Takes a closing packet into account in both directions; a closed flow makes room among the answered ones.
    #[inline(always)]
    fn advance(&self, key: &FlowKey<A>, stored: &mut Flow<A>, side: Side) {
        let other_key = flow::other(key, stored);
        flow::observe(stored, side, self.network.protocol, self.segment.flags);
        if let Some(other) = A::ANSWERED.get_ptr_mut(&other_key) {
            // SAFETY: as in `from_pod`.
            let other = unsafe { &mut *other };
            other.tcp_flags_original = stored.tcp_flags_original;
            other.tcp_flags_reply = stored.tcp_flags_reply;
            other.state = stored.state;
        }
        if stored.state == flow_state::CLOSED {
            let flow = *stored;
            // Where they cannot be stored, the last packets of a closed connection are lost: nobody waits for them.
            let _ = A::UNANSWERED.insert(key, flow, 0);
            let _ = A::UNANSWERED.insert(&other_key, flow, 0);
            let _ = A::ANSWERED.remove(key);
            let _ = A::ANSWERED.remove(&other_key);
        }
    }
}

#[inline(always)]
fn touch<A>(stored: &mut Flow<A>) {
    let now = now();
    if now.wrapping_sub(stored.last_seen_ns) >= SEEN_INTERVAL_NS {
        stored.last_seen_ns = now;
    }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_coarse_ns() }
}
