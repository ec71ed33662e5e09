//! A pod's network namespace: empty, and gone with this value.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace that a parked thread holds open.
#[derive(Debug)]
pub struct PodNamespace {
    path: PathBuf,
    park: Option<mpsc::Sender<()>>,
    holder: Option<JoinHandle<()>>,
}

impl PodNamespace {
    /// Makes an empty namespace.
    ///
    /// # Panics
    /// If the machine does not allow it.
    #[must_use]
    pub fn new() -> Self {
        let (told, tell) = mpsc::channel();
        let (park, parked) = mpsc::channel::<()>();
        let holder = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("cannot make a network namespace");
            told.send(PathBuf::from(format!("/proc/self/task/{}/ns/net", nix::unistd::gettid())))
                .expect("nobody listens");
            // Ends when the sender is dropped.
            let _ = parked.recv();
        });
        let path = tell.recv().expect("the namespace's thread ended");
        Self { path, park: Some(park), holder: Some(holder) }
    }

    /// A path that refers to the namespace.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs something inside, on a thread of its own.
    ///
    /// # Panics
    /// If it panics, or the namespace cannot be entered.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let path = self.path.clone();
        let thread = std::thread::spawn(move || {
            let namespace = File::open(&path).unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()));
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("cannot enter the pod's namespace");
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Default for PodNamespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for PodNamespace {
    fn drop(&mut self) {
        self.park.take();
        if let Some(holder) = self.holder.take() {
            let _ = holder.join();
        }
    }
}
