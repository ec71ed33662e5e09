//! The maps, under the names that `dataplane-abi` gives them. The agent pins them; sizes here are the defaults.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf, SkStorage};
use aya_ebpf::macros::btf_map;
use dataplane_abi::backend::{self, Backend};
use dataplane_abi::config::setting;
use dataplane_abi::conntrack::{self, Flow, FlowKey};
use dataplane_abi::counters::{FRONTENDS, FrontendCounters, ReasonCounters};
use dataplane_abi::endpoint::{self, Endpoint};
use dataplane_abi::event::{self, Event};
use dataplane_abi::frontend::{self, Frontend, FrontendKey};
use dataplane_abi::slot::{self, Slot, SlotKey};
use dataplane_abi::socket::{OFF, REVERSE, Reverse, ReverseKey, STICKY, SocketPeer, Sticky, StickyKey};
use dataplane_abi::{Address, Ip4, Ip6, reason};

/// Memory for an entry when it is inserted: most nodes use a small part of the tables.
const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;
const FRONTENDS_MAX: usize = frontend::ENTRIES_DEFAULT as usize;
const BACKENDS_MAX: usize = backend::ENTRIES_DEFAULT as usize;
const ENDPOINTS_MAX: usize = endpoint::ENTRIES_DEFAULT as usize;
const UNANSWERED_MAX: usize = conntrack::NEW4.entries_default as usize;
const ANSWERED_MAX: usize = conntrack::REPLIED4.entries_default as usize;

pub type Frontends<A> = HashMap<FrontendKey<A>, Frontend, FRONTENDS_MAX, ON_DEMAND>;
pub type Backends<A> = HashMap<u32, Backend<A>, BACKENDS_MAX, ON_DEMAND>;
pub type Endpoints<A> = HashMap<A, Endpoint, ENDPOINTS_MAX, ON_DEMAND>;
pub type Unanswered<A> = LruHashMap<FlowKey<A>, Flow<A>, UNANSWERED_MAX>;
/// With its memory from the start: a flow must not fail for want of memory in the middle of a packet.
pub type Answered<A> = HashMap<FlowKey<A>, Flow<A>, ANSWERED_MAX>;

#[btf_map(name = "frontends4")]
static FRONTENDS4: Frontends<Ip4> = HashMap::new();
#[btf_map(name = "frontends6")]
static FRONTENDS6: Frontends<Ip6> = HashMap::new();
#[btf_map(name = "slots")]
pub static SLOTS: HashMap<SlotKey, Slot, { slot::MAP.entries_default as usize }, ON_DEMAND> = HashMap::new();
#[btf_map(name = "backends4")]
static BACKENDS4: Backends<Ip4> = HashMap::new();
#[btf_map(name = "backends6")]
static BACKENDS6: Backends<Ip6> = HashMap::new();
#[btf_map(name = "socket_peers")]
pub static SOCKET_PEERS: SkStorage<SocketPeer> = SkStorage::new();
#[btf_map(name = "socket_sticky")]
pub static SOCKET_STICKY: LruHashMap<StickyKey, Sticky, { STICKY.entries_default as usize }> = LruHashMap::new();
#[btf_map(name = "socket_reverse")]
pub static SOCKET_REVERSE: LruHashMap<ReverseKey, Reverse, { REVERSE.entries_default as usize }> = LruHashMap::new();
#[btf_map(name = "socket_off")]
pub static SOCKET_OFF: HashMap<u64, u32, { OFF.entries_default as usize }, ON_DEMAND> = HashMap::new();
#[btf_map(name = "ct_new4")]
static UNANSWERED4: Unanswered<Ip4> = LruHashMap::new();
#[btf_map(name = "ct_new6")]
static UNANSWERED6: Unanswered<Ip6> = LruHashMap::new();
#[btf_map(name = "ct_replied4")]
static ANSWERED4: Answered<Ip4> = HashMap::new();
#[btf_map(name = "ct_replied6")]
static ANSWERED6: Answered<Ip6> = HashMap::new();
#[btf_map(name = "endpoints4")]
static ENDPOINTS4: Endpoints<Ip4> = HashMap::new();
#[btf_map(name = "endpoints6")]
static ENDPOINTS6: Endpoints<Ip6> = HashMap::new();
#[btf_map(name = "frontend_stats")]
pub static FRONTEND_STATS: PerCpuHashMap<u32, FrontendCounters, { FRONTENDS.entries_default as usize }, ON_DEMAND> =
    PerCpuHashMap::new();
#[btf_map(name = "reason_stats")]
pub static REASON_STATS: PerCpuArray<ReasonCounters, { reason::NUMBERS as usize }> = PerCpuArray::new();
#[btf_map(name = "config")]
static CONFIG: Array<u64, { setting::NUMBERS as usize }> = Array::new();
#[btf_map(name = "events")]
pub static EVENTS: RingBuf<Event, { event::MAP.entries_default as usize }> = RingBuf::new();

/// The maps of an address family: what makes the rest of the programs generic.
pub trait FamilyMaps: Address + 'static {
    const FRONTENDS: &'static Frontends<Self>;
    const BACKENDS: &'static Backends<Self>;
    const ENDPOINTS: &'static Endpoints<Self>;
    const UNANSWERED: &'static Unanswered<Self>;
    const ANSWERED: &'static Answered<Self>;
}

impl FamilyMaps for Ip4 {
    const FRONTENDS: &'static Frontends<Self> = &FRONTENDS4;
    const BACKENDS: &'static Backends<Self> = &BACKENDS4;
    const ENDPOINTS: &'static Endpoints<Self> = &ENDPOINTS4;
    const UNANSWERED: &'static Unanswered<Self> = &UNANSWERED4;
    const ANSWERED: &'static Answered<Self> = &ANSWERED4;
}

impl FamilyMaps for Ip6 {
    const FRONTENDS: &'static Frontends<Self> = &FRONTENDS6;
    const BACKENDS: &'static Backends<Self> = &BACKENDS6;
    const ENDPOINTS: &'static Endpoints<Self> = &ENDPOINTS6;
    const UNANSWERED: &'static Unanswered<Self> = &UNANSWERED6;
    const ANSWERED: &'static Answered<Self> = &ANSWERED6;
}

/// A setting by its number; 0 where it was never set.
#[inline(always)]
pub fn setting(number: u32) -> u64 {
    CONFIG.get(number).copied().unwrap_or(0)
}
