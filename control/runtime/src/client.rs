//! The runtime's end of the conversation with one shim: starting it, asking it, hearing from it.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Command;
use tokio::sync::oneshot;

use crate::error::{IoContext, RuntimeError};
use crate::layout::{SHIM_SOCKET, SandboxDir, socket_path};
use crate::protocol::{Call, FromShim, Refusal, Reply, Request, encode_line};
use crate::shim::READY;

/// A shim makes namespaces and a socket, nothing that waits for anything.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// The program that becomes a shim, seen through a read-only mount: a container that gets hold of its shim's executable
/// (`/proc/<pid>/exe`) cannot write to it.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    sealed: Option<OwnedFd>,
}

impl Program {
    pub(crate) fn seal(path: &Path) -> Self {
        let sealed = read_only_view(path)
            .or_else(|error| read_only_view(&by_own_name(path).ok_or(error)?))
            .inspect_err(|error| tracing::warn!(%error, path = %path.display(), "cannot seal the shim's program"))
            .ok();
        Self { path: path.to_owned(), sealed }
    }

    fn executable(&self) -> PathBuf {
        match &self.sealed {
            Some(file) => PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())),
            None => self.path.clone(),
        }
    }

    /// Starts a shim on a prepared directory and returns when it listens.
    pub(crate) async fn start_shim(&self, dir: &SandboxDir) -> Result<(), RuntimeError> {
        let failed = |error: std::io::Error| RuntimeError::ShimStart(error.to_string());
        let mut child = Command::new(self.executable())
            .arg0("tidegate")
            .arg("shim")
            .arg("--dir")
            .arg(dir.path())
            // Neither LISTEN_FDS nor anything else of the starter may reach a container.
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let stdout = child.stdout.take().ok_or_else(|| RuntimeError::ShimStart("no standard output".to_owned()))?;
        let mut lines = BufReader::new(stdout);
        let mut text = String::new();
        let started = async {
            lines.read_line(&mut text).await?;
            if text.trim_end() != READY {
                lines.read_to_string(&mut text).await?;
            }
            // The process that was started has forked the shim and ended.
            child.wait().await
        };
        match tokio::time::timeout(START_PATIENCE, started).await {
            Ok(Ok(_)) if text.trim_end() == READY => Ok(()),
            Ok(Ok(status)) if text.is_empty() => Err(RuntimeError::ShimStart(status.to_string())),
            Ok(Ok(_)) => Err(RuntimeError::ShimStart(text.trim_end().to_owned())),
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => Err(RuntimeError::ShimStart(format!("no answer within {START_PATIENCE:?}"))),
        }
    }
}

/// `/proc/self/exe` leads to the mount that the process was started from, which only its own mount namespace can clone;
/// a process that has changed namespaces since finds the same file by its name.
fn by_own_name(link: &Path) -> Option<PathBuf> {
    let path = std::fs::read_link(link).ok()?;
    let (meant, found) = (std::fs::metadata(link).ok()?, std::fs::metadata(&path).ok()?);
    ((meant.dev(), meant.ino()) == (found.dev(), found.ino())).then_some(path)
}

fn read_only_view(path: &Path) -> std::io::Result<OwnedFd> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: the string ends with NUL and lives through the call.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    // SAFETY: the kernel has just handed out this descriptor, and nobody else knows it.
    let tree = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let attributes = libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the attributes have the size that is passed with them, and live through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &attributes,
            std::mem::size_of::<libc::mount_attr>(),
        )
    };
    Errno::result(result)?;
    Ok(tree)
}

type Waiting = HashMap<u64, oneshot::Sender<Result<Reply, Refusal>>>;

/// A connection to a shim.
#[derive(Debug)]
pub(crate) struct ShimClient {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    waiting: Arc<Mutex<Option<Waiting>>>,
    next: AtomicU64,
}

/// The other half: answers find their askers while it is driven, news come out of it.
pub(crate) struct ShimReader {
    lines: BufReader<OwnedReadHalf>,
    waiting: Arc<Mutex<Option<Waiting>>>,
}

impl ShimClient {
    pub(crate) fn connect(dir: &SandboxDir) -> Result<(Self, ShimReader), RuntimeError> {
        let stream = connect(dir)?;
        stream.set_nonblocking(true).at("cannot set up the connection to", dir.path())?;
        let (reader, writer) =
            UnixStream::from_std(stream).at("cannot use the connection to", dir.path())?.into_split();
        let waiting = Arc::new(Mutex::new(Some(Waiting::new())));
        let client =
            Self { writer: tokio::sync::Mutex::new(writer), waiting: Arc::clone(&waiting), next: AtomicU64::new(0) };
        Ok((client, ShimReader { lines: BufReader::new(reader), waiting }))
    }

    /// Asks; `None` if the shim has ended before it answered.
    pub(crate) async fn call(&self, call: Call) -> Option<Result<Reply, Refusal>> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        lock(&self.waiting).as_mut()?.insert(id, sender);
        let line = encode_line(&Request { id, call });
        // A caller that gives up between two parts of a line would garble the next one.
        let written = self.writer.lock().await.write_all(&line).await;
        if written.is_err() {
            lock(&self.waiting).as_mut()?.remove(&id);
            return None;
        }
        receiver.await.ok()
    }
}

/// A fresh connection to the shim of a sandbox.
pub(crate) fn connect(dir: &SandboxDir) -> Result<StdUnixStream, RuntimeError> {
    let handle = File::open(dir.path()).at("cannot open", dir.path())?;
    Ok(StdUnixStream::connect(socket_path(&handle, SHIM_SOCKET)).at("cannot connect to", dir.path())?)
}

impl ShimReader {
    /// The next change in the pod; `None` when the shim has ended. Answers are handed out on the way.
    pub(crate) async fn next(&mut self) -> Option<FromShim> {
        loop {
            let mut line = Vec::new();
            match self.lines.read_until(b'\n', &mut line).await {
                Ok(count) if count > 0 => {}
                _ => return self.end(),
            }
            match serde_json::from_slice(&line) {
                Ok(FromShim::Answer { id, result }) => {
                    let asker = lock(&self.waiting).as_mut().and_then(|waiting| waiting.remove(&id));
                    if let Some(asker) = asker {
                        // An asker that has given up does not want to know.
                        let _ = asker.send(result);
                    }
                }
                Ok(news) => return Some(news),
                Err(error) => tracing::warn!(%error, "message from shim cannot be understood"),
            }
        }
    }

    /// Everybody who still waits, or asks from now on, learns that nobody will answer.
    fn end(&mut self) -> Option<FromShim> {
        lock(&self.waiting).take();
        None
    }
}

/// The data behind these locks is never left half-changed, so a panic elsewhere does not matter.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
