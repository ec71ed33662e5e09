//! Service: its ports by name and number, and the address family to prefer.

use k8s_openapi::api::core::v1 as core;

use super::{Model, ObjectKey, Port};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) key: ObjectKey,
    pub(crate) ports: Vec<ServicePort>,
    /// The first of its IP families.
    pub(crate) family: Option<Family>,
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
        let tcp = |port: &core::ServicePort| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
        Self {
            key: ObjectKey::of(&object.metadata),
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
