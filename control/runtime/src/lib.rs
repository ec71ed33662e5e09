//! The container runtime: images, pod sandboxes and containers on libcontainer, one shim per pod.
//!
//! The public face is shaped like the Kubernetes CRI (sandbox, container, image), so that the kubelet reads like any
//! kubelet. A sandbox is one shim process: it holds the pod's network, IPC and UTS namespaces (there is no pause
//! container), is the subreaper of the pod's containers, and keeps their stdio, logs and exit codes. Containers survive
//! every other process; a new [`Runtime`] finds them again in the run directory.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where a runtime keeps its things; everything derives from the node's name.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// Images and layers: `<data-dir>/images`.
    pub image_dir: PathBuf,
    /// Container root file systems (overlay upper directories): `<data-dir>/nodes/<node>/containers`.
    pub state_dir: PathBuf,
    /// Shim sockets and state, lost at reboot: `/run/tidegate/<node>/pods`.
    pub run_dir: PathBuf,
    /// Parent of all pods' cgroups, relative to each hierarchy: `tidegate/<node>/kubepods`.
    pub cgroup_parent: String,
    /// The program to execute for `shim` (normally `/proc/self/exe`).
    pub program: PathBuf,
}

/// What one pod sandbox is made of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxSpec {
    pub pod_namespace: String,
    pub pod_name: String,
    pub pod_uid: String,
    pub attempt: u32,
    pub hostname: String,
    /// Use the node's network namespace instead of a new one.
    pub host_network: bool,
    pub host_pid: bool,
    pub host_ipc: bool,
    /// All containers share one PID namespace.
    pub share_pid: bool,
    pub sysctls: BTreeMap<String, String>,
    /// Below `cgroup_parent`, for example `burstable/pod<uid>`.
    pub cgroup: String,
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxState {
    Ready,
    NotReady,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sandbox {
    pub id: String,
    pub spec: SandboxSpec,
    pub state: SandboxState,
    /// Path of the pod's network namespace, for the CNI library; the node's own for host-network pods.
    pub netns: PathBuf,
    pub created_at: jiff::Timestamp,
}

/// What one container is made of. Paths in `mounts` are prepared by the caller.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    pub resources: Resources,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
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
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
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
    /// `Completed`, `Error`, `OOMKilled`, `ContainerCannotRun`.
    pub reason: Option<String>,
    pub message: Option<String>,
    pub log_path: PathBuf,
    pub labels: BTreeMap<String, String>,
}

/// What an exec of a short command returned (probes, hooks); output is capped by the caller's limit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExecOutput {
    pub exit_code: i32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// A change that the kubelet should look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeEvent {
    ContainerExited { sandbox_id: String, container_id: String },
    SandboxExited { sandbox_id: String },
}
