//! The real kubectl, of each supported version, as a user runs it.
//!
//! The programs are those that `cargo xtask setup` installs; `TIDEGATE_KUBECTL_DIRS` (folders, `:` between) names others.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::Uid;

use crate::cluster::Cluster;

/// Oldest and newest supported.
pub const VERSIONS: [&str; 2] = ["kubectl-1.32", "kubectl-1.37"];
/// These and one in between.
pub const ALL_VERSIONS: [&str; 3] = ["kubectl-1.32", "kubectl-1.35", "kubectl-1.37"];
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);

/// Runs a test against a cluster of its own, in a fresh namespace for each version of kubectl. Skipped, loudly, by users
/// who cannot make network namespaces and load kernel programs.
///
/// # Panics
/// If the cluster does not start, or the test fails.
pub fn with_cluster(versions: &[&str], test: impl Fn(&Cluster, &Kubectl)) {
    if !Uid::effective().is_root() {
        eprintln!("SKIPPED: a whole cluster needs root");
        return;
    }
    let cluster = Cluster::start();
    for version in versions {
        eprintln!("with {version}");
        let kubectl = Kubectl::new(version, &cluster.path("kubeconfig"), &cluster.path(""), &version.replace('.', "-"));
        kubectl.ok(&format!("create namespace {}", kubectl.namespace));
        test(&cluster, &kubectl);
        kubectl.ok(&format!("delete namespace {}", kubectl.namespace));
    }
}

/// One kubectl with its own cache, in a namespace of its own.
#[derive(Debug, Clone)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
    pub namespace: String,
}

impl Kubectl {
    /// # Panics
    /// If set-up has not installed that version.
    #[must_use]
    pub fn new(version: &str, kubeconfig: &Path, home: &Path, namespace: &str) -> Self {
        let (kubeconfig, home) = (kubeconfig.into(), home.into());
        Self { program: program(version), kubeconfig, home, namespace: namespace.into() }
    }

    #[must_use]
    pub fn command(&self, arguments: &str) -> Command {
        self.words(&arguments.split_whitespace().collect::<Vec<_>>())
    }

    /// For arguments that hold spaces.
    #[must_use]
    pub fn words(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home)
            .current_dir(&self.home)
            .arg(format!("--cache-dir={}", self.home.join(&self.namespace).display()))
            .arg(format!("--namespace={}", self.namespace))
            .args(arguments);
        command
    }

    /// # Panics
    /// If the program cannot be run.
    #[must_use]
    pub fn run(&self, arguments: &str, input: &str) -> Output {
        feed(self.command(arguments), input)
    }

    /// The output of a command that must succeed.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn ok(&self, arguments: &str) -> String {
        self.feed(arguments, "")
    }

    /// The same for arguments that hold spaces.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn ok_words(&self, arguments: &[&str]) -> String {
        must(feed(self.words(arguments), ""), &arguments.join(" "))
    }

    /// # Panics
    /// If the command fails.
    #[track_caller]
    pub fn feed(&self, arguments: &str, input: &str) -> String {
        must(self.run(arguments, input), arguments)
    }

    /// The complaint of a command that must fail.
    ///
    /// # Panics
    /// If it succeeds.
    #[track_caller]
    pub fn fails(&self, arguments: &str, input: &str) -> String {
        let output = self.run(arguments, input);
        assert!(!output.status.success(), "{arguments} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// # Panics
    /// If the command fails or does not say what is expected.
    #[track_caller]
    pub fn says(&self, arguments: &str, expected: &str) {
        let out = self.ok(arguments);
        assert!(out.contains(expected), "{arguments}: {expected:?} is missing in\n{out}");
    }

    /// # Panics
    /// If the command succeeds or complains of something else.
    #[track_caller]
    pub fn refuses(&self, arguments: &str, expected: &str) {
        let complaint = self.fails(arguments, "");
        assert!(complaint.contains(expected), "{arguments}: {expected:?} is missing in\n{complaint}");
    }

    /// Asks again until the answer is exactly this.
    ///
    /// # Panics
    /// If it never is.
    #[track_caller]
    pub fn becomes(&self, arguments: &str, expected: &str) {
        self.until(arguments, &format!("is {expected:?}"), |out| out.trim() == expected);
    }

    /// Asks again until the answer contains this.
    ///
    /// # Panics
    /// If it never does.
    #[track_caller]
    pub fn comes_to_say(&self, arguments: &str, expected: &str) {
        self.until(arguments, &format!("says {expected:?}"), |out| out.contains(expected));
    }

    #[track_caller]
    fn until(&self, arguments: &str, what: &str, is_it: impl Fn(&str) -> bool) {
        let started = Instant::now();
        loop {
            let output = self.run(arguments, "");
            let mut out = String::from_utf8_lossy(&output.stdout).into_owned();
            if output.status.success() && is_it(&out) {
                return;
            }
            if started.elapsed() > PATIENCE {
                // Writing to a string does not fail.
                let _ = write!(out, "{}", String::from_utf8_lossy(&output.stderr));
                panic!("after {PATIENCE:?}, {arguments} still not {what}:\n{out}");
            }
            std::thread::sleep(POLL);
        }
    }
}

fn feed(mut command: Command, input: &str) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap_or_else(|error| panic!("cannot run {:?}: {error}", command.get_program()));
    if let Some(mut stdin) = child.stdin.take() {
        // A command that does not read its input may end before it is written.
        let _ = stdin.write_all(input.as_bytes());
    }
    child.wait_with_output().unwrap_or_else(|error| panic!("cannot wait for {:?}: {error}", command.get_program()))
}

#[track_caller]
fn must(output: Output, arguments: &str) -> String {
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "kubectl {arguments}:\n{out}{error}");
    out.into_owned()
}

/// Where one version's kubectl is.
fn program(version: &str) -> PathBuf {
    let dirs = std::env::var("TIDEGATE_KUBECTL_DIRS").unwrap_or_default();
    let given = dirs.split(':').filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let short = version.trim_start_matches("kubectl-").replace('.', "");
    let by_setup = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools").join(version);
    let mut dirs: Vec<PathBuf> =
        given.filter(|dir| dir.to_string_lossy().contains(version) || dir.ends_with(format!("k{short}"))).collect();
    dirs.push(by_setup);
    let found = dirs.iter().map(|dir| dir.join("kubectl")).find(|program| program.exists());
    found.unwrap_or_else(|| panic!("{version} is missing (looked in {dirs:?}); run: cargo xtask setup"))
}
