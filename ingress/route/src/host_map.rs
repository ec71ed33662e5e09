//! A map from host names that is cheap to change: cloning shares its shards, a change copies one of them.
//!
//! A new table is published for every change, while the old one may still serve requests. At 100,000 hosts a plain
//! `HashMap` would be copied whole each time; here it is a few hundred entries.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

const SHARDS: usize = 256;

type Shard<V> = HashMap<Box<str>, Arc<V>, RandomState>;

#[derive(Debug)]
pub(crate) struct HostMap<V> {
    hasher: RandomState,
    /// Empty until the first insertion, then `SHARDS` long.
    shards: Vec<Arc<Shard<V>>>,
    len: usize,
}

impl<V> Clone for HostMap<V> {
    fn clone(&self) -> Self {
        Self { hasher: self.hasher.clone(), shards: self.shards.clone(), len: self.len }
    }
}

impl<V> Default for HostMap<V> {
    fn default() -> Self {
        Self { hasher: RandomState::new(), shards: Vec::new(), len: 0 }
    }
}

impl<V> HostMap<V> {
    pub(crate) fn get(&self, host: &str) -> Option<&Arc<V>> {
        if self.len == 0 {
            return None;
        }
        self.shards[self.shard(host)].get(host)
    }

    /// Sets or, with `None`, removes the value of a host.
    pub(crate) fn set(&mut self, host: &str, value: Option<Arc<V>>) {
        if self.shards.is_empty() {
            let empty = Arc::new(Shard::with_hasher(self.hasher.clone()));
            self.shards = vec![empty; SHARDS];
        }
        let index = self.shard(host);
        let shard = self.shards[index].as_ref();
        let mut changed: Shard<V> = shard
            .iter()
            .filter(|(name, _)| ***name != *host)
            .map(|(name, v)| (name.clone(), Arc::clone(v)))
            .fold(HashMap::with_capacity_and_hasher(shard.len() + 1, self.hasher.clone()), |mut map, (name, v)| {
                map.insert(name, v);
                map
            });
        self.len -= shard.len() - changed.len();
        if let Some(value) = value {
            changed.insert(host.into(), value);
            self.len += 1;
        }
        self.shards[index] = Arc::new(changed);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<V>> {
        self.shards.iter().flat_map(|shard| shard.values())
    }

    fn shard(&self, host: &str) -> usize {
        (self.hasher.hash_one(host) >> 56) as usize % SHARDS
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::HostMap;

    #[test]
    fn a_clone_keeps_what_it_held_when_the_original_changes() {
        let mut map = HostMap::default();
        for i in 0..1000 {
            map.set(&format!("h{i}"), Some(Arc::new(i)));
        }
        let old = map.clone();
        map.set("h7", None);
        map.set("h8", Some(Arc::new(8000)));
        map.set("absent", None);
        assert_eq!((old.get("h7").map(|v| **v), map.get("h7")), (Some(7), None));
        assert_eq!((old.get("h8").map(|v| **v), map.get("h8").map(|v| **v)), (Some(8), Some(8000)));
        assert_eq!((old.iter().count(), map.iter().count()), (1000, 999));
        assert!(Arc::ptr_eq(old.get("h9").unwrap(), map.get("h9").unwrap()));
        for i in 0..1000 {
            map.set(&format!("h{i}"), None);
        }
        assert!(map.is_empty());
    }
}
