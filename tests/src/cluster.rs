//! A whole sandboxed cluster, started through the program as a user would, and real kubectl against it.
//!
//! Needs root, and what `cargo xtask setup` and `cargo xtask build` make. It ends with its owner, also after a panic.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::control::program;

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);
/// The oldest and the newest kubectl that are supported.
pub const VERSIONS: [&str; 2] = ["kubectl-1.32", "kubectl-1.37"];

static CLUSTERS: AtomicU32 = AtomicU32::new(0);

/// One cluster of one node.
#[derive(Debug)]
pub struct Cluster {
    dir: tempfile::TempDir,
    node: String,
}

impl Cluster {
    /// Starts a cluster and waits until its node is Ready.
    ///
    /// # Panics
    /// If it does not become Ready.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// The same with what the caller adds to `tidegate up`.
    ///
    /// # Panics
    /// If it does not become Ready.
    #[must_use]
    pub fn start_with(change: impl FnOnce(&mut Command)) -> Self {
        let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let node = format!("test-{}-{number}", std::process::id());
        let cluster = Self { dir: tempfile::tempdir().expect("cannot make a directory"), node };
        cluster.up(change);
        cluster
    }

    /// Starts it, for the first time or after `tidegate down`, on ports of this start's own.
    ///
    /// # Panics
    /// If it does not become Ready.
    pub fn up(&self, change: impl FnOnce(&mut Command)) {
        let mut up = self.tidegate(&["up", "--sandbox", "--detach"]);
        for flag in ["--api-port", "--http-port", "--https-port"] {
            up.args([flag, &ports::free().port().to_string()]);
        }
        up.arg("--data-dir").arg(self.data_dir()).arg("--kubeconfig").arg(self.path("kubeconfig"));
        up.arg("--preload").arg(images());
        change(&mut up);
        // The parts live on with these files: pipes would never end.
        let log = File::create(self.path("up.log")).expect("cannot make a log");
        let status =
            up.stdin(Stdio::null()).stdout(log.try_clone().expect("cannot share the log")).stderr(log).status();
        let said = fs::read_to_string(self.path("up.log")).unwrap_or_default();
        assert!(status.expect("cannot run tidegate").success(), "`tidegate up` failed: {said}");
    }

    /// The program, with this node's name.
    #[must_use]
    pub fn tidegate(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(args).args(["--node-name", &self.node]).env("TIDEGATE_EBPF_OBJECTS", kernel_objects());
        command
    }

    /// The name of its one node.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.path("data")
    }

    /// A file of this test, which vanishes with the cluster.
    #[must_use]
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The newest kubectl.
    #[must_use]
    pub fn kubectl(&self) -> Kubectl<'_> {
        self.kubectl_version(VERSIONS[1])
    }

    #[must_use]
    pub fn kubectl_version(&self, version: &str) -> Kubectl<'_> {
        Kubectl { program: root().join(".tools").join(version).join("kubectl"), cluster: self, spdy: false }
    }

    /// What one part has logged.
    #[must_use]
    pub fn log(&self, part: &str) -> String {
        fs::read_to_string(self.data_dir().join("logs").join(format!("{part}.log"))).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let tail = |text: String| text.lines().rev().take(20).map(|line| format!("{line}\n")).collect::<Vec<_>>();
            for part in ["supervisor", "node", "control"] {
                let lines = tail(self.log(part));
                eprintln!("--- {part}\n{}", lines.into_iter().rev().collect::<String>());
            }
        }
        let mut down = self.tidegate(&["down", "--purge"]);
        let status = down.stdin(Stdio::null()).stdout(Stdio::null()).status();
        if !status.is_ok_and(|status| status.success()) {
            eprintln!("node {} is not cleanly down", self.node);
        }
    }
}

/// One version of kubectl, speaking WebSocket or SPDY.
#[derive(Debug)]
pub struct Kubectl<'a> {
    program: PathBuf,
    cluster: &'a Cluster,
    spdy: bool,
}

impl Kubectl<'_> {
    /// Lets streams go over SPDY, as every kubectl before 1.31 does.
    #[must_use]
    pub fn over_spdy(self) -> Self {
        Self { spdy: true, ..self }
    }

    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// A command in the cluster's directory, yet to be run.
    #[must_use]
    pub fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(&self.program);
        self.prepare(&mut command);
        command.args(args);
        command
    }

    /// Makes a command find this cluster, and its streams this protocol.
    pub fn prepare(&self, command: &mut Command) {
        let protocol = if self.spdy { "false" } else { "true" };
        command.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", protocol).env("KUBECTL_PORT_FORWARD_WEBSOCKETS", protocol);
        command.env("KUBECONFIG", self.cluster.path("kubeconfig")).env("HOME", self.cluster.dir.path());
        command.env("TERM", "xterm").current_dir(self.cluster.dir.path());
    }

    #[must_use]
    pub fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Output {
        self.feed(args, b"")
    }

    /// Runs with this standard input.
    ///
    /// # Panics
    /// If it cannot be run.
    #[must_use]
    pub fn feed<S: AsRef<OsStr>>(&self, args: &[S], input: &[u8]) -> Output {
        let mut command = self.command(args);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", self.program.display()));
        let mut stdin = child.stdin.take().expect("standard input is piped");
        std::thread::scope(|scope| {
            // The other side may stop listening early.
            scope.spawn(move || drop(stdin.write_all(input)));
            child.wait_with_output().expect("cannot wait for kubectl")
        })
    }

    /// The output of a command that must succeed.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    #[must_use]
    pub fn ok<S: AsRef<OsStr> + std::fmt::Debug>(&self, args: &[S]) -> String {
        let output = self.run(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {args:?}: {error}", self.program.display());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Applies manifests.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn apply(&self, manifests: &str) {
        let output = self.feed(&["apply", "-f", "-"], manifests.as_bytes());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// An object or a list as JSON; null if it cannot be read.
    #[must_use]
    pub fn get<S: AsRef<OsStr>>(&self, args: &[S]) -> Value {
        let words = ["get", "-o", "json"].into_iter().map(OsStr::new);
        let args: Vec<&OsStr> = words.chain(args.iter().map(AsRef::as_ref)).collect();
        serde_json::from_slice(&self.run(&args).stdout).unwrap_or_default()
    }

    /// Messages of a pod's events with this reason, oldest first.
    #[must_use]
    pub fn events(&self, pod: &str, reason: &str) -> Vec<String> {
        let selector = format!("--field-selector=involvedObject.name={pod},reason={reason}");
        let list = self.get(&["events", "--sort-by=.metadata.creationTimestamp", &selector]);
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items.iter().filter_map(|event| event["message"].as_str().map(str::to_owned)).collect()
    }
}

/// Polls until there is an answer.
///
/// # Panics
/// If there is none in time.
#[track_caller]
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "after {PATIENCE:?}, still not: {what}");
        std::thread::sleep(POLL);
    }
}

/// A child that ends with its owner.
#[derive(Debug)]
pub struct Ended(pub Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The repository.
///
/// # Panics
/// Never: this crate lies in one.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in a folder").to_owned()
}

fn kernel_objects() -> PathBuf {
    std::env::var_os("TIDEGATE_EBPF_OBJECTS").map_or_else(|| root().join("target/ebpf/objects"), PathBuf::from)
}

/// The sample images, which `cargo xtask build` leaves beside the release program.
fn images() -> PathBuf {
    let beside = program().with_file_name("images");
    if beside.is_dir() { beside } else { root().join("target/release/images") }
}
