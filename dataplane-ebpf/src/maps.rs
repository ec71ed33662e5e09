//! The maps, under the names that `dataplane-abi` gives them. The agent pins them; sizes here are the defaults.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf, SkStorage};
use aya_ebpf::macros::btf_map;
use dataplane_abi::backend::{self, Backend};
use dataplane_abi::config::setting;
use dataplane_abi::counters::{FRONTENDS, FrontendCounters, ReasonCounters};
use dataplane_abi::endpoint::{self, Endpoint};
use dataplane_abi::event::{self, Event};
use dataplane_abi::frontend::{self, Frontend, FrontendKey};
use dataplane_abi::slot::{self, Slot, SlotKey};
use dataplane_abi::socket::{REVERSE, Reverse, ReverseKey, STICKY, SocketPeer, Sticky, StickyKey};
use dataplane_abi::{Address, Ip4, Ip6, reason};

/// Memory for an entry when it is inserted: most nodes use a small part of the tables.
const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;
const FRONTENDS_MAX: usize = frontend::ENTRIES_DEFAULT as usize;
const BACKENDS_MAX: usize = backend::ENTRIES_DEFAULT as usize;
const ENDPOINTS_MAX: usize = endpoint::ENTRIES_DEFAULT as usize;

pub type Frontends<A> = HashMap<FrontendKey<A>, Frontend, FRONTENDS_MAX, ON_DEMAND>;
pub type Backends<A> = HashMap<u32, Backend<A>, BACKENDS_MAX, ON_DEMAND>;
pub type Endpoints<A> = HashMap<A, Endpoint, ENDPOINTS_MAX, ON_DEMAND>;

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
}

impl FamilyMaps for Ip4 {
    const FRONTENDS: &'static Frontends<Self> = &FRONTENDS4;
    const BACKENDS: &'static Backends<Self> = &BACKENDS4;
    const ENDPOINTS: &'static Endpoints<Self> = &ENDPOINTS4;
}

impl FamilyMaps for Ip6 {
    const FRONTENDS: &'static Frontends<Self> = &FRONTENDS6;
    const BACKENDS: &'static Backends<Self> = &BACKENDS6;
    const ENDPOINTS: &'static Endpoints<Self> = &ENDPOINTS6;
}

/// A setting by its number; 0 where it was never set.
#[inline(always)]
pub fn setting(number: u32) -> u64 {
    CONFIG.get(number).copied().unwrap_or(0)
}
