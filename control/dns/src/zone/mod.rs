//! The cluster's names as a value: built from Services, EndpointSlices and Namespaces, changed one object at a time,
//! asked by name and type.
//!
//! - `place`: what a name could mean, by its form alone
//! - `view`: what one Service publishes
//! - `reverse`: from addresses to names
//! - `answer`: from a place and a type to records

mod answer;
mod place;
mod reverse;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, HashMap};

use hickory_proto::rr::Name;

pub use answer::Answer;

use crate::model::{ObjectKey, Service, Slice};
use place::Domain;
use reverse::{Owner, Reverse};
use view::View;

/// The names of one cluster.
#[derive(Debug)]
pub struct Zone {
    domain: Domain,
    ttl: u32,
    serial: u32,
    namespaces: HashMap<Box<str>, Namespace>,
    /// The Service that each slice belongs to.
    slice_owners: HashMap<ObjectKey, Box<str>>,
    reverse: Reverse,
}

#[derive(Debug, Default)]
struct Namespace {
    /// Whether the object exists; Services may be known before it is.
    exists: bool,
    services: HashMap<Box<str>, Entry>,
}

/// A Service and its slices, in whatever order they came.
#[derive(Debug, Default)]
struct Entry {
    service: Option<Service>,
    slices: BTreeMap<Box<str>, Slice>,
    view: Option<View>,
}

impl Zone {
    /// A zone without names. Every change adds one to the serial number.
    #[must_use]
    pub fn new(domain: Name, ttl: u32, serial: u32) -> Self {
        Self {
            domain: Domain::new(domain),
            ttl,
            serial,
            namespaces: HashMap::new(),
            slice_owners: HashMap::new(),
            reverse: Reverse::default(),
        }
    }

    /// A zone with these names; the namespaces of the Services exist.
    #[must_use]
    pub fn from(
        domain: Name,
        ttl: u32,
        services: impl IntoIterator<Item = Service>,
        slices: impl IntoIterator<Item = Slice>,
    ) -> Self {
        let mut zone = Self::new(domain, ttl, 1);
        for service in services {
            zone.apply_service(service);
        }
        for slice in slices {
            zone.apply_slice(slice);
        }
        zone
    }

    pub fn apply_namespace(&mut self, name: &str) {
        self.namespaces.entry(name.into()).or_default().exists = true;
        self.serial = self.serial.wrapping_add(1);
    }

    pub fn delete_namespace(&mut self, name: &str) {
        if let Some(namespace) = self.namespaces.get_mut(name) {
            namespace.exists = false;
            self.forget_empty(name, "");
            self.serial = self.serial.wrapping_add(1);
        }
    }

    pub fn apply_service(&mut self, service: Service) {
        let key = service.key.clone();
        self.change(&key.namespace, &key.name, |entry| {
            let changed = entry.service.as_ref() != Some(&service);
            entry.service = Some(service);
            changed
        });
    }

    pub fn delete_service(&mut self, key: &ObjectKey) {
        self.change(&key.namespace, &key.name, |entry| entry.service.take().is_some());
    }

    pub fn apply_slice(&mut self, slice: Slice) {
        let key = slice.key.clone();
        let former = self.slice_owners.insert(key.clone(), slice.service.clone());
        if let Some(former) = former.filter(|former| *former != slice.service) {
            self.remove_slice(&key, &former);
        }
        self.change(&key.namespace, &slice.service.clone(), |entry| {
            let changed = entry.slices.get(&key.name) != Some(&slice);
            entry.slices.insert(key.name, slice);
            changed
        });
    }

    pub fn delete_slice(&mut self, key: &ObjectKey) {
        if let Some(owner) = self.slice_owners.remove(key) {
            self.remove_slice(key, &owner);
        }
    }

    fn remove_slice(&mut self, key: &ObjectKey, owner: &str) {
        self.change(&key.namespace, owner, |entry| entry.slices.remove(&key.name).is_some());
    }

    /// Changes an entry and, if that made a difference, what it publishes.
    fn change(&mut self, namespace: &str, service: &str, change: impl FnOnce(&mut Entry) -> bool) {
        let entry = self.namespaces.entry(namespace.into()).or_default().services.entry(service.into()).or_default();
        if change(entry) {
            let owner = |host: Option<&str>| Owner::new(namespace, service, host);
            for (address, host) in entry.view.iter().flat_map(View::reverse) {
                self.reverse.remove(address, &owner(host));
            }
            entry.view = entry.service.as_ref().map(|service| View::new(service, entry.slices.values()));
            for (address, host) in entry.view.iter().flat_map(View::reverse) {
                self.reverse.insert(address, owner(host));
            }
            self.serial = self.serial.wrapping_add(1);
        }
        self.forget_empty(namespace, service);
    }

    fn forget_empty(&mut self, name: &str, service: &str) {
        let Some(namespace) = self.namespaces.get_mut(name) else { return };
        if namespace.services.get(service).is_some_and(|entry| entry.service.is_none() && entry.slices.is_empty()) {
            namespace.services.remove(service);
        }
        if !namespace.exists && namespace.services.is_empty() {
            self.namespaces.remove(name);
        }
    }

    fn has_namespace(&self, name: &str) -> bool {
        let has_service = |namespace: &Namespace| namespace.services.values().any(|entry| entry.service.is_some());
        self.namespaces.get(name).is_some_and(|namespace| namespace.exists || has_service(namespace))
    }

    fn view(&self, namespace: &str, service: &str) -> Option<&View> {
        self.namespaces.get(namespace)?.services.get(service)?.view.as_ref()
    }
}
