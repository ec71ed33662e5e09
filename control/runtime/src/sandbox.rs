//! Pod sandboxes: what one is asked to be and what it is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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

/// The durable form of a sandbox: with the process that holds it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) sandbox: Sandbox,
    pub(crate) shim: ProcessId,
}

/// A process named so that a reused PID is not taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    pub(crate) pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks since boot.
    pub(crate) start_time: u64,
}

impl ProcessId {
    pub(crate) fn of(pid: i32) -> std::io::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let start_time = parse_start_time(&stat).ok_or(std::io::ErrorKind::InvalidData)?;
        Ok(Self { pid, start_time })
    }

    pub(crate) fn is_alive(&self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == *self)
    }
}

fn parse_start_time(stat: &str) -> Option<u64> {
    // The command name is in parentheses and may itself hold spaces and parentheses; fields are counted after the last.
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut fields = after_name.split_ascii_whitespace();
    // A zombie (field 3) holds nothing any more.
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_read_past_a_strange_name() {
        let stat = "42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20 21";
        assert_eq!(parse_start_time(stat), Some(777));
        let zombie = stat.replace(" S ", " Z ");
        assert_eq!(parse_start_time(&zombie), None);
        assert_eq!(parse_start_time("nonsense"), None);
    }

    #[test]
    fn a_process_is_told_from_another_with_its_pid() {
        let me = ProcessId::of(std::process::id() as i32).unwrap();
        assert!(me.is_alive());
        assert!(!ProcessId { start_time: me.start_time + 1, ..me }.is_alive());
    }
}
