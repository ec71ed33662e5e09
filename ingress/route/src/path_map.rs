//! A map from paths to rules, for one host. Most hosts have few rules: those are looked through in a row, which touches
//! less memory than a hash table; many are hashed.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use crate::rule::Rule;

const FEW_MAX: usize = 8;
/// The keys are of those who own the host and nobody else can add any, so that the hash needs no secret.
const HASHER: FixedState = FixedState::with_seed(0x7469_6465_6761_7465);

#[derive(Debug)]
pub(crate) enum PathMap<T> {
    Few(Vec<Entry<T>>),
    Many(HashTable<Entry<T>>),
}

#[derive(Debug)]
pub(crate) struct Entry<T> {
    hash: u64,
    path: Box<str>,
    rule: Arc<Rule<T>>,
}

impl<T> Default for PathMap<T> {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl<T> PathMap<T> {
    pub(crate) fn get(&self, path: &str) -> Option<&Arc<Rule<T>>> {
        if self.is_empty() {
            return None;
        }
        let hash = HASHER.hash_one(path);
        let is = |entry: &Entry<T>| entry.hash == hash && *entry.path == *path;
        let entry = match self {
            Self::Few(entries) => entries.iter().find(|entry| is(entry)),
            Self::Many(table) => table.find(hash, is),
        };
        entry.map(|entry| &entry.rule)
    }

    /// Adds a rule for a path that has none yet.
    pub(crate) fn insert(&mut self, path: Box<str>, rule: Arc<Rule<T>>) {
        let entry = Entry { hash: HASHER.hash_one(&*path), path, rule };
        if let Self::Few(entries) = self
            && entries.len() == FEW_MAX
        {
            let mut table = HashTable::with_capacity(2 * FEW_MAX);
            for entry in std::mem::take(entries) {
                table.insert_unique(entry.hash, entry, |entry| entry.hash);
            }
            *self = Self::Many(table);
        }
        match self {
            Self::Few(entries) => entries.push(entry),
            Self::Many(table) => {
                table.insert_unique(entry.hash, entry, |entry| entry.hash);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Few(entries) if entries.is_empty())
    }

    pub(crate) fn rules(&self) -> impl Iterator<Item = &Arc<Rule<T>>> {
        let (few, many) = match self {
            Self::Few(entries) => (Some(entries), None),
            Self::Many(table) => (None, Some(table)),
        };
        few.into_iter().flatten().chain(many.into_iter().flatten()).map(|entry| &entry.rule)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{FEW_MAX, PathMap};
    use crate::{HostPattern, PathMatch, Rule, Source};

    #[test]
    fn few_and_many_are_found_alike() {
        let source = Arc::new(Source { created: 0, namespace: "ns".into(), name: "n".into() });
        let mut map = PathMap::default();
        for index in 0..FEW_MAX as u32 * 4 {
            let path = format!("/{index}");
            let rule = Rule {
                host: HostPattern::Any,
                path: PathMatch::Exact(path.as_str().into()),
                source: Arc::clone(&source),
                index,
                target: index,
            };
            assert!(map.get(&path).is_none());
            map.insert(path.into(), Arc::new(rule));
            assert!((0..=index).all(|known| map.get(&format!("/{known}")).is_some_and(|rule| rule.target == known)));
            assert_eq!(map.rules().count(), index as usize + 1);
        }
    }
}
