//! The objects that every cluster has from its first moment, and the tasks that a server runs.

use std::net::IpAddr;
use std::sync::Arc;

use control_api::status::Status;
use control_api::{meta, rbac};
use http::HeaderMap;
use http::header::{HeaderValue, USER_AGENT};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::authn::{AUTHENTICATED, MASTERS, User};
use crate::follow::{self, Tasks};
use crate::handler::Context;
use crate::request::RequestInfo;
use crate::state::Server;
use crate::write;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
const PRIORITY_CLASSES: [(&str, i64, &str); 2] = [
    ("system-cluster-critical", 2_000_000_000, "for pods that the cluster needs, on whatever node they run"),
    ("system-node-critical", 2_000_001_000, "for pods that their node needs"),
];
const RBAC: &str = "rbac.authorization.k8s.io";
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// Creates what is missing, then reads what the server follows.
pub(crate) async fn start(server: &Arc<Server>) -> anyhow::Result<Tasks> {
    for name in NAMESPACES {
        ensure(server, "", "namespaces", json!({"metadata": {"name": name}})).await?;
    }
    for (name, value, what) in PRIORITY_CLASSES {
        let class = json!({"metadata": {"name": name}, "value": value, "description": what});
        ensure(server, "scheduling.k8s.io", "priorityclasses", class).await?;
    }
    for object in rbac::bootstrap() {
        ensure_rbac(server, object).await?;
    }
    publish_addresses(server).await?;
    Ok(follow::start(server).await?)
}

/// A request that the server makes of itself.
pub(crate) fn context(server: &Arc<Server>, verb: &'static str, namespace: &str, name: &str) -> Context {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static("tidegate-apiserver"));
    let groups = vec![MASTERS.into(), AUTHENTICATED.into()];
    Context {
        server: Arc::clone(server),
        user: Arc::new(User { name: "system:apiserver".into(), groups, ..User::default() }),
        info: RequestInfo {
            verb,
            namespace: namespace.into(),
            name: name.into(),
            is_resource: true,
            ..RequestInfo::default()
        },
        headers,
        warnings: Mutex::default(),
        place: Mutex::default(),
    }
}

/// Creates an object unless it is there. Returns the one that was there.
async fn ensure(server: &Arc<Server>, group: &str, plural: &str, mut object: Value) -> Result<Option<Value>, Status> {
    let resource = server.builtin(group, plural)?;
    let (namespace, name) = (meta::namespace(&object).to_owned(), meta::name(&object).to_owned());
    if let Some((_, found)) = server.read(&resource, &namespace, &name).await? {
        return Ok(Some(found));
    }
    object["apiVersion"] = resource.api_version().into();
    object["kind"] = resource.kind.as_str().into();
    write::create_object(&context(server, "create", &namespace, ""), &resource, object).await?;
    Ok(None)
}

/// Roles of an earlier version get the rules that they lack; nothing is taken from them.
async fn ensure_rbac(server: &Arc<Server>, wanted: Value) -> Result<(), Status> {
    let plural = format!("{}s", meta::kind(&wanted).to_lowercase());
    let Some(found) = ensure(server, RBAC, &plural, wanted.clone()).await? else { return Ok(()) };
    let list = if wanted["rules"].is_array() { "rules" } else { "subjects" };
    let existing = found[list].as_array().cloned().unwrap_or_default();
    let missing: Vec<Value> =
        wanted[list].as_array().into_iter().flatten().filter(|entry| !existing.contains(entry)).cloned().collect();
    if missing.is_empty() || meta::annotation(&found, AUTO_UPDATE) == Some("false") {
        return Ok(());
    }
    let resource = server.builtin(RBAC, &plural)?;
    let context = context(server, "update", meta::namespace(&wanted), meta::name(&wanted));
    write::modify(&context, &resource, |current| {
        let mut object = current.clone();
        let entries = current[list].as_array().into_iter().flatten().chain(&missing).cloned();
        object[list] = entries.collect();
        Ok(object)
    })
    .await?;
    Ok(())
}

/// `default/kubernetes`: the Service, its slices and Endpoints, with this server's addresses.
async fn publish_addresses(server: &Arc<Server>) -> Result<(), Status> {
    let port = server.advertised.port;
    let ips: Vec<String> = server.allocator.first_addresses().iter().map(ToString::to_string).collect();
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {
            "type": "ClusterIP", "clusterIP": ips[0], "clusterIPs": ips,
            "ipFamilyPolicy": if ips.len() > 1 { "PreferDualStack" } else { "SingleStack" },
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": port}],
        },
    });
    ensure(server, "", "services", service).await?;
    // A loopback address would lead every pod to itself.
    let reachable = server.advertised.addresses.iter().filter(|address| !address.is_loopback());
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = reachable.partition(|address| address.is_ipv4());
    for (name, kind, addresses) in [("kubernetes", "IPv4", &v4), ("kubernetes-ipv6", "IPv6", &v6)] {
        if addresses.is_empty() {
            continue;
        }
        let endpoints: Vec<Value> = addresses
            .iter()
            .map(|address| json!({"addresses": [address.to_string()], "conditions": {"ready": true}}))
            .collect();
        let slice = json!({
            "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": kind,
            "endpoints": endpoints,
            "ports": [{"name": "https", "protocol": "TCP", "port": port}],
        });
        put(server, "discovery.k8s.io", "endpointslices", slice, &["endpoints", "ports"]).await?;
    }
    let primary = if v4.is_empty() { &v6 } else { &v4 };
    if !primary.is_empty() {
        let addresses: Vec<Value> = primary.iter().map(|address| json!({"ip": address.to_string()})).collect();
        let endpoints = json!({
            "metadata": {
                "name": "kubernetes", "namespace": "default",
                "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
            },
            "subsets": [{"addresses": addresses, "ports": [{"name": "https", "protocol": "TCP", "port": port}]}],
        });
        put(server, "", "endpoints", endpoints, &["subsets"]).await?;
    }
    Ok(())
}

/// Creates an object, or brings these fields of it up to date.
async fn put(server: &Arc<Server>, group: &str, plural: &str, object: Value, fields: &[&str]) -> Result<(), Status> {
    let resource = server.builtin(group, plural)?;
    if ensure(server, group, plural, object.clone()).await?.is_none() {
        return Ok(());
    }
    let context = context(server, "update", meta::namespace(&object), meta::name(&object));
    write::modify(&context, &resource, |current| {
        let mut updated = current.clone();
        for field in fields {
            updated[*field] = object[*field].clone();
        }
        Ok(updated)
    })
    .await?;
    Ok(())
}
