//! Containers: what one is asked to be and what it is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What one container is made of. Paths in `mounts` are prepared by the caller.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub name: String,
    pub attempt: u32,
    /// Image reference or identifier as resolved by the image store.
    pub image: String,
    /// Replaces the image's entry point if not empty.
    pub command: Vec<String>,
    /// Replaces the image's arguments if not empty.
    pub args: Vec<String>,
    /// Added to (and winning over) the image's environment, in order.
    pub env: Vec<(String, String)>,
    pub working_dir: Option<String>,
    pub mounts: Vec<Mount>,
    pub user: Option<i64>,
    pub group: Option<i64>,
    pub supplemental_groups: Vec<i64>,
    pub privileged: bool,
    pub read_only_root: bool,
    pub no_new_privileges: bool,
    pub run_as_non_root: bool,
    /// Lets every system call through.
    #[serde(default)]
    pub seccomp_unconfined: bool,
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    pub resources: Resources,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
    /// What asks it to end, in place of the image's signal.
    #[serde(default)]
    pub stop_signal: Option<String>,
    /// Identifier of the container of the same sandbox whose PID namespace it joins.
    #[serde(default)]
    pub processes_of: Option<String>,
    /// Absolute path of the CRI-format log file.
    pub log_path: PathBuf,
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mount {
    pub source: PathBuf,
    pub target: String,
    pub read_only: bool,
}

/// cgroup limits; zero or none means unlimited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    pub cpu_shares: Option<u64>,
    pub cpu_quota_us: Option<i64>,
    pub cpu_period_us: Option<u64>,
    pub memory_limit_bytes: Option<i64>,
    pub pids_limit: Option<i64>,
    pub oom_score_adj: Option<i32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    Created,
    Running,
    Exited,
    Unknown,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Container {
    pub id: String,
    pub sandbox_id: String,
    pub name: String,
    pub attempt: u32,
    pub image: String,
    pub image_id: String,
    pub state: ContainerState,
    pub pid: Option<i32>,
    pub created_at: jiff::Timestamp,
    pub started_at: Option<jiff::Timestamp>,
    pub finished_at: Option<jiff::Timestamp>,
    pub exit_code: Option<i32>,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown` (its shim was killed).
    pub reason: Option<String>,
    pub message: Option<String>,
    pub log_path: PathBuf,
    pub labels: BTreeMap<String, String>,
}

impl Container {
    /// Whether its process may still exist.
    pub(crate) fn is_running(&self) -> bool {
        self.state == ContainerState::Running
    }

    /// Records the end of the container's process.
    pub(crate) fn finish(&mut self, exit_code: i32, reason: &str, message: Option<String>) {
        self.state = ContainerState::Exited;
        self.pid = None;
        self.finished_at = Some(jiff::Timestamp::now());
        self.exit_code = Some(exit_code);
        self.reason = Some(reason.to_owned());
        self.message = message;
    }
}

/// What an exec of a short command returned (probes, hooks); output is capped by the caller's limit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecOutput {
    pub exit_code: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}
