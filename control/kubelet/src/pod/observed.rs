//! What the runtime holds of one pod, together with what it held before and has lost since.

use std::collections::BTreeMap;

use control_runtime::{Container, ContainerState as Seen, Sandbox, SandboxState};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod};

/// Sandboxes and containers of a pod.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observed {
    /// By attempt, newest first.
    pub sandboxes: Vec<Sandbox>,
    /// By attempt, newest first. Containers that no sandbox holds any more have an empty `sandbox_id`.
    pub containers: Vec<Container>,
}

impl Observed {
    pub(crate) fn new(mut sandboxes: Vec<Sandbox>, mut containers: Vec<Container>) -> Self {
        sandboxes.sort_by_key(|sandbox| std::cmp::Reverse((sandbox.spec.attempt, sandbox.created_at)));
        containers.sort_by_key(|container| std::cmp::Reverse((container.attempt, container.created_at)));
        Self { sandboxes, containers }
    }

    /// The sandbox that new containers go to.
    pub(crate) fn ready_sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first().filter(|sandbox| sandbox.state == SandboxState::Ready)
    }

    /// A container's newest instance.
    pub(crate) fn latest(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// A container's instances, newest first.
    pub(crate) fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Container> {
        self.containers.iter().filter(move |container| container.name == name)
    }

    pub(crate) fn by_id(&self, id: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.id == id)
    }

    pub(crate) fn is_running(&self, name: &str) -> bool {
        self.latest(name).is_some_and(|container| container.state == Seen::Running)
    }
}

/// Instances that a removed sandbox or a reboot took from the runtime: they still count for restarts and last states.
#[derive(Debug, Clone, Default)]
pub(crate) struct Remembered {
    /// The newest of each container, newest first.
    by_name: BTreeMap<String, Vec<Container>>,
}

/// An instance and the one before it.
const REMEMBERED_PER_CONTAINER: usize = 2;

impl Remembered {
    /// What the API server's status says of earlier instances.
    pub(crate) fn from_status(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let lists = status.map(|status| {
            [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses]
        });
        let statuses = lists.into_iter().flatten().flatten().flatten();
        Self { by_name: statuses.map(|status| (status.name.clone(), instances(status))).collect() }
    }

    /// Adds instances that are missing in `seen`, and keeps what is newest for the time when it goes missing.
    pub(crate) fn complete(&mut self, seen: Observed) -> Observed {
        let Observed { sandboxes, mut containers } = seen;
        for lost in self.by_name.values().flatten() {
            let same = |held: &Container| held.name == lost.name && held.attempt == lost.attempt;
            if !containers.iter().any(same) {
                containers.push(ended(lost));
            }
        }
        let complete = Observed::new(sandboxes, containers);
        self.by_name.clear();
        // One that was never started leaves nothing to remember.
        for container in complete.containers.iter().filter(|container| container.state != Seen::Created) {
            let kept = self.by_name.entry(container.name.clone()).or_default();
            if kept.len() < REMEMBERED_PER_CONTAINER {
                kept.push(container.clone());
            }
        }
        complete
    }
}

/// A lost instance has ended, whatever it was doing when last seen.
fn ended(container: &Container) -> Container {
    let mut container = Container { sandbox_id: String::new(), pid: None, ..container.clone() };
    if container.state != Seen::Exited {
        container.state = Seen::Exited;
        container.exit_code = Some(137);
        container.reason = Some("ContainerStatusUnknown".into());
        container.message = Some("The container could not be located when the pod was terminated".into());
    }
    container
}

/// The instances that a status tells of: the one it describes, and the one that ended before.
fn instances(status: &ContainerStatus) -> Vec<Container> {
    let terminated = |state: Option<&ContainerState>| state.and_then(|state| state.terminated.clone());
    let state = status.state.as_ref();
    let last = terminated(status.last_state.as_ref());
    let attempt = u32::try_from(status.restart_count).unwrap_or(0);
    let mut list = Vec::new();
    if let Some(running) = state.and_then(|state| state.running.as_ref()) {
        let started_at = running.started_at.as_ref().map(|time| time.0);
        list.push(Container {
            started_at,
            state: Seen::Running,
            ..bare(status, attempt, status.container_id.as_deref())
        });
    } else if let Some(end) = terminated(state) {
        list.push(dead(status, attempt, end));
    } else if let Some(end) = last {
        // It waits for its next instance: the count is still that of the dead one.
        return vec![dead(status, attempt, end)];
    } else {
        return Vec::new();
    }
    list.extend(last.filter(|_| attempt > 0).map(|end| dead(status, attempt - 1, end)));
    list
}

fn dead(status: &ContainerStatus, attempt: u32, end: ContainerStateTerminated) -> Container {
    Container {
        state: Seen::Exited,
        started_at: end.started_at.map(|time| time.0),
        finished_at: end.finished_at.map(|time| time.0),
        exit_code: Some(end.exit_code),
        reason: end.reason,
        message: end.message,
        ..bare(status, attempt, end.container_id.as_deref())
    }
}

fn bare(status: &ContainerStatus, attempt: u32, url: Option<&str>) -> Container {
    Container {
        id: url.and_then(|url| url.split_once("://")).map_or("", |(_, id)| id).to_owned(),
        sandbox_id: String::new(),
        name: status.name.clone(),
        attempt,
        image: status.image.clone(),
        image_id: status.image_id.clone(),
        state: Seen::Exited,
        pid: None,
        created_at: Timestamp::UNIX_EPOCH,
        started_at: None,
        finished_at: None,
        exit_code: None,
        reason: None,
        message: None,
        log_path: std::path::PathBuf::new(),
        labels: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_container_that_only_the_api_knows_counts_as_lost() {
        let pod: Pod = serde_json::from_value(json!({"status": {"containerStatuses": [
            {"name": "a", "image": "i", "imageID": "", "ready": true, "restartCount": 3,
             "containerID": "tidegate://x", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}},
            {"name": "b", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
            {"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": {"waiting": {}}}]}}))
        .unwrap();
        let observed = Remembered::from_status(&pod).complete(Observed::default());
        let a = observed.latest("a").unwrap();
        assert_eq!((a.attempt, a.state, a.exit_code, a.id.as_str()), (3, Seen::Exited, Some(137), "x"));
        assert_eq!(a.reason.as_deref(), Some("ContainerStatusUnknown"));
        assert_eq!(observed.latest("b").unwrap().reason.as_deref(), Some("Completed"));
        assert!(observed.latest("c").is_none(), "it never ran");
    }

    #[test]
    fn what_the_runtime_holds_wins() {
        let pod: Pod = serde_json::from_value(json!({"status": {"containerStatuses": [
            {"name": "a", "image": "i", "imageID": "", "ready": true, "restartCount": 1, "state": {"running": {}}}]}}))
        .unwrap();
        let mut remembered = Remembered::from_status(&pod);
        let mut held = remembered.by_name["a"][0].clone();
        held.sandbox_id = "s".into();
        let observed = remembered.complete(Observed::new(vec![], vec![held]));
        assert_eq!(observed.containers.len(), 1);
        assert!(observed.is_running("a"));
        let lost = remembered.complete(Observed::default());
        assert_eq!(lost.latest("a").unwrap().exit_code, Some(137));
    }
}
