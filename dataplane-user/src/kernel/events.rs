//! The event ring's reader.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;

use aya::maps::{MapData, RingBuf};
use dataplane_abi::event::{self, Event};

use super::KernelError;
use super::maps::open_map;

/// Reads what programs report. Pollable: readable when there are events (wrap it in tokio's `AsyncFd`).
pub struct Events {
    ring: RingBuf<MapData>,
}

impl Events {
    pub(super) fn open(pin_dir: &Path) -> Result<Self, KernelError> {
        Ok(Self { ring: open_map(pin_dir, &event::MAP)?.0 })
    }

    /// The next event, if there is one now.
    pub fn try_next(&mut self) -> Option<Event> {
        loop {
            let item = self.ring.next()?;
            if item.len() >= size_of::<Event>() {
                // SAFETY: the item is at least as long as an event, which is plain data of any value; it may be
                // unaligned.
                return Some(unsafe { item.as_ptr().cast::<Event>().read_unaligned() });
            }
        }
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
