//! The pod's `/etc/hosts`.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{HostAlias, Pod};

use super::pod_ref::PodRef;

const LOOPBACK: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::0\tip6-localnet\n\
    fe00::0\tip6-mcastprefix\n\
    fe00::1\tip6-allnodes\n\
    fe00::2\tip6-allrouters\n";

/// The file's text; a pod in the node's network starts from the node's own file.
pub(crate) fn file(pod: &Pod, pod_ips: &[IpAddr], cluster_domain: &str, node_file: &str) -> String {
    let mut text = String::new();
    if pod.host_network() {
        text.push_str("# Kubernetes-managed hosts file (host network).\n");
        text.push_str(node_file);
    } else {
        text.push_str("# Kubernetes-managed hosts file.\n");
        text.push_str(LOOPBACK);
        let host_name = pod.host_name();
        let full_name = full_name(pod, &host_name, cluster_domain);
        for ip in pod_ips {
            match &full_name {
                Some(full_name) => text.push_str(&format!("{ip}\t{full_name}\t{host_name}\n")),
                None => text.push_str(&format!("{ip}\t{host_name}\n")),
            }
        }
    }
    push_aliases(&mut text, pod.pod_spec().host_aliases.as_deref().unwrap_or_default());
    text
}

/// `host.subdomain.namespace.svc.domain` for pods that name a subdomain.
fn full_name(pod: &Pod, host_name: &str, cluster_domain: &str) -> Option<String> {
    let subdomain = pod.pod_spec().subdomain.as_deref().filter(|name| !name.is_empty())?;
    Some(format!("{host_name}.{subdomain}.{}.svc.{cluster_domain}", pod.namespace()))
}

fn push_aliases(text: &mut String, aliases: &[HostAlias]) {
    if aliases.is_empty() {
        return;
    }
    text.push_str("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        text.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t")));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_knows_itself_and_its_aliases() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web-0", "namespace": "shop"},
            "spec": {"subdomain": "web", "containers": [], "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b.c"]}]}
        }))
        .unwrap();
        let text = file(&pod, &["10.244.0.5".parse().unwrap()], "cluster.local", "");
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(text.contains("\n10.244.0.5\tweb-0.web.shop.svc.cluster.local\tweb-0\n"));
        assert!(text.ends_with("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb.c\n"));
    }

    #[test]
    fn a_host_network_pod_gets_the_nodes_file() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"hostNetwork": true, "containers": []}})).unwrap();
        let text = file(&pod, &["192.168.77.2".parse().unwrap()], "cluster.local", "127.0.0.1 localhost\n");
        assert_eq!(text, "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n");
    }
}
