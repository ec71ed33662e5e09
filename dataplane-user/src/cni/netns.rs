//! Runs a piece of work inside another network namespace, on a thread of its own: a thread that has changed its
//! namespace must never return to the runtime's pool.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;

use super::{Error, Result};

/// Enters the namespace at `path` and drives the future that `work` returns to its end there.
pub(super) async fn run<T, F>(path: &Path, work: impl FnOnce() -> F + Send + 'static) -> Result<T>
where
    F: Future<Output = Result<T>>,
    T: Send + 'static,
{
    let path = path.to_owned();
    let (answer, answered) = oneshot::channel();
    let inside = path.clone();
    std::thread::Builder::new()
        .name("pod-netns".to_owned())
        .spawn(move || {
            // A dropped receiver means that the caller gave up; the work is done all the same.
            let _ = answer.send(enter(inside, work));
        })
        .map_err(|source| Error::EnterNamespace { path: path.clone(), source })?;
    answered.await.map_err(|_| Error::NamespaceThread { path })?
}

fn enter<T, F>(path: PathBuf, work: impl FnOnce() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let runtime = enter_namespace(&path)
        .and_then(|()| tokio::runtime::Builder::new_current_thread().enable_all().build())
        .map_err(|source| Error::EnterNamespace { path, source })?;
    runtime.block_on(work())
}

fn enter_namespace(path: &Path) -> io::Result<()> {
    setns(File::open(path)?, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
}
