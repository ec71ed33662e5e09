//! Ingress: rules, default backend, TLS, class, and the addresses its status shows.

use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Model, ObjectKey};

const LEGACY_CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ingress {
    pub(crate) key: ObjectKey,
    pub(crate) uid: Box<str>,
    /// Seconds since the epoch.
    pub(crate) created: i64,
    pub(crate) class: Option<Box<str>>,
    pub(crate) legacy_class: Option<Box<str>>,
    pub(crate) paths: Vec<Path>,
    /// Every host of a rule, also of rules without paths; empty text for "every host".
    pub(crate) hosts: Vec<Box<str>>,
    pub(crate) default_backend: Option<Backend>,
    pub(crate) tls: Vec<Tls>,
    pub(crate) status: Vec<Address>,
    /// Who wrote the status, as the API server records it.
    pub(crate) status_managers: Vec<Box<str>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) host: Box<str>,
    pub(crate) path: Box<str>,
    pub(crate) kind: PathKind,
    pub(crate) backend: Backend,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathKind {
    Exact,
    /// `Prefix`, and `ImplementationSpecific`, which is the same here.
    Prefix,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Service {
        name: Box<str>,
        port: Port,
    },
    /// A resource backend, or a service without a port.
    Unsupported,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Port {
    Number(u16),
    Name(Box<str>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tls {
    pub(crate) hosts: Vec<Box<str>>,
    pub(crate) secret: Option<Box<str>>,
}

/// One entry of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    Ip(Box<str>),
    Hostname(Box<str>),
}

impl Model for Ingress {
    type Object = networking::Ingress;

    fn id(&self) -> &ObjectKey {
        &self.key
    }

    fn key(object: &Self::Object) -> ObjectKey {
        ObjectKey::of(&object.metadata)
    }

    fn from_object(object: Self::Object) -> Self {
        let meta = object.metadata;
        let spec = object.spec.unwrap_or_default();
        let rules = spec.rules.unwrap_or_default();
        Self {
            key: ObjectKey::of(&meta),
            created: meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            status_managers: status_managers(&meta),
            legacy_class: meta.annotations.and_then(|mut all| all.remove(LEGACY_CLASS_ANNOTATION)).map(Into::into),
            uid: meta.uid.unwrap_or_default().into(),
            class: spec.ingress_class_name.map(Into::into),
            hosts: rules.iter().map(|rule| rule.host.as_deref().unwrap_or_default().into()).collect(),
            paths: rules.into_iter().flat_map(paths).collect(),
            default_backend: spec.default_backend.map(Backend::from),
            tls: spec.tls.unwrap_or_default().into_iter().map(Tls::from).collect(),
            status: object.status.and_then(|status| status.load_balancer).map(addresses).unwrap_or_default(),
        }
    }
}

fn paths(rule: networking::IngressRule) -> impl Iterator<Item = Path> {
    let host: Box<str> = rule.host.unwrap_or_default().into();
    rule.http.into_iter().flat_map(|http| http.paths).map(move |path| Path {
        host: host.clone(),
        kind: if path.path_type == "Exact" { PathKind::Exact } else { PathKind::Prefix },
        path: path.path.filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned()).into(),
        backend: path.backend.into(),
    })
}

impl From<networking::IngressBackend> for Backend {
    fn from(backend: networking::IngressBackend) -> Self {
        let Some(service) = backend.service else { return Self::Unsupported };
        let port = service.port.unwrap_or_default();
        let named = port.name.filter(|name| !name.is_empty()).map(|name| Port::Name(name.into()));
        let numbered = || port.number.and_then(|number| u16::try_from(number).ok()).map(Port::Number);
        match named.or_else(numbered) {
            Some(port) => Self::Service { name: service.name.into(), port },
            None => Self::Unsupported,
        }
    }
}

impl From<networking::IngressTLS> for Tls {
    fn from(tls: networking::IngressTLS) -> Self {
        Self {
            hosts: tls.hosts.unwrap_or_default().into_iter().map(Into::into).collect(),
            secret: tls.secret_name.filter(|name| !name.is_empty()).map(Into::into),
        }
    }
}

fn addresses(status: networking::IngressLoadBalancerStatus) -> Vec<Address> {
    let entries = status.ingress.unwrap_or_default().into_iter();
    entries
        .filter_map(|entry| match (entry.ip, entry.hostname) {
            (Some(ip), _) if !ip.is_empty() => Some(Address::Ip(ip.into())),
            (_, Some(name)) if !name.is_empty() => Some(Address::Hostname(name.into())),
            _ => None,
        })
        .collect()
}

fn status_managers(meta: &ObjectMeta) -> Vec<Box<str>> {
    let entries = meta.managed_fields.iter().flatten();
    entries
        .filter(|entry| entry.subresource.as_deref() == Some("status"))
        .filter_map(|entry| entry.manager.as_deref().map(Into::into))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Address, Backend, Ingress, Model, Path, PathKind, Port};

    #[test]
    fn an_ingress_is_reduced_to_what_routing_needs() {
        let object = serde_json::from_value(json!({
            "metadata": {
                "name": "web", "namespace": "shop", "uid": "u1", "creationTimestamp": "1970-01-01T00:01:40Z",
                "annotations": {"kubernetes.io/ingress.class": "old"},
                "managedFields": [{"manager": "tidegate.dev/ingress", "operation": "Update", "subresource": "status"}],
            },
            "spec": {
                "ingressClassName": "tidegate",
                "rules": [
                    {"host": "a.test", "http": {"paths": [
                        {"path": "/x", "pathType": "Exact", "backend": {"service": {"name": "s", "port": {"name": "http"}}}},
                        {"pathType": "ImplementationSpecific", "backend": {"resource": {"kind": "K", "name": "n"}}},
                    ]}},
                    {"host": "b.test"},
                ],
                "tls": [{"hosts": ["a.test"], "secretName": "cert"}, {"hosts": ["b.test"]}],
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "lb.test"}]}},
        }))
        .unwrap();
        let ingress = Ingress::from_object(object);
        assert_eq!((ingress.created, ingress.status_managers), (100, vec!["tidegate.dev/ingress".into()]));
        assert_eq!((ingress.class.as_deref(), ingress.legacy_class.as_deref()), (Some("tidegate"), Some("old")));
        assert_eq!(ingress.status, [Address::Ip("192.0.2.1".into()), Address::Hostname("lb.test".into())]);
        assert_eq!(ingress.hosts, ["a.test".into(), "b.test".into()]);
        let service = Backend::Service { name: "s".into(), port: Port::Name("http".into()) };
        assert_eq!(
            ingress.paths,
            [
                Path { host: "a.test".into(), path: "/x".into(), kind: PathKind::Exact, backend: service },
                Path { host: "a.test".into(), path: "/".into(), kind: PathKind::Prefix, backend: Backend::Unsupported },
            ]
        );
    }
}
