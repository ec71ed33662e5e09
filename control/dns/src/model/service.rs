//! Services.

use std::net::IpAddr;

use hickory_proto::rr::Name;
use k8s_openapi::api::core::v1 as core;

use super::{ObjectKey, Port};

/// What DNS needs of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub key: ObjectKey,
    pub kind: ServiceKind,
    pub ports: Vec<Port>,
}

/// How a Service is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// By addresses of its own; none while they are not allocated.
    ClusterIp(Vec<IpAddr>),
    /// By the addresses of its endpoints.
    Headless,
    /// By another name.
    ExternalName(Name),
}

impl Service {
    pub(crate) fn from_object(object: core::Service) -> Self {
        let key = ObjectKey::of(&object.metadata);
        let spec = object.spec.unwrap_or_default();
        let ports = spec.ports.iter().flatten().filter_map(|port| {
            let number = u16::try_from(port.port).ok()?;
            Some(Port::new(port.name.as_deref().unwrap_or_default(), port.protocol.as_deref().unwrap_or("TCP"), number))
        });
        Self { key, ports: ports.collect(), kind: kind(&spec) }
    }
}

fn kind(spec: &core::ServiceSpec) -> ServiceKind {
    if spec.type_.as_deref() == Some("ExternalName") {
        return external(spec.external_name.as_deref().unwrap_or_default());
    }
    if spec.cluster_ip.as_deref() == Some("None") {
        return ServiceKind::Headless;
    }
    // Servers older than dual stack fill only the single field.
    let texts = match spec.cluster_ips.as_deref() {
        Some(texts) if !texts.is_empty() => texts,
        _ => spec.cluster_ip.as_slice(),
    };
    ServiceKind::ClusterIp(texts.iter().filter_map(|text| text.parse().ok()).collect())
}

/// An external name that is an address is served as that address, since no name looks like one.
fn external(text: &str) -> ServiceKind {
    if let Ok(address) = text.parse() {
        return ServiceKind::ClusterIp(vec![address]);
    }
    match Name::from_ascii(text) {
        Ok(mut name) if !text.is_empty() => {
            name.set_fqdn(true);
            ServiceKind::ExternalName(name)
        }
        _ => ServiceKind::ClusterIp(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::Name;
    use k8s_openapi::api::core::v1 as core;
    use serde_json::{Value, json};

    use super::{Service, ServiceKind};
    use crate::model::Port;

    fn service(spec: Value) -> Service {
        let object = json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": spec});
        Service::from_object(serde_json::from_value::<core::Service>(object).unwrap())
    }

    #[test]
    fn the_kind_follows_type_and_addresses() {
        let ips = |ips: &[&str]| ServiceKind::ClusterIp(ips.iter().map(|ip| ip.parse().unwrap()).collect());
        let name = |name: &str| ServiceKind::ExternalName(Name::from_ascii(name).unwrap());
        for (spec, expected) in [
            (json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"]}), ips(&["10.0.0.1", "fd00::1"])),
            (json!({"clusterIP": "10.0.0.1"}), ips(&["10.0.0.1"])),
            (json!({"clusterIP": "None", "clusterIPs": ["None"]}), ServiceKind::Headless),
            (json!({}), ips(&[])),
            (json!({"type": "ExternalName", "externalName": "db.example"}), name("db.example.")),
            (json!({"type": "ExternalName", "externalName": "192.0.2.1"}), ips(&["192.0.2.1"])),
            (json!({"type": "ExternalName"}), ips(&[])),
        ] {
            assert_eq!(service(spec.clone()).kind, expected, "{spec}");
        }
    }

    #[test]
    fn ports_are_tcp_unless_they_say_so() {
        let spec = json!({"ports": [{"port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]});
        assert_eq!(service(spec).ports, [Port::new("", "tcp", 80), Port::new("dns", "udp", 53)]);
    }
}
