//! The durable engine: the newest version of each key and the current revision, in redb, on a [`Disk`].
//!
//! History is not kept on disk: after a restart, clients that watch from an older revision list again.

use std::io;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use redb::{BackendError, Builder, Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};

use crate::disk::Disk;
use crate::model::{Entry, Event, EventKind};

/// Values are a header of three little-endian numbers (created, revision, expires), then the bytes.
const KEYS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("keys");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const HEADER_BYTES: usize = 24;
/// The index holds every live value, so the engine reads only at start: its cache serves inner pages of the tree.
const CACHE_BYTES: usize = 4 << 20;

#[derive(Debug)]
pub(crate) struct Engine {
    database: Database,
}

/// An entry as found on disk, with its expiry (0 for none).
pub(crate) type Loaded = (Entry, u64);

impl Engine {
    pub(crate) fn open(disk: Arc<dyn Disk>) -> Result<Self, redb::Error> {
        let database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(Backend(disk))?;
        let write = database.begin_write()?;
        write.open_table(KEYS)?;
        write.open_table(META)?;
        write.commit()?;
        Ok(Self { database })
    }

    /// Reads everything: the revision and all entries.
    pub(crate) fn load(&self) -> Result<(u64, Vec<Loaded>), redb::Error> {
        let read = self.database.begin_read()?;
        let revision = read.open_table(META)?.get("revision")?.map_or(0, |value| value.value());
        let mut entries = Vec::new();
        for item in read.open_table(KEYS)?.iter()? {
            let (key, record) = item?;
            entries.push(decode(key.value(), record.value())?);
        }
        Ok((revision, entries))
    }

    /// Makes these events durable with one sync.
    pub(crate) fn commit(&self, events: &[Arc<Event>], revision: u64) -> Result<(), redb::Error> {
        let write = self.database.begin_write()?;
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
            write.open_table(META)?.insert("revision", revision)?;
        }
        write.commit()?;
        Ok(())
    }
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

/// redb's view of a [`Disk`]. Exclusion between processes is the data directory's lock, not the file's.
#[derive(Debug)]
struct Backend(Arc<dyn Disk>);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
}
