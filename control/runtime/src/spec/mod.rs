//! The OCI spec of a container: what the pod asks for on top of what the image says on top of the usual defaults.
//!
//! Built as the JSON that it is; libcontainer parses it with its own types. The pod's network, IPC and UTS namespaces do
//! not appear: the shim lives in them and its children are born there.

pub(crate) mod capability;

use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};
use serde_json::{Value, json};

use crate::container::{ContainerSpec, Resources};
use crate::protocol::ImageRoot;
use crate::user::Credentials;
use capability::Capabilities;

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Kernel interfaces that a container must not see.
const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Kernel interfaces that it may read.
const READ_ONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Everything that a container's OCI spec depends on.
#[derive(Debug)]
pub(crate) struct Input<'a> {
    pub(crate) container: &'a ContainerSpec,
    pub(crate) image: &'a ImageRoot,
    pub(crate) hostname: &'a str,
    pub(crate) credentials: &'a Credentials,
    pub(crate) available: Capabilities,
    pub(crate) rootfs: &'a Path,
    pub(crate) cgroup: &'a str,
    /// v1 controllers: mount point and the container's directory in each; empty on a pure v2 machine.
    pub(crate) legacy_cgroups: &'a [(PathBuf, PathBuf)],
    /// Whether swap can be limited.
    pub(crate) swap_accounting: bool,
    /// What is mounted on `/dev/shm`.
    pub(crate) shm: &'a Path,
    pub(crate) pid_namespace: PidNamespace,
    /// The node's devices, for privileged containers.
    pub(crate) devices: &'a [Device],
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PidNamespace {
    Own,
    Shared(PathBuf),
    Host,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    path: PathBuf,
    kind: &'static str,
    major: u64,
    minor: u64,
    mode: u32,
    uid: u32,
    gid: u32,
}

/// A container's spec, with what the process that becomes it must know itself.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    pub(crate) config: Value,
    pub(crate) confinement: Confinement,
}

/// What is applied to a process as the last thing before it executes its program; see `shim::executor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Confinement {
    pub(crate) seccomp: bool,
    pub(crate) capabilities: Capabilities,
}

pub(crate) fn build(input: &Input<'_>) -> Result<Built, String> {
    let container = input.container;
    let args = arguments(container, input.image)?;
    let capabilities = if container.privileged {
        input.available
    } else {
        Capabilities::for_container(&container.add_capabilities, &container.drop_capabilities, input.available)?
    };
    let confinement = Confinement { seccomp: !container.privileged && !container.seccomp_unconfined, capabilities };
    let mut linux = json!({
        "namespaces": namespaces(input),
        "cgroupsPath": input.cgroup,
        "resources": resources(&container.resources, container.privileged, input.swap_accounting),
        "rootfsPropagation": "private",
    });
    if container.privileged {
        linux["devices"] = input.devices.iter().map(device).collect();
    } else {
        linux["maskedPaths"] = json!(MASKED_PATHS);
        let cgroups = (!input.legacy_cgroups.is_empty()).then_some("/sys/fs/cgroup");
        linux["readonlyPaths"] = READ_ONLY_PATHS.into_iter().chain(cgroups).collect();
    }
    let config = json!({
        "ociVersion": "1.0.2",
        "process": process(input, &args, confinement),
        "root": { "path": input.rootfs, "readonly": container.read_only_root },
        "mounts": mounts(input),
        "linux": linux,
    });
    Ok(Built { config, confinement })
}

/// The process of an exec: like the container's own, with other arguments and with or without a terminal.
pub(crate) fn exec_process(config: &Value, args: &[String], terminal: bool) -> Value {
    let mut process = config["process"].clone();
    process["args"] = json!(args);
    process["terminal"] = json!(terminal);
    if let (true, Some(env)) = (terminal, process["env"].as_array_mut()) {
        let is_set = env.iter().filter_map(Value::as_str).any(|variable| variable.starts_with("TERM="));
        if !is_set {
            env.push(json!("TERM=xterm"));
        }
    }
    process
}

fn arguments(container: &ContainerSpec, image: &ImageRoot) -> Result<Vec<String>, String> {
    // The image's arguments belong to the image's entry point.
    let (entrypoint, args) = match (container.command.is_empty(), container.args.is_empty()) {
        (true, true) => (&image.entrypoint, &image.cmd),
        (true, false) => (&image.entrypoint, &container.args),
        (false, _) => (&container.command, &container.args),
    };
    let all: Vec<String> = entrypoint.iter().chain(args).cloned().collect();
    match all.first() {
        Some(program) if !program.is_empty() => Ok(all),
        _ => Err("no command specified".to_owned()),
    }
}

fn process(input: &Input<'_>, args: &[String], confinement: Confinement) -> Value {
    let container = input.container;
    let capabilities = confinement.capabilities.names();
    // Installing a seccomp filter needs CAP_SYS_ADMIN or no_new_privs. The bounding set already lacks what the container
    // must not have; `shim::executor` gives the rest back before it executes the program.
    let until_exec = if confinement.seccomp && !container.no_new_privileges {
        confinement.capabilities.union(Capabilities::SYS_ADMIN).names()
    } else {
        capabilities.clone()
    };
    let cwd = container.working_dir.as_ref().filter(|dir| !dir.is_empty()).or(input.image.working_dir.as_ref());
    json!({
        "terminal": container.tty,
        "user": {
            "uid": input.credentials.uid,
            "gid": input.credentials.gid,
            "additionalGids": input.credentials.groups,
        },
        "args": args,
        "env": environment(input),
        "cwd": cwd.map_or("/", String::as_str),
        "capabilities": { "bounding": capabilities, "effective": until_exec, "permitted": until_exec },
        "noNewPrivileges": container.no_new_privileges,
    })
}

/// Defaults, then the image's, then the pod's variables; a later one of the same name wins.
fn environment(input: &Input<'_>) -> Vec<String> {
    let mut variables: Vec<String> = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={}", input.hostname)];
    if input.container.tty {
        variables.push("TERM=xterm".to_owned());
    }
    let own = input.container.env.iter().map(|(name, value)| format!("{name}={value}"));
    for variable in input.image.env.iter().cloned().chain(own) {
        let name_end = variable.find('=').map_or(variable.len(), |at| at + 1);
        variables.retain(|known| !known.starts_with(&variable[..name_end]));
        variables.push(variable);
    }
    variables
}

fn namespaces(input: &Input<'_>) -> Value {
    let mut namespaces = vec![json!({ "type": "mount" })];
    match &input.pid_namespace {
        PidNamespace::Own => namespaces.push(json!({ "type": "pid" })),
        PidNamespace::Shared(path) => namespaces.push(json!({ "type": "pid", "path": path })),
        PidNamespace::Host => {}
    }
    if input.legacy_cgroups.is_empty() {
        namespaces.push(json!({ "type": "cgroup" }));
    }
    namespaces.into()
}

fn mounts(input: &Input<'_>) -> Value {
    let own: BTreeSet<PathBuf> = input.container.mounts.iter().map(|mount| normal(&mount.target)).collect();
    let sys = if input.container.privileged { "rw" } else { "ro" };
    let kernel_fs = ["nosuid", "noexec", "nodev"];
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &kernel_fs),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/dev/mqueue", "mqueue", "mqueue", &kernel_fs),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", sys]),
        bind("/dev/shm", input.shm, &["nosuid", "noexec", "nodev"]),
    ];
    if input.legacy_cgroups.is_empty() {
        mounts.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", sys]));
    } else {
        // libcontainer's own v1 view is writable for root, and with it the container's limits.
        mounts.push(mount("/sys/fs/cgroup", "tmpfs", "tmpfs", &["nosuid", "noexec", "nodev", "mode=755", "size=64k"]));
        for (controller, group) in input.legacy_cgroups {
            let target = controller.to_string_lossy();
            mounts.push(bind(&target, group, &["nosuid", "noexec", "nodev", sys]));
        }
    }
    mounts.retain(|mount| !own.iter().any(|target| mount["destination"].as_str() == target.to_str()));
    // A mount hides what was mounted below it before, so outer ones come first.
    let mut pods: Vec<_> = input.container.mounts.iter().collect();
    pods.sort_by_key(|mount| normal(&mount.target).components().count());
    for pod in pods {
        let access = if pod.read_only { "ro" } else { "rw" };
        mounts.push(bind(&normal(&pod.target).to_string_lossy(), &pod.source, &[access]));
    }
    mounts.into()
}

fn mount(target: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": target, "type": kind, "source": source, "options": options })
}

fn bind(target: &str, source: &Path, options: &[&str]) -> Value {
    let options: Vec<&str> = ["rbind", "rprivate"].iter().chain(options).copied().collect();
    json!({ "destination": target, "type": "bind", "source": source, "options": options })
}

/// An absolute target without empty and `.` components.
fn normal(target: &str) -> PathBuf {
    Path::new("/").join(target).components().collect()
}

fn resources(resources: &Resources, privileged: bool, swap_accounting: bool) -> Value {
    let mut value = json!({ "devices": [{ "allow": privileged, "access": "rwm" }] });
    let mut cpu = serde_json::Map::new();
    let mut put = |name: &str, number: Option<i64>| {
        if let Some(number) = number.filter(|number| *number > 0) {
            cpu.insert(name.to_owned(), number.into());
        }
    };
    put("shares", resources.cpu_shares.and_then(|shares| shares.try_into().ok()));
    put("quota", resources.cpu_quota_us);
    put("period", resources.cpu_period_us.and_then(|period| period.try_into().ok()));
    if !cpu.is_empty() {
        value["cpu"] = cpu.into();
    }
    if let Some(limit) = resources.memory_limit_bytes.filter(|limit| *limit > 0) {
        value["memory"] = json!({ "limit": limit });
        if swap_accounting {
            // As much memory and swap as memory: no swap, as Kubernetes means it.
            value["memory"]["swap"] = json!(limit);
        }
    }
    if let Some(limit) = resources.pids_limit.filter(|limit| *limit > 0) {
        value["pids"] = json!({ "limit": limit });
    }
    value
}

fn device(device: &Device) -> Value {
    json!({
        "path": device.path,
        "type": device.kind,
        "major": device.major,
        "minor": device.minor,
        "fileMode": device.mode,
        "uid": device.uid,
        "gid": device.gid,
    })
}

/// The devices of this machine, as a privileged container sees them.
pub(crate) fn host_devices() -> Vec<Device> {
    let mut devices = Vec::new();
    collect_devices(Path::new("/dev"), &mut devices);
    devices
}

fn collect_devices(dir: &Path, devices: &mut Vec<Device>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(metadata) = path.symlink_metadata() else { continue };
        let file_type = metadata.file_type();
        if file_type.is_dir() {
            // File systems of their own in every container.
            if !["pts", "shm", "mqueue", "fd"].iter().any(|own| path.ends_with(own)) {
                collect_devices(&path, devices);
            }
            continue;
        }
        let kind = match (file_type.is_char_device(), file_type.is_block_device()) {
            (true, _) => "c",
            (_, true) => "b",
            _ => continue,
        };
        // These two are made by the terminal set-up.
        if path.ends_with("console") || path.ends_with("ptmx") {
            continue;
        }
        let (mode, uid, gid) = (metadata.mode() & 0o777, metadata.uid(), metadata.gid());
        devices.push(Device {
            kind,
            major: major(metadata.rdev()),
            minor: minor(metadata.rdev()),
            mode,
            uid,
            gid,
            path,
        });
    }
}

#[cfg(test)]
mod tests;
