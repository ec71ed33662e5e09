//! The durable engine: the newest version of each key and the current revision, in redb, on a [`Disk`].
//!
//! History is not kept on disk: after a restart, clients that watch from an older revision list again.

use std::sync::Arc;

use bytes::Bytes;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use crate::backend::{Backend, Condition, Health};
use crate::disk::Disk;
use crate::model::{Entry, Event, EventKind};

/// Values are a header of three little-endian numbers (created, revision, expires), then the bytes.
const KEYS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("keys");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const REVISION: &str = "revision";
const HEADER_BYTES: usize = 24;
/// The index holds every live value, so the engine reads only at start: its cache serves inner pages of the tree.
const CACHE_BYTES: usize = 4 << 20;

/// Why the engine did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Nothing is lost: the engine can be opened again, in the state before or after.
    #[error("no space left on the disk")]
    Full,
    /// What the disk holds is unknown until a new process reads it.
    #[error("{0}")]
    Broken(String),
}

#[derive(Debug)]
pub(crate) struct Engine {
    disk: Arc<dyn Disk>,
    health: Arc<Health>,
    /// Closed after a full disk, until [`Engine::reopen`].
    database: Option<Database>,
}

/// An entry as found on disk, with its expiry (0 for none).
pub(crate) type Loaded = (Entry, u64);

impl Engine {
    pub(crate) fn open(disk: Arc<dyn Disk>) -> Result<Self, Failure> {
        let mut engine = Self { disk, health: Arc::default(), database: None };
        engine.reopen()?;
        Ok(engine)
    }

    /// Opens what the disk holds. Returns its revision.
    pub(crate) fn reopen(&mut self) -> Result<u64, Failure> {
        self.database = None;
        self.health = Arc::default();
        let opened = open(Backend::new(Arc::clone(&self.disk), Arc::clone(&self.health)));
        let (database, revision) = opened.map_err(|error| self.failure(&error))?;
        self.database = Some(database);
        Ok(revision)
    }

    pub(crate) fn close(mut self) -> Result<(), Failure> {
        let Some(database) = self.database.take() else { return Ok(()) };
        database.close().map_err(|error| self.failure(&error.into()))
    }

    /// Reads everything: the revision and all entries.
    pub(crate) fn load(&self) -> Result<(u64, Vec<Loaded>), Failure> {
        let database = self.database.as_ref().ok_or(Failure::Full)?;
        load(database).map_err(|error| self.failure(&error))
    }

    /// Makes these events durable with one sync. After any failure the engine is closed.
    pub(crate) fn commit(&mut self, events: &[Arc<Event>], revision: u64) -> Result<(), Failure> {
        let database = self.database.as_ref().ok_or(Failure::Full)?;
        let Err(error) = commit(database, events, revision) else { return Ok(()) };
        self.database = None;
        Err(self.failure(&error))
    }

    /// What the disk said decides: redb may report only that something failed before.
    fn failure(&self, error: &redb::Error) -> Failure {
        match self.health.condition() {
            Condition::Full => Failure::Full,
            Condition::Sound | Condition::Broken => Failure::Broken(error.to_string()),
        }
    }
}

fn open(backend: Backend) -> Result<(Database, u64), redb::Error> {
    let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend.clone())?;
    match revision(&database) {
        Err(redb::Error::TableDoesNotExist(_)) => {
            let write = database.begin_write()?;
            write.open_table(KEYS)?;
            write.open_table(META)?.insert(REVISION, 0)?;
            write.commit()?;
        }
        other => drop(other?),
    }
    // A killed process may have left a whole commit that only the kernel's memory holds: nobody sees it before it is
    // durable.
    backend.sync_data()?;
    let revision = revision(&database)?;
    Ok((database, revision))
}

fn revision(database: &Database) -> Result<u64, redb::Error> {
    Ok(database.begin_read()?.open_table(META)?.get(REVISION)?.map_or(0, |value| value.value()))
}

fn load(database: &Database) -> Result<(u64, Vec<Loaded>), redb::Error> {
    let read = database.begin_read()?;
    let revision = revision(database)?;
    let mut entries = Vec::new();
    for item in read.open_table(KEYS)?.iter()? {
        let (key, record) = item?;
        entries.push(decode(key.value(), record.value())?);
    }
    Ok((revision, entries))
}

fn commit(database: &Database, events: &[Arc<Event>], revision: u64) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        let mut keys = write.open_table(KEYS)?;
        let mut record = Vec::new();
        for event in events {
            if event.kind == EventKind::Delete {
                keys.remove(&*event.key)?;
                continue;
            }
            record.clear();
            for number in [event.created, event.revision, event.expires] {
                record.extend_from_slice(&number.to_le_bytes());
            }
            record.extend_from_slice(&event.value);
            keys.insert(&*event.key, record.as_slice())?;
        }
        write.open_table(META)?.insert(REVISION, revision)?;
    }
    write.commit()?;
    Ok(())
}

fn decode(key: &str, record: &[u8]) -> Result<Loaded, redb::Error> {
    let corrupted = || redb::Error::Corrupted(format!("record of key {key} has only {} bytes", record.len()));
    let (header, value) = record.split_at_checked(HEADER_BYTES).ok_or_else(corrupted)?;
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&header[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let entry =
        Entry { key: key.into(), value: Bytes::copy_from_slice(value), created: number(0), revision: number(8) };
    Ok((entry, number(16)))
}
