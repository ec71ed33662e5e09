//! The Node object that this machine should have. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use control_runtime::ImageRecord;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec, NodeStatus,
    NodeSystemInfo, Taint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::machine::{Machine, Usage};

/// The Kubernetes version whose kubelet this one behaves like.
pub(crate) const KUBELET_VERSION: &str = concat!("v1.36.1+tidegate.", env!("CARGO_PKG_VERSION"));
const RUNTIME_VERSION: &str = concat!("tidegate://", env!("CARGO_PKG_VERSION"));
/// Kept free of pods, and the border of memory pressure.
const MEMORY_RESERVE_BYTES: u64 = 100 << 20;
/// Shares of the disk, its inodes and the process numbers below which there is pressure.
const DISK_FREE_MIN_PERCENT: u64 = 10;
const INODES_FREE_MIN_PERCENT: u64 = 5;
const PROCESSES_FREE_MIN_PERCENT: u64 = 5;
/// More images make the object large for nothing.
const IMAGES_MAX: usize = 50;

/// What the node was told at start.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeSettings {
    pub name: String,
    pub ips: Vec<IpAddr>,
    pub port: u16,
    pub max_pods: u32,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
}

/// What was measured.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measured {
    pub machine: Machine,
    pub usage: Usage,
    pub images: Vec<ImageRecord>,
    /// Why pods cannot run, if they cannot.
    pub not_ready: Option<String>,
}

/// The object to create; an existing one gets its labels and its status.
pub(crate) fn node(settings: &NodeSettings, measured: &Measured, now: Timestamp) -> Node {
    Node {
        metadata: ObjectMeta {
            name: Some(settings.name.clone()),
            labels: Some(labels(settings, &measured.machine)),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: (!settings.taints.is_empty()).then(|| settings.taints.clone()),
            ..NodeSpec::default()
        }),
        status: Some(status(settings, measured, &NodeStatus::default(), now)),
    }
}

pub(crate) fn labels(settings: &NodeSettings, machine: &Machine) -> BTreeMap<String, String> {
    let own = [
        ("kubernetes.io/hostname", settings.name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", machine.architecture.as_str()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", machine.architecture.as_str()),
    ];
    let own = own.map(|(key, value)| (key.to_owned(), value.to_owned()));
    settings.labels.clone().into_iter().chain(own).collect()
}

/// The status as it should read; fields and conditions of others are carried over.
pub(crate) fn status(settings: &NodeSettings, measured: &Measured, old: &NodeStatus, now: Timestamp) -> NodeStatus {
    let (capacity, allocatable) = resources(settings, &measured.machine);
    let hostname = NodeAddress { type_: "Hostname".into(), address: settings.name.clone() };
    let ips = settings.ips.iter().map(|ip| NodeAddress { type_: "InternalIP".into(), address: ip.to_string() });
    NodeStatus {
        addresses: Some(ips.chain([hostname]).collect()),
        capacity: Some(capacity),
        allocatable: Some(allocatable),
        conditions: Some(conditions(measured, old.conditions.as_deref().unwrap_or_default(), now)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(settings.port) }),
        }),
        images: Some(images(&measured.images)),
        node_info: Some(info(&measured.machine)),
        ..old.clone()
    }
}

/// Whether two statuses differ in more than heartbeats.
pub(crate) fn differs(old: &NodeStatus, new: &NodeStatus) -> bool {
    let quiet = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        // Only the API's form of a time can be compared: it has whole seconds.
        serde_json::to_value(status).unwrap_or_default()
    };
    quiet(old) != quiet(new)
}

/// Allocatable CPU in thousandths and memory in bytes.
pub(crate) fn allocatable(machine: &Machine) -> (i64, i64) {
    let memory = machine.memory_bytes.saturating_sub(MEMORY_RESERVE_BYTES);
    (i64::try_from(machine.cpus * 1_000).unwrap_or(i64::MAX), i64::try_from(memory).unwrap_or(i64::MAX))
}

type Resources = BTreeMap<String, Quantity>;

fn resources(settings: &NodeSettings, machine: &Machine) -> (Resources, Resources) {
    let list = |memory: u64, disk: u64| -> Resources {
        let kib = |bytes: u64| format!("{}Ki", bytes / 1_024);
        let entries = [
            ("cpu", machine.cpus.to_string()),
            ("memory", kib(memory)),
            ("ephemeral-storage", kib(disk)),
            ("pods", settings.max_pods.to_string()),
        ];
        entries.map(|(name, value)| (name.to_owned(), Quantity(value))).into()
    };
    let free_disk = machine.disk_bytes / 100 * (100 - DISK_FREE_MIN_PERCENT);
    let memory = machine.memory_bytes.saturating_sub(MEMORY_RESERVE_BYTES);
    (list(machine.memory_bytes, machine.disk_bytes), list(memory, free_disk))
}

fn info(machine: &Machine) -> NodeSystemInfo {
    NodeSystemInfo {
        architecture: machine.architecture.clone(),
        boot_id: machine.boot_id.clone(),
        container_runtime_version: RUNTIME_VERSION.into(),
        kernel_version: machine.kernel_version.clone(),
        kubelet_version: KUBELET_VERSION.into(),
        machine_id: machine.machine_id.clone(),
        operating_system: "linux".into(),
        os_image: machine.os_image.clone(),
        system_uuid: machine.system_uuid.clone(),
        ..NodeSystemInfo::default()
    }
}

/// The largest first, each with its digest and its names.
fn images(records: &[ImageRecord]) -> Vec<ContainerImage> {
    let mut records: Vec<&ImageRecord> = records.iter().collect();
    records.sort_by(|a, b| (b.size_bytes, &a.id).cmp(&(a.size_bytes, &b.id)));
    let names =
        |record: &ImageRecord| record.repository_digests().into_iter().chain(record.references.clone()).collect();
    let image = |record: &ImageRecord| ContainerImage {
        names: Some(names(record)),
        size_bytes: i64::try_from(record.size_bytes).ok(),
    };
    records.into_iter().take(IMAGES_MAX).map(image).collect()
}

fn conditions(measured: &Measured, old: &[NodeCondition], now: Timestamp) -> Vec<NodeCondition> {
    let usage = &measured.usage;
    let low = |free: u64, all: u64, percent: u64| all > 0 && free < all / 100 * percent;
    let memory = usage.memory_available_bytes < MEMORY_RESERVE_BYTES;
    let disk = low(usage.disk_available_bytes, usage.disk_bytes, DISK_FREE_MIN_PERCENT)
        || low(usage.inodes_free, usage.inodes, INODES_FREE_MIN_PERCENT);
    let free_processes = usage.processes_max.saturating_sub(usage.processes);
    let processes = low(free_processes, usage.processes_max, PROCESSES_FREE_MIN_PERCENT);
    let pressure = |bad: bool, reasons: [&'static str; 2], messages: [&'static str; 2]| {
        let index = usize::from(bad);
        (bad, reasons[index], messages[index].to_owned())
    };
    let ready = match &measured.not_ready {
        None => (true, "KubeletReady", "kubelet is posting ready status".to_owned()),
        Some(why) => (false, "KubeletNotReady", why.clone()),
    };
    let own = [
        (
            "MemoryPressure",
            pressure(
                memory,
                ["KubeletHasSufficientMemory", "KubeletHasInsufficientMemory"],
                ["kubelet has sufficient memory available", "kubelet has insufficient memory available"],
            ),
        ),
        (
            "DiskPressure",
            pressure(
                disk,
                ["KubeletHasNoDiskPressure", "KubeletHasDiskPressure"],
                ["kubelet has no disk pressure", "kubelet has disk pressure"],
            ),
        ),
        (
            "PIDPressure",
            pressure(
                processes,
                ["KubeletHasSufficientPID", "KubeletHasInsufficientPID"],
                ["kubelet has sufficient PID available", "kubelet has insufficient PID available"],
            ),
        ),
        ("Ready", ready),
    ];
    let names = own.each_ref().map(|(name, _)| *name);
    let foreign = old.iter().filter(|condition| !names.contains(&condition.type_.as_str())).cloned();
    let mut list: Vec<NodeCondition> = foreign.collect();
    list.extend(own.map(|(name, (status, reason, message))| {
        let status = if status { "True" } else { "False" };
        let known = old.iter().find(|condition| condition.type_ == name && condition.status == status);
        NodeCondition {
            type_: name.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: known.and_then(|known| known.last_transition_time.clone()).or(Some(Time(now))),
        }
    }));
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured() -> Measured {
        Measured {
            machine: Machine {
                cpus: 2,
                memory_bytes: 8 << 30,
                disk_bytes: 100 << 30,
                architecture: "amd64".into(),
                ..Machine::default()
            },
            usage: Usage {
                memory_available_bytes: 4 << 30,
                disk_available_bytes: 50 << 30,
                disk_bytes: 100 << 30,
                inodes_free: 50,
                inodes: 100,
                processes: 100,
                processes_max: 32_768,
            },
            ..Measured::default()
        }
    }

    fn settings() -> NodeSettings {
        NodeSettings {
            name: "n1".into(),
            ips: vec!["192.168.77.2".parse().unwrap(), "fd00:77::2".parse().unwrap()],
            port: 10_250,
            max_pods: 110,
            labels: [("a".into(), "b".into())].into(),
            taints: vec![],
        }
    }

    fn verdicts(measured: &Measured) -> Vec<String> {
        let status = status(&settings(), measured, &NodeStatus::default(), Timestamp::UNIX_EPOCH);
        let conditions = status.conditions.unwrap();
        conditions.into_iter().filter(|condition| condition.status == "True").map(|condition| condition.type_).collect()
    }

    #[test]
    fn the_object_says_what_the_machine_is() {
        let node = node(&settings(), &measured(), Timestamp::UNIX_EPOCH);
        assert_eq!(node.metadata.labels.unwrap()["kubernetes.io/hostname"], "n1");
        let status = node.status.unwrap();
        let addresses: Vec<String> =
            status.addresses.unwrap().into_iter().map(|a| format!("{} {}", a.type_, a.address)).collect();
        assert_eq!(addresses, ["InternalIP 192.168.77.2", "InternalIP fd00:77::2", "Hostname n1"]);
        assert_eq!(status.capacity.unwrap()["memory"].0, "8388608Ki");
        assert_eq!(status.allocatable.unwrap()["memory"].0, "8286208Ki");
    }

    #[test]
    fn pressure_is_reported_when_little_is_left() {
        assert_eq!(verdicts(&measured()), ["Ready"]);
        let mut bad = measured();
        bad.usage.memory_available_bytes = 1 << 20;
        bad.usage.disk_available_bytes = 9 << 30;
        bad.usage.processes = 32_700;
        bad.not_ready = Some("container runtime network not ready".into());
        assert_eq!(verdicts(&bad), ["MemoryPressure", "DiskPressure", "PIDPressure"]);
    }

    #[test]
    fn heartbeats_alone_are_no_difference_and_transitions_keep_their_time() {
        let first = status(&settings(), &measured(), &NodeStatus::default(), Timestamp::UNIX_EPOCH);
        let later = Timestamp::from_second(100).unwrap();
        let second = status(&settings(), &measured(), &first, later);
        assert!(!differs(&first, &second));
        let mut bad = measured();
        bad.not_ready = Some("x".into());
        let third = status(&settings(), &bad, &second, later);
        assert!(differs(&second, &third));
        let ready = third.conditions.unwrap().into_iter().find(|condition| condition.type_ == "Ready").unwrap();
        assert_eq!(ready.last_transition_time, Some(Time(later)));
    }
}
