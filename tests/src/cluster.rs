//! A whole sandbox cluster, started and ended through the program as a user does. Needs root and `cargo xtask build`.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

use crate::kubectl::Kubectl;

const READY_PATIENCE: Duration = Duration::from_secs(120);
const END_PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// A running cluster of one node; ended, and nothing left of it, when dropped.
#[derive(Debug)]
pub struct Cluster {
    node: String,
    dir: tempfile::TempDir,
    supervisor: Child,
}

/// Runs a test against a cluster of its own, in a fresh namespace for each version of kubectl. Skipped, loudly, by users
/// who cannot make namespaces and load kernel programs.
///
/// # Panics
/// If the cluster does not start, or the test fails.
pub fn with_cluster(node: &str, versions: &[&str], test: impl Fn(&Cluster, &Kubectl)) {
    if !Uid::effective().is_root() {
        eprintln!("SKIPPED: {node}: a whole cluster needs root");
        return;
    }
    let cluster = Cluster::start(node);
    for version in versions {
        eprintln!("{node}: with {version}");
        let kubectl = cluster.kubectl(version, &version.replace('.', "-"));
        kubectl.ok(&format!("create namespace {}", kubectl.namespace));
        test(&cluster, &kubectl);
        kubectl.ok(&format!("delete namespace {}", kubectl.namespace));
    }
}

impl Cluster {
    fn start(node: &str) -> Self {
        let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("no temporary folder: {error}"));
        let log = File::create(dir.path().join("log")).unwrap_or_else(|error| panic!("no log: {error}"));
        let errors = log.try_clone().unwrap_or_else(|error| panic!("no log: {error}"));
        let mut up = Command::new(program());
        up.args(["up", "--sandbox", "--node-name", node, "--data-dir"]).arg(dir.path().join("data"));
        up.arg("--kubeconfig").arg(dir.path().join("kubeconfig"));
        for (flag, port) in ["--api-port", "--http-port", "--https-port"].into_iter().zip(free_ports()) {
            up.args([flag, &port.to_string()]);
        }
        let supervisor = up.stdout(log).stderr(errors).spawn();
        let supervisor = supervisor.unwrap_or_else(|error| panic!("cannot start {}: {error}", program().display()));
        let mut cluster = Self { node: node.into(), dir, supervisor };
        cluster.wait_until_ready();
        cluster
    }

    fn wait_until_ready(&mut self) {
        let ready = format!("node {} is Ready", self.node);
        let started = Instant::now();
        loop {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            if log.contains(&ready) {
                return;
            }
            let ended = self.supervisor.try_wait().ok().flatten();
            assert!(ended.is_none(), "`tidegate up` ended ({ended:?}):\n{log}");
            assert!(started.elapsed() < READY_PATIENCE, "the node is not Ready in time:\n{log}");
            std::thread::sleep(POLL);
        }
    }

    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// A folder that goes with the cluster; kubectl runs in it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A kubectl of the administrator.
    #[must_use]
    pub fn kubectl(&self, version: &str, namespace: &str) -> Kubectl {
        Kubectl::new(version, &self.dir.path().join("kubeconfig"), self.dir.path(), namespace)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // It may have ended by itself; `down` cleans up after it in any case.
        let _ = kill(Pid::from_raw(self.supervisor.id().cast_signed()), Signal::SIGINT);
        let started = Instant::now();
        while self.supervisor.try_wait().is_ok_and(|ended| ended.is_none()) {
            if started.elapsed() > END_PATIENCE {
                let _ = self.supervisor.kill();
            }
            std::thread::sleep(POLL);
        }
        let mut down = Command::new(program());
        down.args(["down", "--purge", "--node-name", &self.node, "--data-dir"]).arg(self.dir.path().join("data"));
        if !down.status().is_ok_and(|status| status.success()) {
            eprintln!("`tidegate down --node-name {}` failed", self.node);
        }
    }
}

/// The program beside the tests' own folder: what `cargo xtask build` built in the same profile.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap_or_else(|error| panic!("this test has no path: {error}"));
    let profile = test.parent().and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
    let program = profile.join("tidegate");
    assert!(program.exists(), "{} is missing; run: cargo xtask build", program.display());
    program
}

/// Three ports that nobody listens on now.
fn free_ports() -> Vec<u16> {
    let listeners: Vec<TcpListener> = (0..3).filter_map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()).collect();
    listeners.iter().filter_map(|listener| Some(listener.local_addr().ok()?.port())).collect()
}
