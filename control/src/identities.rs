//! Who is who in the bundled cluster: certificates and kubeconfigs for each part and for the administrator.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::layout::Layout;
use crate::pki::{Authority, Leaf, write_private};

/// Addresses under which the API server is reached.
pub(crate) struct Endpoints {
    /// From the node's own network: what the parts use.
    pub(crate) internal: String,
    /// From the host's loopback: what the administrator and the parts outside a sandbox use.
    pub(crate) external: String,
    pub(crate) node_ips: Vec<IpAddr>,
    /// First address of each Service range: `kubernetes.default`.
    pub(crate) service_ips: Vec<IpAddr>,
}

/// Makes every certificate and kubeconfig that is missing or out of date.
pub(crate) fn ensure(layout: &Layout, endpoints: &Endpoints) -> anyhow::Result<()> {
    let authority = Authority::open(&layout.pki())?;
    authority.ensure_token_key()?;
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let api_names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
    authority.ensure(&Leaf {
        name: "apiserver",
        common_name: "kube-apiserver",
        organisation: None,
        dns_names: api_names
            .iter()
            .map(|name| (*name).to_owned())
            .chain(["kubernetes.default.svc.cluster.local".into()])
            .collect(),
        addresses: loopback.iter().chain(&endpoints.node_ips).chain(&endpoints.service_ips).copied().collect(),
        server: true,
        client: false,
    })?;
    authority.ensure(&Leaf {
        name: "kubelet-serving",
        common_name: &format!("system:node:{}", layout.node),
        organisation: Some("system:nodes"),
        dns_names: vec![layout.node.clone()],
        addresses: endpoints.node_ips.clone(),
        server: true,
        client: false,
    })?;
    let kubelet_client =
        Leaf::client("apiserver-kubelet-client", "kube-apiserver-kubelet-client", Some("system:masters"));
    authority.ensure(&kubelet_client)?;

    fs::create_dir_all(layout.data_dir.join("kubeconfig"))?;
    let node_name = format!("system:node:{}", layout.node);
    let node_file = format!("node-{}", layout.node);
    let clients = [
        Leaf::client("admin", "tidegate-admin", Some("system:masters")),
        Leaf::client("controller-manager", "system:kube-controller-manager", None),
        Leaf::client("scheduler", "system:kube-scheduler", None),
        Leaf::client("agent", "system:tidegate:agent", None),
        Leaf::client("ingress", "system:tidegate:ingress", None),
        Leaf::client("dns", "system:tidegate:dns", None),
        Leaf::client(&node_file, &node_name, Some("system:nodes")),
    ];
    for leaf in &clients {
        authority.ensure(leaf)?;
        let server = if ["admin", "dns"].contains(&leaf.name) { &endpoints.external } else { &endpoints.internal };
        write_private(&layout.kubeconfig(leaf.name), &kubeconfig(layout, leaf.name, server)?)?;
    }
    // Names survive a power loss only with their folder: a lost authority would shut everybody out of a kept store.
    for dir in [layout.pki(), layout.data_dir.join("kubeconfig"), layout.data_dir.clone()] {
        fs::File::open(&dir)
            .and_then(|dir| dir.sync_all())
            .with_context(|| format!("cannot sync {}", dir.display()))?;
    }
    Ok(())
}

/// A kubeconfig that holds its certificates, so that it can be copied. JSON is YAML, and needs no quoting rules.
fn kubeconfig(layout: &Layout, who: &str, server: &str) -> anyhow::Result<String> {
    let embed = |file: &str| -> anyhow::Result<String> {
        let path = layout.pki().join(file);
        Ok(STANDARD.encode(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?))
    };
    let config = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tidegate", "cluster": {
            "server": server, "certificate-authority-data": embed("ca.crt")?}}],
        "users": [{"name": who, "user": {
            "client-certificate-data": embed(&format!("{who}.crt"))?,
            "client-key-data": embed(&format!("{who}.key"))?}}],
        "contexts": [{"name": "tidegate", "context": {"cluster": "tidegate", "user": who}}],
        "current-context": "tidegate",
    });
    Ok(serde_json::to_string_pretty(&config)?)
}
