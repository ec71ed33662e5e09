//! redb's view of a [`Disk`], and what that disk has said of itself.

use std::io;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::{BackendError, StorageBackend};

use crate::disk::Disk;
use crate::spare::is_full;

/// How a disk is, worst last: it gets no better while it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Condition {
    #[default]
    Sound,
    /// A write found no room. What was synced is untouched.
    Full,
    /// A sync or something unexpected failed.
    Broken,
}

#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<Condition>);

impl Health {
    pub(crate) fn condition(&self) -> Condition {
        *self.0.lock()
    }

    fn worsen(&self, condition: Condition) {
        let mut current = self.0.lock();
        *current = condition.max(*current);
    }

    /// Only a write can find the disk full: a sync that says so has lost something.
    fn note<T>(&self, result: io::Result<T>, is_write: bool) -> io::Result<T> {
        if let Err(error) = &result {
            self.worsen(if is_write && is_full(error) { Condition::Full } else { Condition::Broken });
        }
        result
    }
}

/// Exclusion between processes is the data directory's lock, not the file's.
#[derive(Debug, Clone)]
pub(crate) struct Backend {
    disk: Arc<dyn Disk>,
    health: Arc<Health>,
}

impl Backend {
    pub(crate) fn new(disk: Arc<dyn Disk>, health: Arc<Health>) -> Self {
        Self { disk, health }
    }

    /// After a failed sync the kernel may call the next one good without having written: nothing goes on from there.
    fn check(&self) -> io::Result<()> {
        match self.health.condition() {
            Condition::Sound | Condition::Full => Ok(()),
            Condition::Broken => Err(io::Error::other("the disk has failed before")),
        }
    }

    /// With room for every byte where the disk has that much. redb doubles its file, so much of the growth may never be
    /// written: a nearly full disk gets a file with holes, and a write that finds none is told so.
    fn grow(&self, len: u64) -> io::Result<()> {
        match self.disk.allocate(len) {
            Err(error) if is_full(&error) => self.disk.set_len(len),
            result => result,
        }
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.health.note(self.disk.read(offset, out), false)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        let grows = len > self.disk.len()?;
        self.health.note(if grows { self.grow(len) } else { self.disk.set_len(len) }, true)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.health.note(self.disk.sync(), false)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.health.note(self.disk.write(offset, data), true)
    }

    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
}
