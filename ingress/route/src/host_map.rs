//! A map from host names that is cheap to change: clones share what did not change.
//!
//! A new table is published for every change, while the old one may still serve requests. At 100,000 hosts a plain
//! `HashMap` would be copied whole each time; here it is three small arrays. A name is hashed once: its bits choose a
//! branch and a leaf, and the leaf is searched by the hash. The upper arrays stay in the processor's caches, so that a
//! lookup waits for memory once.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::RandomState;

const FAN: usize = 64;

#[derive(Debug)]
pub(crate) struct HostMap<V> {
    hasher: RandomState,
    /// Empty until the first insertion, then `FAN` long.
    branches: Vec<Branch<V>>,
    len: usize,
}

type Branch<V> = Arc<[Leaf<V>]>;
/// Sorted by hash.
type Leaf<V> = Arc<[Entry<V>]>;

#[derive(Debug)]
struct Entry<V> {
    hash: u64,
    name: Box<str>,
    value: Arc<V>,
}

impl<V> Clone for Entry<V> {
    fn clone(&self) -> Self {
        Self { hash: self.hash, name: self.name.clone(), value: Arc::clone(&self.value) }
    }
}

impl<V> Clone for HostMap<V> {
    fn clone(&self) -> Self {
        Self { hasher: self.hasher.clone(), branches: self.branches.clone(), len: self.len }
    }
}

impl<V> Default for HostMap<V> {
    fn default() -> Self {
        Self { hasher: RandomState::default(), branches: Vec::new(), len: 0 }
    }
}

impl<V> HostMap<V> {
    pub(crate) fn get(&self, host: &str) -> Option<&Arc<V>> {
        if self.len == 0 {
            return None;
        }
        let hash = self.hasher.hash_one(host);
        let (branch, leaf) = place(hash);
        let leaf = &self.branches[branch][leaf];
        let first = leaf.partition_point(|entry| entry.hash < hash);
        let alike = leaf[first..].iter().take_while(|entry| entry.hash == hash);
        alike.into_iter().find(|entry| *entry.name == *host).map(|entry| &entry.value)
    }

    /// Sets or, with `None`, removes the value of a host.
    pub(crate) fn set(&mut self, host: &str, value: Option<Arc<V>>) {
        if self.branches.is_empty() {
            let nothing: Leaf<V> = Arc::from(Vec::new());
            let branch: Branch<V> = Arc::from(vec![nothing; FAN]);
            self.branches = vec![branch; FAN];
        }
        let hash = self.hasher.hash_one(host);
        let (branch, leaf) = place(hash);
        let leaf = &mut Arc::make_mut(&mut self.branches[branch])[leaf];
        let mut entries: Vec<_> = leaf.iter().filter(|entry| *entry.name != *host).cloned().collect();
        self.len -= leaf.len() - entries.len();
        if let Some(value) = value {
            let at = entries.partition_point(|entry| entry.hash < hash);
            entries.insert(at, Entry { hash, name: host.into(), value });
            self.len += 1;
        }
        *leaf = entries.into();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<V>> {
        let leaves = self.branches.iter().flat_map(|branch| branch.iter());
        leaves.flat_map(|leaf| leaf.iter()).map(|entry| &entry.value)
    }
}

fn place(hash: u64) -> (usize, usize) {
    (hash as usize % FAN, (hash >> 8) as usize % FAN)
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
