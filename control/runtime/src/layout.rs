//! Where a sandbox and its containers keep their files, and how records are written so that a reader never sees half of
//! one.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{FileError, IoContext};

/// The run directory of one sandbox: `<run_dir>/<sandbox id>`.
#[derive(Debug, Clone)]
pub(crate) struct SandboxDir(PathBuf);

impl SandboxDir {
    pub(crate) fn new(run_dir: &Path, sandbox: &str) -> Self {
        Self(run_dir.join(sandbox))
    }

    pub(crate) fn from_path(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn record(&self) -> PathBuf {
        self.0.join("sandbox.json")
    }

    /// Mount point of the pod's `/dev/shm` while a container is being started.
    pub(crate) fn shm(&self) -> PathBuf {
        self.0.join("shm")
    }

    pub(crate) fn shim_log(&self) -> PathBuf {
        self.0.join("shim.log")
    }

    /// State of libcontainer, one directory a container.
    pub(crate) fn libcontainer(&self) -> PathBuf {
        self.0.join("libcontainer")
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.0.join("containers")
    }

    pub(crate) fn container(&self, id: &str) -> ContainerDir {
        ContainerDir(self.containers().join(id))
    }
}

/// The run directory of one container, which is also its OCI bundle.
#[derive(Debug, Clone)]
pub(crate) struct ContainerDir(PathBuf);

impl ContainerDir {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn record(&self) -> PathBuf {
        self.0.join("container.json")
    }

    pub(crate) fn oci_config(&self) -> PathBuf {
        self.0.join("config.json")
    }

    pub(crate) fn console_socket(&self) -> PathBuf {
        self.0.join("console.sock")
    }

    pub(crate) fn exec_console_socket(&self) -> PathBuf {
        self.0.join("exec-console.sock")
    }
}

/// Name of the shim's socket in its sandbox directory.
pub(crate) const SHIM_SOCKET: &str = "shim.sock";

/// The file system layers that belong to one container: `<state_dir>/<container id>`.
#[derive(Debug, Clone)]
pub(crate) struct RootDir(PathBuf);

impl RootDir {
    pub(crate) fn new(state_dir: &Path, container: &str) -> Self {
        Self(state_dir.join(container))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn upper(&self) -> PathBuf {
        self.0.join("upper")
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    /// Where the container's root is mounted (in its own mount namespace only).
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.0.join("rootfs")
    }
}

/// Writes a record under a temporary name and moves it into place.
pub(crate) fn write_record(path: &Path, record: &impl Serialize) -> Result<(), FileError> {
    let text = serde_json::to_vec(record).map_err(io::Error::from).at("cannot encode", path)?;
    write_atomically(path, &text, 0o600)
}

pub(crate) fn write_atomically(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.new", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The half-written file is of no use to anyone.
        let _ = fs::remove_file(&temporary);
    }
    written.at("cannot write", path)
}

pub(crate) fn read_record<T: DeserializeOwned>(path: &Path) -> Result<T, FileError> {
    let text = fs::read(path).at("cannot read", path)?;
    serde_json::from_slice(&text).map_err(io::Error::from).at("cannot understand", path)
}

/// Removes a tree; one that is not there is already removed.
pub(crate) fn remove_tree(path: &Path) -> Result<(), FileError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("cannot remove", path),
        _ => Ok(()),
    }
}

/// 256 random bits in hex: how containers and sandboxes are named everywhere in this ecosystem.
pub(crate) fn new_id() -> String {
    let bytes: [u8; 32] = rand::random();
    hex(&bytes)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A socket address that fits into `sun_path` (108 bytes) however long the directory's path is: through the descriptor.
pub(crate) fn socket_path(directory: &impl std::os::fd::AsRawFd, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))
}

/// Whether a name from outside is safe as one path component.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let path = Path::new(name);
    !name.is_empty()
        && name.len() < 128
        && path.file_name().is_some_and(|file| file.as_bytes() == name.as_bytes())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_the_directory_are_refused() {
        for bad in ["", ".", "..", "a/b", "/", "a/", "x\0", "a b"] {
            assert!(!is_plain_name(bad), "{bad:?}");
        }
        assert!(is_plain_name(&new_id()));
    }

    #[test]
    fn a_record_comes_back_and_leaves_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.json");
        write_record(&path, &vec![1, 2]).unwrap();
        write_record(&path, &vec![3]).unwrap();
        assert_eq!(read_record::<Vec<i32>>(&path).unwrap(), [3]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn identifiers_differ() {
        assert_ne!(new_id(), new_id());
        assert_eq!(new_id().len(), 64);
    }
}
