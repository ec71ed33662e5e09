//! The downward API: values of a pod's fields and of its containers' resources, for environments and files.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use super::pod_ref::PodRef;
use super::quantity::{milli, units};
use super::resources::{Side, get};

/// What the node knows of a pod beside its object.
#[derive(Debug, Clone, Default)]
pub(crate) struct PodFacts {
    pub node_name: String,
    pub host_ips: Vec<IpAddr>,
    pub pod_ips: Vec<IpAddr>,
    /// Allocatable CPU of the node in thousandths: the default of `limits.cpu`.
    pub allocatable_cpu_milli: i64,
    /// Allocatable memory of the node in bytes: the default of `limits.memory`.
    pub allocatable_memory: i64,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum FieldError {
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    #[error("unsupported resource: {0}")]
    Resource(String),
    #[error("container {0} not found")]
    Container(String),
    #[error("divisor {0:?} is not a positive quantity")]
    Divisor(String),
}

/// The value of a field path such as `metadata.labels['app']` or `status.podIP`.
pub(crate) fn field(pod: &Pod, facts: &PodFacts, path: &str) -> Result<String, FieldError> {
    let joined = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => pod.metadata.labels.as_ref(),
            "metadata.annotations" => pod.metadata.annotations.as_ref(),
            _ => return Err(FieldError::Field(path.into())),
        };
        return Ok(map.and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => pod.name().into(),
        "metadata.namespace" => pod.namespace().into(),
        "metadata.uid" => pod.uid().into(),
        "metadata.labels" => listing(pod.metadata.labels.as_ref()),
        "metadata.annotations" => listing(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => facts.node_name.clone(),
        "spec.serviceAccountName" => pod.pod_spec().service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => first(&facts.host_ips),
        "status.hostIPs" => joined(&facts.host_ips),
        "status.podIP" => first(&facts.pod_ips),
        "status.podIPs" => joined(&facts.pod_ips),
        _ => return Err(FieldError::Field(path.into())),
    })
}

/// The value of a container's resource divided by the selector's divisor, rounded up.
pub(crate) fn resource(
    pod: &Pod,
    facts: &PodFacts,
    own: &str,
    selector: &ResourceFieldSelector,
) -> Result<String, FieldError> {
    let name = selector.container_name.as_deref().filter(|name| !name.is_empty()).unwrap_or(own);
    let container = pod
        .containers()
        .iter()
        .chain(pod.init_containers())
        .find(|container| container.name == name)
        .ok_or_else(|| FieldError::Container(name.into()))?;
    let unknown = || FieldError::Resource(selector.resource.clone());
    let (side, kind) = selector.resource.split_once('.').ok_or_else(unknown)?;
    let side = match side {
        "limits" => Side::Limit,
        "requests" => Side::Request,
        _ => return Err(unknown()),
    };
    if !matches!(kind, "cpu" | "memory" | "ephemeral-storage") && !kind.starts_with("hugepages-") {
        return Err(unknown());
    }
    let value = value(container, facts, kind, side);
    let divisor = match selector.divisor.as_ref().filter(|divisor| !matches!(divisor.0.as_str(), "" | "0")) {
        None => {
            if kind == "cpu" {
                1_000
            } else {
                1
            }
        }
        Some(text) => (if kind == "cpu" { milli(text) } else { units(text) })
            .filter(|divisor| *divisor > 0)
            .ok_or_else(|| FieldError::Divisor(text.0.clone()))?,
    };
    Ok((value.div_euclid(divisor) + i64::from(value.rem_euclid(divisor) > 0)).to_string())
}

/// CPU in thousandths, everything else in units; a missing limit is what the node has.
fn value(container: &Container, facts: &PodFacts, kind: &str, side: Side) -> i64 {
    let read = if kind == "cpu" { milli } else { units };
    let own = get(container, kind, side).and_then(read).filter(|value| *value > 0);
    match (own, side, kind) {
        (Some(value), _, _) => value,
        (None, Side::Limit, "cpu") => facts.allocatable_cpu_milli,
        (None, Side::Limit, "memory") => facts.allocatable_memory,
        (None, Side::Request, _) => get(container, kind, Side::Limit).and_then(read).unwrap_or(0),
        _ => 0,
    }
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once('[')?;
    let key = rest.strip_suffix(']')?;
    let key = key
        .strip_prefix('\'')
        .and_then(|key| key.strip_suffix('\''))
        .or_else(|| key.strip_prefix('"').and_then(|key| key.strip_suffix('"')))?;
    Some((map, key))
}

/// One `key="value"` a line, the value quoted as in Go.
fn listing(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value))).collect();
    lines.join("\n")
}

fn quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            c if c.is_control() => text.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u1",
                "labels": {"app": "web", "tier": "a\"b"}, "annotations": {"note/x": "hello"}},
            "spec": {"serviceAccountName": "robot", "containers": [
                {"name": "c", "resources": {"limits": {"memory": "64Mi"}, "requests": {"cpu": "250m"}}}]}
        }))
        .unwrap()
    }

    fn facts() -> PodFacts {
        PodFacts {
            node_name: "n1".into(),
            host_ips: vec!["192.168.77.2".parse().unwrap()],
            pod_ips: vec!["10.244.0.5".parse().unwrap(), "fd00:10:244::5".parse().unwrap()],
            allocatable_cpu_milli: 2_000,
            allocatable_memory: 8 << 30,
        }
    }

    #[test]
    fn fields_have_the_values_of_the_pod() {
        for (path, value) in [
            ("metadata.name", "web"),
            ("metadata.namespace", "shop"),
            ("metadata.uid", "u1"),
            ("metadata.labels['app']", "web"),
            ("metadata.labels['missing']", ""),
            ("metadata.annotations[\"note/x\"]", "hello"),
            ("metadata.labels", "app=\"web\"\ntier=\"a\\\"b\""),
            ("spec.nodeName", "n1"),
            ("spec.serviceAccountName", "robot"),
            ("status.hostIP", "192.168.77.2"),
            ("status.podIP", "10.244.0.5"),
            ("status.podIPs", "10.244.0.5,fd00:10:244::5"),
        ] {
            assert_eq!(field(&pod(), &facts(), path), Ok(value.into()), "{path}");
        }
        assert!(field(&pod(), &facts(), "spec.containers").is_err());
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        for (name, divisor, value) in [
            ("limits.memory", "1Mi", "64"),
            ("limits.memory", "", "67108864"),
            ("requests.cpu", "", "1"),
            ("requests.cpu", "1m", "250"),
            ("limits.cpu", "1", "2"),
            ("requests.memory", "1Mi", "64"),
        ] {
            let selector = serde_json::from_value(json!({"resource": name, "divisor": divisor})).unwrap();
            assert_eq!(resource(&pod(), &facts(), "c", &selector), Ok(value.into()), "{name} / {divisor}");
        }
        let selector = serde_json::from_value(json!({"resource": "limits.gpu"})).unwrap();
        assert!(resource(&pod(), &facts(), "c", &selector).is_err());
    }
}
