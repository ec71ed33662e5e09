//! The MVCC index: every version of every key since the last compaction, and the events between. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::model::{Entry, Error, Event, EventKind, Page, Range, Result};

#[derive(Debug)]
struct Version {
    revision: u64,
    created: u64,
    /// `None` marks a deletion.
    value: Option<Bytes>,
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    keys: BTreeMap<Arc<str>, Vec<Version>>,
    history: VecDeque<Arc<Event>>,
    /// Bytes of superseded values that the history keeps alive.
    history_bytes: usize,
    revision: u64,
    compacted: u64,
}

impl Index {
    /// An index whose history begins at `revision`.
    pub(crate) fn new(revision: u64) -> Self {
        Self { revision, compacted: revision, ..Self::default() }
    }

    /// Adds a key as it was found on disk.
    pub(crate) fn load(&mut self, entry: Entry) {
        let version = Version { revision: entry.revision, created: entry.created, value: Some(entry.value) };
        self.keys.insert(entry.key, vec![version]);
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn compacted(&self) -> u64 {
        self.compacted
    }

    pub(crate) fn history_len(&self) -> usize {
        self.history.len()
    }

    pub(crate) fn history_bytes(&self) -> usize {
        self.history_bytes
    }

    /// The revision in the middle of the history.
    pub(crate) fn history_middle(&self) -> u64 {
        self.history.get(self.history.len() / 2).map_or(self.compacted, |event| event.revision)
    }

    pub(crate) fn get(&self, key: &str) -> Option<Entry> {
        let (key, versions) = self.keys.get_key_value(key)?;
        entry(key, versions.last()?)
    }

    pub(crate) fn range(&self, range: &Range) -> Result<Page> {
        let revision = range.revision.unwrap_or(self.revision);
        if revision > self.revision {
            return Err(Error::Future { requested: revision, current: self.revision });
        }
        if revision < self.compacted {
            return Err(Error::Compacted { requested: revision, compacted: self.compacted });
        }
        let mut page = Page { revision, ..Page::default() };
        if range.start >= range.end {
            return Ok(page);
        }
        let bounds = (Bound::Included(range.start.as_str()), Bound::Excluded(range.end.as_str()));
        for (key, versions) in self.keys.range::<str, _>(bounds) {
            let Some(entry) = version_at(versions, revision).and_then(|version| entry(key, version)) else { continue };
            if range.limit == 0 || page.entries.len() < range.limit {
                page.entries.push(entry);
                continue;
            }
            page.remaining += 1;
            if !range.count {
                break;
            }
        }
        Ok(page)
    }

    /// Applies the events of one or more transactions, in order.
    pub(crate) fn apply(&mut self, events: &[Arc<Event>]) {
        for event in events {
            let value = (event.kind != EventKind::Delete).then(|| event.value.clone());
            let version = Version { revision: event.revision, created: event.created, value };
            self.keys.entry(event.key.clone()).or_default().push(version);
            self.history_bytes += weight(event);
            self.history.push_back(Arc::clone(event));
            self.revision = event.revision;
        }
    }

    /// The events after a revision on keys with this prefix.
    pub(crate) fn events(&self, prefix: &str, after: u64) -> Result<VecDeque<Arc<Event>>> {
        if after > self.revision {
            return Err(Error::Future { requested: after, current: self.revision });
        }
        if after < self.compacted {
            return Err(Error::Compacted { requested: after, compacted: self.compacted });
        }
        let first = self.history.partition_point(|event| event.revision <= after);
        Ok(self.history.range(first..).filter(|event| event.key.starts_with(prefix)).cloned().collect())
    }

    /// Forgets what only reads and watches from before `revision` can see.
    pub(crate) fn compact(&mut self, revision: u64) {
        let revision = revision.min(self.revision);
        if revision <= self.compacted {
            return;
        }
        self.compacted = revision;
        while self.history.front().is_some_and(|event| event.revision <= revision) {
            let Some(event) = self.history.pop_front() else { break };
            self.history_bytes -= weight(&event);
            self.trim(&event.key, revision);
        }
    }

    /// Only keys with an event in the forgotten part can hold versions to forget.
    fn trim(&mut self, key: &Arc<str>, revision: u64) {
        let Some(versions) = self.keys.get_mut(key) else { return };
        let visible = versions.partition_point(|version| version.revision <= revision).saturating_sub(1);
        versions.drain(..visible);
        if let [version] = versions.as_slice()
            && version.value.is_none()
            && version.revision <= revision
        {
            self.keys.remove(key);
        }
    }
}

fn weight(event: &Event) -> usize {
    event.previous.as_ref().map_or(0, Bytes::len) + event.key.len()
}

fn version_at(versions: &[Version], revision: u64) -> Option<&Version> {
    let after = versions.partition_point(|version| version.revision <= revision);
    versions.get(after.checked_sub(1)?)
}

fn entry(key: &Arc<str>, version: &Version) -> Option<Entry> {
    let value = version.value.clone()?;
    Some(Entry { key: key.clone(), value, created: version.created, revision: version.revision })
}
