//! The shim: one small single-threaded process that is a pod.
//!
//! It outlives whoever started it. `namespace` makes the pod's namespaces, `mount_scope` the mount namespace in which a
//! container is born, `server` is the event loop over `reactor`, `pod` the state machine of all containers; `launch`
//! starts a process through libcontainer with `executor` and `seccomp` as its last steps; `stdio`, `output` and `log`
//! carry its output, `exec` runs short commands, `session` keeps a client's hold on a process's streams.
//!
//! libcontainer forks; that is safe here because nothing else runs in this process.

mod exec;
mod executor;
mod launch;
mod log;
mod mount_scope;
mod namespace;
mod output;
mod pod;
mod reactor;
mod seccomp;
mod server;
mod session;
mod stdio;

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Mutex;

use anyhow::Context;
use nix::libc;
use nix::sys::prctl;
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};
use tracing::Level;

use crate::cgroup;
use crate::layout::{SandboxDir, read_record, write_record};
use crate::protocol::Boot;
use crate::sandbox::{ProcessId, Sandbox, SandboxRecord, SandboxState};

/// Written to standard output once the socket listens and the record exists; anything else there is an error message.
pub(crate) const READY: &str = "ready";
/// Name of the description of the sandbox to be, in its run directory.
pub(crate) const BOOT_FILE: &str = "boot.json";
/// The kernel should rather kill anything else than the process that keeps a pod together.
const OOM_SCORE_ADJ: i32 = -998;

#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Run directory of the sandbox, with its description.
    #[arg(long)]
    dir: PathBuf,
}

/// Becomes the shim of a sandbox. Must be called before the process has started any thread.
pub fn main(args: Args) -> anyhow::Result<()> {
    // Its own session and no parent that could wait for it: nothing that ends takes it along.
    setsid().context("cannot start a session")?;
    // SAFETY: this process has one thread, so the child may do whatever the parent could.
    if let ForkResult::Parent { .. } = unsafe { fork() }.context("cannot fork")? {
        return Ok(());
    }
    let result = become_pod(&args);
    if let Err(error) = &result {
        // Whoever waits for the pod reads standard output; if nobody does, the log has it.
        let _ = writeln!(std::io::stdout(), "{error:#}");
        tracing::error!(error = %format_args!("{error:#}"), "shim ends");
    }
    result
}

fn become_pod(args: &Args) -> anyhow::Result<()> {
    close_inherited_files();
    let boot: Boot = read_record(&args.dir.join(BOOT_FILE)).map_err(crate::RuntimeError::from)?;
    let dir = SandboxDir::from_path(args.dir.clone());
    let _log = redirect_log(&dir)?;
    prctl::set_child_subreaper(true).context("cannot become subreaper")?;
    // Cosmetic, and the limit needs a right that a node may lack.
    let _ = prctl::set_name(c"tidegate-shim");
    let _ = cgroup::set_oom_score_adj(std::process::id() as i32, OOM_SCORE_ADJ);

    namespace::enter(&boot.spec)?;
    let server = server::Server::bind(&boot, &dir)?;
    write_record(&dir.record(), &record(&boot)?).map_err(crate::RuntimeError::from)?;
    announce()?;
    server.run()
}

/// What the world sees of this sandbox.
fn record(boot: &Boot) -> anyhow::Result<SandboxRecord> {
    let shim = ProcessId::of(Pid::this().as_raw()).context("cannot read /proc/self/stat")?;
    let sandbox = Sandbox {
        id: boot.id.clone(),
        spec: boot.spec.clone(),
        state: SandboxState::Ready,
        netns: PathBuf::from(format!("/proc/{}/ns/net", shim.pid)),
        created_at: jiff::Timestamp::now(),
    };
    Ok(SandboxRecord { sandbox, shim })
}

/// Listening sockets and other files of the starter must not live on here, nor reach a container.
fn close_inherited_files() {
    // SAFETY: no value in this process owns a descriptor above 2 yet.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
}

/// Sends this process's logs (and libcontainer's, also from the processes it forks) to the sandbox's log file: a
/// container's standard error is not the place.
fn redirect_log(dir: &SandboxDir) -> anyhow::Result<tracing::subscriber::DefaultGuard> {
    let path = dir.shim_log();
    let file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    dup2_stderr(file.as_fd()).context("cannot redirect standard error")?;
    dup2_stdin(File::open("/dev/null").context("cannot open /dev/null")?.as_fd())
        .context("cannot redirect standard input")?;
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(Level::WARN)
        .with_ansi(false)
        .with_target(false)
        .with_writer(Mutex::new(file))
        .finish();
    Ok(tracing::subscriber::set_default(subscriber))
}

fn announce() -> anyhow::Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{READY}").and_then(|()| stdout.flush()).context("cannot announce the sandbox")?;
    let null = fs::OpenOptions::new().write(true).open("/dev/null").context("cannot open /dev/null")?;
    dup2_stdout(null.as_fd()).context("cannot redirect standard output")
}
