//! The kernel's own maps as Service maps: splits by address family and turns addresses into network order.

use std::net::IpAddr;

use dataplane_abi::frontend::Frontend;
use dataplane_abi::slot::{Slot, SlotKey};
use dataplane_abi::{Address, Be16, Ip4, Ip6, backend, frontend};
use dataplane_plan::{Backend, BackendKey, Contents, Family, FrontendKey, Limits, Protocol, Scope};

use super::{MapError, ServiceMaps};
use crate::kernel::{self, FamilyMaps, Maps};

impl ServiceMaps for Maps {
    fn put_backend(&mut self, id: u32, backend: &Backend) -> Result<(), MapError> {
        match backend.key.address {
            IpAddr::V4(address) => self.v4.backends.insert(&id, &encode_backend(Ip4::from(address), backend))?,
            IpAddr::V6(address) => self.v6.backends.insert(&id, &encode_backend(Ip6::from(address), backend))?,
        }
        Ok(())
    }

    fn put_counters(&mut self, frontend: u32) -> Result<(), MapError> {
        Ok(self.frontend_counters.ensure(frontend)?)
    }

    fn put_slot(&mut self, slot: &SlotKey, backend: u32) -> Result<(), MapError> {
        Ok(self.slots.insert(slot, &Slot { backend })?)
    }

    fn put_frontend(&mut self, key: &FrontendKey, value: &Frontend) -> Result<(), MapError> {
        match key.address {
            IpAddr::V4(address) => self.v4.frontends.insert(&encode_key(Ip4::from(address), key), value)?,
            IpAddr::V6(address) => self.v6.frontends.insert(&encode_key(Ip6::from(address), key), value)?,
        }
        Ok(())
    }

    fn delete_frontend(&mut self, key: &FrontendKey) -> Result<(), MapError> {
        match key.address {
            IpAddr::V4(address) => self.v4.frontends.remove(&encode_key(Ip4::from(address), key))?,
            IpAddr::V6(address) => self.v6.frontends.remove(&encode_key(Ip6::from(address), key))?,
        };
        Ok(())
    }

    fn delete_slot(&mut self, slot: &SlotKey) -> Result<(), MapError> {
        self.slots.remove(slot)?;
        Ok(())
    }

    fn delete_counters(&mut self, frontend: u32) -> Result<(), MapError> {
        self.frontend_counters.remove(frontend)?;
        Ok(())
    }

    fn delete_backend(&mut self, id: u32, family: Family) -> Result<(), MapError> {
        match family {
            Family::Ipv4 => self.v4.backends.remove(&id)?,
            Family::Ipv6 => self.v6.backends.remove(&id)?,
        };
        Ok(())
    }

    fn dump(&self) -> Result<Contents, MapError> {
        let mut contents = Contents::default();
        dump_family(&self.v4, &mut contents)?;
        dump_family(&self.v6, &mut contents)?;
        contents.slots = self.slots.dump()?.into_iter().map(|(slot, value)| (slot, value.backend)).collect();
        contents.counters = self.frontend_counters.dump()?.into_keys().collect();
        Ok(contents)
    }

    fn limits(&self) -> Limits {
        let smaller = |first: u32, second: u32| first.min(second) as usize;
        Limits {
            frontends_max: smaller(self.v4.frontends.max_entries(), self.v6.frontends.max_entries()),
            backends_max: smaller(self.v4.backends.max_entries(), self.v6.backends.max_entries()),
            slots_max: self.slots.max_entries() as usize,
            ..Limits::default()
        }
    }
}

/// Entries that no build of ours writes (an unknown protocol or scope) are left out: the planner must not touch them.
fn dump_family<A: kernel::Family + Ord>(maps: &FamilyMaps<A>, contents: &mut Contents) -> Result<(), MapError>
where
    IpAddr: From<A>,
{
    for (key, value) in maps.frontends.dump()? {
        if let (Some(protocol), Some(scope)) = (Protocol::from_number(key.protocol), Scope::from_number(key.scope)) {
            let key = FrontendKey { address: key.address.into(), port: key.port.get(), protocol, scope };
            contents.frontends.insert(key, value);
        }
    }
    for (id, value) in maps.backends.dump()? {
        if let Some(protocol) = Protocol::from_number(value.protocol) {
            let key = BackendKey { address: value.address.into(), port: value.port.get(), protocol };
            contents.backends.insert(id, Backend { key, state: value.state });
        }
    }
    Ok(())
}

fn encode_backend<A: Address>(address: A, backend: &Backend) -> backend::Backend<A> {
    backend::Backend {
        address,
        port: Be16::new(backend.key.port),
        protocol: backend.key.protocol.number(),
        state: backend.state,
    }
}

fn encode_key<A: Address>(address: A, key: &FrontendKey) -> frontend::FrontendKey<A> {
    frontend::FrontendKey {
        address,
        port: Be16::new(key.port),
        protocol: key.protocol.number(),
        scope: key.scope.number(),
    }
}
