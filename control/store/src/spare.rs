//! Room kept for bad times: a file whose blocks are given back when the disk is full, so that the engine can recover.

use std::io;
use std::sync::Arc;

use crate::disk::Disk;

/// Several times what a recovery writes: the state of the page allocator and one path of the tree.
const BYTES: u64 = 4 << 20;

/// Absent for a store without a directory.
#[derive(Debug, Default)]
pub(crate) struct Spare(Option<Arc<dyn Disk>>);

impl Spare {
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Self {
        Self(Some(disk))
    }

    /// Takes the room; false if the disk has not that much.
    pub(crate) fn take(&self) -> io::Result<bool> {
        self.allocate(BYTES)
    }

    /// Whether the disk has the room and as much again, so that a write has a chance. Takes what there is.
    pub(crate) fn has_plenty(&self) -> io::Result<bool> {
        let plenty = self.allocate(2 * BYTES)?;
        if plenty {
            self.0.as_ref().map_or(Ok(()), |disk| disk.set_len(BYTES))?;
        } else {
            self.take()?;
        }
        Ok(plenty)
    }

    fn allocate(&self, bytes: u64) -> io::Result<bool> {
        let Some(disk) = &self.0 else { return Ok(true) };
        match disk.allocate(bytes) {
            Ok(()) => Ok(true),
            Err(error) if is_full(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn give_back(&self) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |disk| disk.set_len(0))
    }
}

/// Whether the disk, or this user's share of it, is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
