//! The runtime: what the kubelet calls.
//!
//! All knowledge of a running pod is in its shim; the runtime keeps a copy of every container's record, which the shim
//! refreshes with each change, so that looking is free. What a shim that ended has left behind is read from its records.

use std::collections::HashMap;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::broadcast;

use crate::cgroup::Hierarchies;
use crate::client::{self, Program, ShimClient, lock};
use crate::container::{Container, ContainerSpec, ExecOutput, Resources};
use crate::error::{IoContext, RuntimeError};
use crate::image::{ImageRecord, ImageStore, Reference};
use crate::layout::{RootDir, SandboxDir, is_plain_name, new_id, read_record, remove_tree, write_record};
use crate::pod::{DRAIN_PATIENCE, Follower, Pod, RuntimeEvent, blocking, kill_shim};
use crate::protocol::{Boot, Call, CreateContainer, ImageRoot, Refusal, Reply};
use crate::registry::{Credentials, Dialer, PullError, Registries};
use crate::sandbox::{Sandbox, SandboxRecord, SandboxSpec};
use crate::shim::BOOT_FILE;
use crate::streams::{self, AttachSpec, ExecSpec, ProcessStreams};
use crate::user::may_be_root;

/// Events that a slow listener may be behind.
const EVENTS_BUFFERED: usize = 1024;
/// Time for an asked shim to end before it is killed, beyond the killing of its containers.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(10);
/// What an exec may take beyond its own limit: its start, and the shim's turn.
const EXEC_SLACK: Duration = Duration::from_secs(10);

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
    /// How to reach registries.
    pub dialer: Dialer,
}

/// The container runtime of one node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: RuntimeConfig,
    images: ImageStore,
    registries: Registries,
    program: Program,
    cgroups: Hierarchies,
    events: broadcast::Sender<RuntimeEvent>,
    pods: Mutex<HashMap<String, Arc<Pod>>>,
}

impl Runtime {
    /// Opens a node's runtime and finds its pods again, living or not.
    pub async fn open(config: RuntimeConfig) -> Result<Self, RuntimeError> {
        for dir in [&config.state_dir, &config.run_dir] {
            fs::create_dir_all(dir).at("cannot create", dir)?;
        }
        let images = ImageStore::open(&config.image_dir)?;
        let cgroups = Hierarchies::find().at("cannot find the cgroup hierarchies in", "/proc/self/mountinfo")?;
        let program = Program::seal(&config.program);
        let (events, _) = broadcast::channel(EVENTS_BUFFERED);
        let registries = Registries::new(config.dialer.clone());
        let inner = Inner { config, images, registries, program, cgroups, events, pods: Mutex::default() };
        let runtime = Self { inner: Arc::new(inner) };
        runtime.find_pods().await?;
        runtime.remove_orphans().await?;
        Ok(runtime)
    }

    pub fn images(&self) -> &ImageStore {
        &self.inner.images
    }

    /// Fetches an image from its registry, as far as it is not here.
    pub async fn pull_image(&self, image: &Reference, credentials: &[Credentials]) -> Result<ImageRecord, PullError> {
        self.inner.images.pull(&self.inner.registries, image, credentials).await
    }

    /// Changes from now on. A listener that falls far behind misses some; listing shows the truth.
    pub fn events(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.inner.events.subscribe()
    }

    /// Starts a pod sandbox: namespaces without containers. Its network is up to the caller.
    pub async fn run_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox, RuntimeError> {
        let config = &self.inner.config;
        let id = new_id();
        let cgroup = self.cgroup(&spec)?;
        let dir = SandboxDir::new(&config.run_dir, &id);
        fs::create_dir(dir.path()).at("cannot create", dir.path())?;
        let boot = Boot {
            id: id.clone(),
            spec,
            state_dir: config.state_dir.clone(),
            layer_dir: self.inner.images.layer_dir(),
            cgroup,
        };
        let started = self.start_shim(&boot, &dir).await;
        if started.is_err() {
            // The directory alone is no sandbox.
            let _ = remove_tree(dir.path());
        }
        let pod = started?;
        let sandbox = lock(&pod.record).sandbox.clone();
        tracing::debug!(sandbox = %id, pod = %sandbox.spec.pod_name, namespace = %sandbox.spec.pod_namespace, "sandbox runs");
        Ok(sandbox)
    }

    /// Kills a sandbox's containers and ends its shim. Its records stay until it is removed.
    pub async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let pod = self.pod(id)?;
        self.stop(&pod).await;
        Ok(())
    }

    /// Stops a sandbox if need be and removes everything of it.
    pub async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let pod = self.pod(id)?;
        self.stop(&pod).await;
        let containers: Vec<String> = lock(&pod.containers).keys().cloned().collect();
        for container in &containers {
            self.remove_root(container).await?;
        }
        let (cgroups, cgroup) = (self.inner.cgroups.clone(), pod.cgroup.clone());
        let dir = pod.dir.path().to_owned();
        blocking(move || {
            cgroups.drain(&cgroup, DRAIN_PATIENCE);
            cgroups.remove(&cgroup)?;
            remove_tree(&dir)
        })
        .await?;
        lock(&self.inner.pods).remove(id);
        Ok(())
    }

    pub async fn list_sandboxes(&self) -> Vec<Sandbox> {
        lock(&self.inner.pods).values().map(|pod| lock(&pod.record).sandbox.clone()).collect()
    }

    pub async fn sandbox(&self, id: &str) -> Option<Sandbox> {
        self.pod(id).ok().map(|pod| lock(&pod.record).sandbox.clone())
    }

    /// Prepares a container and returns its identifier. Its process begins with [`Self::start_container`].
    pub async fn create_container(&self, sandbox: &str, spec: ContainerSpec) -> Result<String, RuntimeError> {
        let pod = self.pod(sandbox)?;
        let images = &self.inner.images;
        let image = images.resolve(&spec.image).await.ok_or_else(|| RuntimeError::NoImage(spec.image.clone()))?;
        let id = new_id();
        let state_dir = &self.inner.config.state_dir;
        let root = RootDir::new(state_dir, &id);
        // The lease counts for as long as this directory exists.
        fs::create_dir(root.path()).at("cannot create", root.path())?;
        let created = match images.lease(&image, &id, state_dir).await {
            Ok(root) => match may_be_root(spec.user, root.user.as_deref()).filter(|_| spec.run_as_non_root) {
                Some(why) => Err(RuntimeError::MayBeRoot(why)),
                None => {
                    let image = ImageRoot { id: image.identity(&spec.image).to_owned(), ..root };
                    let call = Call::Create(Box::new(CreateContainer { id: id.clone(), spec, image }));
                    self.call(&pod, &id, call).await
                }
            },
            Err(error) => Err(error.into()),
        };
        if created.is_err() {
            self.remove_root(&id).await?;
        }
        created.map(|_| id)
    }

    /// Starts a created container. If its process cannot be started, the container has exited, with the reason.
    pub async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        let pod = self.pod_of(id)?;
        let call = Call::Start { id: id.to_owned(), runtime: std::process::id() as i32 };
        self.call(&pod, id, call).await.map(drop)
    }

    /// Asks a container to end, kills it after the grace period, and returns when it has ended. Stopping one that does
    /// not run is no error; a second stop may shorten the grace period of the first.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        let pod = self.pod_of(id)?;
        let call = Call::Stop { id: id.to_owned(), grace_ms: milliseconds(grace) };
        match self.call(&pod, id, call).await {
            // Then it has ended with its shim.
            Err(RuntimeError::SandboxEnded(_)) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Removes a container, killing it if it runs. Its log stays: that is the kubelet's.
    pub async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        let pod = self.pod_of(id)?;
        match self.call(&pod, id, Call::Remove { id: id.to_owned() }).await {
            Ok(_) => {}
            Err(RuntimeError::SandboxEnded(_)) => {
                let (cgroups, cgroup) = (self.inner.cgroups.clone(), format!("{}/{id}", pod.cgroup));
                let dir = pod.dir.container(id).path().to_owned();
                blocking(move || {
                    cgroups.drain(&cgroup, DRAIN_PATIENCE);
                    cgroups.remove(&cgroup)?;
                    remove_tree(&dir)
                })
                .await?;
            }
            Err(error) => return Err(error),
        }
        lock(&pod.containers).remove(id);
        self.remove_root(id).await
    }

    /// Gives a running container other limits.
    pub async fn limit_container(&self, id: &str, resources: Resources) -> Result<(), RuntimeError> {
        let pod = self.pod_of(id)?;
        let (cgroups, cgroup) = (self.inner.cgroups.clone(), format!("{}/{id}", pod.cgroup));
        blocking(move || cgroups.limit(&cgroup, &resources)).await
    }

    /// All containers, or those of one sandbox.
    pub async fn list_containers(&self, sandbox: Option<&str>) -> Vec<Container> {
        let pods: Vec<Arc<Pod>> = {
            let pods = lock(&self.inner.pods);
            pods.iter()
                .filter(|(id, _)| sandbox.is_none_or(|wanted| wanted == *id))
                .map(|(_, pod)| Arc::clone(pod))
                .collect()
        };
        pods.iter().flat_map(|pod| lock(&pod.containers).values().cloned().collect::<Vec<_>>()).collect()
    }

    pub async fn container(&self, id: &str) -> Option<Container> {
        let pod = self.pod_of(id).ok()?;
        lock(&pod.containers).get(id).cloned()
    }

    /// Runs a command in a container. Output beyond `limit` bytes a stream is dropped; after `timeout` it is killed.
    pub async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        timeout: Duration,
        limit: usize,
    ) -> Result<ExecOutput, RuntimeError> {
        let pod = self.pod_of(id)?;
        let call = Call::Exec { id: id.to_owned(), command, timeout_ms: milliseconds(timeout), limit };
        let reply = match tokio::time::timeout(timeout.saturating_add(EXEC_SLACK), self.call(&pod, id, call)).await {
            Ok(Err(RuntimeError::Timeout(_))) | Err(_) => return Err(RuntimeError::Timeout(timeout)),
            Ok(reply) => reply?,
        };
        match reply {
            Reply::Exec(output) => output.decode().map_err(|error| RuntimeError::Shim(error.to_string())),
            other => Err(RuntimeError::Shim(format!("it answered an exec with {other:?}"))),
        }
    }

    /// Runs a command in a container with its streams in the caller's hands. It ends when they are dropped.
    pub async fn exec(&self, id: &str, spec: ExecSpec) -> Result<ProcessStreams, RuntimeError> {
        let ExecSpec { command, stdin, stdout, stderr, tty } = spec;
        self.converse(id, Call::ExecStreams { id: id.to_owned(), command, stdin, stdout, stderr, tty }).await
    }

    /// Joins the streams of a container's first process, from now on. What they carry is logged as always.
    pub async fn attach(&self, id: &str, spec: AttachSpec) -> Result<ProcessStreams, RuntimeError> {
        let AttachSpec { stdin, stdout, stderr } = spec;
        let mut streams = self.converse(id, Call::Attach { id: id.to_owned(), stdin, stdout, stderr }).await?;
        // A terminal is always handed over, to be resized; what it says belongs to the log first.
        streams.stdin.take_if(|_| !stdin);
        streams.stdout.take_if(|_| !stdout);
        Ok(streams)
    }

    async fn converse(&self, id: &str, call: Call) -> Result<ProcessStreams, RuntimeError> {
        let pod = self.pod_of(id)?;
        if *pod.ended.borrow() || pod.client.is_none() {
            return Err(RuntimeError::SandboxEnded(lock(&pod.record).sandbox.id.clone()));
        }
        streams::open(client::connect(&pod.dir)?, call).await?.map_err(|refusal| refused(id, refusal))
    }

    async fn start_shim(&self, boot: &Boot, dir: &SandboxDir) -> Result<Arc<Pod>, RuntimeError> {
        write_record(&dir.path().join(BOOT_FILE), boot)?;
        self.inner.program.start_shim(dir).await?;
        self.follow(dir, read_record(&dir.record())?).await
    }

    /// Connects to a living shim and follows it from then on.
    async fn follow(&self, dir: &SandboxDir, record: SandboxRecord) -> Result<Arc<Pod>, RuntimeError> {
        let (client, mut reader) = ShimClient::connect(dir)?;
        let id = record.sandbox.id.clone();
        let pod = Arc::new(Pod::new(dir.clone(), self.cgroup(&record.sandbox.spec)?, record, Some(client)));
        let client = pod.client.as_ref().ok_or_else(|| RuntimeError::SandboxEnded(id.clone()))?;
        // The reader must be driven for the answer to come; no news can come before it.
        let reply = tokio::select! {
            reply = client.call(Call::Watch) => reply,
            _ = reader.next() => None,
        };
        match reply {
            Some(Ok(Reply::Containers(containers))) => {
                lock(&pod.containers).extend(containers.into_iter().map(|it| (it.id.clone(), it)));
            }
            Some(other) => return Err(RuntimeError::Shim(format!("it answered a watch with {other:?}"))),
            None => return Err(RuntimeError::SandboxEnded(id)),
        }
        lock(&self.inner.pods).insert(id, Arc::clone(&pod));
        // The task must not keep a runtime alive that nobody uses any more.
        let follower =
            Follower { events: self.inner.events.clone(), cgroups: self.inner.cgroups.clone(), pod: Arc::clone(&pod) };
        tokio::spawn(follower.run(reader));
        Ok(pod)
    }

    async fn find_pods(&self) -> Result<(), RuntimeError> {
        let run_dir = &self.inner.config.run_dir;
        for id in names(run_dir)? {
            let dir = SandboxDir::new(run_dir, &id);
            let record: SandboxRecord = match read_record(&dir.record()) {
                Ok(record) => record,
                Err(error) => {
                    // Its start was never completed, so nobody knows of it.
                    tracing::warn!(error = %RuntimeError::from(error), sandbox = %id, "sandbox without record is removed");
                    remove_tree(dir.path())?;
                    continue;
                }
            };
            if record.shim.is_alive() {
                match self.follow(&dir, record.clone()).await {
                    Ok(_) => continue,
                    Err(error) => tracing::warn!(%error, sandbox = %id, "shim does not answer and is killed"),
                }
                kill_shim(&record);
            }
            self.adopt_dead(&dir, record).await?;
        }
        Ok(())
    }

    async fn adopt_dead(&self, dir: &SandboxDir, record: SandboxRecord) -> Result<(), RuntimeError> {
        let id = record.sandbox.id.clone();
        let pod = Arc::new(Pod::new(dir.clone(), self.cgroup(&record.sandbox.spec)?, record, None));
        for container in names(&dir.containers()).unwrap_or_default() {
            match read_record::<Container>(&dir.container(&container).record()) {
                Ok(record) => drop(lock(&pod.containers).insert(container, record)),
                Err(error) => tracing::warn!(error = %RuntimeError::from(error), %container, "container has no record"),
            }
        }
        pod.bury(&self.inner.cgroups).await;
        lock(&self.inner.pods).insert(id, pod);
        Ok(())
    }

    /// Root directories of containers that no sandbox knows: left by a reboot, which empties the run directory.
    async fn remove_orphans(&self) -> Result<(), RuntimeError> {
        let known: Vec<String> = self.list_containers(None).await.into_iter().map(|container| container.id).collect();
        for id in names(&self.inner.config.state_dir)? {
            if !known.contains(&id) {
                self.remove_root(&id).await?;
            }
        }
        Ok(())
    }

    async fn stop(&self, pod: &Pod) {
        if let Some(client) = &pod.client {
            let mut ended = pod.ended.subscribe();
            let asked = async {
                // Without an answer it has ended already.
                let _ = client.call(Call::Shutdown).await;
                let _ = ended.wait_for(|ended| *ended).await;
            };
            if tokio::time::timeout(SHUTDOWN_PATIENCE, asked).await.is_err() {
                let record = lock(&pod.record).clone();
                tracing::warn!(sandbox = %record.sandbox.id, "shim does not end and is killed");
                kill_shim(&record);
                let _ = tokio::time::timeout(SHUTDOWN_PATIENCE, ended.wait_for(|ended| *ended)).await;
            }
        }
    }

    async fn call(&self, pod: &Pod, container: &str, call: Call) -> Result<Reply, RuntimeError> {
        let ended = || RuntimeError::SandboxEnded(lock(&pod.record).sandbox.id.clone());
        let client = pod.client.as_ref().ok_or_else(ended)?;
        client.call(call).await.ok_or_else(ended)?.map_err(|refusal| refused(container, refusal))
    }

    /// Removes a container's writable layer and its hold on the image.
    async fn remove_root(&self, id: &str) -> Result<(), RuntimeError> {
        let root = RootDir::new(&self.inner.config.state_dir, id).path().to_owned();
        blocking(move || remove_tree(&root)).await?;
        Ok(self.inner.images.release(id).await?)
    }

    fn pod(&self, id: &str) -> Result<Arc<Pod>, RuntimeError> {
        lock(&self.inner.pods).get(id).cloned().ok_or_else(|| RuntimeError::NoSandbox(id.to_owned()))
    }

    fn pod_of(&self, container: &str) -> Result<Arc<Pod>, RuntimeError> {
        let pods = lock(&self.inner.pods);
        pods.values()
            .find(|pod| lock(&pod.containers).contains_key(container))
            .cloned()
            .ok_or_else(|| RuntimeError::NoContainer(container.to_owned()))
    }

    /// The sandbox's cgroup in each hierarchy.
    fn cgroup(&self, spec: &SandboxSpec) -> Result<String, RuntimeError> {
        let below = Path::new(&spec.cgroup);
        if spec.cgroup.is_empty() || !below.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(RuntimeError::Invalid(format!("{:?} is not a cgroup below the pods'", spec.cgroup)));
        }
        Ok(format!("/{}/{}", self.inner.config.cgroup_parent.trim_matches('/'), spec.cgroup))
    }
}

fn refused(container: &str, refusal: Refusal) -> RuntimeError {
    match refusal {
        Refusal::NoContainer => RuntimeError::NoContainer(container.to_owned()),
        Refusal::Invalid(message) => RuntimeError::Invalid(message),
        Refusal::CannotRun(message) => RuntimeError::CannotRun { id: container.to_owned(), message },
        Refusal::TimedOut => RuntimeError::Timeout(Duration::ZERO),
        Refusal::Failed(message) => RuntimeError::Shim(message),
    }
}

/// Entries of a directory that can be identifiers.
fn names(dir: &Path) -> Result<Vec<String>, RuntimeError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).at("cannot list", dir)? {
        let name = entry.at("cannot list", dir)?.file_name();
        names.extend(name.to_str().filter(|name| is_plain_name(name)).map(str::to_owned));
    }
    Ok(names)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
