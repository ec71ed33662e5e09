//! The embedded store: a data directory, an index in memory, one writer thread.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;
use tokio::sync::{oneshot, watch};

use crate::disk::{Disk, FileDisk, MemoryDisk};
use crate::engine::Engine;
use crate::hub::{Hub, Watch};
use crate::index::Index;
use crate::model::{Entry, Error, Op, Page, Range, Result};
use crate::writer::{Expiries, Request, Writer};

/// Written into the data directory, so that a later format is recognised instead of misread.
const FORMAT: &str = "tidegate-store 1";

/// Limits, and the clock that expiries are measured by.
#[derive(Clone)]
pub struct Options {
    pub value_bytes_max: usize,
    pub history_events_max: usize,
    /// Bytes of superseded values.
    pub history_bytes_max: usize,
    /// Seconds since the epoch.
    pub clock: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Default for Options {
    fn default() -> Self {
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        Self {
            value_bytes_max: 3 << 20,
            history_events_max: 50_000,
            history_bytes_max: 64 << 20,
            clock: Arc::new(clock),
        }
    }
}

/// What readers share with the writer.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) state: RwLock<State>,
    revision: AtomicU64,
    compacted: AtomicU64,
    pub(crate) failed: watch::Sender<Option<Error>>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) index: Index,
    pub(crate) hub: Hub,
}

impl Shared {
    /// Called with the state locked, after the watchers have their events.
    pub(crate) fn publish_revisions(&self, index: &Index) {
        self.revision.store(index.revision(), Ordering::Release);
        self.compacted.store(index.compacted(), Ordering::Release);
    }
}

/// The embedded store. Dropping it waits for the writer to finish what it was given.
#[derive(Debug)]
pub struct Embedded {
    shared: Arc<Shared>,
    requests: Sender<Request>,
    writer: Option<JoinHandle<()>>,
    /// Held for as long as the store is open.
    _lock: Option<File>,
}

impl Embedded {
    /// Opens or makes a store in this directory.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::Format`], or [`Error::Open`] with what the system said.
    pub fn open(dir: &Path, options: Options) -> Result<Self> {
        let failed = |error: std::io::Error| Error::Open { dir: dir.display().to_string(), why: error.to_string() };
        fs::create_dir_all(dir).map_err(failed)?;
        let lock = lock(dir)?;
        check_format(dir)?;
        let mut file = OpenOptions::new();
        file.read(true).write(true).create(true).truncate(false);
        std::os::unix::fs::OpenOptionsExt::mode(&mut file, 0o600);
        let file = file.open(dir.join("store.redb")).map_err(failed)?;
        // The directory entry must survive a power loss too.
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
        let mut store = Self::open_disk(Arc::new(FileDisk(file)), options)
            .map_err(|error| Error::Open { dir: dir.display().to_string(), why: error.to_string() })?;
        store._lock = Some(lock);
        Ok(store)
    }

    /// A store that forgets everything when dropped.
    ///
    /// # Errors
    /// As [`Embedded::open_disk`].
    pub fn in_memory() -> Result<Self> {
        Self::open_disk(Arc::new(MemoryDisk::default()), Options::default())
    }

    /// Opens the store that this disk holds, or makes one on an empty disk.
    ///
    /// # Errors
    /// [`Error::Failed`] if the disk fails or holds something else.
    pub fn open_disk(disk: Arc<dyn Disk>, options: Options) -> Result<Self> {
        let failed = |error: redb::Error| Error::Failed(error.to_string().into());
        let engine = Engine::open(disk).map_err(failed)?;
        let (revision, entries) = engine.load().map_err(failed)?;
        let mut index = Index::new(revision);
        let mut expiries = Expiries::default();
        for (entry, expires) in entries {
            expiries.set(&entry.key, expires);
            index.load(entry);
        }
        let shared = Arc::new(Shared {
            revision: AtomicU64::new(revision),
            compacted: AtomicU64::new(revision),
            state: RwLock::new(State { index, hub: Hub::default() }),
            failed: watch::Sender::new(None),
        });
        let (requests, queue) = mpsc::channel();
        let writer = Writer { engine, shared: Arc::clone(&shared), requests: queue, options, expiries };
        let writer = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run())
            .map_err(|error| Error::Failed(format!("cannot start the writer: {error}").into()))?;
        Ok(Self { shared, requests, writer: Some(writer), _lock: None })
    }

    async fn ask<T>(&self, request: Request, reply: oneshot::Receiver<Result<T>>) -> Result<T> {
        self.requests.send(request).map_err(|_| Error::Closed)?;
        reply.await.map_err(|_| Error::Closed)?
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // The writer may have ended already.
        let _ = self.requests.send(Request::Stop);
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

#[async_trait::async_trait]
impl crate::Store for Embedded {
    async fn get(&self, key: &str) -> Result<Option<Entry>> {
        Ok(self.shared.state.read().index.get(key))
    }

    async fn range(&self, range: Range) -> Result<Page> {
        self.shared.state.read().index.range(&range)
    }

    async fn txn(&self, ops: Vec<Op>) -> Result<u64> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Txn { ops, reply }, answer).await
    }

    async fn watch(&self, prefix: &str, after: u64) -> Result<Watch> {
        if let Some(error) = &*self.shared.failed.borrow() {
            return Err(error.clone());
        }
        let mut state = self.shared.state.write();
        let backlog = state.index.events(prefix, after)?;
        Ok(state.hub.subscribe(prefix, backlog))
    }

    async fn compact(&self, revision: u64) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.ask(Request::Compact { revision, reply }, answer).await
    }

    fn revision(&self) -> u64 {
        self.shared.revision.load(Ordering::Acquire)
    }

    fn compacted(&self) -> u64 {
        self.shared.compacted.load(Ordering::Acquire)
    }

    async fn failed(&self) -> Error {
        let mut failed = self.shared.failed.subscribe();
        match failed.wait_for(Option::is_some).await.map(|error| error.clone()) {
            Ok(Some(error)) => error,
            _ => Error::Closed,
        }
    }
}

fn lock(dir: &Path) -> Result<File> {
    let failed = |error: std::io::Error| Error::Open { dir: dir.display().to_string(), why: error.to_string() };
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse { dir: dir.display().to_string() }),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

fn check_format(dir: &Path) -> Result<()> {
    let failed = |error: std::io::Error| Error::Open { dir: dir.display().to_string(), why: error.to_string() };
    let path = dir.join("format");
    match fs::read_to_string(&path) {
        Ok(found) if found.trim_end() == FORMAT => Ok(()),
        Ok(found) => Err(Error::Format {
            dir: dir.display().to_string(),
            found: found.trim_end().chars().take(80).collect(),
            supported: FORMAT,
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let temporary = dir.join("format.tmp");
            let write = || {
                let mut file = File::create(&temporary)?;
                writeln!(file, "{FORMAT}")?;
                file.sync_all()?;
                fs::rename(&temporary, &path)
            };
            write().map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}
