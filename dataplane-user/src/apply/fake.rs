//! Maps in memory, for tests: they obey the same rules as the kernel's.

use dataplane_abi::frontend::Frontend;
use dataplane_abi::slot::SlotKey;
use dataplane_plan::{Backend, Contents, Family, FrontendKey, Limits, Op};

use super::{MapError, ServiceMaps};

/// Service maps without a kernel.
#[derive(Clone, Debug, Default)]
pub struct FakeMaps {
    pub contents: Contents,
    pub limits: Limits,
}

impl FakeMaps {
    fn change(&mut self, op: Op) -> Result<(), MapError> {
        self.contents.apply(&op);
        Ok(())
    }
}

impl ServiceMaps for FakeMaps {
    fn put_backend(&mut self, id: u32, backend: &Backend) -> Result<(), MapError> {
        self.change(Op::PutBackend { id, backend: *backend })
    }

    fn put_counters(&mut self, frontend: u32) -> Result<(), MapError> {
        self.change(Op::PutCounters { frontend })
    }

    fn put_slot(&mut self, slot: &SlotKey, backend: u32) -> Result<(), MapError> {
        self.change(Op::PutSlot { slot: *slot, backend })
    }

    fn put_frontend(&mut self, key: &FrontendKey, value: &Frontend) -> Result<(), MapError> {
        self.change(Op::PutFrontend { key: *key, value: *value })
    }

    fn delete_frontend(&mut self, key: &FrontendKey) -> Result<(), MapError> {
        self.change(Op::DeleteFrontend { key: *key, id: 0 })
    }

    fn delete_slot(&mut self, slot: &SlotKey) -> Result<(), MapError> {
        self.change(Op::DeleteSlot { slot: *slot })
    }

    fn delete_counters(&mut self, frontend: u32) -> Result<(), MapError> {
        self.change(Op::DeleteCounters { frontend })
    }

    fn delete_backend(&mut self, id: u32, family: Family) -> Result<(), MapError> {
        self.change(Op::DeleteBackend { id, family })
    }

    fn dump(&self) -> Result<Contents, MapError> {
        Ok(self.contents.clone())
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}
