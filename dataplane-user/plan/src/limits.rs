//! How much the maps hold: what does not fit is refused with the limit's name, never half done.

use std::fmt;

/// Map sizes and what one frontend may take of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Frontends per address family.
    pub frontends_max: usize,
    /// Backends per address family.
    pub backends_max: usize,
    /// Slots of both families; a changing frontend holds its old and its new ones for a moment.
    pub slots_max: usize,
    /// Slots of one frontend.
    pub slots_per_frontend_max: usize,
}

/// The limit that refused a frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Limit {
    Frontends,
    Backends,
    Slots,
    SlotsPerFrontend,
}

impl Limits {
    /// The number behind a limit.
    #[must_use]
    pub const fn of(&self, limit: Limit) -> usize {
        match limit {
            Limit::Frontends => self.frontends_max,
            Limit::Backends => self.backends_max,
            Limit::Slots => self.slots_max,
            Limit::SlotsPerFrontend => self.slots_per_frontend_max,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frontends_max: dataplane_abi::frontend::ENTRIES_DEFAULT as usize,
            backends_max: dataplane_abi::backend::ENTRIES_DEFAULT as usize,
            slots_max: dataplane_abi::slot::MAP.entries_default as usize,
            slots_per_frontend_max: 16_384,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Frontends => "frontends_max",
            Self::Backends => "backends_max",
            Self::Slots => "slots_max",
            Self::SlotsPerFrontend => "slots_per_frontend_max",
        })
    }
}
