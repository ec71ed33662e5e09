//! One change to one map entry, carrying every value: applying it decides nothing.

use std::fmt;

use dataplane_abi::frontend::Frontend;
use dataplane_abi::slot::SlotKey;

use crate::key::{Family, FrontendKey};
use crate::observed::Backend;

/// One map operation. Putting what is there and deleting what is not both succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    PutBackend { id: u32, backend: Backend },
    PutCounters { frontend: u32 },
    PutSlot { slot: SlotKey, backend: u32 },
    PutFrontend { key: FrontendKey, value: Frontend },
    DeleteFrontend { key: FrontendKey, id: u32 },
    DeleteSlot { slot: SlotKey },
    DeleteCounters { frontend: u32 },
    DeleteBackend { id: u32, family: Family },
}

impl Op {
    /// Its label in metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::PutBackend { .. } => "put_backend",
            Self::PutCounters { .. } => "put_counters",
            Self::PutSlot { .. } => "put_slot",
            Self::PutFrontend { .. } => "put_frontend",
            Self::DeleteFrontend { .. } => "delete_frontend",
            Self::DeleteSlot { .. } => "delete_slot",
            Self::DeleteCounters { .. } => "delete_counters",
            Self::DeleteBackend { .. } => "delete_backend",
        }
    }

    /// The frontend id that it belongs to, if it belongs to one.
    #[must_use]
    pub const fn frontend(&self) -> Option<u32> {
        match self {
            Self::PutCounters { frontend } | Self::DeleteCounters { frontend } => Some(*frontend),
            Self::PutSlot { slot, .. } | Self::DeleteSlot { slot } => Some(slot.frontend),
            Self::PutFrontend { value, .. } => Some(value.id),
            Self::DeleteFrontend { id, .. } => Some(*id),
            Self::PutBackend { .. } | Self::DeleteBackend { .. } => None,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.name())?;
        match self {
            Self::PutBackend { id, backend } => write!(f, "{id} = {} state {:#x}", backend.key, backend.state),
            Self::PutCounters { frontend } | Self::DeleteCounters { frontend } => write!(f, "{frontend}"),
            Self::PutSlot { slot, backend } => {
                write!(f, "{}.{}.{} = {backend}", slot.frontend, slot.epoch, slot.index)
            }
            Self::DeleteSlot { slot } => write!(f, "{}.{}.{}", slot.frontend, slot.epoch, slot.index),
            Self::PutFrontend { key, value } => write!(
                f,
                "{key} = id {} epoch {} flags {:#x} cluster {}+{} local {}+{}",
                value.id,
                value.epoch,
                value.flags,
                value.cluster.start,
                value.cluster.count,
                value.local.start,
                value.local.count
            ),
            Self::DeleteFrontend { key, id } => write!(f, "{key} (id {id})"),
            Self::DeleteBackend { id, .. } => write!(f, "{id}"),
        }
    }
}
