//! The pod's `/etc/resolv.conf` by its DNS policy.

use k8s_openapi::api::core::v1::{Pod, PodDNSConfigOption};

use super::pod_ref::PodRef;

/// The cluster's DNS, and the node's own resolver file.
#[derive(Debug, Clone, Default)]
pub(crate) struct DnsSettings {
    pub servers: Vec<String>,
    pub domain: String,
    pub node_file: String,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Resolver {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<(String, Option<String>)>,
}

/// The file's text.
pub(crate) fn file(pod: &Pod, settings: &DnsSettings) -> String {
    let mut resolver = base(pod, settings);
    if let Some(config) = &pod.pod_spec().dns_config {
        resolver.servers.extend(config.nameservers.iter().flatten().cloned());
        resolver.searches.extend(config.searches.iter().flatten().cloned());
        for PodDNSConfigOption { name, value } in config.options.iter().flatten() {
            let Some(name) = name else { continue };
            resolver.options.retain(|(known, _)| known != name);
            resolver.options.push((name.clone(), value.clone().filter(|value| !value.is_empty())));
        }
    }
    print(&resolver)
}

fn base(pod: &Pod, settings: &DnsSettings) -> Resolver {
    let node = || parse(&settings.node_file);
    let policy = pod.pod_spec().dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "None" => return Resolver::default(),
        "ClusterFirst" => !pod.host_network(),
        "ClusterFirstWithHostNet" => true,
        _ => false,
    };
    if !cluster || settings.servers.is_empty() {
        return node();
    }
    let domain = &settings.domain;
    let mut searches = vec![format!("{}.svc.{domain}", pod.namespace()), format!("svc.{domain}"), domain.clone()];
    searches.extend(node().searches);
    Resolver { servers: settings.servers.clone(), searches, options: vec![("ndots".into(), Some("5".into()))] }
}

fn parse(file: &str) -> Resolver {
    let mut resolver = Resolver::default();
    for line in file.lines() {
        let mut words = line.split(['#', ';']).next().unwrap_or_default().split_whitespace();
        match words.next() {
            Some("nameserver") => resolver.servers.extend(words.next().map(str::to_owned)),
            // The last line wins, as in the resolver library.
            Some("search" | "domain") => resolver.searches = words.map(str::to_owned).collect(),
            Some("options") => resolver.options.extend(words.map(|option| match option.split_once(':') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (option.to_owned(), None),
            })),
            _ => {}
        }
    }
    resolver
}

fn print(resolver: &Resolver) -> String {
    let mut text = String::new();
    let searches = unique(&resolver.searches);
    if !searches.is_empty() {
        text.push_str(&format!("search {}\n", searches.join(" ")));
    }
    for server in unique(&resolver.servers) {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !resolver.options.is_empty() {
        let options: Vec<String> = resolver
            .options
            .iter()
            .map(|(name, value)| value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}:{value}")))
            .collect();
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

fn unique(list: &[String]) -> Vec<&str> {
    let mut seen = Vec::new();
    for item in list {
        if !seen.contains(&item.as_str()) {
            seen.push(item.as_str());
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn text(spec: Value) -> String {
        let settings = DnsSettings {
            servers: vec!["10.96.0.10".into()],
            domain: "cluster.local".into(),
            node_file: "# made by hand\nnameserver 1.1.1.1\nsearch corp\noptions timeout:1 rotate\n".into(),
        };
        let mut pod: Pod = serde_json::from_value(json!({"metadata": {"namespace": "shop"}})).unwrap();
        pod.spec = Some(serde_json::from_value(spec).unwrap());
        file(&pod, &settings)
    }

    #[test]
    fn each_policy_has_its_file() {
        let cluster = "search shop.svc.cluster.local svc.cluster.local cluster.local corp\n\
                       nameserver 10.96.0.10\noptions ndots:5\n";
        let node = "search corp\nnameserver 1.1.1.1\noptions timeout:1 rotate\n";
        let own = json!({"nameservers": ["9.9.9.9"], "searches": ["x"], "options": [{"name": "ndots", "value": "2"}]});
        for (spec, expected) in [
            (json!({"containers": []}), cluster),
            (json!({"containers": [], "hostNetwork": true}), node),
            (json!({"containers": [], "hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}), cluster),
            (json!({"containers": [], "dnsPolicy": "Default"}), node),
            (
                json!({"containers": [], "dnsPolicy": "None", "dnsConfig": own}),
                "search x\nnameserver 9.9.9.9\noptions ndots:2\n",
            ),
            (
                json!({"containers": [], "dnsConfig": own}),
                "search shop.svc.cluster.local svc.cluster.local cluster.local corp x\n\
                 nameserver 10.96.0.10\nnameserver 9.9.9.9\noptions ndots:2\n",
            ),
        ] {
            assert_eq!(text(spec.clone()), expected, "{spec}");
        }
    }
}
