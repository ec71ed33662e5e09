//! Wraps any maps and lets a share of the writes fail, the same ones for the same seed.

use dataplane_abi::frontend::Frontend;
use dataplane_abi::slot::SlotKey;
use dataplane_plan::{Backend, Contents, Family, FrontendKey, Limits};

use super::{MapError, ServiceMaps};

/// Maps that fail at times.
#[derive(Clone, Debug)]
pub struct FaultyMaps<M> {
    pub inner: M,
    state: u64,
    percent: u64,
}

impl<M> FaultyMaps<M> {
    /// Lets `percent` of 100 writes fail.
    #[must_use]
    pub const fn new(inner: M, seed: u64, percent: u64) -> Self {
        Self { inner, state: seed | 1, percent }
    }

    /// Changes the share of failing writes.
    pub const fn set_percent(&mut self, percent: u64) {
        self.percent = percent;
    }

    fn write(&mut self) -> Result<&mut M, MapError> {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        if self.state % 100 < self.percent { Err(MapError::Injected) } else { Ok(&mut self.inner) }
    }
}

impl<M: ServiceMaps> ServiceMaps for FaultyMaps<M> {
    fn put_backend(&mut self, id: u32, backend: &Backend) -> Result<(), MapError> {
        self.write()?.put_backend(id, backend)
    }

    fn put_counters(&mut self, frontend: u32) -> Result<(), MapError> {
        self.write()?.put_counters(frontend)
    }

    fn put_slot(&mut self, slot: &SlotKey, backend: u32) -> Result<(), MapError> {
        self.write()?.put_slot(slot, backend)
    }

    fn put_frontend(&mut self, key: &FrontendKey, value: &Frontend) -> Result<(), MapError> {
        self.write()?.put_frontend(key, value)
    }

    fn delete_frontend(&mut self, key: &FrontendKey) -> Result<(), MapError> {
        self.write()?.delete_frontend(key)
    }

    fn delete_slot(&mut self, slot: &SlotKey) -> Result<(), MapError> {
        self.write()?.delete_slot(slot)
    }

    fn delete_counters(&mut self, frontend: u32) -> Result<(), MapError> {
        self.write()?.delete_counters(frontend)
    }

    fn delete_backend(&mut self, id: u32, family: Family) -> Result<(), MapError> {
        self.write()?.delete_backend(id, family)
    }

    fn dump(&self) -> Result<Contents, MapError> {
        self.inner.dump()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }
}
