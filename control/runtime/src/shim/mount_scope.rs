//! Mount namespaces that are not left behind.
//!
//! A container's root is mounted in a mount namespace made for the moment of its birth: a private copy of the runtime's
//! own, so that every volume prepared until then is there. The container takes its copy along, the shim returns to where
//! it came from, and the scope is gone: no mount of a container exists anywhere but in that container.
//!
//! The pod's `/dev/shm` must outlive its containers, so it is the root of a mount namespace of its own, to which the shim
//! holds a descriptor.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use anyhow::Context;
use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{chdir, pivot_root};

/// As much as container runtimes give a pod for POSIX shared memory.
const SHM_OPTIONS: &str = "mode=1777,size=65536k";

/// The mount namespace in which the shim lives.
#[derive(Debug)]
pub(super) struct Home(File);

impl Home {
    pub(super) fn here() -> io::Result<Self> {
        File::open("/proc/self/ns/mnt").map(Self)
    }

    /// Goes to a fresh private copy of a process's mount namespace until the scope is dropped.
    pub(super) fn scope(&self, process: i32) -> anyhow::Result<MountScope<'_>> {
        let path = format!("/proc/{process}/ns/mnt");
        let theirs = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        let scope = MountScope { home: self };
        setns(theirs.as_fd(), CloneFlags::CLONE_NEWNS).context("cannot join the runtime's mount namespace")?;
        make_private_copy().context("cannot make a mount namespace")?;
        Ok(scope)
    }
}

/// While it lives, mounts made by the shim are seen by its children and by nobody else.
#[derive(Debug)]
pub(super) struct MountScope<'a> {
    home: &'a Home,
}

impl Drop for MountScope<'_> {
    fn drop(&mut self) {
        if let Err(error) = setns(self.home.0.as_fd(), CloneFlags::CLONE_NEWNS) {
            // Wherever it is, the shim still holds every file it needs; only new paths could be missing.
            tracing::error!(%error, "cannot return to the shim's mount namespace");
        }
    }
}

/// The pod's shared memory.
#[derive(Debug)]
pub(super) enum Shm {
    /// A file system of its own, the root of this mount namespace.
    Own(File),
    /// The node's, for pods in its IPC namespace.
    Host,
}

impl Shm {
    pub(super) fn new(host_ipc: bool, home: &Home, mount_point: &Path) -> anyhow::Result<Self> {
        if host_ipc {
            return Ok(Self::Host);
        }
        fs::create_dir_all(mount_point).with_context(|| format!("cannot create {}", mount_point.display()))?;
        let scope = MountScope { home };
        make_private_copy().context("cannot make a mount namespace")?;
        // Opened before /proc disappears from sight; it stands for the namespace, not for the path.
        let namespace = File::open("/proc/self/ns/mnt").context("cannot open the mount namespace")?;
        shm_as_root(mount_point).context("cannot make the pod's shared memory")?;
        drop(scope);
        Ok(Self::Own(namespace))
    }

    /// A copy of the mount that can be attached anywhere; `None` for the node's own.
    pub(super) fn detached(&self, home: &Home) -> anyhow::Result<Option<OwnedFd>> {
        let Self::Own(namespace) = self else { return Ok(None) };
        let scope = MountScope { home };
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNS).context("cannot enter the shared memory's namespace")?;
        let tree = open_tree(c"/").context("cannot copy the shared memory's mount")?;
        drop(scope);
        Ok(Some(tree))
    }
}

/// Attaches a detached mount.
pub(super) fn attach(tree: &OwnedFd, target: &Path) -> anyhow::Result<()> {
    let target = std::ffi::CString::new(target.as_os_str().as_encoded_bytes())?;
    // SAFETY: the strings end with NUL and live through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    Errno::result(result).context("cannot attach the shared memory")?;
    Ok(())
}

fn make_private_copy() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
}

fn shm_as_root(mount_point: &Path) -> nix::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("shm"), mount_point, Some("tmpfs"), flags, Some(SHM_OPTIONS))?;
    chdir(mount_point)?;
    // The old root ends up on top of the new one, and goes: nothing else stays pinned by this namespace.
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)
}

fn open_tree(path: &std::ffi::CStr) -> nix::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: the string ends with NUL and lives through the call.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    // SAFETY: the kernel has just handed out this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
