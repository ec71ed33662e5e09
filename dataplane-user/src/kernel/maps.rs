//! Every map by its type, opened from its pin. Opening changes nothing, so inspection commands use it too.

use std::net::IpAddr;
use std::path::Path;

use aya::Pod;
use aya::maps::{Map, MapData, MapError};
use dataplane_abi::backend::{self, Backend};
use dataplane_abi::conntrack::{self, Flow, FlowKey};
use dataplane_abi::counters::{self, FrontendCounters, ReasonCounters};
use dataplane_abi::endpoint::{self, Endpoint};
use dataplane_abi::frontend::{self, Frontend, FrontendKey};
use dataplane_abi::slot::{self, Slot, SlotKey};
use dataplane_abi::socket::{self, Reverse, ReverseKey, Sticky, StickyKey};
use dataplane_abi::{Address, Ip4, Ip6, Layout, config};

use super::KernelError;
use super::pins::{check_layout, map_path};
use super::table::{CounterTable, ReasonTable, Settings, Table};

/// The maps of a node.
pub struct Maps {
    /// IPv4's own maps.
    pub v4: FamilyMaps<Ip4>,
    /// IPv6's own maps.
    pub v6: FamilyMaps<Ip6>,
    /// Slots of the frontends of both families.
    pub slots: Table<SlotKey, Slot>,
    /// Backends that unconnected UDP sockets stay with. Written by the kernel; for inspection.
    pub socket_sticky: Table<StickyKey, Sticky>,
    /// Frontends that unconnected UDP sockets sent to. Written by the kernel; for inspection.
    pub socket_reverse: Table<ReverseKey, Reverse>,
    /// Network namespaces whose sockets are left alone, by cookie.
    pub socket_off: Table<u64, u32>,
    /// Counters per frontend id. The agent makes entries before frontends and removes them after.
    pub frontend_counters: CounterTable<FrontendCounters>,
    /// Counters per reason.
    pub reason_counters: ReasonTable<ReasonCounters>,
    /// The programs' settings.
    pub settings: Settings,
}

/// The maps of one address family.
#[derive(Debug)]
pub struct FamilyMaps<A> {
    /// Who is dialled.
    pub frontends: Table<FrontendKey<A>, Frontend>,
    /// Who serves, by id.
    pub backends: Table<u32, Backend<A>>,
    /// Local pods by address.
    pub endpoints: Table<A, Endpoint>,
    /// Directions of flows through the packet path without an answer yet, or closed. Written by the kernel.
    pub flows_unanswered: Table<FlowKey<A>, Flow<A>>,
    /// Directions of flows that have their answer. Written by the kernel; collected by the agent.
    pub flows_answered: Table<FlowKey<A>, Flow<A>>,
}

/// An address family with its maps, for code that is generic over it.
pub trait Family: Address + Pod {
    /// This family's maps.
    fn tables(maps: &Maps) -> &FamilyMaps<Self>;

    /// This family's maps, for writing.
    fn tables_mut(maps: &mut Maps) -> &mut FamilyMaps<Self>;
}

impl Family for Ip4 {
    fn tables(maps: &Maps) -> &FamilyMaps<Self> {
        &maps.v4
    }

    fn tables_mut(maps: &mut Maps) -> &mut FamilyMaps<Self> {
        &mut maps.v4
    }
}

impl Family for Ip6 {
    fn tables(maps: &Maps) -> &FamilyMaps<Self> {
        &maps.v6
    }

    fn tables_mut(maps: &mut Maps) -> &mut FamilyMaps<Self> {
        &mut maps.v6
    }
}

impl Maps {
    /// Opens the pinned maps of a node.
    ///
    /// # Errors
    /// If one is missing, or of another layout than this build's.
    pub fn open(pin_dir: &Path) -> Result<Self, KernelError> {
        Ok(Self {
            v4: FamilyMaps {
                frontends: Table::open(pin_dir, &frontend::MAP4)?,
                backends: Table::open(pin_dir, &backend::MAP4)?,
                endpoints: Table::open(pin_dir, &endpoint::MAP4)?,
                flows_unanswered: Table::open(pin_dir, &conntrack::NEW4)?,
                flows_answered: Table::open(pin_dir, &conntrack::REPLIED4)?,
            },
            v6: FamilyMaps {
                frontends: Table::open(pin_dir, &frontend::MAP6)?,
                backends: Table::open(pin_dir, &backend::MAP6)?,
                endpoints: Table::open(pin_dir, &endpoint::MAP6)?,
                flows_unanswered: Table::open(pin_dir, &conntrack::NEW6)?,
                flows_answered: Table::open(pin_dir, &conntrack::REPLIED6)?,
            },
            slots: Table::open(pin_dir, &slot::MAP)?,
            socket_sticky: Table::open(pin_dir, &socket::STICKY)?,
            socket_reverse: Table::open(pin_dir, &socket::REVERSE)?,
            socket_off: Table::open(pin_dir, &socket::OFF)?,
            frontend_counters: CounterTable::open(pin_dir, &counters::FRONTENDS)?,
            reason_counters: ReasonTable::open(pin_dir, &counters::REASONS)?,
            settings: Settings::open(pin_dir, &config::MAP)?,
        })
    }
}

/// Whether the agent's pinned maps say of every address that its pod is behind this interface: from then on the pod's
/// packets meet the agent's programs.
///
/// # Errors
/// If the maps are not there (yet), or cannot be read.
pub fn serves(pin_dir: &Path, addresses: &[IpAddr], ifindex: u32) -> Result<bool, KernelError> {
    for address in addresses {
        let endpoint = match *address {
            IpAddr::V4(address) => Table::open(pin_dir, &endpoint::MAP4)?.get(&Ip4::from(address))?,
            IpAddr::V6(address) => Table::open(pin_dir, &endpoint::MAP6)?.get(&Ip6::from(address))?,
        };
        if endpoint.is_none_or(|endpoint: Endpoint| endpoint.ifindex != ifindex) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Opens one pinned map as the type that its user wants, after checking its layout; also returns its entries.
pub(super) fn open_map<M: TryFrom<Map, Error = MapError>>(
    pin_dir: &Path,
    map: &'static Layout,
) -> Result<(M, u32), KernelError> {
    let path = map_path(pin_dir, map);
    let entries = check_layout(&path, map)?.max_entries();
    MapData::from_pin(&path)
        .and_then(Map::from_map_data)
        .and_then(M::try_from)
        .map(|opened| (opened, entries))
        .map_err(|source| KernelError::Map { action: "open", map: map.name, source: Box::new(source) })
}
