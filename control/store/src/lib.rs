//! A revisioned key-value store with watch: etcd's semantics behind one trait, and an embedded durable engine.
//!
//! ```text
//! callers ──Op──▶ writer thread ──one commit for many──▶ engine (redb) ──▶ Disk, Directory (or a test's faulty ones)
//!    ▲                │ after durability
//!    └── index (MVCC) ◀┴──▶ hub ──Arc<Event>──▶ watchers
//! ```
//! *Owns*: revisions, versions since the last compaction, event history, durability. *Does not own*: what values mean.
//!
//! Invariants: a reader or watcher never sees a write that is not durable; events of one watch come in revision order
//! with none missing; after a failed sync nothing more is written (the disk's state is unknown) until a new start; a full
//! disk refuses writes, loses nothing, and is asked again.

mod backend;
mod directory;
mod disk;
mod embedded;
mod engine;
mod format;
mod hub;
mod index;
mod model;
mod room;
mod spare;
mod writer;

pub use directory::Directory;
pub use disk::{Disk, FileDisk, MemoryDisk};
pub use embedded::{Embedded, Options};
pub use hub::Watch;
pub use model::{Entry, Error, Event, EventKind, Expect, Op, Page, Range, Result};

/// What the API server needs of a store; the embedded one and etcd both can give it.
#[async_trait::async_trait]
pub trait Store: Send + Sync + 'static {
    /// The newest durable version of a key.
    async fn get(&self, key: &str) -> Result<Option<Entry>>;

    /// A consistent page of keys in order, at the newest or a named revision.
    ///
    /// # Errors
    /// [`Error::Compacted`] if that revision is gone, [`Error::Future`] if it has not happened yet.
    async fn range(&self, range: Range) -> Result<Page>;

    /// Applies all operations at one revision, or none if an expectation fails. Returns that revision.
    ///
    /// # Errors
    /// [`Error::Conflict`] with the current entry of the first key whose expectation failed.
    async fn txn(&self, ops: Vec<Op>) -> Result<u64>;

    /// Every event on keys with this prefix and a revision greater than `after`.
    ///
    /// # Errors
    /// [`Error::Compacted`] if events after that revision are gone, [`Error::Future`] if it has not happened yet.
    async fn watch(&self, prefix: &str, after: u64) -> Result<Watch>;

    /// Forgets versions that were superseded before or at this revision, and the events up to it.
    async fn compact(&self, revision: u64) -> Result<()>;

    /// The newest durable revision; every watcher has been handed all events up to it.
    fn revision(&self) -> u64;

    /// The newest compacted revision.
    fn compacted(&self) -> u64;

    /// Resolves when the store can no longer write. The process should end then.
    async fn failed(&self) -> Error;
}
