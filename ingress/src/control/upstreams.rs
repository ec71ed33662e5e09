//! Services, EndpointSlices, and the upstreams made of them. Names of ports are resolved through the slices, because a
//! named target port may be another number in every pod.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

use super::external::ExternalNames;
use crate::model::{Family, ObjectKey, Port, Service, Slice};
use crate::upstream::{EndpointPool, Endpoints, Unavailable, Upstream, UpstreamKey};

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
    pool: EndpointPool,
    /// Which Services that are external names may be used.
    external: ExternalNames,
    /// Addresses of external names.
    addresses: HashMap<Box<str>, Vec<IpAddr>>,
    /// Whether the set of upstreams with checks may have changed.
    checked_changed: bool,
    names_changed: bool,
}

impl Upstreams {
    pub(crate) fn new(external: ExternalNames) -> Self {
        let nowhere = UpstreamKey { service: ObjectKey::default(), port: Port::Number(0) };
        let unsupported = Upstream::new(nowhere, Endpoints::missing(Unavailable::UnsupportedBackend), 0);
        Self {
            services: HashMap::new(),
            slices: HashMap::new(),
            owners: HashMap::new(),
            live: HashMap::new(),
            unsupported: Arc::new(unsupported),
            pool: EndpointPool::default(),
            external,
            addresses: HashMap::new(),
            checked_changed: false,
            names_changed: false,
        }
    }

    /// The upstream of a key, or the one of unsupported backends. There is never more than one of a key.
    pub(crate) fn get(&mut self, key: Option<UpstreamKey>, turn: usize) -> Arc<Upstream> {
        let Some(key) = key else { return Arc::clone(&self.unsupported) };
        let known = self.live.get(&key.service).into_iter().flatten().filter_map(Weak::upgrade);
        if let Some(upstream) = known.into_iter().find(|upstream| upstream.key == key) {
            return upstream;
        }
        let endpoints = self.resolve(&key);
        self.checked_changed |= endpoints.check.is_some();
        let upstream = Arc::new(Upstream::new(key.clone(), endpoints, turn));
        self.live.entry(key.service).or_default().push(Arc::downgrade(&upstream));
        upstream
    }

    pub(crate) fn put_service(&mut self, service: Service) {
        let key = service.key.clone();
        if self.services.get(&key) != Some(&service) {
            let names = service.external_name.is_some();
            let former = self.services.insert(key.clone(), service);
            self.names_changed |= names || former.is_some_and(|former| former.external_name.is_some());
            self.refresh(&key);
        }
    }

    pub(crate) fn remove_service(&mut self, key: &ObjectKey) {
        let former = self.services.remove(key);
        self.names_changed |= former.is_some_and(|former| former.external_name.is_some());
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

    /// Takes in the addresses of an external name.
    pub(crate) fn put_addresses(&mut self, name: Box<str>, mut addresses: Vec<IpAddr>) {
        addresses.retain(|ip| self.external.allows_address(*ip));
        if self.addresses.get(&name) == Some(&addresses) {
            return;
        }
        let named = |service: &&Service| service.external_name.as_ref() == Some(&name);
        let owners: Vec<_> = self.services.values().filter(named).map(|service| service.key.clone()).collect();
        self.addresses.insert(name, addresses);
        for owner in owners {
            self.refresh(&owner);
        }
    }

    /// The external names to look up, if they changed.
    pub(crate) fn take_names(&mut self) -> Option<HashSet<Box<str>>> {
        if !std::mem::take(&mut self.names_changed) {
            return None;
        }
        let names = self.services.values().filter_map(|service| service.external_name.as_ref());
        let names: HashSet<_> = names.filter(|name| self.external.allows(name)).cloned().collect();
        self.addresses.retain(|name, _| names.contains(name));
        Some(names)
    }

    /// The upstreams whose endpoints are to be checked, if they changed.
    pub(crate) fn take_checked(&mut self) -> Option<Vec<Weak<Upstream>>> {
        if !std::mem::take(&mut self.checked_changed) {
            return None;
        }
        let is_checked =
            |service: &ObjectKey| self.services.get(service).is_some_and(|service| service.check.is_some());
        let live = self.live.iter().filter(|(service, _)| is_checked(service));
        Some(live.flat_map(|(_, upstreams)| upstreams.iter().cloned()).collect())
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
            let count = endpoints.members().len();
            self.checked_changed |= endpoints.check.is_some() || upstream.endpoints().check.is_some();
            if upstream.set(endpoints) {
                tracing::debug!(upstream = %upstream.key, endpoints = count, "endpoints changed");
            }
        }
        if !live.is_empty() {
            self.live.insert(service.clone(), live);
        }
    }

    /// Of a dual-stack Service the endpoints of its first family serve; the other family only when those are none: the
    /// two list the same pods. When no endpoint is ready, those that are leaving but still serve are better than none,
    /// as for kube-proxy (KEP-1669).
    fn resolve(&mut self, key: &UpstreamKey) -> Endpoints {
        let Some(service) = self.services.get(&key.service) else {
            return Endpoints::missing(Unavailable::ServiceMissing);
        };
        if let Some(name) = &service.external_name {
            return match service.external_port(&key.port) {
                _ if !self.external.allows(name) => Endpoints::missing(Unavailable::ExternalNameForbidden),
                None => Endpoints::missing(Unavailable::PortMissing),
                Some(port) => {
                    let ips = self.addresses.get(name).map_or(&[][..], Vec::as_slice);
                    let addresses = ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
                    Endpoints::new(addresses, service.check.clone(), &mut self.pool)
                }
            };
        }
        let Some(port) = service.slice_port_name(&key.port) else {
            return Endpoints::missing(Unavailable::PortMissing);
        };
        let of_family = |family: Option<Family>, ips: fn(&Slice) -> &[IpAddr]| -> Vec<SocketAddr> {
            let slices = self.slices.get(&key.service).into_iter().flat_map(BTreeMap::values);
            slices
                .filter(|slice| family.is_none() || slice.family == family)
                .filter_map(|slice| slice.port(port).map(|port| (slice, port)))
                .flat_map(|(slice, port)| ips(slice).iter().map(move |ip| SocketAddr::new(*ip, port)))
                .collect()
        };
        let ready: fn(&Slice) -> &[IpAddr] = |slice| &slice.addresses;
        let leaving: fn(&Slice) -> &[IpAddr] = |slice| &slice.leaving;
        let choices = [(service.family, ready), (None, ready), (service.family, leaving), (None, leaving)];
        let found = choices.into_iter().map(|(family, ips)| of_family(family, ips)).zip(0..);
        let (addresses, choice) = found.into_iter().find(|(found, _)| !found.is_empty()).unwrap_or_default();
        let endpoints = Endpoints::new(addresses, service.check.clone(), &mut self.pool);
        if choice >= 2 { endpoints.leaving() } else { endpoints }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::{ExternalNames, Upstreams};
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

    fn upstreams_with(domain: &str) -> Upstreams {
        Upstreams::new(ExternalNames::new(&[domain.to_owned()]))
    }

    fn key(port: Port) -> Option<UpstreamKey> {
        Some(UpstreamKey { service: ObjectKey::new("ns", "s"), port })
    }

    fn addresses(upstream: &Upstream) -> Vec<String> {
        upstream.endpoints().addresses().map(|address| address.to_string()).collect()
    }

    #[test]
    fn a_port_is_resolved_by_name_through_every_slice() {
        let mut upstreams = upstreams_with("*");
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
        let mut upstreams = upstreams_with("*");
        let upstream = upstreams.get(key(Port::Number(80)), 0);
        upstreams.put_service(service(&["IPv6", "IPv4"]));
        upstreams.put_slice(slice("four", "s", "IPv4", 8080, &["10.0.0.1"]));
        assert_eq!(addresses(&upstream), ["10.0.0.1:8080"]);
        upstreams.put_slice(slice("six", "s", "IPv6", 8080, &["fd00::1"]));
        assert_eq!(addresses(&upstream), ["[fd00::1]:8080"]);
    }

    #[test]
    fn endpoints_that_leave_serve_only_when_none_is_ready() {
        let mut upstreams = upstreams_with("*");
        let upstream = upstreams.get(key(Port::Number(80)), 0);
        upstreams.put_service(service(&["IPv4"]));
        let mut half = slice("half", "s", "IPv4", 8080, &["10.0.0.1"]);
        half.leaving = vec!["10.0.0.2".parse().unwrap()];
        upstreams.put_slice(half.clone());
        assert_eq!((addresses(&upstream), upstream.endpoints().are_leaving), (vec!["10.0.0.1:8080".into()], false));
        half.leaving.append(&mut half.addresses);
        upstreams.put_slice(half.clone());
        let both = vec!["10.0.0.1:8080".to_owned(), "10.0.0.2:8080".to_owned()];
        assert_eq!((addresses(&upstream), upstream.endpoints().are_leaving), (both, true));
        upstreams.put_slice(slice("new", "s", "IPv6", 8080, &["fd00::1"]));
        assert_eq!(addresses(&upstream), ["[fd00::1]:8080"], "ready in the other family is better than leaving");
        upstreams.remove_slice(&ObjectKey::new("ns", "new"));
        half.leaving.clear();
        upstreams.put_slice(half);
        assert_eq!(upstream.check(), Err(Unavailable::NoEndpoints));
    }

    #[test]
    fn a_key_has_one_upstream_while_somebody_holds_it() {
        let mut upstreams = upstreams_with("*");
        let one = upstreams.get(key(Port::Number(80)), 0);
        assert!(Arc::ptr_eq(&one, &upstreams.get(key(Port::Number(80)), 7)));
        upstreams.put_service(service(&[]));
        drop(one);
        upstreams.remove_service(&ObjectKey::new("ns", "s"));
        assert!(upstreams.live.is_empty());
    }

    #[test]
    fn a_slice_that_moves_to_another_service_leaves_the_first() {
        let mut upstreams = upstreams_with("*");
        let upstream = upstreams.get(key(Port::Number(80)), 0);
        upstreams.put_service(service(&[]));
        upstreams.put_slice(slice("x", "s", "IPv4", 8080, &["10.0.0.1"]));
        assert_eq!(addresses(&upstream), ["10.0.0.1:8080"]);
        upstreams.put_slice(slice("x", "other", "IPv4", 8080, &["10.0.0.1"]));
        assert_eq!(upstream.check(), Err(Unavailable::NoEndpoints));
    }

    fn external(name: &str, ports: serde_json::Value) -> Service {
        Service::from_object(
            serde_json::from_value(json!({
                "metadata": {"name": "s", "namespace": "ns"},
                "spec": {"type": "ExternalName", "externalName": name, "ports": ports},
            }))
            .unwrap(),
        )
    }

    #[test]
    fn an_external_name_has_the_addresses_it_resolves_to_and_any_port() {
        let mut upstreams = upstreams_with("*");
        let upstream = upstreams.get(key(Port::Number(8080)), 0);
        upstreams.put_service(external("Db.Example.com.", json!(null)));
        assert_eq!(upstreams.take_names(), Some(["db.example.com".into()].into()));
        assert_eq!(upstreams.take_names(), None);
        assert_eq!(upstream.check(), Err(Unavailable::NoEndpoints));
        upstreams.put_addresses("db.example.com".into(), vec!["192.0.2.1".parse().unwrap()]);
        assert_eq!(addresses(&upstream), ["192.0.2.1:8080"]);
        upstreams.put_service(external("db.example.com", json!([{"name": "x", "port": 80, "targetPort": 8000}])));
        assert_eq!(upstream.check(), Err(Unavailable::PortMissing));
        upstreams.put_service(service(&[]));
        assert_eq!((upstreams.take_names(), upstream.check()), (Some([].into()), Err(Unavailable::PortMissing)));
    }

    #[test]
    fn external_names_are_forbidden_unless_allowed() {
        let mut upstreams = Upstreams::new(ExternalNames::default());
        let upstream = upstreams.get(key(Port::Number(80)), 0);
        upstreams.put_service(external("metadata.internal", json!(null)));
        assert_eq!(
            (upstreams.take_names(), upstream.check()),
            (Some([].into()), Err(Unavailable::ExternalNameForbidden))
        );
    }

    #[test]
    fn upstreams_of_services_with_a_check_are_listed_when_they_change() {
        let mut upstreams = Upstreams::new(ExternalNames::default());
        let upstream = upstreams.get(key(Port::Number(80)), 0);
        let mut checked = service(&[]);
        upstreams.put_service(checked.clone());
        upstreams.put_slice(slice("s-1", "s", "IPv4", 8080, &["10.0.0.1"]));
        assert!(upstreams.take_checked().is_none());
        checked.check = crate::model::HealthCheck::from_annotations(
            &[("tidegate.dev/health-check".to_owned(), "tcp".to_owned())].into(),
        )
        .unwrap()
        .map(Arc::new);
        upstreams.put_service(checked);
        assert_eq!(upstreams.take_checked().map(|list| list.len()), Some(1));
        assert!(upstream.endpoints().check.is_some());
        upstreams.put_service(service(&[]));
        assert_eq!(upstreams.take_checked().map(|list| list.len()), Some(0));
    }
}
