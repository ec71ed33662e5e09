//! Starts one container: image, environment, mounts, create, start, postStart hook.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use control_runtime::RuntimeError;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::decide::{Kill, KillCause};
use super::files;
use super::hook;
use super::kill::kill;
use crate::cluster::{ClusterError, chain};
use crate::events::Severity;
use crate::image::ensure::ensure;
use crate::spec::container::{self, Prepared};
use crate::spec::env::{self, EnvError, EnvFile, EnvObjects};
use crate::spec::env_file;
use crate::spec::pod_ref::PodRef;
use crate::spec::{security, service_env};
use crate::volume::blocking;
use crate::volume::mounts;

const GRACE_AFTER_HOOK_S: i64 = 30;

/// What to start, and where.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub pod: Arc<Pod>,
    pub container: Container,
    pub attempt: u32,
    pub sandbox_id: String,
    pub pod_ips: Vec<IpAddr>,
    /// Cancelled when the pod is to end.
    pub cancelled: CancellationToken,
    /// The container whose processes an ephemeral one is to see, or why it cannot.
    pub target: Result<Option<String>, String>,
}

/// Why a container is not running; the waiting reason and its message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("{message}")]
    Pull { image: String, message: String },
    #[error("Container image \"{0}\" is not present with pull policy of Never")]
    NeverPull(String),
    #[error("{0}")]
    BadImageName(String),
    #[error("{0}")]
    Config(String),
    #[error("{0}")]
    Create(String),
    #[error("{0}")]
    Run(String),
    #[error("{0}")]
    PostStart(String),
    #[error("pod is ending")]
    Cancelled,
}

impl StartError {
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Pull { .. } => "ErrImagePull",
            Self::NeverPull(_) => "ErrImageNeverPull",
            Self::BadImageName(_) => "InvalidImageName",
            Self::Config(_) => "CreateContainerConfigError",
            Self::Create(_) => "CreateContainerError",
            Self::Run(_) => "RunContainerError",
            Self::PostStart(_) => "PostStartHookError",
            Self::Cancelled => "ContainerCreating",
        }
    }
}

impl From<EnvError> for StartError {
    fn from(error: EnvError) -> Self {
        Self::Config(error.to_string())
    }
}

impl From<ClusterError> for StartError {
    fn from(error: ClusterError) -> Self {
        Self::Config(error.to_string())
    }
}

/// Returns once the container runs and its postStart hook has ended well.
pub(crate) async fn start(context: Arc<Context>, order: Order) -> Result<(), StartError> {
    let name = order.container.name.clone();
    let result = attempt(&context, &order).await;
    if let Err(error) = &result {
        let message = match error {
            StartError::Cancelled => return result,
            StartError::Pull { image, .. } => {
                let message = format!("Failed to pull image \"{image}\": {error}");
                context.events.container(&order.pod, &name, Severity::Warning, "Failed", message);
                "Error: ErrImagePull".to_owned()
            }
            StartError::NeverPull(_) => {
                context.events.container(&order.pod, &name, Severity::Warning, "ErrImageNeverPull", error.to_string());
                "Error: ErrImageNeverPull".to_owned()
            }
            StartError::BadImageName(_) => "Error: InvalidImageName".to_owned(),
            // Told already, without what the hook said.
            StartError::PostStart(_) => return result,
            other => format!("Error: {other}"),
        };
        context.events.container(&order.pod, &name, Severity::Warning, "Failed", message);
    }
    result
}

async fn attempt(context: &Arc<Context>, order: &Order) -> Result<(), StartError> {
    let Order { pod, container, .. } = order;
    if let Some(what) = security::unsupported(pod, container) {
        return Err(StartError::Config(what.into()));
    }
    let image = ensure(context, order).await?;
    let env = environment(context, order).await?;
    let pod_dir = context.pod_dir(pod.uid());
    let mounts = prepare_mounts(context, order, &env).await?;
    let prepared = Prepared {
        image: if container.image.as_deref().unwrap_or_default().is_empty() {
            image.id
        } else {
            container.image.clone().unwrap_or_default()
        },
        attempt: order.attempt,
        env,
        mounts,
        log_path: files::log_path(&pod_dir, &container.name, order.attempt),
        machine_memory: context.settings.machine_memory,
        processes_of: order.target.clone().map_err(StartError::Config)?,
    };
    let spec = container::container(pod, container, prepared);
    if order.cancelled.is_cancelled() {
        return Err(StartError::Cancelled);
    }
    let create = context.runtime.create_container(&order.sandbox_id, spec).await;
    let id = create.map_err(|error| match error {
        RuntimeError::MayBeRoot(why) => {
            StartError::Config(format!("{why} (pod: {:?}, container: {})", pod.label(), container.name))
        }
        error => StartError::Create(chain(&error)),
    })?;
    context.events.container(
        pod,
        &container.name,
        Severity::Normal,
        "Created",
        format!("Created container: {}", container.name),
    );
    if let Err(error) = context.runtime.start_container(&id).await {
        if !matches!(error, RuntimeError::CannotRun { .. }) {
            // The runtime keeps no record of how it ended: the next attempt makes it anew.
            let _ = context.runtime.remove_container(&id).await;
        }
        return Err(StartError::Run(chain(&error)));
    }
    context.events.container(
        pod,
        &container.name,
        Severity::Normal,
        "Started",
        format!("Started container {}", container.name),
    );
    post_start(context, order, id).await
}

async fn environment(context: &Context, order: &Order) -> Result<Vec<(String, String)>, StartError> {
    let Order { pod, container, .. } = order;
    let links = pod.pod_spec().enable_service_links.unwrap_or(true);
    let services = context.cluster.services().await?;
    let services = service_env::variables(services.iter().map(|service| &**service), pod.namespace(), links);
    let objects = env_objects(context, pod, container).await?;
    let facts = context.facts(if pod.host_network() { &context.settings.node_ips } else { &order.pod_ips });
    let env = env::build(pod, container, &facts, services, &objects)?;
    for skipped in env.skipped {
        let message = format!(
            "Keys [{}] from the EnvFrom {} {}/{} were skipped since they are considered invalid environment variable names.",
            skipped.keys.join(", "),
            skipped.kind,
            pod.namespace(),
            skipped.name
        );
        context.events.container(pod, &container.name, Severity::Warning, "InvalidEnvironmentVariableNames", message);
    }
    Ok(env.variables)
}

/// Reads every ConfigMap and Secret that the environment names.
async fn env_objects(context: &Context, pod: &Pod, container: &Container) -> Result<EnvObjects, StartError> {
    let mut config_maps = BTreeSet::new();
    let mut secrets = BTreeSet::new();
    for source in container.env_from.iter().flatten() {
        config_maps.extend(source.config_map_ref.as_ref().map(|reference| reference.name.clone()));
        secrets.extend(source.secret_ref.as_ref().map(|reference| reference.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        config_maps.extend(source.config_map_key_ref.as_ref().map(|reference| reference.name.clone()));
        secrets.extend(source.secret_key_ref.as_ref().map(|reference| reference.name.clone()));
    }
    let mut objects = EnvObjects { files: env_files(context, pod, container).await?, ..EnvObjects::default() };
    for name in config_maps {
        if let Some(object) = context.cluster.config_map(pod.namespace(), &name).await? {
            objects.config_maps.insert(name, object.data.unwrap_or_default());
        }
    }
    for name in secrets {
        if let Some(object) = context.cluster.secret(pod.namespace(), &name).await? {
            let data = object.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
            objects.secrets.insert(name, data);
        }
    }
    Ok(objects)
}

/// Reads the files in volumes that single variables come from.
async fn env_files(
    context: &Context,
    pod: &Pod,
    container: &Container,
) -> Result<BTreeMap<(String, String), EnvFile>, StartError> {
    let sources = container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
    let mut files = BTreeMap::new();
    for selector in sources.filter_map(|source| source.file_key_ref.as_ref()) {
        let volume = pod.pod_spec().volumes.iter().flatten().find(|volume| volume.name == selector.volume_name);
        let root = volume.and_then(|volume| crate::volume::path(&context.pod_dir(pod.uid()), volume));
        let root = root.ok_or_else(|| StartError::Config(format!("volume {:?} not found", selector.volume_name)))?;
        let path = selector.path.clone();
        let text = blocking(move || mounts::read_beneath(&root, &path)).await;
        let file = match text {
            Ok(text) => Some(env_file::parse(&text).map_err(StartError::Config)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(StartError::Config(format!("{}: {error}", selector.path))),
        };
        files.insert((selector.volume_name.clone(), selector.path.clone()), file);
    }
    Ok(files)
}

async fn prepare_mounts(
    context: &Arc<Context>,
    order: &Order,
    env: &[(String, String)],
) -> Result<Vec<control_runtime::Mount>, StartError> {
    let (context, order, env) = (Arc::clone(context), order.clone(), env.to_vec());
    let work = move || {
        let Order { pod, container, attempt, .. } = &order;
        let pod_dir = context.pod_dir(pod.uid());
        let log = files::log_path(&pod_dir, &container.name, *attempt);
        std::fs::create_dir_all(log.parent().unwrap_or(&pod_dir))?;
        let mut mounts = mounts::of_container(pod, container, &pod_dir, &env, &*context.volumes.mounter)
            .map_err(std::io::Error::other)?;
        mounts.extend(files::mounts(pod, container, &pod_dir, *attempt)?);
        Ok(mounts)
    };
    blocking(work).await.map_err(|error| StartError::Config(error.to_string()))
}

async fn post_start(context: &Arc<Context>, order: &Order, id: String) -> Result<(), StartError> {
    let lifecycle = order.container.lifecycle.as_ref();
    let Some(handler) = lifecycle.and_then(|lifecycle| lifecycle.post_start.as_ref()) else { return Ok(()) };
    let pod_ip = order.pod_ips.first().copied();
    let run = hook::run(handler, &*context.runtime, &order.container, &id, pod_ip);
    let failure = tokio::select! {
        result = run => match result {
            Ok(()) => return Ok(()),
            Err(failure) => failure,
        },
        () = order.cancelled.cancelled() => return Err(StartError::Cancelled),
    };
    let name = &order.container.name;
    // What the hook said may be secret; upstream keeps it out of events, too.
    context.events.container(&order.pod, name, Severity::Warning, "FailedPostStartHook", "PostStartHook failed");
    context.events.container(&order.pod, name, Severity::Normal, "Killing", format!("FailedPostStartHook: {name}"));
    let grace_s = order.pod.pod_spec().termination_grace_period_seconds.unwrap_or(GRACE_AFTER_HOOK_S);
    let doomed = Kill { id, name: name.clone(), cause: KillCause::Stopping, grace_s, with_hook: false };
    if let Err(error) = kill(Arc::clone(context), Arc::clone(&order.pod), doomed, pod_ip).await {
        tracing::warn!(container = %name, error = %chain(&error), "cannot stop a container after its postStart hook failed");
    }
    Err(StartError::PostStart(failure))
}
