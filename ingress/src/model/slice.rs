//! EndpointSlice: the addresses that may get requests now or as a last resort, and the ports.

use std::net::IpAddr;

use k8s_openapi::api::discovery::v1 as discovery;

use super::{Family, Model, ObjectKey};

const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) key: ObjectKey,
    /// The Service it belongs to, in the same namespace; empty if it says none.
    pub(crate) service: Box<str>,
    pub(crate) family: Option<Family>,
    /// TCP ports by name; an unnamed port has the empty name.
    pub(crate) ports: Vec<(Box<str>, u16)>,
    /// Addresses of endpoints that are ready and not terminating.
    pub(crate) addresses: Vec<IpAddr>,
    /// Addresses of endpoints that are on their way out but still serve.
    pub(crate) leaving: Vec<IpAddr>,
}

impl Slice {
    pub(crate) fn port(&self, name: &str) -> Option<u16> {
        self.ports.iter().find(|(candidate, _)| **candidate == *name).map(|(_, port)| *port)
    }

    pub(crate) fn service_key(&self) -> ObjectKey {
        ObjectKey { namespace: self.key.namespace.clone(), name: self.service.clone() }
    }
}

impl Model for Slice {
    type Object = discovery::EndpointSlice;

    fn id(&self) -> &ObjectKey {
        &self.key
    }

    fn key(object: &Self::Object) -> ObjectKey {
        ObjectKey::of(&object.metadata)
    }

    fn from_object(object: Self::Object) -> Self {
        let labels = object.metadata.labels.as_ref();
        let ports = object.ports.unwrap_or_default().into_iter();
        let endpoints = object.endpoints.unwrap_or_default();
        let addresses_of = |phase: Phase| {
            let of_phase = endpoints.iter().filter(|endpoint| Phase::of(endpoint) == phase);
            of_phase.filter_map(|endpoint| endpoint.addresses.first()?.parse().ok()).collect()
        };
        Self {
            key: ObjectKey::of(&object.metadata),
            service: labels.and_then(|labels| labels.get(SERVICE_NAME_LABEL)).map_or("", |name| name).into(),
            family: Family::parse(&object.address_type),
            ports: ports
                .filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"))
                .filter_map(|port| {
                    let number = u16::try_from(port.port?).ok()?;
                    Some((port.name.unwrap_or_default().into(), number))
                })
                .collect(),
            addresses: addresses_of(Phase::Ready),
            leaving: addresses_of(Phase::Leaving),
        }
    }
}

/// What an endpoint's conditions say. Unknown means ready and serving, says the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Ready,
    Leaving,
    Unusable,
}

impl Phase {
    fn of(endpoint: &discovery::Endpoint) -> Self {
        let conditions = endpoint.conditions.as_ref();
        let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
        let serving = conditions.and_then(|c| c.serving).unwrap_or(true);
        match conditions.and_then(|c| c.terminating).unwrap_or(false) {
            false if ready => Self::Ready,
            true if serving => Self::Leaving,
            _ => Self::Unusable,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Family, Model, Slice};

    #[test]
    fn endpoints_are_ready_or_leaving_or_left_out() {
        let object = serde_json::from_value(json!({
            "metadata": {"name": "s-1", "namespace": "ns", "labels": {"kubernetes.io/service-name": "s"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}, {"port": 53, "protocol": "UDP"}, {"port": 9, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": ["10.0.0.1"]},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": true, "serving": true, "terminating": false}},
                {"addresses": ["10.0.0.3"], "conditions": {"ready": false}},
                {"addresses": ["10.0.0.4"], "conditions": {"ready": true, "terminating": true}},
                {"addresses": ["10.0.0.5"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": ["10.0.0.6"], "conditions": {"ready": false, "serving": false, "terminating": true}},
                {"addresses": ["10.0.0.7"], "conditions": {"ready": false, "serving": true}},
                {"addresses": ["garbage"]},
            ],
        }))
        .unwrap();
        let slice = Slice::from_object(object);
        let texts = |ips: &[std::net::IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(&slice.addresses), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(texts(&slice.leaving), ["10.0.0.4", "10.0.0.5"]);
        assert_eq!((slice.port("http"), slice.port(""), slice.port("x")), (Some(8080), Some(9), None));
        assert_eq!((&*slice.service, slice.family), ("s", Some(Family::V4)));
    }
}
