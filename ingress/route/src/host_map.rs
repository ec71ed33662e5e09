//! A map from host names that is cheap to change: cloning shares its shards, a change copies one of them.
//!
//! A new table is published for every change, while the old one may still serve requests. At 100,000 hosts a plain
//! `HashMap` would be copied whole each time; here it is a few hundred entries. A name is hashed once: the upper bits
//! choose the shard, and the shard is searched by the same hash.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::RandomState;
use hashbrown::HashTable;

const SHARDS: usize = 256;
/// A hash table takes its place from the lowest bits of a hash and its tag from the highest seven: these are neither.
const SHARD_SHIFT: u32 = 40;

#[derive(Debug)]
pub(crate) struct HostMap<V> {
    hasher: RandomState,
    /// Empty until the first insertion, then `SHARDS` long.
    shards: Vec<Arc<Shard<V>>>,
    len: usize,
}

type Shard<V> = HashTable<Entry<V>>;

#[derive(Debug)]
struct Entry<V> {
    hash: u64,
    name: Box<str>,
    value: Arc<V>,
}

impl<V> Entry<V> {
    fn is(&self, hash: u64, name: &str) -> bool {
        self.hash == hash && *self.name == *name
    }
}

impl<V> Clone for Entry<V> {
    fn clone(&self) -> Self {
        Self { hash: self.hash, name: self.name.clone(), value: Arc::clone(&self.value) }
    }
}

impl<V> Clone for HostMap<V> {
    fn clone(&self) -> Self {
        Self { hasher: self.hasher.clone(), shards: self.shards.clone(), len: self.len }
    }
}

impl<V> Default for HostMap<V> {
    fn default() -> Self {
        Self { hasher: RandomState::default(), shards: Vec::new(), len: 0 }
    }
}

impl<V> HostMap<V> {
    pub(crate) fn get(&self, host: &str) -> Option<&Arc<V>> {
        if self.len == 0 {
            return None;
        }
        let hash = self.hasher.hash_one(host);
        self.shards[shard(hash)].find(hash, |entry| entry.is(hash, host)).map(|entry| &entry.value)
    }

    /// Sets or, with `None`, removes the value of a host.
    pub(crate) fn set(&mut self, host: &str, value: Option<Arc<V>>) {
        if self.shards.is_empty() {
            self.shards = vec![Arc::new(Shard::new()); SHARDS];
        }
        let hash = self.hasher.hash_one(host);
        let slot = &mut self.shards[shard(hash)];
        let mut changed: Shard<V> = Shard::clone(slot);
        if let Ok(entry) = changed.find_entry(hash, |entry| entry.is(hash, host)) {
            entry.remove();
            self.len -= 1;
        }
        if let Some(value) = value {
            changed.insert_unique(hash, Entry { hash, name: host.into(), value }, |entry| entry.hash);
            self.len += 1;
        }
        *slot = Arc::new(changed);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<V>> {
        self.shards.iter().flat_map(|shard| shard.iter()).map(|entry| &entry.value)
    }
}

fn shard(hash: u64) -> usize {
    (hash >> SHARD_SHIFT) as usize % SHARDS
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
