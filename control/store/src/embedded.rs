//! The embedded store: a data directory, an index in memory, one writer thread.

use std::fs::{File, OpenOptions, TryLockError};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;
use tokio::sync::{oneshot, watch};

use crate::directory::{Directory, FileDirectory};
use crate::disk::{Disk, MemoryDisk};
use crate::engine::{Engine, Failure};
use crate::format::{self, FORMAT, Found};
use crate::hub::{Hub, Watch};
use crate::index::Index;
use crate::model::{Entry, Error, Op, Page, Range, Result};
use crate::room::Room;
use crate::spare::Spare;
use crate::writer::{Expiries, Request, Writer};

/// The engine's file.
const STORE: &str = "store.redb";
const NEW_STORE: &str = "store.tmp";
const SPARE: &str = "spare";
const LOCK: &str = "lock";

/// Limits, and the clock that expiries are measured by.
#[derive(Clone)]
pub struct Options {
    pub value_bytes_max: usize,
    pub history_events_max: usize,
    /// Bytes of superseded values.
    pub history_bytes_max: usize,
    /// How often a full disk is asked again.
    pub full_retry: Duration,
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
            full_retry: Duration::from_secs(1),
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
    /// Opens or makes a store in this directory. A directory of another format is left as it is.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::Format`], or [`Error::Open`] with what the system said.
    pub fn open(path: &Path, options: Options) -> Result<Self> {
        Self::check(path)?;
        let failed = |why: String| Error::Open { dir: path.display().to_string(), why };
        let directory = FileDirectory::create(path).map_err(|error| failed(error.to_string()))?;
        let lock = lock(&directory)?;
        let mut store = Self::open_in(&directory, options).map_err(|error| match error {
            Error::Failed(why) => failed(why.to_string()),
            Error::Full => failed(error.to_string()),
            Error::Format { found, supported, .. } => {
                Error::Format { dir: path.display().to_string(), found, supported }
            }
            error => error,
        })?;
        store._lock = Some(lock);
        Ok(store)
    }

    /// Whether [`Embedded::open`] could read what is in this directory; changes nothing.
    ///
    /// # Errors
    /// [`Error::Format`], or [`Error::Open`] with what the system said.
    pub fn check(path: &Path) -> Result<()> {
        let dir = path.display().to_string();
        match format::find(&FileDirectory::at(path), STORE) {
            Ok(Found::Nothing | Found::Ours) => Ok(()),
            Ok(Found::Other(found)) => Err(Error::Format { dir, found, supported: FORMAT }),
            Err(error) => Err(Error::Open { dir, why: error.to_string() }),
        }
    }

    /// Opens the store that this directory holds, or makes one in an empty directory.
    ///
    /// # Errors
    /// [`Error::Format`], [`Error::Full`], or [`Error::Failed`] if the disk fails or holds something else.
    pub fn open_in(directory: &dyn Directory, options: Options) -> Result<Self> {
        let failed = |error: std::io::Error| Error::Failed(error.to_string().into());
        match format::find(directory, STORE).map_err(failed)? {
            Found::Ours => {}
            Found::Nothing => format::write(directory).map_err(failed)?,
            Found::Other(found) => return Err(Error::Format { dir: String::new(), found, supported: FORMAT }),
        }
        let spare = Spare::new(directory.create(SPARE).map_err(failed)?);
        let disk = match directory.open(STORE).map_err(failed)? {
            Some(disk) => disk,
            None => create_store(directory)?,
        };
        // Names must survive a power loss before anything that is called durable, also those that a killed process gave.
        directory.sync().map_err(failed)?;
        let engine = match Engine::open(Arc::clone(&disk)) {
            Err(Failure::Full) => {
                spare.give_back().map_err(failed)?;
                Engine::open(disk)
            }
            other => other,
        };
        Self::start(engine?, spare, options)
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
    /// [`Error::Full`], or [`Error::Failed`] if the disk fails or holds something else.
    pub fn open_disk(disk: Arc<dyn Disk>, options: Options) -> Result<Self> {
        Self::start(Engine::open(disk)?, Spare::default(), options)
    }

    fn start(engine: Engine, spare: Spare, options: Options) -> Result<Self> {
        let (revision, entries) = engine.load()?;
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
        let room = Room::new(engine, spare, options.full_retry)?;
        let writer = Writer { room, shared: Arc::clone(&shared), requests: queue, options, expiries };
        let writer = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || run(writer))
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

/// A writer that panics has failed like a disk: those who wait for [`crate::Store::failed`] must hear of it.
fn run(writer: Writer) {
    let shared = Arc::clone(&writer.shared);
    if std::panic::catch_unwind(AssertUnwindSafe(|| writer.run())).is_err() {
        shared.failed.send_replace(Some(Error::Failed("the writer panicked".into())));
    }
}

/// Makes an empty store under another name first: the engine cannot open one that is half made.
fn create_store(directory: &dyn Directory) -> Result<Arc<dyn Disk>> {
    let failed = |error: std::io::Error| Error::Failed(error.to_string().into());
    let disk = directory.create(NEW_STORE).map_err(failed)?;
    disk.set_len(0).map_err(failed)?;
    Engine::open(Arc::clone(&disk))?.close()?;
    // The format is named durably before there is a store that it is about.
    directory.sync().map_err(failed)?;
    directory.rename(NEW_STORE, STORE).map_err(failed)?;
    Ok(disk)
}

fn lock(directory: &FileDirectory) -> Result<File> {
    let dir = || directory.path().display().to_string();
    let failed = |error: std::io::Error| Error::Open { dir: dir(), why: error.to_string() };
    let mut options = OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).open(directory.path().join(LOCK)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse { dir: dir() }),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}
