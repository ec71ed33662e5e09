//! EndpointSlices.

use std::net::IpAddr;

use k8s_openapi::api::discovery::v1 as discovery;

use super::{ObjectKey, Port};

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What DNS needs of an EndpointSlice: the endpoints that may be named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    pub key: ObjectKey,
    /// Empty if the slice belongs to no Service.
    pub service: Box<str>,
    pub ports: Vec<Port>,
    pub endpoints: Vec<Endpoint>,
}

/// A ready endpoint. (A Service that publishes addresses early has its endpoints marked ready by the slices' writer.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: IpAddr,
    pub hostname: Option<Box<str>>,
}

impl Slice {
    pub(crate) fn from_object(object: discovery::EndpointSlice) -> Self {
        let service = object.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
        let ports = object.ports.iter().flatten().filter_map(|port| {
            let number = u16::try_from(port.port?).ok()?;
            Some(Port::new(port.name.as_deref().unwrap_or_default(), port.protocol.as_deref().unwrap_or("TCP"), number))
        });
        Self {
            key: ObjectKey::of(&object.metadata),
            service: service.map(String::as_str).unwrap_or_default().into(),
            ports: ports.collect(),
            endpoints: object.endpoints.iter().flatten().flat_map(endpoints).collect(),
        }
    }
}

/// Not ready, or with an address that is none (type FQDN): nothing.
fn endpoints(endpoint: &discovery::Endpoint) -> impl Iterator<Item = Endpoint> {
    // An unknown condition counts as ready.
    let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
    let hostname = endpoint.hostname.as_deref().filter(|name| !name.is_empty()).map(str::to_ascii_lowercase);
    let addresses = if ready { endpoint.addresses.as_slice() } else { &[] };
    addresses.iter().filter_map(move |text| {
        let address = text.parse().ok()?;
        Some(Endpoint { address, hostname: hostname.as_deref().map(Into::into) })
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::discovery::v1 as discovery;
    use serde_json::json;

    use super::{Endpoint, Slice};
    use crate::model::{ObjectKey, Port};

    #[test]
    fn only_ready_endpoints_with_addresses_are_kept() {
        let object = json!({
            "metadata": {"namespace": "shop", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}, {"name": "unknown"}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "hostname": "web-0", "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": ["10.0.0.3"], "hostname": ""},
                {"addresses": ["db.example"], "conditions": {}},
            ],
        });
        let endpoint = |address: &str, hostname: Option<&str>| Endpoint {
            address: address.parse().unwrap(),
            hostname: hostname.map(Into::into),
        };
        let expected = Slice {
            key: ObjectKey::new("shop", "web-1"),
            service: "web".into(),
            ports: vec![Port::new("http", "tcp", 8080)],
            endpoints: vec![endpoint("10.0.0.1", Some("web-0")), endpoint("10.0.0.3", None)],
        };
        assert_eq!(Slice::from_object(serde_json::from_value::<discovery::EndpointSlice>(object).unwrap()), expected);
    }
}
