//! What the runtime knows of one pod, and how it keeps knowing it while the pod's shim lives.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::{broadcast, watch};

use crate::cgroup::Hierarchies;
use crate::client::{ShimClient, ShimReader, lock};
use crate::container::{Container, ContainerState};
use crate::error::{FileError, RuntimeError};
use crate::layout::{SandboxDir, write_record};
use crate::protocol::FromShim;
use crate::sandbox::{SandboxRecord, SandboxState};

/// Time for the kernel to take away killed processes.
pub(crate) const DRAIN_PATIENCE: Duration = Duration::from_secs(5);
/// Exit code of a container that ended with its shim, unseen: killed.
const EXIT_UNKNOWN: i32 = 137;

/// A change that the kubelet should look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeEvent {
    ContainerExited { sandbox_id: String, container_id: String },
    SandboxExited { sandbox_id: String },
}

/// What the runtime knows of a sandbox.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) dir: SandboxDir,
    pub(crate) cgroup: String,
    pub(crate) record: Mutex<SandboxRecord>,
    pub(crate) containers: Mutex<BTreeMap<String, Container>>,
    /// None for a shim that had already ended when this runtime started.
    pub(crate) client: Option<ShimClient>,
    /// Turns true when the shim has ended and its remains are recorded.
    pub(crate) ended: watch::Sender<bool>,
}

impl Pod {
    pub(crate) fn new(dir: SandboxDir, cgroup: String, record: SandboxRecord, client: Option<ShimClient>) -> Self {
        Self {
            dir,
            cgroup,
            record: Mutex::new(record),
            containers: Mutex::default(),
            client,
            ended: watch::Sender::new(false),
        }
    }

    /// Records what the end of the shim means: no process of the pod is left. Returns containers whose end nobody saw.
    pub(crate) async fn bury(&self, cgroups: &Hierarchies) -> Vec<String> {
        let (cgroups, cgroup) = (cgroups.clone(), self.cgroup.clone());
        // Containers are tied to their shim; whatever got away from that is in the pod's cgroup.
        let drained = blocking(move || {
            cgroups.drain(&cgroup, DRAIN_PATIENCE);
            Ok(())
        });
        if let Err(error) = drained.await {
            tracing::error!(%error, "cannot kill what a pod has left");
        }
        let mut lost = Vec::new();
        for container in lock(&self.containers).values_mut().filter(|container| container.is_running()) {
            let message = "the pod's shim ended before the container".to_owned();
            container.finish(EXIT_UNKNOWN, "ContainerStatusUnknown", Some(message));
            self.keep(&self.dir.container(&container.id).record(), container);
            lost.push(container.id.clone());
        }
        let mut record = lock(&self.record);
        record.sandbox.state = SandboxState::NotReady;
        self.keep(&self.dir.record(), &*record);
        lost
    }

    fn keep(&self, path: &Path, record: &impl serde::Serialize) {
        if let Err(error) = write_record(path, record) {
            tracing::error!(error = %RuntimeError::from(error), path = %path.display(), "cannot write record");
        }
    }
}

/// Keeps the copy of a pod's state up to date until its shim ends.
pub(crate) struct Follower {
    pub(crate) events: broadcast::Sender<RuntimeEvent>,
    pub(crate) cgroups: Hierarchies,
    pub(crate) pod: Arc<Pod>,
}

impl Follower {
    pub(crate) async fn run(self, mut reader: ShimReader) {
        let sandbox_id = lock(&self.pod.record).sandbox.id.clone();
        while let Some(news) = reader.next().await {
            match news {
                FromShim::Changed(container) => self.changed(*container),
                FromShim::Removed { id } => drop(lock(&self.pod.containers).remove(&id)),
                FromShim::Answer { .. } => {}
            }
        }
        for container_id in self.pod.bury(&self.cgroups).await {
            self.tell(RuntimeEvent::ContainerExited { sandbox_id: sandbox_id.clone(), container_id });
        }
        self.pod.ended.send_replace(true);
        self.tell(RuntimeEvent::SandboxExited { sandbox_id });
    }

    fn changed(&self, container: Container) {
        let has_exited = container.state == ContainerState::Exited;
        let event = RuntimeEvent::ContainerExited {
            sandbox_id: container.sandbox_id.clone(),
            container_id: container.id.clone(),
        };
        let before = lock(&self.pod.containers).insert(container.id.clone(), container);
        if has_exited && before.is_none_or(|before| before.state != ContainerState::Exited) {
            self.tell(event);
        }
    }

    fn tell(&self, event: RuntimeEvent) {
        // Nobody has to listen.
        let _ = self.events.send(event);
    }
}

pub(crate) fn kill_shim(record: &SandboxRecord) {
    if record.shim.is_alive() {
        // Gone is what it should be.
        let _ = kill(Pid::from_raw(record.shim.pid), Signal::SIGKILL);
    }
}

/// Work on files, away from the asynchronous threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<T, RuntimeError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
