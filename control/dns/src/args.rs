//! The flags of `tidegate dns`.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use hickory_proto::rr::Name;

const DNS_PORT: u16 = 53;

/// Serve the DNS names of a Kubernetes cluster and forward all others.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Kubeconfig of the API server; without it the usual places, then the in-cluster configuration.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The domain that the cluster's names live in.
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local", value_parser = parse_domain)]
    pub cluster_domain: Name,

    /// Addresses to listen on, UDP and TCP, unless sockets named `dns` are handed in.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "[::]:53")]
    pub bind: Vec<SocketAddr>,

    /// How long clients may keep an answer about the cluster, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=3600))]
    pub ttl: u32,

    /// Servers that are asked about all other names, in this order; without any those of --resolv-conf.
    #[arg(long, value_name = "ADDRESS[:PORT]", value_delimiter = ',', value_parser = parse_server)]
    pub forward: Vec<SocketAddr>,

    /// The file whose name servers are asked about all other names, read again when it changes; empty for none.
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf", value_parser = parse_path)]
    pub resolv_conf: PathBuf,

    /// Forwarded answers to keep; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub cache_entries: usize,

    /// Where metrics and health are served, unless a socket named `dns-admin` is handed in.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9153")]
    pub admin_bind: SocketAddr,
}

fn parse_domain(text: &str) -> Result<Name, String> {
    let mut name = Name::from_ascii(text.to_ascii_lowercase()).map_err(|error| error.to_string())?;
    if name.is_root() {
        return Err("the root is not a cluster domain".to_owned());
    }
    name.set_fqdn(true);
    Ok(name)
}

/// The usual parser takes no empty path.
fn parse_path(text: &str) -> Result<PathBuf, Infallible> {
    Ok(text.into())
}

fn parse_server(text: &str) -> Result<SocketAddr, String> {
    let bare = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT));
    text.parse().or_else(|_| bare()).map_err(|_| "neither an IP address nor address:port".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{parse_domain, parse_server};

    #[test]
    fn servers_have_port_53_unless_they_say_so() {
        for (text, expected) in [
            ("192.0.2.1", Some("192.0.2.1:53")),
            ("192.0.2.1:5353", Some("192.0.2.1:5353")),
            ("2001:db8::1", Some("[2001:db8::1]:53")),
            ("[2001:db8::1]:5353", Some("[2001:db8::1]:5353")),
            ("dns.example", None),
            ("", None),
        ] {
            assert_eq!(parse_server(text).ok(), expected.map(|address| address.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn the_domain_is_lower_case_and_absolute() {
        assert_eq!(parse_domain("Cluster.Local").unwrap().to_string(), "cluster.local.");
        assert!(parse_domain(".").is_err());
        assert!(parse_domain("a..b").is_err());
    }
}
