//! File system operations inside one directory tree that nothing in the tree can lead out of.
//!
//! Parents are found with `openat2(RESOLVE_IN_ROOT)`: symbolic links and `..` are followed as a process whose root is the
//! tree would follow them. The last component is then handled relative to the parent's descriptor and never followed.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::libc;
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};

/// A directory seen as the root of a file system.
#[derive(Debug)]
pub(crate) struct Tree {
    root: OwnedFd,
}

/// A place in a tree: the directory that holds it and its name there.
#[derive(Debug)]
pub(crate) struct Place {
    parent: OwnedFd,
    name: CString,
}

/// Who owns an entry and what may be done with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
    pub(crate) mtime: i64,
}

impl Tree {
    pub(crate) fn open(path: &Path) -> nix::Result<Self> {
        let root = open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Self { root })
    }

    /// Finds the place of a path, making parent directories that are missing.
    pub(crate) fn place(&self, path: &Path) -> nix::Result<Place> {
        let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else { return Err(Errno::EINVAL) };
        let name = CString::new(name.as_bytes()).map_err(|_| Errno::EINVAL)?;
        let parent = match self.open_dir(parent) {
            Err(Errno::ENOENT) => self.make_dirs(parent)?,
            other => other?,
        };
        Ok(Place { parent, name })
    }

    fn open_dir(&self, path: &Path) -> nix::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(&self.root, path, how)
    }

    fn make_dirs(&self, path: &Path) -> nix::Result<OwnedFd> {
        let mut reached = PathBuf::new();
        let mut dir = self.open_dir(&reached)?;
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            reached.push(name);
            dir = match self.open_dir(&reached) {
                Err(Errno::ENOENT) => {
                    mkdirat(&dir, name, Mode::from_bits_truncate(0o755))?;
                    self.open_dir(&reached)?
                }
                other => other?,
            };
        }
        Ok(dir)
    }
}

impl Place {
    /// Another name in the same directory; `.` is the directory itself.
    pub(crate) fn sibling(self, name: &str) -> Self {
        Self { parent: self.parent, name: CString::new(name).unwrap_or_default() }
    }

    /// Makes the name free; a directory may stay if a directory comes.
    pub(crate) fn clear(&self, keep_directory: bool) -> nix::Result<()> {
        match unlinkat(&self.parent, self.name.as_c_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(Errno::EISDIR | Errno::EPERM) if keep_directory => Ok(()),
            // The standard library's removal does not follow links.
            Err(Errno::EISDIR | Errno::EPERM) => fs::remove_dir_all(self.path()).map_err(errno),
            Err(other) => Err(other),
        }
    }

    pub(crate) fn write_file(&self, content: &mut impl Read) -> io::Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = nix::fcntl::openat(&self.parent, self.name.as_c_str(), flags, Mode::from_bits_truncate(0o600))?;
        io::copy(content, &mut File::from(file))?;
        Ok(())
    }

    pub(crate) fn make_dir(&self) -> nix::Result<()> {
        match mkdirat(&self.parent, self.name.as_c_str(), Mode::from_bits_truncate(0o755)) {
            Err(Errno::EEXIST) => Ok(()),
            other => other,
        }
    }

    pub(crate) fn make_symlink(&self, target: &[u8]) -> nix::Result<()> {
        symlinkat(OsStr::from_bytes(target), &self.parent, self.name.as_c_str())
    }

    pub(crate) fn link_to(&self, target: &Place) -> nix::Result<()> {
        linkat(&target.parent, target.name.as_c_str(), &self.parent, self.name.as_c_str(), AtFlags::empty())
    }

    pub(crate) fn make_node(&self, kind: SFlag, device: u64) -> nix::Result<()> {
        mknodat(&self.parent, self.name.as_c_str(), kind, Mode::from_bits_truncate(0o600), device)
    }

    /// Owner first: changing it clears set-user-ID bits and file capabilities.
    pub(crate) fn set_attributes(&self, attributes: Attributes, is_symlink: bool) -> nix::Result<()> {
        let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
        let no_follow = AtFlags::AT_SYMLINK_NOFOLLOW;
        fchownat(&self.parent, self.name.as_c_str(), Some(uid), Some(gid), no_follow)?;
        if !is_symlink {
            let mode = Mode::from_bits_truncate(attributes.mode & 0o7777);
            // The entry was just made and is no link, so following makes no difference (and the kernel has no other way).
            fchmodat(&self.parent, self.name.as_c_str(), mode, FchmodatFlags::FollowSymlink)?;
        }
        self.set_mtime(attributes.mtime)
    }

    pub(crate) fn set_mtime(&self, seconds: i64) -> nix::Result<()> {
        let time = TimeSpec::new(seconds, 0);
        utimensat(&self.parent, self.name.as_c_str(), &time, &time, UtimensatFlags::NoFollowSymlink)
    }

    pub(crate) fn set_xattr(&self, key: &str, value: &[u8]) -> nix::Result<()> {
        let path = CString::new(self.path().as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
        let key = CString::new(key).map_err(|_| Errno::EINVAL)?;
        // SAFETY: both strings end with NUL and `value` is valid for its length during the call.
        let result = unsafe { libc::lsetxattr(path.as_ptr(), key.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
        Errno::result(result).map(drop)
    }

    /// A path that works as long as this value lives.
    fn path(&self) -> PathBuf {
        let dir = format!("/proc/self/fd/{}", self.parent.as_fd().as_raw_fd());
        Path::new(&dir).join(OsStr::from_bytes(self.name.as_bytes()))
    }
}

fn errno(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_dots_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&outside).unwrap();
        let tree = Tree::open(&root).unwrap();
        tree.place(Path::new("up")).unwrap().make_symlink(b"../outside").unwrap();
        tree.place(Path::new("abs")).unwrap().make_symlink(outside.as_os_str().as_bytes()).unwrap();
        for path in ["up/file", "abs/file", "a/b/../../../../file"] {
            if let Ok(place) = tree.place(Path::new(path)) {
                place.write_file(&mut &b"x"[..]).unwrap();
            }
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_name_is_cleared_whatever_it_held() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(dir.path()).unwrap();
        let place = tree.place(Path::new("x")).unwrap();
        tree.place(Path::new("x/y/z")).unwrap().write_file(&mut &b"1"[..]).unwrap();
        place.clear(true).unwrap();
        assert!(dir.path().join("x/y/z").exists());
        place.clear(false).unwrap();
        place.write_file(&mut &b"2"[..]).unwrap();
        place.clear(true).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
