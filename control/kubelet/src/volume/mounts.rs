//! What a container sees of its pod's volumes; sub-paths are resolved so that no symbolic link leads outside.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use control_runtime::Mount;
use k8s_openapi::api::core::v1::{Container, Pod, Volume, VolumeMount};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, mkdirat};

use super::mount::Mounter;
use super::{is_read_only, path};
use crate::spec::env::expand;
use crate::spec::pod_ref::PodRef;

/// More than any environment holds.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum MountError {
    #[error("volume {0:?} is not one of the pod's")]
    Unknown(String),
    #[error("subPath {path:?} of volume {volume:?} cannot be used: {source}")]
    SubPath {
        volume: String,
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("subPathExpr {0:?} names an unset variable")]
    Expression(String),
}

/// The volume mounts of one container, sub-paths bound to places of their own below `pod_dir`.
pub(crate) fn of_container(
    pod: &Pod,
    container: &Container,
    pod_dir: &Path,
    env: &[(String, String)],
    mounter: &dyn Mounter,
) -> Result<Vec<Mount>, MountError> {
    let mut mounts = Vec::new();
    for (index, wanted) in container.volume_mounts.iter().flatten().enumerate() {
        let volume = pod.pod_spec().volumes.iter().flatten().find(|volume| volume.name == wanted.name);
        let unknown = || MountError::Unknown(wanted.name.clone());
        let volume = volume.ok_or_else(unknown)?;
        let root = path(pod_dir, volume).ok_or_else(unknown)?;
        let source = match sub_path(wanted, env)? {
            None => root,
            Some(sub) => {
                let place =
                    pod_dir.join("volume-subpaths").join(&wanted.name).join(&container.name).join(index.to_string());
                bind_sub_path(&root, &sub, &place, volume, mounter).map_err(|source| MountError::SubPath {
                    volume: wanted.name.clone(),
                    path: sub,
                    source,
                })?;
                place
            }
        };
        let read_only = wanted.read_only.unwrap_or(false) || is_read_only(volume);
        mounts.push(Mount { source, target: wanted.mount_path.clone(), read_only });
    }
    Ok(mounts)
}

fn sub_path(mount: &VolumeMount, env: &[(String, String)]) -> Result<Option<String>, MountError> {
    if let Some(expression) = mount.sub_path_expr.as_deref().filter(|text| !text.is_empty()) {
        let find = |name: &str| env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let text = expand(expression, find);
        // An unset variable stays as `$(NAME)`; a directory of that name is never what is meant.
        if text.contains("$(") {
            return Err(MountError::Expression(expression.into()));
        }
        return Ok(Some(text));
    }
    Ok(mount.sub_path.clone().filter(|text| !text.is_empty()))
}

fn bind_sub_path(root: &Path, sub: &str, place: &Path, volume: &Volume, mounter: &dyn Mounter) -> io::Result<()> {
    let root = nix::fcntl::open(root, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let source = match open_beneath(&root, Path::new(sub)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_read_only(volume) => {
            make_beneath(&root, Path::new(sub))?;
            open_beneath(&root, Path::new(sub))?
        }
        result => result?,
    };
    if mounter.is_mount(place) {
        mounter.unmount_below(place)?;
    }
    let is_dir = nix::sys::stat::fstat(&source)?.st_mode & nix::libc::S_IFMT == nix::libc::S_IFDIR;
    if is_dir {
        fs::create_dir_all(place)?;
    } else {
        fs::create_dir_all(place.parent().unwrap_or(place))?;
        fs::OpenOptions::new().write(true).create(true).truncate(false).open(place)?;
    }
    mounter.bind(source.as_fd(), place)
}

/// The text of a file in a volume; no link leads out of it.
pub(crate) fn read_beneath(root: &Path, path: &str) -> io::Result<String> {
    let root = nix::fcntl::open(root, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let how = OpenHow::new()
        // A FIFO in its place must not block.
        .flags(OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = fs::File::from(openat2(root.as_fd(), path, how)?);
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn open_beneath(root: &OwnedFd, sub: &Path) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(openat2(root.as_fd(), sub, how)?)
}

/// Makes missing directories one by one, each opened beneath the root before the next; they are as open as the volume.
fn make_beneath(root: &OwnedFd, sub: &Path) -> io::Result<()> {
    let mode = Mode::from_bits_truncate(nix::sys::stat::fstat(root)?.st_mode & 0o7777);
    let mut built = PathBuf::new();
    for component in sub.components() {
        let parent = if built.as_os_str().is_empty() {
            open_beneath(root, Path::new("."))?
        } else {
            open_beneath(root, &built)?
        };
        match mkdirat(parent.as_fd(), Path::new(component.as_os_str()), Mode::from_bits_truncate(0o700)) {
            // The process's umask does not count.
            Ok(()) => fchmodat(parent.as_fd(), Path::new(component.as_os_str()), mode, FchmodatFlags::FollowSymlink)?,
            Err(nix::errno::Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        built.push(component);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use serde_json::json;

    use super::super::mount::KernelMounter;
    use super::*;

    /// Checks paths but mounts nothing.
    struct NoMounter;

    impl Mounter for NoMounter {
        fn tmpfs(&self, _: &Path, _: Option<u64>) -> io::Result<()> {
            Ok(())
        }
        fn bind(&self, _: std::os::fd::BorrowedFd<'_>, _: &Path) -> io::Result<()> {
            Ok(())
        }
        fn is_mount(&self, path: &Path) -> bool {
            KernelMounter.is_mount(path)
        }
        fn unmount_below(&self, _: &Path) -> io::Result<()> {
            Ok(())
        }
    }

    fn pod(mount: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": {
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "cm", "configMap": {"name": "m"}}],
            "containers": [{"name": "c", "volumeMounts": [mount]}]}}))
        .unwrap()
    }

    fn run(directory: &Path, mount: serde_json::Value) -> Result<Vec<Mount>, MountError> {
        let pod = pod(mount);
        let env = [("NAME".to_owned(), "web".to_owned())];
        of_container(&pod, &pod.containers()[0], directory, &env, &NoMounter)
    }

    #[test]
    fn whole_volumes_are_mounted_from_their_place() {
        let mounts = run(Path::new("/pods/u"), json!({"name": "cm", "mountPath": "/etc/app"})).unwrap();
        assert_eq!(mounts[0].source, Path::new("/pods/u/volumes/kubernetes.io~configmap/cm"));
        assert!(mounts[0].read_only, "the node writes it, containers do not");
        let mounts = run(Path::new("/pods/u"), json!({"name": "v", "mountPath": "/tmp"})).unwrap();
        assert!(!mounts[0].read_only);
    }

    #[test]
    fn sub_paths_are_made_and_stay_inside() {
        let directory = tempfile::tempdir().unwrap();
        let volume = directory.path().join("volumes/kubernetes.io~empty-dir/v");
        fs::create_dir_all(&volume).unwrap();
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o777)).unwrap();
        let mounts =
            run(directory.path(), json!({"name": "v", "mountPath": "/x", "subPathExpr": "a/$(NAME)"})).unwrap();
        assert_eq!(mounts[0].source, directory.path().join("volume-subpaths/v/c/0"));
        let made = fs::metadata(volume.join("a/web")).unwrap();
        assert_eq!(made.permissions(), fs::metadata(&volume).unwrap().permissions());

        symlink("/etc", volume.join("out")).unwrap();
        symlink("a", volume.join("in")).unwrap();
        for (sub, good) in [("out", false), ("out/passwd", false), ("../x", false), ("in/web", true)] {
            let result = run(directory.path(), json!({"name": "v", "mountPath": "/x", "subPath": sub}));
            assert_eq!(result.is_ok(), good, "{sub}: {result:?}");
        }
        assert!(run(directory.path(), json!({"name": "v", "mountPath": "/x", "subPathExpr": "$(NO)"})).is_err());
    }
}
