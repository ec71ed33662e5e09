//! The environment that names the Services of a namespace (`NAME_SERVICE_HOST`, and the older link variables).

use k8s_openapi::api::core::v1::{Service, ServicePort};

/// Where every pod finds the API server, whatever its namespace.
const MASTER: (&str, &str) = ("default", "kubernetes");

/// Variables for the Services that a pod of this namespace sees; without links only the API server's.
pub(crate) fn variables<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    namespace: &str,
    links: bool,
) -> Vec<(String, String)> {
    let mut visible: Vec<&Service> =
        services.into_iter().filter(|service| is_visible(service, namespace, links)).collect();
    visible.sort_by_key(|service| (is_master(service), service.metadata.name.clone()));
    visible.into_iter().flat_map(of_service).collect()
}

fn is_master(service: &Service) -> bool {
    (service.metadata.namespace.as_deref(), service.metadata.name.as_deref()) == (Some(MASTER.0), Some(MASTER.1))
}

fn is_visible(service: &Service, namespace: &str, links: bool) -> bool {
    let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
    let reachable = !address.is_empty() && address != "None";
    reachable && (is_master(service) || links && service.metadata.namespace.as_deref() == Some(namespace))
}

fn of_service(service: &Service) -> Vec<(String, String)> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let (Some(name), Some(address), Some(first)) = (&service.metadata.name, &spec.cluster_ip, ports.first()) else {
        return Vec::new();
    };
    let prefix = upper(name);
    let mut variables = vec![
        (format!("{prefix}_SERVICE_HOST"), address.clone()),
        (format!("{prefix}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            variables.push((format!("{prefix}_SERVICE_PORT_{}", upper(port_name)), port.port.to_string()));
        }
    }
    variables.push((format!("{prefix}_PORT"), url(address, first)));
    for port in ports {
        let protocol = protocol(port);
        let link = format!("{prefix}_PORT_{}_{protocol}", port.port);
        variables.push((link.clone(), url(address, port)));
        variables.push((format!("{link}_PROTO"), protocol.to_lowercase()));
        variables.push((format!("{link}_PORT"), port.port.to_string()));
        variables.push((format!("{link}_ADDR"), address.clone()));
    }
    variables
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

fn url(address: &str, port: &ServicePort) -> String {
    let address = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    format!("{}://{address}:{}", protocol(port).to_lowercase(), port.port)
}

fn upper(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(namespace: &str, name: &str, ip: &str) -> Service {
        serde_json::from_value(json!({
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"clusterIP": ip, "ports": [
                {"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns-udp", "port": 53, "protocol": "UDP"}]}
        }))
        .unwrap()
    }

    fn services() -> Vec<Service> {
        vec![
            service("default", "kubernetes", "10.96.0.1"),
            service("shop", "my-web", "fd00:10:96::7"),
            service("shop", "headless", "None"),
            service("other", "hidden", "10.96.0.9"),
        ]
    }

    #[test]
    fn a_pod_sees_its_namespace_and_the_api_server() {
        let variables = variables(&services(), "shop", true);
        let find = |name: &str| variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert_eq!(find("MY_WEB_SERVICE_HOST"), Some("fd00:10:96::7"));
        assert_eq!(find("MY_WEB_SERVICE_PORT_DNS_UDP"), Some("53"));
        assert_eq!(find("MY_WEB_PORT"), Some("tcp://[fd00:10:96::7]:80"));
        assert_eq!(find("MY_WEB_PORT_53_UDP_PROTO"), Some("udp"));
        assert_eq!(find("KUBERNETES_SERVICE_HOST"), Some("10.96.0.1"));
        assert_eq!(find("HEADLESS_SERVICE_HOST"), None);
        assert_eq!(find("HIDDEN_SERVICE_HOST"), None);
    }

    #[test]
    fn without_links_only_the_api_server_remains() {
        let variables = variables(&services(), "shop", false);
        assert!(variables.iter().all(|(key, _)| key.starts_with("KUBERNETES_")));
        assert!(!variables.is_empty());
    }
}
