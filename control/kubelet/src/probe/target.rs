//! What a probe or an HTTP hook asks, resolved against the pod: addresses, port names, headers. Pure.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Exec(Vec<String>),
    Http(HttpTarget),
    /// `host:port`
    Tcp(String),
    Grpc {
        address: String,
        service: String,
    },
    /// The probe cannot be asked as it is written.
    Broken(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HttpTarget {
    pub https: bool,
    pub host: String,
    pub port: u16,
    /// Path with query.
    pub path: String,
    pub headers: Vec<(String, String)>,
}

impl Target {
    pub(crate) fn of(probe: &Probe, container: &Container, pod_ip: Option<IpAddr>) -> Self {
        Self::resolve(probe, container, pod_ip).unwrap_or_else(Self::Broken)
    }

    fn resolve(probe: &Probe, container: &Container, pod_ip: Option<IpAddr>) -> Result<Self, String> {
        if let Some(action) = &probe.exec {
            return Ok(Self::Exec(action.command.clone().unwrap_or_default()));
        }
        if let Some(action) = &probe.http_get {
            return Ok(Self::Http(http(action, container, pod_ip)?));
        }
        if let Some(action) = &probe.tcp_socket {
            let host = host(action.host.as_deref(), pod_ip)?;
            return Ok(Self::Tcp(join(&host, port(&action.port, container)?)));
        }
        if let Some(action) = &probe.grpc {
            let address = join(&host(None, pod_ip)?, number(action.port)?);
            return Ok(Self::Grpc { address, service: action.service.clone().unwrap_or_default() });
        }
        Err("missing probe handler".into())
    }
}

/// The request of an `httpGet` action.
pub(crate) fn http(
    action: &HTTPGetAction,
    container: &Container,
    pod_ip: Option<IpAddr>,
) -> Result<HttpTarget, String> {
    let path = action.path.as_deref().unwrap_or("/");
    let headers = action.http_headers.iter().flatten();
    Ok(HttpTarget {
        https: action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
        host: host(action.host.as_deref(), pod_ip)?,
        port: port(&action.port, container)?,
        path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
        headers: headers.map(|header| (header.name.clone(), header.value.clone())).collect(),
    })
}

/// `host:port`, with brackets around IPv6 addresses.
pub(crate) fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn host(own: Option<&str>, pod_ip: Option<IpAddr>) -> Result<String, String> {
    match (own.filter(|host| !host.is_empty()), pod_ip) {
        (Some(host), _) => Ok(host.to_owned()),
        (None, Some(ip)) => Ok(ip.to_string()),
        (None, None) => Err("pod has no address yet".into()),
    }
}

fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    match port {
        IntOrString::Int(port) => number(*port),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name));
            match named {
                Some(port) => number(port.container_port),
                None => name.parse().map_err(|_| format!("couldn't find port: {name}")).and_then(number),
            }
        }
    }
}

fn number(port: i32) -> Result<u16, String> {
    u16::try_from(port).ok().filter(|port| *port > 0).ok_or_else(|| format!("invalid port number: {port}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(probe: Value) -> Target {
        let container = json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]});
        let container: Container = serde_json::from_value(container).unwrap();
        Target::of(&serde_json::from_value(probe).unwrap(), &container, Some("fd00::5".parse().unwrap()))
    }

    #[test]
    fn ports_and_hosts_are_resolved() {
        assert_eq!(of(json!({"tcpSocket": {"port": "web"}})), Target::Tcp("[fd00::5]:8080".into()));
        assert_eq!(of(json!({"tcpSocket": {"port": 9, "host": "h"}})), Target::Tcp("h:9".into()));
        assert_eq!(of(json!({"tcpSocket": {"port": "no"}})), Target::Broken("couldn't find port: no".into()));
        assert_eq!(of(json!({})), Target::Broken("missing probe handler".into()));
        assert_eq!(
            of(json!({"grpc": {"port": 5}})),
            Target::Grpc { address: "[fd00::5]:5".into(), service: String::new() }
        );
        let http = json!({"httpGet": {"path": "healthz?x=1", "port": 80, "scheme": "HTTPS",
            "httpHeaders": [{"name": "Host", "value": "a"}]}});
        assert_eq!(
            of(http),
            Target::Http(HttpTarget {
                https: true,
                host: "fd00::5".into(),
                port: 80,
                path: "/healthz?x=1".into(),
                headers: vec![("Host".into(), "a".into())],
            })
        );
    }
}
