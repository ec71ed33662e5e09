//! The seam for what the store does to its directory: files are made and renamed here, and forgotten if it is not synced.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, FileDisk};

/// A flat directory that keeps the names made before a successful [`Directory::sync`].
pub trait Directory: fmt::Debug + Send + Sync + 'static {
    /// `None` if there is no such file.
    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn Disk>>>;
    /// Opens the file, or makes an empty one.
    fn create(&self, name: &str) -> io::Result<Arc<dyn Disk>>;
    /// Replaces what has the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
}

/// A real directory.
#[derive(Debug)]
pub(crate) struct FileDirectory(PathBuf);

impl FileDirectory {
    /// Makes the directory if need be, durably.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let missing: Vec<&Path> = path.ancestors().take_while(|dir| !dir.exists()).collect();
        fs::create_dir_all(&path)?;
        for parent in missing.iter().filter_map(|dir| dir.parent()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(Self(path))
    }

    /// The directory as it is, or is not.
    pub(crate) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    fn open_with(&self, name: &str, create: bool) -> io::Result<Arc<dyn Disk>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(create).truncate(false).mode(0o600).open(self.0.join(name))?;
        Ok(Arc::new(FileDisk::new(file)?))
    }
}

impl Directory for FileDirectory {
    fn open(&self, name: &str) -> io::Result<Option<Arc<dyn Disk>>> {
        match self.open_with(name, false) {
            Ok(disk) => Ok(Some(disk)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        self.open_with(name, true)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}
