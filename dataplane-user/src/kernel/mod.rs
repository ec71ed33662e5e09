//! The kernel side as the agent sees it: programs loaded, links attached, maps open.
//!
//! *Owns* the pins under one folder of a BPF file system, the programs and their links. *Does not own* what the maps
//! hold: the planner decides that, the interpreter writes it through [`Maps`].
//!
//! ```text
//! let mut kernel = Kernel::open(&KernelConfig::new(pin_dir, cgroup))?;   load, adopt or create, attach to the cgroup
//! kernel.maps.v4.backends.insert(&id, &backend)?;                        any map: get, insert, remove, dump
//! Ip6::tables_mut(&mut kernel.maps).frontends.remove(&key)?;             the same by address family
//! kernel.attach("tg0123456789a", DeviceClass::Pod)?;                     idempotent
//! let maps = Maps::open(pin_dir)?;                                       inspection: loads and changes nothing
//! kernel::remove_all(pin_dir)?;                                          nothing is left
//! ```
//!
//! **Killed at any point** the programs go on: programs, links and maps are pinned. [`Kernel::open`] adopts what it
//! finds, checks each map's layout, loads a new generation of programs and swaps it in through the links it finds, so
//! that there is never a moment without a program and never two. It must run in the node's network namespace.
//!
//! ```text
//! <pin_dir>/maps/<name>_v<version>            one file per map; a new layout is a new file, the old one is pruned
//!           links/socket_<hook>               the cgroup's programs
//!           links/pod_<ifindex>_<side>        a pod interface's programs
//!           generations/<n>/{calls,pod_*}     the packet programs that the links run, and their tail-call array
//! ```

mod attach;
mod events;
mod link;
mod maps;
mod objects;
mod pins;
mod programs;
mod table;

use std::io;
use std::path::{Path, PathBuf};

use dataplane_abi::config::{flag, setting};
use dataplane_abi::{Layout, backend, conntrack, endpoint, frontend, slot, socket};

pub use attach::{Attachment, DeviceClass, Side};
pub use events::Events;
pub use link::netns_cookie;
pub use maps::{Family, FamilyMaps, Maps, serves};
pub use table::{Counted, CounterTable, Settings, Table};

use pins::Pins;
use programs::Programs;

/// What went wrong in or on the way to the kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The build has no programs to load.
    #[error("this build holds no kernel programs: run `cargo xtask build`")]
    NoPrograms,
    /// The pin folder cannot hold pins.
    #[error("{path} is not on a BPF file system: mount one with `mount -t bpf bpf /sys/fs/bpf`")]
    NotBpfFs { path: PathBuf },
    /// A map of this version was made by a build that lays it out differently.
    #[error(
        "{path} holds keys of {found_key} and values of {found_value} bytes, this build uses {key} and {value}: \
         remove this node's pins with `tidegate agent --cleanup`"
    )]
    Layout { path: PathBuf, found_key: u32, found_value: u32, key: u32, value: u32 },
    /// A pinned map is missing: no agent has set this node up.
    #[error("there is no map at {path}: is the agent running?")]
    NoMap { path: PathBuf },
    /// A file system call failed.
    #[error("cannot {action} {path}")]
    File { action: &'static str, path: PathBuf, source: io::Error },
    /// An object could not be loaded.
    #[error("cannot load the kernel programs of {object}")]
    Object { object: &'static str, source: Box<aya::EbpfError> },
    /// A program was refused.
    #[error("the kernel refuses the program {program}")]
    Program { program: String, source: Box<aya::programs::ProgramError> },
    /// A link could not be made, read or updated.
    #[error("cannot {action} the link {link}")]
    Link { action: &'static str, link: String, source: io::Error },
    /// The kernel is too old for packet programs on interfaces. Socket programs do not need this.
    #[error("programs on interfaces need Linux 6.6, this is {release}")]
    NoTcx { release: String },
    /// There is no such interface in this network namespace.
    #[error("there is no interface {interface}")]
    NoInterface { interface: String, source: io::Error },
    /// A map could not be read or written.
    #[error("cannot {action} the map {map}")]
    Map { action: &'static str, map: &'static str, source: Box<aya::maps::MapError> },
    /// The map has no room for another entry.
    #[error("the map {map} is full at {entries} entries")]
    Full { map: &'static str, entries: u32 },
    /// The network namespace did not tell its cookie.
    #[error("cannot read the network namespace's cookie")]
    NetnsCookie(#[source] io::Error),
}

/// Where the node's kernel state lives, and how large it may grow.
#[derive(Clone, Debug)]
pub struct KernelConfig {
    /// A folder on a BPF file system, of this node alone: `/sys/fs/bpf/tidegate/<node>`. Made if missing.
    pub pin_dir: PathBuf,
    /// The cgroup2 folder whose processes get the socket programs.
    pub cgroup: PathBuf,
    /// Entries per map.
    pub sizes: MapSizes,
    /// Translate at the socket only in this network namespace, not in pods'.
    pub socket_host_only: bool,
    /// Write refusals and drops to the event ring.
    pub events: bool,
}

/// Entries per map. A map that exists keeps its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSizes {
    /// Frontends per family (their counters get twice as many).
    pub frontends: u32,
    /// Slots of all frontends of both families.
    pub slots: u32,
    /// Backends per family.
    pub backends: u32,
    /// Local pods per family.
    pub endpoints: u32,
    /// Unconnected UDP sockets' translations.
    pub sockets: u32,
    /// Directions of answered flows per family (unanswered ones get half as many); a flow has two.
    pub flows: u32,
}

/// This node's programs, links and maps.
pub struct Kernel {
    /// The maps, for reading and writing.
    pub maps: Maps,
    pins: Pins,
    programs: Programs,
}

impl KernelConfig {
    /// Default sizes, sockets translated everywhere, events on.
    #[must_use]
    pub fn new(pin_dir: impl Into<PathBuf>, cgroup: impl Into<PathBuf>) -> Self {
        Self {
            pin_dir: pin_dir.into(),
            cgroup: cgroup.into(),
            sizes: MapSizes::default(),
            socket_host_only: false,
            events: true,
        }
    }
}

impl Default for MapSizes {
    fn default() -> Self {
        Self {
            frontends: frontend::ENTRIES_DEFAULT,
            slots: slot::MAP.entries_default,
            backends: backend::ENTRIES_DEFAULT,
            endpoints: endpoint::ENTRIES_DEFAULT,
            sockets: socket::STICKY.entries_default,
            flows: conntrack::REPLIED4.entries_default,
        }
    }
}

impl MapSizes {
    /// The entries that a map gets.
    fn of(&self, map: &Layout) -> u32 {
        match map.name {
            "frontends4" | "frontends6" => self.frontends,
            "frontend_stats" => self.frontends.saturating_mul(2),
            "slots" => self.slots,
            "backends4" | "backends6" => self.backends,
            "endpoints4" | "endpoints6" | "socket_off" => self.endpoints,
            "ct_replied4" | "ct_replied6" => self.flows,
            "ct_new4" | "ct_new6" => (self.flows / 2).max(1),
            "socket_sticky" | "socket_reverse" => self.sockets,
            _ => map.entries_default,
        }
    }
}

impl Kernel {
    /// Brings the kernel side up: adopts pinned maps and links or makes them, and runs this build's programs.
    ///
    /// # Errors
    /// If the pin folder or the cgroup is unusable, a map's layout does not fit, or the kernel refuses something.
    /// Programs that ran before still run then.
    pub fn open(config: &KernelConfig) -> Result<Self, KernelError> {
        let pins = Pins::prepare(&config.pin_dir)?;
        pins.check_layouts(&config.sizes)?;
        let programs = Programs::load(&pins, &config.sizes)?;
        let mut maps = Maps::open(&config.pin_dir)?;
        let flags = [(config.socket_host_only, flag::SOCKET_HOST_ONLY), (config.events, flag::EVENTS)];
        let flags = flags.iter().filter(|(on, _)| *on).fold(0, |flags, (_, bit)| flags | bit);
        maps.settings.set(setting::HOST_NETNS, link::netns_cookie().map_err(KernelError::NetnsCookie)?)?;
        maps.settings.set(setting::FLAGS, flags)?;
        let kernel = Self { maps, pins, programs };
        attach::attach_sockets(&kernel.pins, &kernel.programs, &config.cgroup)?;
        let adopted = attach::adopt_devices(&kernel.pins, &kernel.programs)?;
        kernel.pins.prune(kernel.programs.generation)?;
        tracing::info!(generation = kernel.programs.generation, interfaces = adopted, "kernel programs running");
        Ok(kernel)
    }

    /// Runs the programs of a device class on an interface of this network namespace. Doing it again changes nothing.
    ///
    /// # Errors
    /// If there is no such interface, or the kernel refuses ([`KernelError::NoTcx`] before Linux 6.6).
    pub fn attach(&self, interface: &str, class: DeviceClass) -> Result<(), KernelError> {
        attach::attach_device(&self.pins, &self.programs, interface, class)
    }

    /// Takes our programs off an interface; also succeeds when there are none.
    ///
    /// # Errors
    /// If there is no such interface, or its pins cannot be removed.
    pub fn detach(&self, interface: &str) -> Result<(), KernelError> {
        attach::detach_device(&self.pins, interface)
    }

    /// What is attached to interfaces. Pins of interfaces that are gone are removed on the way.
    ///
    /// # Errors
    /// If pins cannot be read or removed.
    pub fn attachments(&self) -> Result<Vec<Attachment>, KernelError> {
        attach::attachments(&self.pins)
    }

    /// The event ring. It has one reader: events that one takes are gone for others.
    ///
    /// # Errors
    /// If the ring cannot be opened.
    pub fn events(&self) -> Result<Events, KernelError> {
        Events::open(self.pins.folder())
    }

    /// The number of the running programs' generation; each open makes a new one.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.programs.generation
    }
}

/// Removes every program, link and map of a node, and the folder itself. Also succeeds when there is nothing.
///
/// # Errors
/// If a pin cannot be removed.
pub fn remove_all(pin_dir: &Path) -> Result<(), KernelError> {
    if let Some(pins) = Pins::existing(pin_dir) {
        attach::detach_all(&pins)?;
    }
    match std::fs::remove_dir_all(pin_dir) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::File { action: "remove", path: pin_dir.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use dataplane_abi::MAPS;

    use super::MapSizes;

    #[test]
    fn default_sizes_are_those_of_the_layouts() {
        for map in MAPS {
            assert_eq!(MapSizes::default().of(map), map.entries_default, "{}", map.name);
        }
    }
}
