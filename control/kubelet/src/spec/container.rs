//! Sandbox and container specs for the runtime.

use std::collections::BTreeMap;
use std::path::PathBuf;

use control_runtime::{ContainerSpec, Mount, SandboxSpec};
use dataplane_user::cni::SOCKET_LB_ANNOTATION;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::env::expand;
use super::pod_ref::PodRef;
use super::{resources, security};

/// Label that holds [`definition_hash`]: a running container of another hash is replaced.
pub(crate) const HASH_LABEL: &str = "tidegate.io/definition-hash";

/// What has been prepared for one container.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub image: String,
    pub attempt: u32,
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    pub log_path: PathBuf,
    pub machine_memory: u64,
    /// Identifier of the container whose processes it is to see.
    pub processes_of: Option<String>,
}

pub(crate) fn sandbox(pod: &Pod, attempt: u32) -> SandboxSpec {
    let spec = pod.pod_spec();
    let sysctls = spec.security_context.as_ref().and_then(|context| context.sysctls.clone()).unwrap_or_default();
    SandboxSpec {
        pod_namespace: pod.namespace().into(),
        pod_name: pod.name().into(),
        pod_uid: pod.uid().into(),
        attempt,
        hostname: pod.host_name(),
        host_network: pod.host_network(),
        host_pid: spec.host_pid.unwrap_or(false),
        host_ipc: spec.host_ipc.unwrap_or(false),
        share_pid: spec.share_process_namespace.unwrap_or(false),
        sysctls: sysctls.into_iter().map(|sysctl| (sysctl.name, sysctl.value)).collect(),
        cgroup: resources::cgroup(pod),
        labels: labels(pod).into_iter().chain(socket_switch(pod)).collect(),
    }
}

/// The annotation that the pod network asks for, which knows the sandbox only.
fn socket_switch(pod: &Pod) -> Option<(String, String)> {
    let value = pod.metadata.annotations.as_ref()?.get(SOCKET_LB_ANNOTATION)?;
    Some((SOCKET_LB_ANNOTATION.to_owned(), value.clone()))
}

pub(crate) fn container(pod: &Pod, container: &Container, prepared: Prepared) -> ContainerSpec {
    let security = security::of(pod, container);
    let known: BTreeMap<&str, &str> =
        prepared.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expanded = |list: Option<&Vec<String>>| -> Vec<String> {
        list.into_iter().flatten().map(|text| expand(text, |name| known.get(name).copied())).collect()
    };
    let mut labels = labels(pod);
    labels.insert("io.kubernetes.container.name".into(), container.name.clone());
    labels.insert(HASH_LABEL.into(), definition_hash(container));
    ContainerSpec {
        name: container.name.clone(),
        attempt: prepared.attempt,
        image: prepared.image,
        command: expanded(container.command.as_ref()),
        args: expanded(container.args.as_ref()),
        working_dir: container.working_dir.clone().filter(|dir| !dir.is_empty()),
        mounts: prepared.mounts,
        user: security.user,
        group: security.group,
        supplemental_groups: security.supplemental_groups,
        privileged: security.privileged,
        read_only_root: security.read_only_root,
        no_new_privileges: security.no_new_privileges,
        run_as_non_root: security.run_as_non_root,
        seccomp_unconfined: security.seccomp_unconfined,
        add_capabilities: security.add_capabilities,
        drop_capabilities: security.drop_capabilities,
        resources: resources::cgroup_values(pod, container, prepared.machine_memory),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        log_path: prepared.log_path,
        stop_signal: container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.clone()),
        processes_of: prepared.processes_of,
        labels,
        env: prepared.env,
    }
}

/// Changes when a running container must be replaced: its name and image, nothing else.
pub(crate) fn definition_hash(container: &Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    format!("{:016x}", fnv1a(&[container.name.as_bytes(), b"\0", image.as_bytes()]))
}

fn labels(pod: &Pod) -> BTreeMap<String, String> {
    let own = pod.metadata.labels.clone().unwrap_or_default();
    let fixed = [
        ("io.kubernetes.pod.name", pod.name()),
        ("io.kubernetes.pod.namespace", pod.namespace()),
        ("io.kubernetes.pod.uid", pod.uid()),
    ];
    own.into_iter().chain(fixed.map(|(key, value)| (key.to_owned(), value.to_owned()))).collect()
}

/// 64-bit FNV-1a: stable between versions of the program, since labels outlive it.
fn fnv1a(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().copied().flatten();
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_are_expanded_with_the_environment() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [
            {"name": "c", "image": "i", "command": ["sh", "-c"], "args": ["echo $(A) $$(A)"]}]}}))
        .unwrap();
        let prepared = Prepared {
            image: "sha256:1".into(),
            attempt: 2,
            env: vec![("A".into(), "1".into())],
            mounts: vec![],
            log_path: "/logs/c/2.log".into(),
            machine_memory: 1 << 30,
            processes_of: None,
        };
        let spec = container(&pod, &pod.containers()[0], prepared);
        assert_eq!((spec.command, spec.args), (vec!["sh".into(), "-c".into()], vec!["echo 1 $(A)".to_owned()]));
        assert_eq!(spec.labels["io.kubernetes.pod.uid"], "u");
    }

    #[test]
    fn only_name_and_image_change_the_hash() {
        let of = |value| definition_hash(&serde_json::from_value(value).unwrap());
        let base = of(json!({"name": "c", "image": "a"}));
        assert_eq!(base, of(json!({"name": "c", "image": "a", "args": ["x"]})));
        assert_ne!(base, of(json!({"name": "c", "image": "b"})));
        assert_eq!(base, "f7260e190df73bd5", "labels of running containers hold this value");
    }
}
