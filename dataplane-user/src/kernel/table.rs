//! Typed handles to maps: hash tables, per-CPU counters, settings.

use std::collections::BTreeMap;
use std::path::Path;

use aya::Pod;
use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray, PerCpuHashMap, PerCpuValues};
use aya::util::nr_cpus;
use dataplane_abi::Layout;
use dataplane_abi::counters::{FrontendCounters, ReasonCounters};
use dataplane_abi::reason::Reason;
use nix::errno::Errno;

use super::KernelError;
use super::maps::open_map;

const BPF_ANY: u64 = 0;
const BPF_NOEXIST: u64 = 1;

/// A hash table in the kernel. Writes are idempotent: inserting replaces, removing the missing succeeds.
#[derive(Debug)]
pub struct Table<K, V> {
    map: HashMap<MapData, K, V>,
    layout: &'static Layout,
    entries: u32,
}

/// Counters that are kept per CPU and read as their sum.
pub trait Counted: Pod + Default {
    /// Adds another CPU's counters.
    fn add(&mut self, other: &Self);
}

/// Per-CPU counters by a 32-bit id.
pub struct CounterTable<V: Pod> {
    map: PerCpuHashMap<MapData, u32, V>,
    layout: &'static Layout,
    entries: u32,
}

/// Per-CPU counters by [`Reason`].
pub struct ReasonTable<V: Pod> {
    map: PerCpuArray<MapData, V>,
    layout: &'static Layout,
}

/// The programs' settings (see [`dataplane_abi::config::setting`]).
pub struct Settings {
    map: Array<MapData, u64>,
    layout: &'static Layout,
}

impl<K: Pod + Ord, V: Pod> Table<K, V> {
    pub(super) fn open(pin_dir: &Path, layout: &'static Layout) -> Result<Self, KernelError> {
        let (map, entries) = open_map(pin_dir, layout)?;
        Ok(Self { map, layout, entries })
    }

    /// The value of a key.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn get(&self, key: &K) -> Result<Option<V>, KernelError> {
        optional(self.map.get(key, 0)).map_err(|error| failed("read", self.layout, error))
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// [`KernelError::Full`] if a new key has no room.
    pub fn insert(&mut self, key: &K, value: &V) -> Result<(), KernelError> {
        self.map.insert(key, value, BPF_ANY).map_err(|error| unwritten(self.layout, self.entries, error))
    }

    /// Removes a key, and says whether it was there.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn remove(&mut self, key: &K) -> Result<bool, KernelError> {
        removed(self.map.remove(key)).map_err(|error| failed("write", self.layout, error))
    }

    /// Everything that the map holds, in the order of its keys.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn dump(&self) -> Result<BTreeMap<K, V>, KernelError> {
        self.map.iter().collect::<Result<_, _>>().map_err(|error| failed("read", self.layout, error))
    }

    /// How many entries there is room for.
    #[must_use]
    pub const fn max_entries(&self) -> u32 {
        self.entries
    }
}

impl<V: Counted> CounterTable<V> {
    pub(super) fn open(pin_dir: &Path, layout: &'static Layout) -> Result<Self, KernelError> {
        let (map, entries) = open_map(pin_dir, layout)?;
        Ok(Self { map, layout, entries })
    }

    /// Makes zeroed counters for an id; existing ones go on.
    ///
    /// # Errors
    /// [`KernelError::Full`] if there is no room.
    pub fn ensure(&mut self, id: u32) -> Result<(), KernelError> {
        let zeroes =
            nr_cpus().map_err(|(_, error)| error).and_then(|cpus| PerCpuValues::try_from(vec![V::default(); cpus]));
        let zeroes = zeroes.map_err(|error| failed("write", self.layout, MapError::IoError(error)))?;
        match self.map.insert(id, zeroes, BPF_NOEXIST) {
            Err(MapError::SyscallError(error)) if is(&error, Errno::EEXIST) => Ok(()),
            other => other.map_err(|error| unwritten(self.layout, self.entries, error)),
        }
    }

    /// The sums of an id's counters.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn get(&self, id: u32) -> Result<Option<V>, KernelError> {
        let values = optional(self.map.get(&id, 0)).map_err(|error| failed("read", self.layout, error))?;
        Ok(values.as_ref().map(sum))
    }

    /// Removes an id's counters, and says whether they were there.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn remove(&mut self, id: u32) -> Result<bool, KernelError> {
        removed(self.map.remove(&id)).map_err(|error| failed("write", self.layout, error))
    }

    /// The sums of all counters, by id.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn dump(&self) -> Result<BTreeMap<u32, V>, KernelError> {
        self.map
            .iter()
            .map(|entry| entry.map(|(id, values)| (id, sum(&values))))
            .collect::<Result<_, _>>()
            .map_err(|error| failed("read", self.layout, error))
    }

    /// How many ids there is room for.
    #[must_use]
    pub const fn max_entries(&self) -> u32 {
        self.entries
    }
}

impl<V: Counted> ReasonTable<V> {
    pub(super) fn open(pin_dir: &Path, layout: &'static Layout) -> Result<Self, KernelError> {
        Ok(Self { map: open_map(pin_dir, layout)?.0, layout })
    }

    /// The sums of one reason's counters.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn get(&self, reason: Reason) -> Result<V, KernelError> {
        let values = self.map.get(&u32::from(reason.number()), 0);
        values.map(|values| sum(&values)).map_err(|error| failed("read", self.layout, error))
    }

    /// The sums of every reason's counters.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn dump(&self) -> Result<BTreeMap<Reason, V>, KernelError> {
        Reason::ALL.iter().map(|reason| Ok((*reason, self.get(*reason)?))).collect()
    }
}

impl Settings {
    pub(super) fn open(pin_dir: &Path, layout: &'static Layout) -> Result<Self, KernelError> {
        Ok(Self { map: open_map(pin_dir, layout)?.0, layout })
    }

    /// A setting's value.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn get(&self, setting: u32) -> Result<u64, KernelError> {
        self.map.get(&setting, 0).map_err(|error| failed("read", self.layout, error))
    }

    /// Changes a setting; programs see it with their next call or packet.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set(&mut self, setting: u32, value: u64) -> Result<(), KernelError> {
        self.map.set(setting, value, BPF_ANY).map_err(|error| failed("write", self.layout, error))
    }
}

impl Counted for FrontendCounters {
    fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.rejections += other.rejections;
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

impl Counted for ReasonCounters {
    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.bytes += other.bytes;
    }
}

fn sum<V: Counted>(values: &PerCpuValues<V>) -> V {
    values.iter().fold(V::default(), |mut sum, value| {
        sum.add(value);
        sum
    })
}

fn optional<T>(result: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

fn removed(result: Result<(), MapError>) -> Result<bool, MapError> {
    match result {
        Ok(()) => Ok(true),
        Err(MapError::KeyNotFound) => Ok(false),
        Err(MapError::SyscallError(error)) if is(&error, Errno::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is(error: &aya::sys::SyscallError, errno: Errno) -> bool {
    error.io_error.raw_os_error() == Some(errno as i32)
}

fn unwritten(layout: &'static Layout, entries: u32, error: MapError) -> KernelError {
    match error {
        MapError::SyscallError(error) if is(&error, Errno::E2BIG) => KernelError::Full { map: layout.name, entries },
        error => failed("write", layout, error),
    }
}

fn failed(action: &'static str, layout: &'static Layout, source: MapError) -> KernelError {
    KernelError::Map { action, map: layout.name, source: Box::new(source) }
}
