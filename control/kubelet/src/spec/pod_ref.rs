//! Short names for the parts of a Pod that everything here asks for.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};

/// Accessors that do without the options of the generated types.
pub(crate) trait PodRef {
    fn uid(&self) -> &str;
    fn name(&self) -> &str;
    fn namespace(&self) -> &str;
    fn pod_spec(&self) -> &PodSpec;
    fn init_containers(&self) -> &[Container];
    fn containers(&self) -> &[Container];
    fn ephemeral_containers(&self) -> &[EphemeralContainer];
    /// The container of this name, of whatever kind.
    fn container(&self, name: &str) -> Option<Container>;
    fn restart_policy(&self) -> RestartPolicy;
    fn host_network(&self) -> bool;
    fn host_name(&self) -> String;
    /// Whether an API deletion is under way.
    fn is_deleting(&self) -> bool;
    /// `name_namespace(uid)`, as the kubelet's messages have it.
    fn label(&self) -> String;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "Never" => Self::Never,
            "OnFailure" => Self::OnFailure,
            _ => Self::Always,
        }
    }
}

static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);

/// Longest host name that the kernel takes.
const HOST_NAME_MAX: usize = 63;

impl PodRef for Pod {
    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or("default")
    }

    fn pod_spec(&self) -> &PodSpec {
        self.spec.as_ref().unwrap_or(&EMPTY)
    }

    fn init_containers(&self) -> &[Container] {
        self.pod_spec().init_containers.as_deref().unwrap_or_default()
    }

    fn containers(&self) -> &[Container] {
        &self.pod_spec().containers
    }

    fn ephemeral_containers(&self) -> &[EphemeralContainer] {
        self.pod_spec().ephemeral_containers.as_deref().unwrap_or_default()
    }

    fn container(&self, name: &str) -> Option<Container> {
        let mut lasting = self.containers().iter().chain(self.init_containers());
        if let Some(found) = lasting.find(|container| container.name == name) {
            return Some(found.clone());
        }
        self.ephemeral_containers().iter().find(|container| container.name == name).and_then(as_container)
    }

    fn restart_policy(&self) -> RestartPolicy {
        RestartPolicy::parse(self.pod_spec().restart_policy.as_deref().unwrap_or_default())
    }

    fn host_network(&self) -> bool {
        self.pod_spec().host_network.unwrap_or(false)
    }

    fn host_name(&self) -> String {
        let spec = self.pod_spec();
        let wanted = spec.hostname_override.as_deref().or(spec.hostname.as_deref());
        let wanted = wanted.filter(|name| !name.is_empty()).unwrap_or(self.name());
        wanted[..wanted.len().min(HOST_NAME_MAX)].trim_end_matches(['-', '.']).to_owned()
    }

    fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    fn label(&self) -> String {
        format!("{}_{}({})", self.name(), self.namespace(), self.uid())
    }
}

/// An ephemeral container has the fields of any other, and one more.
pub(crate) fn as_container(ephemeral: &EphemeralContainer) -> Option<Container> {
    serde_json::to_value(ephemeral).and_then(serde_json::from_value).ok()
}

/// The object's resource version as a number, to tell newer from older (comparable since Kubernetes 1.35).
pub(crate) fn version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// Whether this init container is a sidecar.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The field path of a container, as events name it.
pub(crate) fn field_path(pod: &Pod, container: &str) -> String {
    let list = if pod.init_containers().iter().any(|c| c.name == container) {
        "initContainers"
    } else if pod.ephemeral_containers().iter().any(|c| c.name == container) {
        "ephemeralContainers"
    } else {
        "containers"
    };
    format!("spec.{list}{{{container}}}")
}
