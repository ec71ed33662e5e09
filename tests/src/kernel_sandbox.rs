//! A place to run kernel programs in without touching the machine: own network namespace, own BPF file system, own
//! cgroup.
//!
//! The namespaces belong to the calling thread (and to what it starts) and vanish with it; the cgroup is removed on
//! drop, also after a panic. Needs root: without it, tests fail and say so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::Uid;

/// The sandbox of one test.
#[derive(Debug)]
pub struct KernelSandbox {
    cgroup: PathBuf,
    membership: Option<Membership>,
}

/// The whole process is in the sandbox's cgroup; only one test at a time can have it there.
#[derive(Debug)]
struct Membership {
    home: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());
static NUMBER: AtomicU32 = AtomicU32::new(0);

impl KernelSandbox {
    /// Moves the calling thread into new namespaces, with loopback up and an empty BPF file system at `/sys/fs/bpf`.
    ///
    /// # Panics
    /// If the machine does not allow it.
    #[must_use]
    pub fn new() -> Self {
        assert!(Uid::effective().is_root(), "kernel tests need root (namespaces, cgroups, bpf)");
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("cannot make namespaces");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("cannot make mounts private");
        mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), none).expect("cannot mount a BPF file system");
        ip(&["link", "set", "lo", "up"]);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let cgroup = cgroup2().join(format!("tidegate-test-{}-{number}", std::process::id()));
        fs::create_dir(&cgroup).unwrap_or_else(|error| panic!("cannot make {}: {error}", cgroup.display()));
        Self { cgroup, membership: None }
    }

    /// The folder for pins.
    #[must_use]
    pub fn pin_dir(&self) -> PathBuf {
        PathBuf::from("/sys/fs/bpf/tidegate/test")
    }

    /// The cgroup for socket programs.
    #[must_use]
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Moves this process into the sandbox's cgroup until the sandbox is dropped. Waits for other tests of the process.
    ///
    /// # Panics
    /// If the cgroup does not take it.
    pub fn enter_cgroup(&mut self) {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let listed = fs::read_to_string("/proc/self/cgroup").expect("cannot read own cgroup");
        let home = listed.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let home = cgroup2().join(home);
        join(&self.cgroup).expect("cannot enter the test's cgroup");
        self.membership = Some(Membership { home, _turn: turn });
    }
}

impl Default for KernelSandbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for KernelSandbox {
    fn drop(&mut self) {
        if let Some(membership) = &self.membership
            && let Err(error) = join(&membership.home)
        {
            eprintln!("cannot return to {}: {error}", membership.home.display());
        }
        // The kernel lets go of the last member a moment after it has left.
        let removed = wait_for(Duration::from_secs(5), || fs::remove_dir(&self.cgroup).is_ok());
        if !removed {
            eprintln!("cannot remove {}", self.cgroup.display());
        }
    }
}

/// Runs `ip` in the calling thread's network namespace.
///
/// # Panics
/// If it fails.
pub fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("cannot run ip");
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`ip {}` failed: {message}", arguments.join(" "));
}

/// Asks again until the answer is yes or the time is up.
pub fn wait_for(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Where the machine has cgroup2 mounted.
fn cgroup2() -> PathBuf {
    let mounts = fs::read_to_string("/proc/mounts").expect("cannot read mounts");
    let found =
        mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|words| words.get(2) == Some(&"cgroup2"));
    found.map(|words| PathBuf::from(words[1])).expect("cgroup2 is not mounted")
}

fn join(cgroup: &Path) -> std::io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string())
}
