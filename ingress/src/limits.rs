//! What clients may take up, and whose word about clients is believed.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use nix::sys::resource::{Resource, getrlimit};

use crate::units::{parse_duration, parse_size};

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Clients")]
pub struct Limits {
    /// How long a client may take for its TLS handshake; then it is cut off.
    #[arg(long = "tls-handshake-timeout", value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub(crate) handshake_timeout: Duration,

    /// How long a client may take to send the header of a request, from its first byte on, that of a first request from
    /// the connection (or handshake) on; then it gets 408.
    #[arg(long = "client-header-timeout", value_name = "DURATION", default_value = "15s", value_parser = parse_duration)]
    pub(crate) header_timeout: Duration,

    /// How long a connection without requests is kept.
    #[arg(long = "client-keepalive-timeout", value_name = "DURATION", default_value = "75s", value_parser = parse_duration)]
    pub(crate) keepalive_timeout: Duration,

    /// How long a client may pause while it sends a request body; then it gets 408.
    #[arg(long = "client-body-timeout", value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub(crate) body_timeout: Duration,

    /// The largest request header, request line included; larger ones get 431.
    #[arg(long = "max-request-header-size", value_name = "SIZE", default_value = "32k", value_parser = parse_header_size)]
    pub(crate) header_size_max: u32,

    /// The largest target (path and query) of a request; longer ones get 414.
    #[arg(long = "max-request-uri-size", value_name = "SIZE", default_value = "8k", value_parser = parse_target_size)]
    pub(crate) target_size_max: u32,

    /// The most fields in a request header, cookies apart; more get 431.
    #[arg(long = "max-request-header-count", value_name = "N", default_value_t = 100)]
    pub(crate) header_count_max: usize,

    /// The most connections of clients at a time; more wait in the sockets. Default: half of the open files allowed.
    #[arg(long, value_name = "N", value_parser = parse_connections)]
    pub(crate) max_connections: Option<usize>,

    /// The most connections of one client (an IPv4 address, or an IPv6 network of 64 bits); more are closed at once.
    /// Trusted proxies have no such limit. Default: none.
    #[arg(long = "max-connections-per-client", value_name = "N", value_parser = parse_connections)]
    pub(crate) max_client_connections: Option<usize>,

    /// Leave runs of slashes in a request's path as they are, for routing and for the endpoint, instead of making them one.
    #[arg(long)]
    pub(crate) keep_slashes: bool,

    /// Networks of proxies whose word about their clients (X-Forwarded-*, PROXY protocol) is believed.
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = parse_network)]
    pub(crate) trusted_proxies: Vec<IpNet>,

    /// Every connection begins with a PROXY protocol header (version 1 or 2) of a trusted proxy.
    #[arg(long, requires = "trusted_proxies")]
    pub(crate) proxy_protocol: bool,
}

impl Limits {
    pub(crate) fn trusts(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.trusted_proxies.iter().any(|network| network.contains(&ip))
    }

    /// The most connections of clients: a connection may need a second file towards its endpoint.
    pub(crate) fn connections(&self) -> usize {
        let files = || getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
        self.max_connections.unwrap_or_else(|| usize::try_from(files() / 2).unwrap_or(usize::MAX)).max(1)
    }
}

/// A network, or one address.
fn parse_network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| address()).map_err(|_| "neither a network like 10.0.0.0/8 nor an address".to_owned())
}

fn parse_header_size(text: &str) -> Result<u32, String> {
    // Pingora reads no more than 1 MiB of header.
    match parse_size(text)? {
        size @ 1024..1_000_000 => u32::try_from(size).map_err(|_| "too large".to_owned()),
        _ => Err("not between 1k and 976k".to_owned()),
    }
}

fn parse_target_size(text: &str) -> Result<u32, String> {
    // The URI parser takes no more than 64 KiB.
    match parse_size(text)? {
        size @ 256..65_000 => u32::try_from(size).map_err(|_| "too large".to_owned()),
        _ => Err("not between 256 and 63k".to_owned()),
    }
}

fn parse_connections(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("not a positive number".to_owned()),
        Ok(number) => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::Limits;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        limits: Limits,
    }

    fn parse(arguments: &[&str]) -> Result<Limits, clap::Error> {
        Cli::try_parse_from(["x"].iter().chain(arguments)).map(|cli| cli.limits)
    }

    #[test]
    fn trust_is_by_network_and_sees_through_mapped_addresses() {
        let limits = parse(&["--trusted-proxies", "10.0.0.0/8,fd00::/8,192.0.2.7"]).unwrap();
        for (ip, trusted) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("fd00::1", true),
            ("::1", false),
        ] {
            assert_eq!(limits.trusts(ip.parse().unwrap()), trusted, "{ip}");
        }
        assert!(!parse(&[]).unwrap().trusts("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            &["--proxy-protocol"][..],
            &["--trusted-proxies", "10.0.0.0/33"],
            &["--max-request-header-size", "2m"],
            &["--max-request-uri-size", "64k"],
            &["--max-connections-per-client", "0"],
            &["--max-connections", "0"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
