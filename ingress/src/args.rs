//! The flags of `tidegate ingress`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::explain::ADMIN_ADDRESS;
use crate::limits::Limits;
use crate::model::{Address, ObjectKey};
use crate::policy::Policy;
use crate::units::parse_duration;

/// Serve Ingress v1 of a Kubernetes cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Kubeconfig of the API server; without it the usual places, then the in-cluster configuration.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Addresses to listen on for HTTP, unless sockets named `http` are handed in.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "[::]:80")]
    pub http_bind: Vec<SocketAddr>,

    /// Addresses to listen on for HTTPS, unless sockets named `https` are handed in.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "[::]:443")]
    pub https_bind: Vec<SocketAddr>,

    /// Addresses or host names to write into the status of Ingresses; without any, status is left alone.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', value_parser = parse_address)]
    pub publish_address: Vec<Address>,

    /// The value of the legacy annotation kubernetes.io/ingress.class that means us.
    #[arg(long, value_name = "NAME", default_value = "tidegate")]
    pub ingress_class: String,

    /// The controller name in the IngressClasses that are ours.
    #[arg(long, value_name = "NAME", default_value = "tidegate.dev/ingress")]
    pub controller_class: String,

    /// Also serve Ingresses that name no class, even if no default class is ours.
    #[arg(long)]
    pub watch_ingress_without_class: bool,

    /// Serving threads; each has its own runtime and upstream connections. Default: one per core.
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,

    /// Where metrics, health and the route dump are served.
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = ADMIN_ADDRESS)]
    pub admin_bind: SocketAddr,

    /// The Secret with the certificate for hosts that have none; without it a self-signed one.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub default_ssl_certificate: Option<ObjectKey>,

    /// How long requests may take to finish after SIGTERM, in seconds (or with a unit: 500ms, 30s, 5m).
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub shutdown_grace_period: Duration,

    /// Domains in which Services of type ExternalName may lie (`*` for all); others are answered 503.
    #[arg(long, value_name = "DOMAIN", value_delimiter = ',')]
    pub allow_external_names: Vec<String>,

    #[command(flatten)]
    pub limits: Limits,

    #[command(flatten)]
    pub policy: Policy,
}

fn parse_address(text: &str) -> Result<Address, String> {
    match text.parse::<IpAddr>() {
        Ok(ip) => Ok(Address::Ip(ip.to_string().into())),
        Err(_) if text.is_empty() || text.contains(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '.')) => {
            Err("neither an IP address nor a host name".to_owned())
        }
        Err(_) => Ok(Address::Hostname(text.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_address;
    use crate::model::Address;

    #[test]
    fn published_addresses_are_ips_or_names() {
        assert_eq!(parse_address("192.0.2.1"), Ok(Address::Ip("192.0.2.1".into())));
        assert_eq!(parse_address("2001:DB8::1"), Ok(Address::Ip("2001:db8::1".into())));
        assert_eq!(parse_address("lb.example.com"), Ok(Address::Hostname("lb.example.com".into())));
        assert!(parse_address("http://x").is_err());
    }
}
