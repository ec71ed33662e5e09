//! Does what a plan says: the only place that writes Service maps.

mod dump;
mod fake;
mod faulty;
mod kernel;

use dataplane_abi::frontend::Frontend;
use dataplane_abi::slot::SlotKey;
use dataplane_plan::{Backend, Contents, Failures, Family, FrontendKey, Limits, Observed, Op};

use crate::kernel::KernelError;

pub use dump::normalise;
pub use fake::FakeMaps;
pub use faulty::FaultyMaps;

/// The Service maps. Putting replaces, deleting the missing succeeds.
///
/// # Errors
/// Each method fails if the map is full or the kernel refuses; the entry is then as it was.
pub trait ServiceMaps {
    fn put_backend(&mut self, id: u32, backend: &Backend) -> Result<(), MapError>;
    /// Makes zeroed counters; existing ones go on counting.
    fn put_counters(&mut self, frontend: u32) -> Result<(), MapError>;
    fn put_slot(&mut self, slot: &SlotKey, backend: u32) -> Result<(), MapError>;
    fn put_frontend(&mut self, key: &FrontendKey, value: &Frontend) -> Result<(), MapError>;
    fn delete_frontend(&mut self, key: &FrontendKey) -> Result<(), MapError>;
    fn delete_slot(&mut self, slot: &SlotKey) -> Result<(), MapError>;
    fn delete_counters(&mut self, frontend: u32) -> Result<(), MapError>;
    fn delete_backend(&mut self, id: u32, family: Family) -> Result<(), MapError>;

    /// Everything that the maps hold.
    fn dump(&self) -> Result<Contents, MapError>;

    /// How much the maps hold at most.
    fn limits(&self) -> Limits;
}

/// A map operation that was not done.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Only [`FaultyMaps`] says so.
    #[error("injected failure")]
    Injected,
}

/// Does one operation.
///
/// # Errors
/// If the map refuses; the operation has then done nothing.
pub fn apply(op: &Op, maps: &mut dyn ServiceMaps) -> Result<(), MapError> {
    match op {
        Op::PutBackend { id, backend } => maps.put_backend(*id, backend),
        Op::PutCounters { frontend } => maps.put_counters(*frontend),
        Op::PutSlot { slot, backend } => maps.put_slot(slot, *backend),
        Op::PutFrontend { key, value } => maps.put_frontend(key, value),
        Op::DeleteFrontend { key, .. } => maps.delete_frontend(key),
        Op::DeleteSlot { slot } => maps.delete_slot(slot),
        Op::DeleteCounters { frontend } => maps.delete_counters(*frontend),
        Op::DeleteBackend { id, family } => maps.delete_backend(*id, *family),
    }
}

/// An operation that failed, or was left out because one before it had failed.
#[derive(Debug)]
pub struct Failed {
    pub op: Op,
    /// `None` if it was left out.
    pub error: Option<MapError>,
}

/// Does a plan's operations in order and keeps `observed` true. After a failure, what depends on it is left out and
/// everything else goes on.
pub fn apply_all(
    ops: &[Op],
    maps: &mut dyn ServiceMaps,
    observed: &mut Observed,
    mut done: impl FnMut(&Op),
) -> Vec<Failed> {
    let mut failures = Failures::default();
    let mut failed = Vec::new();
    for op in ops {
        if failures.block(op, observed) {
            failures.record(op);
            failed.push(Failed { op: *op, error: None });
            continue;
        }
        match apply(op, maps) {
            Ok(()) => {
                observed.apply(op);
                done(op);
            }
            Err(error) => {
                failures.record(op);
                failed.push(Failed { op: *op, error: Some(error) });
            }
        }
    }
    failed
}
