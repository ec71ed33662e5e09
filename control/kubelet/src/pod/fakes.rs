//! A runtime, a network and an API server in memory, for tests of whole pod lives.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use control_runtime::{
    Container, ContainerSpec, ContainerState, Credentials, ExecOutput, ImageRecord, PullError, Reference, Resources,
    RuntimeError, RuntimeEvent, Sandbox, SandboxSpec, SandboxState,
};
use dataplane_user::cni;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Secret, Service};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::cluster::{Cluster, ClusterError};
use crate::network::PodNet;
use crate::runtime::{PodRuntime, Result};
use crate::volume::mount::Mounter;

/// Containers that "run" until told otherwise; notes every call that changes something.
pub(crate) struct FakeRuntime {
    state: Mutex<RuntimeState>,
    events: broadcast::Sender<RuntimeEvent>,
}

#[derive(Default)]
struct RuntimeState {
    sandboxes: BTreeMap<String, Sandbox>,
    containers: BTreeMap<String, Container>,
    images: BTreeSet<String>,
    /// What the only registry has, in full names.
    published: BTreeSet<String>,
    calls: Vec<String>,
    /// Exit codes of commands by their text; unknown ones succeed.
    commands: BTreeMap<String, i32>,
    next: u32,
}

impl FakeRuntime {
    pub(crate) fn new() -> Arc<Self> {
        let (events, _) = broadcast::channel(64);
        let state = RuntimeState { images: ["app".into(), "init".into()].into(), ..RuntimeState::default() };
        Arc::new(Self { state: Mutex::new(state), events })
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.lock().calls.clone()
    }

    /// Lets a registry have an image.
    pub(crate) fn publish(&self, reference: &str) {
        self.state.lock().published.insert(reference.into());
    }

    /// Lets a command in a container end with this code.
    pub(crate) fn command(&self, text: &str, exit_code: i32) {
        self.state.lock().commands.insert(text.into(), exit_code);
    }

    /// Ends the running instance of a container, as if by itself.
    pub(crate) fn exit(&self, name: &str, exit_code: i32) {
        let id = {
            let state = self.state.lock();
            let running = |container: &&Container| container.name == name && container.state == ContainerState::Running;
            state.containers.values().find(running).map(|container| container.id.clone()).unwrap()
        };
        self.end(&id, exit_code);
    }

    /// Kills a sandbox with all that is in it.
    pub(crate) fn kill_sandbox(&self) {
        let ids: Vec<String> = self.state.lock().sandboxes.keys().cloned().collect();
        for id in ids {
            self.end_sandbox(&id);
            let _ = self.events.send(RuntimeEvent::SandboxExited { sandbox_id: id });
        }
    }

    /// Labels of a container, and its environment as labels `env:NAME`.
    pub(crate) fn labels(&self, name: &str) -> BTreeMap<String, String> {
        let state = self.state.lock();
        state
            .containers
            .values()
            .find(|container| container.name == name)
            .map(|container| container.labels.clone())
            .unwrap()
    }

    fn end(&self, id: &str, exit_code: i32) {
        let mut state = self.state.lock();
        let Some(container) = state.containers.get_mut(id) else { return };
        if container.state != ContainerState::Running {
            return;
        }
        container.state = ContainerState::Exited;
        container.exit_code = Some(exit_code);
        container.finished_at = Some(crate::clock::now());
        let sandbox_id = container.sandbox_id.clone();
        let _ = self.events.send(RuntimeEvent::ContainerExited { sandbox_id, container_id: id.into() });
    }

    fn end_sandbox(&self, id: &str) {
        let containers: Vec<String> = {
            let mut state = self.state.lock();
            if let Some(sandbox) = state.sandboxes.get_mut(id) {
                sandbox.state = SandboxState::NotReady;
            }
            let own = state.containers.values().filter(|container| container.sandbox_id == id);
            own.map(|container| container.id.clone()).collect()
        };
        for container in containers {
            self.end(&container, 137);
        }
    }
}

#[async_trait]
impl PodRuntime for FakeRuntime {
    async fn images(&self) -> Result<Vec<ImageRecord>> {
        Ok(vec![])
    }

    async fn resolve_image(&self, reference: &str) -> Option<ImageRecord> {
        self.state.lock().images.contains(reference).then(|| image(reference))
    }

    async fn pull_image(
        &self,
        reference: &Reference,
        _: &[Credentials],
    ) -> std::result::Result<ImageRecord, PullError> {
        let mut state = self.state.lock();
        let name = reference.to_string();
        state.calls.push(format!("pull {name}"));
        if !state.published.contains(&name) {
            return Err(PullError::NotFound { image: name });
        }
        state.images.insert(name.clone());
        Ok(image(&name))
    }

    async fn sandboxes(&self) -> Vec<Sandbox> {
        self.state.lock().sandboxes.values().cloned().collect()
    }

    async fn containers(&self, sandbox: &str) -> Vec<Container> {
        let state = self.state.lock();
        state.containers.values().filter(|container| container.sandbox_id == sandbox).cloned().collect()
    }

    async fn run_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox> {
        let mut state = self.state.lock();
        state.next += 1;
        let id = format!("s{}", state.next);
        state.calls.push(format!("run-sandbox {}", spec.attempt));
        let sandbox = Sandbox {
            id: id.clone(),
            spec,
            state: SandboxState::Ready,
            netns: "/netns".into(),
            created_at: crate::clock::now(),
        };
        state.sandboxes.insert(id, sandbox.clone());
        Ok(sandbox)
    }

    async fn stop_sandbox(&self, id: &str) -> Result<()> {
        self.state.lock().calls.push("stop-sandbox".into());
        self.end_sandbox(id);
        Ok(())
    }

    async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let mut state = self.state.lock();
        state.calls.push("remove-sandbox".into());
        state.sandboxes.remove(id);
        state.containers.retain(|_, container| container.sandbox_id != id);
        Ok(())
    }

    async fn create_container(&self, sandbox: &str, spec: ContainerSpec) -> Result<String> {
        let mut state = self.state.lock();
        state.next += 1;
        let id = format!("c{}", state.next);
        state.calls.push(format!("create {} {}", spec.name, spec.attempt));
        let mut labels = spec.labels;
        labels.extend(spec.env.into_iter().map(|(name, value)| (format!("env:{name}"), value)));
        let container = Container {
            id: id.clone(),
            sandbox_id: sandbox.into(),
            name: spec.name,
            attempt: spec.attempt,
            image: spec.image,
            image_id: "sha256:1".into(),
            state: ContainerState::Created,
            pid: None,
            created_at: crate::clock::now(),
            started_at: None,
            finished_at: None,
            exit_code: None,
            reason: None,
            message: None,
            log_path: spec.log_path,
            labels,
        };
        state.containers.insert(id.clone(), container);
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        let mut state = self.state.lock();
        let container = state.containers.get_mut(id).ok_or_else(|| RuntimeError::NoContainer(id.into()))?;
        container.state = ContainerState::Running;
        container.started_at = Some(crate::clock::now());
        Ok(())
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let name = self.state.lock().containers.get(id).map(|container| container.name.clone());
        let name = name.ok_or_else(|| RuntimeError::NoContainer(id.into()))?;
        self.state.lock().calls.push(format!("stop {name} {}", grace.as_secs()));
        self.end(id, 143);
        Ok(())
    }

    async fn limit_container(&self, id: &str, resources: Resources) -> Result<()> {
        let mut state = self.state.lock();
        let name = state.containers.get(id).map(|container| container.name.clone()).unwrap_or_default();
        state.calls.push(format!("limit {name} {:?}", resources.memory_limit_bytes));
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        let mut state = self.state.lock();
        if let Some(container) = state.containers.remove(id) {
            state.calls.push(format!("remove {} {}", container.name, container.attempt));
        }
        Ok(())
    }

    async fn exec(&self, _: &str, command: Vec<String>, _: Duration, _: usize) -> Result<ExecOutput> {
        let text = command.join(" ");
        let mut state = self.state.lock();
        state.calls.push(format!("exec {text}"));
        let exit_code = state.commands.get(&text).copied().unwrap_or(0);
        Ok(ExecOutput { exit_code, stdout: vec![], stderr: vec![] })
    }

    fn events(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.events.subscribe()
    }
}

fn image(reference: &str) -> ImageRecord {
    ImageRecord {
        id: "sha256:1".into(),
        digest: "sha256:2".into(),
        references: vec![reference.into()],
        pulled: vec![],
        size_bytes: 1,
    }
}

/// Gives out addresses and notes who has them.
#[derive(Default)]
pub(crate) struct FakeNet {
    attached: Mutex<BTreeMap<String, IpAddr>>,
    next: Mutex<u8>,
}

impl FakeNet {
    pub(crate) fn attached(&self) -> usize {
        self.attached.lock().len()
    }
}

#[async_trait]
impl PodNet for FakeNet {
    async fn attach(&self, sandbox: &Sandbox) -> std::result::Result<Vec<IpAddr>, cni::Error> {
        let mut next = self.next.lock();
        *next += 1;
        let ip = IpAddr::from(Ipv4Addr::new(10, 244, 0, *next));
        self.attached.lock().insert(sandbox.id.clone(), ip);
        Ok(vec![ip])
    }

    async fn detach(&self, sandbox_id: &str) -> std::result::Result<(), cni::Error> {
        self.attached.lock().remove(sandbox_id);
        Ok(())
    }

    async fn addresses(&self, sandbox_id: &str) -> Option<Vec<IpAddr>> {
        self.attached.lock().get(sandbox_id).map(|ip| vec![*ip])
    }

    async fn collect(&self, _: &BTreeSet<String>) -> std::result::Result<(), cni::Error> {
        Ok(())
    }
}

/// Mounts nothing.
pub(crate) struct NoMounter;

impl Mounter for NoMounter {
    fn tmpfs(&self, _: &Path, _: Option<u64>) -> std::io::Result<()> {
        Ok(())
    }
    fn bind(&self, _: BorrowedFd<'_>, _: &Path) -> std::io::Result<()> {
        Ok(())
    }
    fn is_mount(&self, _: &Path) -> bool {
        false
    }
    fn unmount_below(&self, _: &Path) -> std::io::Result<()> {
        Ok(())
    }
}

/// One pod, some ConfigMaps; patches are merged by key as far as a pod's status needs it.
#[derive(Default)]
pub(crate) struct FakeCluster {
    state: Mutex<ClusterState>,
}

#[derive(Default)]
struct ClusterState {
    pod: Option<Value>,
    config_maps: BTreeMap<String, BTreeMap<String, String>>,
    version: u64,
    patches: usize,
    events: Vec<String>,
}

impl FakeCluster {
    pub(crate) fn set_pod(&self, pod: Value) -> Pod {
        let mut state = self.state.lock();
        state.version += 1;
        let mut pod = pod;
        pod["metadata"]["resourceVersion"] = json!(state.version.to_string());
        state.pod = Some(pod.clone());
        serde_json::from_value(pod).unwrap()
    }

    /// The pod with another change, as the watch would show it.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Value)) -> Pod {
        let mut pod = self.state.lock().pod.clone().unwrap();
        change(&mut pod);
        self.set_pod(pod)
    }

    pub(crate) fn pod(&self) -> Option<Value> {
        self.state.lock().pod.clone()
    }

    pub(crate) fn set_config_map(&self, name: &str, data: &[(&str, &str)]) {
        let data = data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.state.lock().config_maps.insert(name.into(), data);
    }

    pub(crate) fn patches(&self) -> usize {
        self.state.lock().patches
    }

    pub(crate) fn events(&self) -> Vec<String> {
        self.state.lock().events.clone()
    }
}

#[async_trait]
impl Cluster for FakeCluster {
    async fn config_map(&self, _: &str, name: &str) -> std::result::Result<Option<ConfigMap>, ClusterError> {
        let data = self.state.lock().config_maps.get(name).cloned();
        Ok(data.map(|data| ConfigMap { data: Some(data), ..ConfigMap::default() }))
    }

    async fn secret(&self, _: &str, _: &str) -> std::result::Result<Option<Secret>, ClusterError> {
        Ok(None)
    }

    async fn services(&self) -> std::result::Result<Vec<Arc<Service>>, ClusterError> {
        Ok(vec![])
    }

    async fn token(&self, _: &str, _: &str, _: TokenRequestSpec) -> std::result::Result<TokenRequest, ClusterError> {
        Err(ClusterError::Failed("no tokens here".into()))
    }

    async fn patch_pod_status(&self, _: &str, _: &str, patch: &Value) -> std::result::Result<Pod, ClusterError> {
        let mut state = self.state.lock();
        let Some(mut pod) = state.pod.clone() else { return Err(ClusterError::Gone("pods \"p\" not found".into())) };
        state.version += 1;
        state.patches += 1;
        pod["metadata"]["resourceVersion"] = json!(state.version.to_string());
        let status = pod.as_object_mut().unwrap().entry("status").or_insert(json!({}));
        for (key, value) in patch["status"].as_object().unwrap() {
            status[key] = match key.as_str() {
                "conditions" => merge_conditions(&status[key], value),
                _ => without_directives(value),
            };
        }
        state.pod = Some(pod.clone());
        Ok(serde_json::from_value(pod).unwrap())
    }

    async fn delete_pod(&self, _: &str, _: &str, _: &str) -> std::result::Result<(), ClusterError> {
        self.state.lock().pod = None;
        Ok(())
    }

    async fn create_event(&self, event: &Event) -> std::result::Result<(), ClusterError> {
        let text = format!("{} {}", event.reason.as_deref().unwrap(), event.message.as_deref().unwrap());
        self.state.lock().events.push(text);
        Ok(())
    }

    async fn patch_event(&self, _: &str, _: &str, _: &Value) -> std::result::Result<(), ClusterError> {
        Ok(())
    }
}

fn merge_conditions(old: &Value, changes: &Value) -> Value {
    let mut list = old.as_array().cloned().unwrap_or_default();
    for change in changes.as_array().unwrap() {
        list.retain(|condition| condition["type"] != change["type"]);
        list.push(change.clone());
    }
    Value::Array(list)
}

fn without_directives(value: &Value) -> Value {
    match value {
        Value::Array(list) => Value::Array(list.iter().filter(|item| item.get("$patch").is_none()).cloned().collect()),
        other => other.clone(),
    }
}
