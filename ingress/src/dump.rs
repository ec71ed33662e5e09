//! The `/routes` page: the table that is served, as JSON.

use serde::Serialize;

use crate::snapshot::Snapshot;

#[derive(Serialize)]
struct Dump {
    generation: u64,
    routes: Vec<RouteLine>,
    certificates: Vec<CertificateLine>,
}

#[derive(Serialize)]
struct RouteLine {
    host: String,
    path: String,
    ingress: String,
    service: String,
    endpoints: Vec<String>,
}

#[derive(Serialize)]
struct CertificateLine {
    host: String,
    secret: Option<String>,
    /// False if the default certificate is served in its place.
    usable: bool,
}

/// The routes in the order of hosts, and within a host in the order in which they are preferred.
pub(crate) fn routes(snapshot: &Snapshot) -> String {
    let mut rules: Vec<_> = snapshot.routes.rules().collect();
    rules.sort_by(|a, b| a.host.cmp(&b.host).then_with(|| b.precedence().cmp(&a.precedence())));
    let routes = rules.into_iter().map(|rule| RouteLine {
        host: rule.host.to_string(),
        path: rule.path.to_string(),
        ingress: rule.source.to_string(),
        service: rule.target.upstream.key.to_string(),
        endpoints: rule.target.upstream.endpoints().addresses().map(|address| address.to_string()).collect(),
    });
    let mut certificates: Vec<_> = snapshot.certificates.rules().collect();
    certificates.sort_by(|a, b| a.host.cmp(&b.host));
    let certificates = certificates.into_iter().map(|rule| CertificateLine {
        host: rule.host.to_string(),
        secret: rule.target.as_ref().map(ToString::to_string),
        usable: rule.target.as_ref().is_some_and(|key| snapshot.identities.contains_key(&**key)),
    });
    let dump = Dump { generation: snapshot.generation, routes: routes.collect(), certificates: certificates.collect() };
    // Strings and numbers always serialise.
    serde_json::to_string_pretty(&dump).unwrap_or_default()
}
