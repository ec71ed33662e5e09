//! The pod's namespaces: made by the shim for itself, inherited by every container.

use std::fs;
use std::io;
use std::path::PathBuf;

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::sethostname;
use std::os::fd::AsRawFd;

use crate::sandbox::SandboxSpec;

/// A host name longer than this is cut, as the kernel takes no more.
const HOSTNAME_LENGTH_MAX: usize = 63;
/// What container runtimes allow in a pod's own network: any process may use low ports and send pings.
const DEFAULT_SYSCTLS: [(&str, &str); 2] =
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];
/// Settings that belong to an IPC namespace; all of `net.` belongs to a network namespace.
const IPC_SYSCTLS: [&str; 4] = ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."];

pub(super) fn enter(spec: &SandboxSpec) -> anyhow::Result<()> {
    let mut flags = CloneFlags::CLONE_NEWUTS;
    if !spec.host_network {
        flags |= CloneFlags::CLONE_NEWNET;
    }
    if !spec.host_ipc {
        flags |= CloneFlags::CLONE_NEWIPC;
    }
    unshare(flags).context("cannot make namespaces")?;
    // A host-network pod has the node's name; the new UTS namespace has inherited it.
    if !spec.host_network && !spec.hostname.is_empty() {
        let end = spec.hostname.floor_char_boundary(HOSTNAME_LENGTH_MAX);
        sethostname(&spec.hostname[..end]).context("cannot set the host name")?;
    }
    if !spec.host_network {
        raise_loopback().context("cannot bring up the loopback interface")?;
        for (name, value) in DEFAULT_SYSCTLS {
            // Absent on kernels built without the protocol.
            let _ = fs::write(sysctl_path(name), value);
        }
    }
    for (name, value) in &spec.sysctls {
        if !may_set(name, spec) {
            bail!("sysctl {name} does not belong to the pod alone");
        }
        fs::write(sysctl_path(name), value).with_context(|| format!("cannot set sysctl {name}={value}"))?;
    }
    Ok(())
}

/// A process that is PID 1 of a PID namespace shared by the pod's containers, and does nothing but reap.
#[derive(Debug, Clone, Copy)]
pub(super) struct PodInit {
    pub(super) pid: i32,
}

impl PodInit {
    pub(super) fn start() -> io::Result<Self> {
        let flags = CloneFlags::CLONE_NEWPID.bits() | libc::SIGCHLD;
        // SAFETY: without CLONE_VM and a stack this is fork(2); this process has one thread.
        match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
            -1 => Err(io::Error::last_os_error()),
            0 => reap_for_ever(),
            pid => Ok(Self { pid: pid as i32 }),
        }
    }

    pub(super) fn namespace(self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/pid", self.pid))
    }
}

fn reap_for_ever() -> ! {
    // SAFETY: nothing in this process uses the shim's files; pidns members must not reach them.
    unsafe { libc::close_range(0, libc::c_uint::MAX, 0) };
    let _ = nix::sys::prctl::set_name(c"pod-init");
    // The pod ends with its shim.
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    let _ = children.thread_block();
    loop {
        let _ = children.wait();
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                break;
            }
        }
    }
}

fn raise_loopback() -> nix::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: all bit patterns of `ifreq` are valid, and zeroed it is an empty name.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (target, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *target = *byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the request is a valid `ifreq` that lives through the call.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) }).map(drop)
}

fn may_set(name: &str, spec: &SandboxSpec) -> bool {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte));
    let is_net = name.starts_with("net.") && !spec.host_network;
    let is_ipc = IPC_SYSCTLS.iter().any(|prefix| name.starts_with(prefix)) && !spec.host_ipc;
    is_plain && !name.contains("..") && (is_net || is_ipc)
}

fn sysctl_path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name.replace('.', "/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> SandboxSpec {
        SandboxSpec {
            pod_namespace: String::new(),
            pod_name: String::new(),
            pod_uid: String::new(),
            attempt: 0,
            hostname: String::new(),
            host_network: false,
            host_pid: false,
            host_ipc: false,
            share_pid: false,
            sysctls: Default::default(),
            cgroup: String::new(),
            labels: Default::default(),
        }
    }

    #[test]
    fn a_pod_sets_only_what_is_its_own() {
        let pod = spec();
        assert!(may_set("net.core.somaxconn", &pod));
        assert!(may_set("kernel.shm_rmid_forced", &pod));
        assert!(!may_set("kernel.core_pattern", &pod));
        assert!(!may_set("vm.swappiness", &pod));
        assert!(!may_set("net.../kernel/core_pattern", &pod));
        assert!(!may_set("net.core.somaxconn", &SandboxSpec { host_network: true, ..pod.clone() }));
        assert!(!may_set("fs.mqueue.msg_max", &SandboxSpec { host_ipc: true, ..pod }));
        assert_eq!(sysctl_path("net.core.somaxconn"), PathBuf::from("/proc/sys/net/core/somaxconn"));
    }
}
