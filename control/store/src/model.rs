//! The vocabulary of the store: entries, operations, events, errors.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::engine::Failure;

pub type Result<T> = std::result::Result<T, Error>;

/// One version of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: Arc<str>,
    pub value: Bytes,
    /// When the key came into being.
    pub created: u64,
    /// When this version was written.
    pub revision: u64,
}

/// What must hold of a key for an operation to go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    Any,
    Absent,
    Revision(u64),
}

/// One change in a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// `expires` is in seconds since the epoch: the store deletes the key then, as a lease of etcd would.
    Put {
        key: Arc<str>,
        value: Bytes,
        expect: Expect,
        expires: Option<u64>,
    },
    Delete {
        key: Arc<str>,
        expect: Expect,
    },
    /// Changes nothing, but the transaction fails unless the expectation holds.
    Check {
        key: Arc<str>,
        expect: Expect,
    },
}

impl Op {
    #[must_use]
    pub fn create(key: &str, value: Bytes) -> Self {
        Self::Put { key: key.into(), value, expect: Expect::Absent, expires: None }
    }

    #[must_use]
    pub fn update(key: &str, value: Bytes, revision: u64) -> Self {
        Self::Put { key: key.into(), value, expect: Expect::Revision(revision), expires: None }
    }

    #[must_use]
    pub fn put(key: &str, value: Bytes) -> Self {
        Self::Put { key: key.into(), value, expect: Expect::Any, expires: None }
    }

    #[must_use]
    pub fn delete(key: &str, expect: Expect) -> Self {
        Self::Delete { key: key.into(), expect }
    }

    pub(crate) fn key(&self) -> &Arc<str> {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } | Self::Check { key, .. } => key,
        }
    }

    pub(crate) fn expect(&self) -> Expect {
        match self {
            Self::Put { expect, .. } | Self::Delete { expect, .. } | Self::Check { expect, .. } => *expect,
        }
    }

    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.len() + value.len(),
            Self::Delete { key, .. } | Self::Check { key, .. } => key.len(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    Create,
    Update,
    Delete,
}

/// One change of one key, shared by all watchers.
pub struct Event {
    pub kind: EventKind,
    pub key: Arc<str>,
    /// The new value; of a deletion, the last one.
    pub value: Bytes,
    /// The value before an update or a deletion.
    pub previous: Option<Bytes>,
    pub created: u64,
    pub revision: u64,
    pub(crate) expires: u64,
    /// A place for what consumers derive from the event (a rendering, a parsed object), so that the first of them does
    /// the work for all.
    pub memo: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({} @{} {:?})", self.kind, self.key, self.revision, self.value)
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.key == other.key
            && self.value == other.value
            && self.previous == other.previous
            && self.created == other.created
            && self.revision == other.revision
    }
}

/// Which keys to read.
#[derive(Debug, Clone, Default)]
pub struct Range {
    /// Inclusive.
    pub start: String,
    /// Exclusive.
    pub end: String,
    /// `None` for the newest.
    pub revision: Option<u64>,
    /// 0 for no limit.
    pub limit: usize,
    /// Whether to count what lies beyond the limit.
    pub count: bool,
}

impl Range {
    /// All keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: &str) -> Self {
        Self { start: prefix.into(), end: prefix_end(prefix), ..Self::default() }
    }
}

/// The smallest string greater than every string that begins with `prefix`.
fn prefix_end(prefix: &str) -> String {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            chars.push(next);
            return chars.into_iter().collect();
        }
    }
    // No string bounds the empty prefix; the highest character is beyond every key in use.
    char::MAX.to_string()
}

/// The answer to a range read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    pub entries: Vec<Entry>,
    /// Keys beyond the limit; exact if [`Range::count`], else 1 for "some".
    pub remaining: u64,
    /// The revision that this page shows.
    pub revision: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("revision {requested} has been compacted (compacted up to {compacted})")]
    Compacted { requested: u64, compacted: u64 },
    #[error("revision {requested} is in the future (current is {current})")]
    Future { requested: u64, current: u64 },
    #[error("key {key} does not meet the expectation")]
    Conflict { key: Arc<str>, current: Option<Box<Entry>> },
    #[error("value of key {key} has {size} bytes, more than {max}")]
    TooLarge { key: Arc<str>, size: usize, max: usize },
    /// Nothing was written. What is stored can be read, and deleted.
    #[error("no space left on the disk of the data directory: nothing was written; free some space and try again")]
    Full,
    #[error("the store can no longer write: {0}")]
    Failed(Arc<str>),
    #[error("the store has been closed")]
    Closed,
    #[error("data directory {dir} is in use by another process")]
    InUse { dir: String },
    #[error(
        "data directory {dir} holds a store of format {found:?}, but this program reads {supported:?}: use the version \
         of the program that wrote it, or another data directory"
    )]
    Format { dir: String, found: String, supported: &'static str },
    #[error("cannot open the store in {dir}: {why}")]
    Open { dir: String, why: String },
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Full => Self::Full,
            Failure::Broken(why) => Self::Failed(why.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::prefix_end;

    #[test]
    fn the_end_of_a_prefix_is_just_beyond_it() {
        assert_eq!(prefix_end("/a/"), "/a0");
        assert!(*"/a/\u{10ffff}" < *prefix_end("/a/"));
        assert_eq!(prefix_end("a\u{10ffff}"), "b");
        assert_eq!(prefix_end("\u{d7ff}"), "\u{e000}");
    }
}
