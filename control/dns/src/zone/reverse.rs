//! From addresses to the names that own them.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

/// A Service, or one of its hosts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Owner {
    pub(super) namespace: Box<str>,
    pub(super) service: Box<str>,
    pub(super) host: Option<Box<str>>,
}

impl Owner {
    pub(super) fn new(namespace: &str, service: &str, host: Option<&str>) -> Self {
        Self { namespace: namespace.into(), service: service.into(), host: host.map(Into::into) }
    }
}

#[derive(Debug, Default)]
pub(super) struct Reverse(HashMap<IpAddr, BTreeSet<Owner>>);

impl Reverse {
    pub(super) fn insert(&mut self, address: IpAddr, owner: Owner) {
        self.0.entry(address).or_default().insert(owner);
    }

    pub(super) fn remove(&mut self, address: IpAddr, owner: &Owner) {
        if let Some(owners) = self.0.get_mut(&address) {
            owners.remove(owner);
            if owners.is_empty() {
                self.0.remove(&address);
            }
        }
    }

    pub(super) fn owners(&self, address: IpAddr) -> impl Iterator<Item = &Owner> {
        self.0.get(&address).into_iter().flatten()
    }
}
