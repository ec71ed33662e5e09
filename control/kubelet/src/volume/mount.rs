//! The few mounts that volumes need, behind a trait so that volume logic runs without root.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

pub(crate) trait Mounter: Send + Sync {
    /// A memory file system at this directory, of at most `size` bytes.
    fn tmpfs(&self, path: &Path, size: Option<u64>) -> io::Result<()>;
    /// Makes an open file or directory appear at `target`, whatever happens to its path.
    fn bind(&self, source: BorrowedFd<'_>, target: &Path) -> io::Result<()>;
    fn is_mount(&self, path: &Path) -> bool;
    /// Takes away everything mounted below or at this directory.
    fn unmount_below(&self, path: &Path) -> io::Result<()>;
}

/// The kernel's mounts.
pub(crate) struct KernelMounter;

impl Mounter for KernelMounter {
    fn tmpfs(&self, path: &Path, size: Option<u64>) -> io::Result<()> {
        let options = size.map_or_else(|| "mode=0777".to_owned(), |size| format!("mode=0777,size={size}"));
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        Ok(mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options.as_str()))?)
    }

    fn bind(&self, source: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
        let source = PathBuf::from(format!("/proc/self/fd/{}", source.as_raw_fd()));
        Ok(mount(Some(&source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
    }

    fn is_mount(&self, path: &Path) -> bool {
        let points = mount_points().unwrap_or_default();
        points.iter().any(|point| point == path)
    }

    fn unmount_below(&self, path: &Path) -> io::Result<()> {
        let device = fs::symlink_metadata(path).map(|metadata| metadata.dev());
        if device.is_err() {
            return Ok(());
        }
        for point in mount_points()?.iter().rev().filter(|point| point.starts_with(path)) {
            match umount2(point, MntFlags::MNT_DETACH) {
                Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// In the order in which they were mounted.
fn mount_points() -> io::Result<Vec<PathBuf>> {
    let table = fs::read("/proc/self/mountinfo")?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(mount_point).collect())
}

fn mount_point(line: &[u8]) -> Option<PathBuf> {
    let field = line.split(|byte| *byte == b' ').nth(4)?;
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        // Blanks and backslashes in names appear as three octal digits.
        match (byte, after) {
            (b'\\', [a, b, c, tail @ ..]) => {
                let digit = |byte: &u8| u16::from(byte.wrapping_sub(b'0'));
                path.push(u8::try_from(digit(a) * 64 + digit(b) * 8 + digit(c)).ok()?);
                rest = tail;
            }
            _ => path.push(*byte),
        }
    }
    Some(PathBuf::from(std::ffi::OsString::from_vec(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        let line = br"36 35 98:0 /a /mnt/with\040space\134x rw master:1 - ext3 /dev/root rw";
        assert_eq!(mount_point(line), Some(PathBuf::from(r"/mnt/with space\x")));
        assert_eq!(mount_point(b""), None);
    }
}
