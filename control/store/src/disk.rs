//! The seam for what the store does to one file: tests put a disk here that fails, tears and forgets.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use parking_lot::Mutex;

/// A growable array of bytes that keeps what was written before a successful [`Disk::sync`].
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    fn len(&self) -> io::Result<u64>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// New bytes are zero; room for them is not promised.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Grows, with room for every byte up to `len`, or changes nothing.
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
    fn sync(&self) -> io::Result<()>;
}

/// A real file.
#[derive(Debug)]
pub struct FileDisk(File);

impl FileDisk {
    /// What is read from now on comes from the disk: after a failed sync the kernel may go on to show pages that it
    /// never wrote.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(file: File) -> io::Result<Self> {
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        Ok(Self(file))
    }
}

impl Disk for FileDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let before = self.len()?;
        let (Ok(from), Ok(more)) = (i64::try_from(before), i64::try_from(len.saturating_sub(before))) else {
            return Err(io::ErrorKind::FileTooLarge.into());
        };
        if more == 0 {
            return Ok(());
        }
        match fallocate(&self.0, FallocateFlags::empty(), from, more) {
            Ok(()) => Ok(()),
            // Not every file system can promise room.
            Err(Errno::EOPNOTSUPP) => self.0.set_len(len),
            Err(error) => {
                // Some file systems keep what they had found until then.
                self.0.set_len(before)?;
                Err(error.into())
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

/// Bytes in memory, for tests of what lies above the store.
#[derive(Debug, Default)]
pub struct MemoryDisk(Mutex<Vec<u8>>);

impl Disk for MemoryDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.lock();
        let from = offset as usize;
        let part = bytes.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(part);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.0.lock();
        let from = offset as usize;
        let part = bytes.get_mut(from..from + data.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        part.copy_from_slice(data);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().resize(len as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
