//! Service: its ports by name and number, the address family to prefer, the name behind an external one, and the health
//! check it asks for.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;

use super::{HealthCheck, Model, ObjectKey, Port};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) key: ObjectKey,
    pub(crate) ports: Vec<ServicePort>,
    /// The first of its IP families.
    pub(crate) family: Option<Family>,
    /// The DNS name that stands for an external Service; it has no EndpointSlices.
    pub(crate) external_name: Option<Box<str>>,
    pub(crate) check: Option<Arc<HealthCheck>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServicePort {
    pub(crate) name: Box<str>,
    pub(crate) number: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "IPv4" => Some(Self::V4),
            "IPv6" => Some(Self::V6),
            _ => None,
        }
    }
}

impl Service {
    /// The name of the port by which EndpointSlices know it.
    pub(crate) fn slice_port_name(&self, port: &Port) -> Option<&str> {
        self.ports
            .iter()
            .find(|candidate| match port {
                Port::Number(number) => candidate.number == *number,
                Port::Name(name) => candidate.name == *name,
            })
            .map(|port| &*port.name)
    }
}

impl Service {
    /// The port of an external Service: what is asked for, unless its list of ports says otherwise.
    pub(crate) fn external_port(&self, port: &Port) -> Option<u16> {
        match port {
            Port::Number(number) if self.ports.is_empty() => Some(*number),
            Port::Number(number) => self.ports.iter().find(|port| port.number == *number).map(|port| port.number),
            Port::Name(name) => self.ports.iter().find(|port| port.name == *name).map(|port| port.number),
        }
    }
}

impl Model for Service {
    type Object = core::Service;

    fn id(&self) -> &ObjectKey {
        &self.key
    }

    fn key(object: &Self::Object) -> ObjectKey {
        ObjectKey::of(&object.metadata)
    }

    fn from_object(object: Self::Object) -> Self {
        let spec = object.spec.unwrap_or_default();
        let key = ObjectKey::of(&object.metadata);
        let check = HealthCheck::from_annotations(&object.metadata.annotations.unwrap_or_default());
        let check = check.unwrap_or_else(|why| {
            tracing::warn!(service = %key, why, "no health check for this service");
            None
        });
        let tcp = |port: &core::ServicePort| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
        Self {
            key,
            check: check.map(Arc::new),
            external_name: (spec.external_name)
                .filter(|_| spec.type_.as_deref() == Some("ExternalName"))
                .map(|name| name.trim_end_matches('.').to_ascii_lowercase().into()),
            ports: (spec.ports.unwrap_or_default().into_iter())
                .filter(tcp)
                .filter_map(|port| {
                    let number = u16::try_from(port.port).ok()?;
                    Some(ServicePort { name: port.name.unwrap_or_default().into(), number })
                })
                .collect(),
            family: spec.ip_families.unwrap_or_default().first().and_then(|family| Family::parse(family)),
        }
    }
}
