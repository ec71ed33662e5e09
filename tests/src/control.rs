//! The real `tidegate control` process on a data directory of its own, to be talked to, killed and started again.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use std::io::Write;

use nix::libc;

#[path = "../../control/apiserver/examples/dev/pki.rs"]
mod pki;

const FIRST_LISTEN_FD: i32 = 3;
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(10);

/// A data directory and its API port, which outlive the processes that serve them.
#[derive(Debug)]
pub struct Control {
    dir: PathBuf,
    /// Clients that come while no process runs wait in its queue.
    listener: TcpListener,
    process: Option<Child>,
}

impl Control {
    /// Makes keys and kubeconfigs in this directory; starts nothing.
    ///
    /// # Panics
    /// If it cannot.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("cannot listen");
        let port = listener.local_addr().expect("a listener has an address").port();
        pki::ensure(dir, port, "node-1", &[Ipv4Addr::new(192, 168, 77, 10).into()]).expect("cannot make keys");
        Self { dir: dir.to_owned(), listener, process: None }
    }

    /// Starts the process and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn start(&mut self) {
        let command = self.command();
        self.start_with(command);
    }

    /// The same with what the caller adds to [`Control::command`].
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn start_with(&mut self, mut command: Command) {
        assert!(self.process.is_none(), "the process runs already");
        self.process = Some(command.spawn().expect("cannot start tidegate"));
        let started = Instant::now();
        while !self.kubectl("1.37", "get --raw /readyz --request-timeout=5s", "").status.success() {
            let ended = self.process.as_mut().and_then(|process| process.try_wait().expect("cannot wait"));
            assert!(ended.is_none(), "the process ended ({ended:?}):\n{}", self.log());
            assert!(started.elapsed() < PATIENCE, "the process is not ready in time:\n{}", self.log());
            std::thread::sleep(POLL);
        }
    }

    /// What starts the process, its log appended to a file in the data directory.
    ///
    /// # Panics
    /// If the program is not built.
    #[must_use]
    pub fn command(&self) -> Command {
        let log = File::options().create(true).append(true).open(self.log_path()).expect("cannot open the log");
        let mut command = Command::new(program());
        command.args(["control", "--node-name", "node-1", "--data-dir"]).arg(&self.dir);
        command.args(["--advertise-address", "192.168.77.10"]);
        command.args(["--service-cidrs", "10.96.0.0/16,fd00:10:96::/112"]);
        command.args(["--pod-cidrs", "10.244.0.0/16,fd00:10:244::/56"]);
        command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "api");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let listener = self.listener.as_raw_fd();
        // SAFETY: between fork and exec this makes system calls only, on a descriptor that the parent keeps open.
        unsafe { command.pre_exec(move || pass(listener)) };
        command
    }

    /// Kills the process as `kill -9` does.
    ///
    /// # Panics
    /// If none runs.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("no process runs");
        process.kill().expect("cannot kill the process");
        process.wait().expect("cannot wait for the process");
    }

    /// Waits until the process ends by itself.
    ///
    /// # Panics
    /// If it does not.
    pub fn wait(&mut self) -> ExitStatus {
        let process = self.process.as_mut().expect("no process runs");
        let started = Instant::now();
        loop {
            if let Some(status) = process.try_wait().expect("cannot wait for the process") {
                self.process = None;
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "the process does not end");
            std::thread::sleep(POLL);
        }
    }

    /// # Panics
    /// If the process has ended.
    pub fn assert_running(&mut self) {
        let process = self.process.as_mut().expect("no process runs");
        let ended = process.try_wait().expect("cannot wait for the process");
        assert!(ended.is_none(), "the process ended ({ended:?}):\n{}", self.log());
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig/admin.yaml")
    }

    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("control.log")
    }

    /// Runs kubectl of this version as the administrator.
    ///
    /// # Panics
    /// If kubectl is not installed.
    #[must_use]
    pub fn kubectl(&self, version: &str, arguments: &str, input: &str) -> Output {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../.tools/kubectl-{version}/kubectl"));
        let mut command = Command::new(&program);
        command.env("KUBECONFIG", self.kubeconfig()).env("HOME", &self.dir).args(arguments.split_whitespace());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let spawned = command.spawn();
        let mut child =
            spawned.unwrap_or_else(|error| panic!("{}: {error}; run: cargo xtask setup", program.display()));
        let mut stdin = child.stdin.take().expect("the input is a pipe");
        // A command that does not read its input may have closed it.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        child.wait_with_output().expect("cannot wait for kubectl")
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
    }
}

/// The program that was built with the tests: two folders up from them.
///
/// # Panics
/// If it is not there.
#[must_use]
pub fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let program = test.ancestors().nth(2).map(|dir| dir.join("tidegate")).filter(|program| program.exists());
    program.unwrap_or_else(|| panic!("tidegate is not beside {}; run: cargo build -p tidegate", test.display()))
}

/// In the child, before exec: puts the listener where the program expects it.
fn pass(listener: i32) -> std::io::Result<()> {
    if listener == FIRST_LISTEN_FD {
        // SAFETY: a flag of a descriptor of this process.
        nix::errno::Errno::result(unsafe { libc::fcntl(listener, libc::F_SETFD, 0) })?;
        return Ok(());
    }
    // SAFETY: both are plain descriptor numbers of this process; the copy stays open over the exec.
    nix::errno::Errno::result(unsafe { libc::dup2(listener, FIRST_LISTEN_FD) })?;
    Ok(())
}
