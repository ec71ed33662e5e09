//! Services, EndpointSlices, and the upstreams made of them. Names of ports are resolved through the slices, because a
//! named target port may be another number in every pod.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use crate::model::{Family, ObjectKey, Port, Service, Slice};
use crate::upstream::{Endpoints, Unavailable, Upstream, UpstreamKey};

#[derive(Debug)]
pub(crate) struct Upstreams {
    services: HashMap<ObjectKey, Service>,
    /// By Service, then by name.
    slices: HashMap<ObjectKey, BTreeMap<Box<str>, Slice>>,
    /// The Service of each slice.
    owners: HashMap<ObjectKey, ObjectKey>,
    /// Upstreams that a rule or a request still holds.
    live: HashMap<ObjectKey, Vec<Weak<Upstream>>>,
    unsupported: Arc<Upstream>,
}

impl Default for Upstreams {
    fn default() -> Self {
        let nowhere = UpstreamKey { service: ObjectKey::default(), port: Port::Number(0) };
        let unsupported = Upstream::new(nowhere, Endpoints::missing(Unavailable::UnsupportedBackend), 0);
        Self {
            services: HashMap::new(),
            slices: HashMap::new(),
            owners: HashMap::new(),
            live: HashMap::new(),
            unsupported: Arc::new(unsupported),
        }
    }
}

impl Upstreams {
    /// The upstream of a key, or the one of unsupported backends. There is never more than one of a key.
    pub(crate) fn get(&mut self, key: Option<UpstreamKey>, turn: usize) -> Arc<Upstream> {
        let Some(key) = key else { return Arc::clone(&self.unsupported) };
        let known = self.live.get(&key.service).into_iter().flatten().filter_map(Weak::upgrade);
        if let Some(upstream) = known.into_iter().find(|upstream| upstream.key == key) {
            return upstream;
        }
        let upstream = Arc::new(Upstream::new(key.clone(), self.resolve(&key), turn));
        self.live.entry(key.service).or_default().push(Arc::downgrade(&upstream));
        upstream
    }

    pub(crate) fn put_service(&mut self, service: Service) {
        let key = service.key.clone();
        if self.services.get(&key) != Some(&service) {
            self.services.insert(key.clone(), service);
            self.refresh(&key);
        }
    }

    pub(crate) fn remove_service(&mut self, key: &ObjectKey) {
        self.services.remove(key);
        self.refresh(key);
    }

    pub(crate) fn put_slice(&mut self, slice: Slice) {
        let owner = slice.service_key();
        if let Some(former) = self.owners.insert(slice.key.clone(), owner.clone())
            && former != owner
        {
            self.take_slice(&former, &slice.key);
            self.refresh(&former);
        }
        let slices = self.slices.entry(owner.clone()).or_default();
        if slices.get(&slice.key.name) != Some(&slice) {
            slices.insert(slice.key.name.clone(), slice);
            self.refresh(&owner);
        }
    }

    pub(crate) fn remove_slice(&mut self, key: &ObjectKey) {
        if let Some(owner) = self.owners.remove(key) {
            self.take_slice(&owner, key);
            self.refresh(&owner);
        }
    }

    pub(crate) fn service_keys(&self) -> Vec<ObjectKey> {
        self.services.keys().cloned().collect()
    }

    pub(crate) fn slice_keys(&self) -> Vec<ObjectKey> {
        self.owners.keys().cloned().collect()
    }

    pub(crate) fn service_count(&self) -> usize {
        self.services.len()
    }

    pub(crate) fn slice_count(&self) -> usize {
        self.owners.len()
    }

    fn take_slice(&mut self, owner: &ObjectKey, key: &ObjectKey) {
        if let Some(slices) = self.slices.get_mut(owner) {
            slices.remove(&key.name);
            if slices.is_empty() {
                self.slices.remove(owner);
            }
        }
    }

    /// Brings the upstreams of a Service up to date and forgets those that nobody holds.
    fn refresh(&mut self, service: &ObjectKey) {
        let Some(mut live) = self.live.remove(service) else { return };
        live.retain(|upstream| upstream.strong_count() > 0);
        for upstream in live.iter().filter_map(Weak::upgrade) {
            let endpoints = self.resolve(&upstream.key);
            let count = endpoints.addresses().len();
            if upstream.set(endpoints) {
                tracing::debug!(upstream = %upstream.key, endpoints = count, "endpoints changed");
            }
        }
        if !live.is_empty() {
            self.live.insert(service.clone(), live);
        }
    }

    /// Of a dual-stack Service the endpoints of its first family serve; the other family only when those are none: the
    /// two list the same pods.
    fn resolve(&self, key: &UpstreamKey) -> Endpoints {
        let Some(service) = self.services.get(&key.service) else {
            return Endpoints::missing(Unavailable::ServiceMissing);
        };
        let Some(port) = service.slice_port_name(&key.port) else {
            return Endpoints::missing(Unavailable::PortMissing);
        };
        let of_family = |family: Option<Family>| -> Vec<SocketAddr> {
            let slices = self.slices.get(&key.service).into_iter().flat_map(BTreeMap::values);
            slices
                .filter(|slice| family.is_none() || slice.family == family)
                .filter_map(|slice| slice.port(port).map(|port| (slice, port)))
                .flat_map(|(slice, port)| slice.addresses.iter().map(move |ip| SocketAddr::new(*ip, port)))
                .collect()
        };
        let first = of_family(service.family);
        Endpoints::from_addresses(if first.is_empty() { of_family(None) } else { first })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::Upstreams;
    use crate::model::{Model, ObjectKey, Port, Service, Slice};
    use crate::upstream::{Unavailable, Upstream, UpstreamKey};

    fn service(families: &[&str]) -> Service {
        Service::from_object(
            serde_json::from_value(json!({
                "metadata": {"name": "s", "namespace": "ns"},
                "spec": {"ipFamilies": families, "ports": [{"name": "web", "port": 80, "targetPort": "http"}, {"name": "admin", "port": 81}]},
            }))
            .unwrap(),
        )
    }

    fn slice(name: &str, service: &str, family: &str, port: u16, addresses: &[&str]) -> Slice {
        Slice::from_object(
            serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": "ns", "labels": {"kubernetes.io/service-name": service}},
                "addressType": family,
                "ports": [{"name": "web", "port": port}],
                "endpoints": addresses.iter().map(|a| json!({"addresses": [a]})).collect::<Vec<_>>(),
            }))
            .unwrap(),
        )
    }

    fn key(port: Port) -> Option<UpstreamKey> {
        Some(UpstreamKey { service: ObjectKey::new("ns", "s"), port })
    }

    fn addresses(upstream: &Upstream) -> Vec<String> {
        upstream.endpoints().addresses().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_port_is_resolved_by_name_through_every_slice() {
        let mut upstreams = Upstreams::default();
        let by_name = upstreams.get(key(Port::Name("web".into())), 0);
        let by_number = upstreams.get(key(Port::Number(80)), 0);
        let (without_slices, unknown) =
            (upstreams.get(key(Port::Number(81)), 0), upstreams.get(key(Port::Number(9)), 0));
        assert_eq!(by_name.check(), Err(Unavailable::ServiceMissing));
        upstreams.put_service(service(&[]));
        upstreams.put_slice(slice("s-1", "s", "IPv4", 8080, &["10.0.0.1", "10.0.0.2"]));
        upstreams.put_slice(slice("s-2", "s", "IPv4", 9090, &["10.0.0.3"]));
        let expected = ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:9090"];
        assert_eq!(
            (addresses(&by_name), addresses(&by_number)),
            (expected.map(Into::into).into(), expected.map(Into::into).into())
        );
        assert_eq!(without_slices.check(), Err(Unavailable::NoEndpoints));
        assert_eq!(unknown.check(), Err(Unavailable::PortMissing));
        upstreams.remove_slice(&ObjectKey::new("ns", "s-1"));
        assert_eq!(addresses(&by_name), ["10.0.0.3:9090"]);
        upstreams.remove_service(&ObjectKey::new("ns", "s"));
        assert_eq!(by_name.check(), Err(Unavailable::ServiceMissing));
    }

    #[test]
    fn the_first_family_serves_and_the_other_steps_in() {
        let mut upstreams = Upstreams::default();
        let upstream = upstreams.get(key(Port::Number(80)), 0);
        upstreams.put_service(service(&["IPv6", "IPv4"]));
        upstreams.put_slice(slice("four", "s", "IPv4", 8080, &["10.0.0.1"]));
        assert_eq!(addresses(&upstream), ["10.0.0.1:8080"]);
        upstreams.put_slice(slice("six", "s", "IPv6", 8080, &["fd00::1"]));
        assert_eq!(addresses(&upstream), ["[fd00::1]:8080"]);
    }

    #[test]
    fn a_key_has_one_upstream_while_somebody_holds_it() {
        let mut upstreams = Upstreams::default();
        let one = upstreams.get(key(Port::Number(80)), 0);
        assert!(Arc::ptr_eq(&one, &upstreams.get(key(Port::Number(80)), 7)));
        upstreams.put_service(service(&[]));
        drop(one);
        upstreams.remove_service(&ObjectKey::new("ns", "s"));
        assert!(upstreams.live.is_empty());
    }

    #[test]
    fn a_slice_that_moves_to_another_service_leaves_the_first() {
        let mut upstreams = Upstreams::default();
        let upstream = upstreams.get(key(Port::Number(80)), 0);
        upstreams.put_service(service(&[]));
        upstreams.put_slice(slice("x", "s", "IPv4", 8080, &["10.0.0.1"]));
        assert_eq!(addresses(&upstream), ["10.0.0.1:8080"]);
        upstreams.put_slice(slice("x", "other", "IPv4", 8080, &["10.0.0.1"]));
        assert_eq!(upstream.check(), Err(Unavailable::NoEndpoints));
    }
}
