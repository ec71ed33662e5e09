//! Starts the parts of a node, each its own process in the node's namespaces and cgroup, and restarts what ends.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use nix::sched::{CloneFlags, setns};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::layout::Layout;
use crate::namespace::Namespaces;
use crate::process;

const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A part that ran this long starts its back-off anew.
const STABLE_AFTER: Duration = Duration::from_secs(10);
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// A log larger than this is set aside as `.old` when its part starts.
const LOG_BYTES_MAX: u64 = 10 << 20;
/// Inherited sockets start here (`sd_listen_fds(3)`).
const FIRST_LISTEN_FD: RawFd = 3;
/// Above every descriptor that a child is given, so that moving them down cannot overwrite one.
const PARKED_FD_MIN: RawFd = 200;

/// One process to keep running.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) args: Vec<String>,
    /// Sockets to hand in, by the name under which the part takes them.
    pub(crate) sockets: Vec<(&'static str, OwnedFd)>,
    pub(crate) home: Home,
}

/// Where a part runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    /// In the node's namespaces.
    Node,
    /// In the host's, for what must reach the world outside a sandbox; its sockets may still be the node's.
    Host,
}

/// What `tidegate status` and `tidegate down` read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) supervisor: i32,
    pub(crate) data_dir: PathBuf,
    pub(crate) sandbox: bool,
    pub(crate) parts: BTreeMap<String, PartState>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PartState {
    pub(crate) pid: Option<i32>,
    pub(crate) started_at: Timestamp,
    pub(crate) restarts: u32,
}

impl State {
    pub(crate) fn read(layout: &Layout) -> anyhow::Result<Option<Self>> {
        let path = layout.state_file();
        match fs::read(&path) {
            Ok(text) => {
                Ok(Some(serde_json::from_slice(&text).with_context(|| format!("{} is not readable", path.display()))?))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Whether a part runs, with or without its supervisor.
    pub(crate) fn has_living_parts(&self) -> bool {
        self.parts.iter().any(|(name, part)| part.pid.is_some_and(|pid| process::is_ours(pid, Some(name))))
    }

    fn write(&self, layout: &Layout) -> anyhow::Result<()> {
        crate::pki::write_private(&layout.state_file(), &serde_json::to_string_pretty(self)?)
    }
}

/// Keeps the parts of one node running.
pub(crate) struct Supervisor {
    layout: Layout,
    namespaces: Arc<Namespaces>,
    /// `cgroup.procs` of the daemons' leaf.
    cgroup: Arc<File>,
    state: Arc<Mutex<State>>,
}

impl Supervisor {
    pub(crate) fn new(layout: Layout, namespaces: Namespaces, cgroup: PathBuf, sandbox: bool) -> anyhow::Result<Self> {
        let procs = cgroup.join("cgroup.procs");
        let cgroup =
            OpenOptions::new().write(true).open(&procs).with_context(|| format!("cannot open {}", procs.display()))?;
        fs::create_dir_all(layout.data_dir.join("logs"))?;
        let state = State {
            supervisor: std::process::id() as i32,
            data_dir: layout.data_dir.clone(),
            sandbox,
            parts: BTreeMap::new(),
        };
        state.write(&layout)?;
        Ok(Self {
            layout,
            namespaces: Arc::new(namespaces),
            cgroup: Arc::new(cgroup),
            state: Arc::new(Mutex::new(state)),
        })
    }

    /// Runs the parts until the token is cancelled, then ends them in reverse order.
    pub(crate) async fn run(self, parts: Vec<Part>, shutdown: CancellationToken) -> anyhow::Result<()> {
        let mut running = Vec::new();
        for part in parts {
            let stop = CancellationToken::new();
            let keeper = Keeper {
                layout: self.layout.clone(),
                namespaces: Arc::clone(&self.namespaces),
                cgroup: Arc::clone(&self.cgroup),
                state: Arc::clone(&self.state),
                part,
            };
            running.push((stop.clone(), tokio::spawn(keeper.run(stop))));
        }
        shutdown.cancelled().await;
        for (stop, task) in running.into_iter().rev() {
            stop.cancel();
            task.await.context("a supervisor task panicked")?;
        }
        Ok(())
    }
}

/// Keeps one part running.
struct Keeper {
    layout: Layout,
    namespaces: Arc<Namespaces>,
    cgroup: Arc<File>,
    state: Arc<Mutex<State>>,
    part: Part,
}

impl Keeper {
    async fn run(self, stop: CancellationToken) {
        let mut backoff = BACKOFF_MIN;
        let mut restarts = 0;
        loop {
            let started = tokio::time::Instant::now();
            match self.spawn() {
                Ok(mut child) => {
                    self.record(child.id(), restarts);
                    tokio::select! {
                        status = child.wait() => {
                            tracing::warn!(part = self.part.name, ?status, "part ended");
                        }
                        () = stop.cancelled() => {
                            end(self.part.name, child).await;
                            return;
                        }
                    }
                }
                Err(error) => {
                    tracing::error!(part = self.part.name, error = format!("{error:#}"), "part does not start")
                }
            }
            self.record(None, restarts);
            backoff = if started.elapsed() > STABLE_AFTER { BACKOFF_MIN } else { (backoff * 2).min(BACKOFF_MAX) };
            tokio::select! {
                () = tokio::time::sleep(backoff) => restarts += 1,
                () = stop.cancelled() => return,
            }
        }
    }

    fn record(&self, pid: Option<u32>, restarts: u32) {
        let mut state = self.state.lock();
        let part = PartState { pid: pid.map(|pid| pid as i32), started_at: Timestamp::now(), restarts };
        state.parts.insert(self.part.name.into(), part);
        if let Err(error) = state.write(&self.layout) {
            tracing::error!(error = format!("{error:#}"), "supervisor state not written");
        }
    }

    fn spawn(&self) -> anyhow::Result<Child> {
        let log = self.open_log()?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("tidegate").arg(self.part.name).args(&self.part.args);
        command.stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.env("LISTEN_FDS", self.part.sockets.len().to_string());
        let names: Vec<&str> = self.part.sockets.iter().map(|(name, _)| *name).collect();
        command.env("LISTEN_FDNAMES", names.join(":"));
        let sockets: Vec<RawFd> = self.part.sockets.iter().map(|(_, socket)| socket.as_raw_fd()).collect();
        let namespaces = match self.part.home {
            Home::Node => self.namespaces.descriptors(),
            Home::Host => Vec::new(),
        };
        let cgroup = self.cgroup.as_raw_fd();
        // SAFETY: between fork and exec only system calls are made, on descriptors that the parent keeps open.
        unsafe { command.pre_exec(move || prepare_child(cgroup, &namespaces, &sockets)) };
        command.spawn().with_context(|| format!("cannot start part {}", self.part.name))
    }

    fn open_log(&self) -> anyhow::Result<File> {
        let path = self.layout.log(self.part.name);
        if fs::metadata(&path).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
            fs::rename(&path, path.with_extension("log.old"))?;
        }
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))
    }
}

/// In the child, before exec: joins cgroup and namespaces and puts the sockets where the part expects them.
fn prepare_child(cgroup: RawFd, namespaces: &[(RawFd, CloneFlags)], sockets: &[RawFd]) -> std::io::Result<()> {
    use std::os::fd::BorrowedFd;
    // SAFETY: the descriptors are inherited from the parent, which keeps them open.
    let borrow = |fd: RawFd| unsafe { BorrowedFd::borrow_raw(fd) };
    nix::unistd::setsid()?;
    nix::unistd::write(borrow(cgroup), b"0")?;
    for (fd, kind) in namespaces {
        setns(borrow(*fd), *kind)?;
    }
    let mut parked = [0; 16];
    for (slot, socket) in parked.iter_mut().zip(sockets) {
        *slot = nix::fcntl::fcntl(borrow(*socket), nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(PARKED_FD_MIN))?;
    }
    for (index, fd) in parked.iter().take(sockets.len()).enumerate() {
        // SAFETY: both are plain descriptor numbers of this process; dup2 clears close-on-exec on the copy.
        let moved = unsafe { nix::libc::dup2(*fd, FIRST_LISTEN_FD + index as RawFd) };
        nix::errno::Errno::result(moved)?;
    }
    Ok(())
}

/// Asks a part to end, and kills it when it does not.
async fn end(name: &str, mut child: Child) {
    if let Some(pid) = child.id() {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGTERM);
    }
    if tokio::time::timeout(STOP_PATIENCE, child.wait()).await.is_err() {
        tracing::warn!(part = name, "part does not end; killing it");
        let _ = child.kill().await;
    }
}
