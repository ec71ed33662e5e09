//! Pod volumes: directories below the pod's own, filled from the API server, kept fresh, and given back.
//!
//! `payload` says what files a volume holds (pure), `atomic` puts them there, `tokens` asks for service-account tokens,
//! `mount` is the kernel's part, `mounts` what a container sees of its pod's volumes.

mod atomic;
mod host_path;
pub(crate) mod mount;
pub(crate) mod mounts;
mod payload;
mod tokens;
mod usage;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, Volume, VolumeProjection};

use crate::cluster::{Cluster, ClusterError};
use crate::spec::fields::{FieldError, PodFacts};
use crate::spec::pod_ref::PodRef;
use crate::spec::quantity;
use crate::spec::security::fs_group;
use mount::Mounter;
use payload::{Payload, Projection};
use tokens::Tokens;

/// Changed ConfigMaps and Secrets arrive in pods within this time.
const REFRESH: SignedDuration = SignedDuration::from_secs(60);
/// How often what a limited volume holds is added up.
const USAGE_CHECK: SignedDuration = SignedDuration::from_secs(10);
const MODE_DEFAULT: i32 = 0o644;

#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {source}")]
    SetUp {
        volume: String,
        #[source]
        source: SetUpError,
    },
    /// A volume holds more than it may: the pod has to go.
    #[error("{0}")]
    Exceeded(String),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SetUpError {
    #[error("{kind} \"{name}\" not found")]
    Missing { kind: &'static str, name: String },
    #[error("references non-existent {kind} key: {key}")]
    Key { kind: &'static str, key: String },
    #[error("path {0:?} leaves the volume")]
    Path(String),
    #[error("volume source is not supported by this node")]
    Unsupported,
    #[error("holds more than {limit}")]
    Exceeded { limit: String },
    #[error("hostPath type check failed: {path} is not a {wanted}")]
    HostPath { path: String, wanted: &'static str },
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

impl SetUpError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// The volumes of all pods of this node.
pub(crate) struct Volumes {
    pub cluster: Arc<dyn Cluster>,
    pub mounter: Arc<dyn Mounter>,
    tokens: Tokens,
    pods_dir: PathBuf,
}

impl Volumes {
    pub(crate) fn new(cluster: Arc<dyn Cluster>, mounter: Arc<dyn Mounter>, pods_dir: PathBuf) -> Self {
        Self { tokens: Tokens::new(Arc::clone(&cluster)), cluster, mounter, pods_dir }
    }

    /// Makes or refreshes every volume of the pod; says when to do it again.
    pub(crate) async fn set_up(&self, pod: &Pod, facts: &PodFacts, now: Timestamp) -> Result<Timestamp, VolumeError> {
        let mut again = now.saturating_add(REFRESH).unwrap_or(Timestamp::MAX);
        for volume in pod.pod_spec().volumes.iter().flatten() {
            let refreshed = self.set_up_one(pod, facts, volume, now).await;
            let next = refreshed.map_err(|source| match source {
                SetUpError::Exceeded { limit } => VolumeError::Exceeded(format!(
                    "Usage of EmptyDir volume {:?} exceeds the limit {limit:?}.",
                    volume.name
                )),
                source => VolumeError::SetUp { volume: volume.name.clone(), source },
            })?;
            again = next.map_or(again, |next| next.min(again));
        }
        Ok(again)
    }

    /// Whether the pod has volumes whose content can change.
    pub(crate) fn is_refreshable(pod: &Pod) -> bool {
        let is_watched = |volume: &Volume| match &volume.empty_dir {
            Some(source) => disk_limit(source).is_some(),
            None => kind(volume).is_some(),
        };
        pod.pod_spec().volumes.iter().flatten().any(is_watched)
    }

    /// Unmounts and removes everything below the pod's directory.
    pub(crate) async fn tear_down(&self, uid: &str) -> io::Result<()> {
        self.tokens.forget(uid);
        let (mounter, directory) = (Arc::clone(&self.mounter), self.pod_dir(uid));
        blocking(move || {
            mounter.unmount_below(&directory)?;
            match fs::remove_dir_all(&directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        })
        .await
    }

    /// Uids of all pods that have a directory.
    pub(crate) fn uids(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(&self.pods_dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.pods_dir.join(uid)
    }

    async fn set_up_one(
        &self,
        pod: &Pod,
        facts: &PodFacts,
        volume: &Volume,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, SetUpError> {
        if let Some(host_path) = &volume.host_path {
            host_path::check(&host_path.path, host_path.type_.as_deref().unwrap_or_default())?;
            return Ok(None);
        }
        let directory = path(&self.pod_dir(pod.uid()), volume).ok_or(SetUpError::Unsupported)?;
        let group = fs_group(pod.pod_spec().security_context.as_ref()).and_then(|group| u32::try_from(group).ok());
        let mounter = Arc::clone(&self.mounter);
        if let Some(source) = volume.empty_dir.clone() {
            let place = directory.clone();
            let limit = disk_limit(&source);
            let work = move || {
                empty_dir(&*mounter, &place, &source, group)?;
                limit.map(|_| usage::bytes(&place)).transpose()
            };
            let used = blocking(work).await.map_err(SetUpError::io(&directory))?;
            let Some((limit, used)) = limit.zip(used) else { return Ok(None) };
            if used > limit {
                let source = volume.empty_dir.as_ref().and_then(|source| source.size_limit.clone());
                return Err(SetUpError::Exceeded { limit: source.unwrap_or_default().0 });
            }
            return Ok(now.saturating_add(USAGE_CHECK).ok());
        }
        let (payload, renewal) = self.payload(pod, facts, volume, now).await?;
        let in_memory = volume.config_map.is_none();
        let place = directory.clone();
        blocking(move || {
            make_dir(&place)?;
            if in_memory && !mounter.is_mount(&place) {
                mounter.tmpfs(&place, None)?;
            }
            atomic::write(&place, &payload, group)
        })
        .await
        .map_err(SetUpError::io(&directory))?;
        Ok(renewal)
    }

    async fn payload(
        &self,
        pod: &Pod,
        facts: &PodFacts,
        volume: &Volume,
        now: Timestamp,
    ) -> Result<(Payload, Option<Timestamp>), SetUpError> {
        if let Some(source) = &volume.projected {
            return self
                .projected(pod, facts, source.sources.as_deref().unwrap_or_default(), source.default_mode, now)
                .await;
        }
        let payload = if let Some(source) = &volume.config_map {
            let projection = Projection::new(source.items.as_deref(), source.default_mode, source.optional);
            let object = self.cluster.config_map(pod.namespace(), &source.name).await?;
            projection.config_map(&source.name, object.as_ref())?
        } else if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap_or_default();
            let projection = Projection::new(source.items.as_deref(), source.default_mode, source.optional);
            let object = self.cluster.secret(pod.namespace(), name).await?;
            projection.secret(name, object.as_ref())?
        } else if let Some(source) = &volume.downward_api {
            payload::downward(pod, facts, source.items.as_deref().unwrap_or_default(), source.default_mode)?
        } else {
            return Err(SetUpError::Unsupported);
        };
        Ok((payload, None))
    }

    async fn projected(
        &self,
        pod: &Pod,
        facts: &PodFacts,
        sources: &[VolumeProjection],
        default_mode: Option<i32>,
        now: Timestamp,
    ) -> Result<(Payload, Option<Timestamp>), SetUpError> {
        let (mut all, mut renewal) = (Payload::default(), None::<Timestamp>);
        for source in sources {
            let part = if let Some(source) = &source.config_map {
                let projection = Projection::new(source.items.as_deref(), default_mode, source.optional);
                let object = self.cluster.config_map(pod.namespace(), &source.name).await?;
                projection.config_map(&source.name, object.as_ref())?
            } else if let Some(source) = &source.secret {
                let projection = Projection::new(source.items.as_deref(), default_mode, source.optional);
                let object = self.cluster.secret(pod.namespace(), &source.name).await?;
                projection.secret(&source.name, object.as_ref())?
            } else if let Some(source) = &source.downward_api {
                payload::downward(pod, facts, source.items.as_deref().unwrap_or_default(), default_mode)?
            } else if let Some(source) = &source.service_account_token {
                let token = self.tokens.get(pod, source, now).await?;
                renewal = Some(renewal.map_or(token.renew_at, |renewal| renewal.min(token.renew_at)));
                payload::single(&source.path, token.token.into_bytes(), default_mode.unwrap_or(MODE_DEFAULT))?
            } else {
                return Err(SetUpError::Unsupported);
            };
            all.extend(part);
        }
        Ok((all, renewal))
    }
}

/// Where a volume's files are; a hostPath's are where it says.
pub(crate) fn path(pod_dir: &Path, volume: &Volume) -> Option<PathBuf> {
    if let Some(host_path) = &volume.host_path {
        return Some(PathBuf::from(&host_path.path));
    }
    Some(pod_dir.join("volumes").join(format!("kubernetes.io~{}", kind(volume)?)).join(&volume.name))
}

/// Containers may only read volumes whose files this node writes.
pub(crate) fn is_read_only(volume: &Volume) -> bool {
    kind(volume).is_some_and(|kind| kind != "empty-dir")
}

fn kind(volume: &Volume) -> Option<&'static str> {
    Some(if volume.empty_dir.is_some() {
        "empty-dir"
    } else if volume.config_map.is_some() {
        "configmap"
    } else if volume.secret.is_some() {
        "secret"
    } else if volume.projected.is_some() {
        "projected"
    } else if volume.downward_api.is_some() {
        "downward-api"
    } else {
        return None;
    })
}

/// A scratch directory that anyone in the pod may use; made once, so that a restart keeps its content.
fn empty_dir(mounter: &dyn Mounter, path: &Path, source: &EmptyDirVolumeSource, group: Option<u32>) -> io::Result<()> {
    let fresh = !path.exists();
    make_dir(path)?;
    if source.medium.as_deref() == Some("Memory") && !mounter.is_mount(path) {
        let size = source.size_limit.as_ref().and_then(quantity::units).and_then(|size| u64::try_from(size).ok());
        mounter.tmpfs(path, size.filter(|size| *size > 0))?;
    }
    if fresh {
        let mode = if group.is_some() { 0o2777 } else { 0o777 };
        chown(path, None, group)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Directories above the volume are for the node only, the volume itself for everyone who has it mounted.
/// The limit of a volume on disk; one in memory is limited by its file system.
fn disk_limit(source: &EmptyDirVolumeSource) -> Option<u64> {
    let limit = source.size_limit.as_ref().filter(|_| source.medium.as_deref() != Some("Memory"))?;
    quantity::units(limit).and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit > 0)
}

fn make_dir(path: &Path) -> io::Result<()> {
    if !path.exists() {
        fs::create_dir_all(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Runs file work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
