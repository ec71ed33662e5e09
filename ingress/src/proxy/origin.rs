//! Where a request comes from, as far as it is believed: what this gateway sees, or what a trusted proxy in front says.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};
use pingora::http::RequestHeader;

use super::request;
use crate::limits::Limits;
use crate::serve::Client;

/// What the endpoint is told of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The nearest address that is no trusted proxy's.
    pub(super) ip: HeaderValue,
    /// The value of `X-Forwarded-For`.
    pub(super) chain: HeaderValue,
    pub(super) host: HeaderValue,
    pub(super) port: HeaderValue,
    pub(super) scheme: HeaderValue,
    /// Whether the peer is a trusted proxy, whose forwarding fields go on as they are.
    pub(super) from_proxy: bool,
}

impl Origin {
    pub(super) fn of(request: &RequestHeader, client: &Client, limits: &Limits) -> Self {
        let scheme = HeaderValue::from_static(if client.tls.is_some() { "https" } else { "http" });
        let host = HeaderValue::from_str(request::host(request)).unwrap_or(HeaderValue::from_static(""));
        let seen = Self {
            ip: client.ip.clone(),
            chain: client.ip.clone(),
            host,
            port: HeaderValue::from(client.port),
            scheme,
            from_proxy: false,
        };
        if limits.trusts(client.address.ip()) { seen.told_by_proxy(&request.headers, limits) } else { seen }
    }

    fn told_by_proxy(self, headers: &HeaderMap, limits: &Limits) -> Self {
        let last = |name: &str| headers.get_all(name).iter().next_back();
        let scheme = last("x-forwarded-proto").filter(|scheme| *scheme == "http" || *scheme == "https");
        let port = last("x-forwarded-port").filter(|port| port.to_str().is_ok_and(|text| text.parse::<u16>().is_ok()));
        let usual_port = scheme.map(|scheme| HeaderValue::from(if scheme == "https" { 443_u16 } else { 80 }));
        let named: Vec<_> = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok()).collect();
        let mut named = named.join(", ");
        let ip = nearest_untrusted(&named, limits).and_then(|ip| HeaderValue::try_from(ip.to_string()).ok());
        if !named.is_empty() {
            named.push_str(", ");
        }
        named.push_str(self.ip.to_str().unwrap_or_default());
        Self {
            ip: ip.unwrap_or(self.ip),
            chain: HeaderValue::try_from(named).unwrap_or(self.chain),
            host: last("x-forwarded-host").cloned().unwrap_or(self.host),
            port: port.cloned().or(usual_port).unwrap_or(self.port),
            scheme: scheme.cloned().unwrap_or(self.scheme),
            from_proxy: true,
        }
    }
}

/// From the right: each proxy appended the address that it saw. The first address that is not trusted is the client's; to
/// its left anything may have been written by anybody.
fn nearest_untrusted(chain: &str, limits: &Limits) -> Option<IpAddr> {
    let mut nearest = None;
    for entry in chain.rsplit(',') {
        let Some(ip) = address(entry.trim()) else { break };
        nearest = Some(ip);
        if !limits.trusts(ip) {
            break;
        }
    }
    nearest
}

/// An address, alone or with a port.
fn address(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    text.parse().ok().or_else(with_port)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use pingora::http::RequestHeader;

    use super::Origin;
    use crate::limits::Limits;
    use crate::serve::Client;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        limits: Limits,
    }

    fn origin(peer: &str, headers: &[(&'static str, &str)]) -> (String, String, String, String, String) {
        let limits = Cli::parse_from(["x", "--trusted-proxies", "10.0.0.0/8"]).limits;
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        request.insert_header("Host", "a.test").unwrap();
        for (name, value) in headers {
            request.append_header(*name, *value).unwrap();
        }
        let origin = Origin::of(&request, &Client::new(peer.parse().unwrap(), 8080), &limits);
        let text = |value: &http::HeaderValue| value.to_str().unwrap().to_owned();
        (text(&origin.ip), text(&origin.chain), text(&origin.scheme), text(&origin.host), text(&origin.port))
    }

    fn expected(
        ip: &str,
        chain: &str,
        scheme: &str,
        host: &str,
        port: &str,
    ) -> (String, String, String, String, String) {
        (ip.into(), chain.into(), scheme.into(), host.into(), port.into())
    }

    #[test]
    fn nobody_else_is_believed() {
        let claims = [("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "evil")];
        let seen = expected("192.0.2.1", "192.0.2.1", "http", "a.test", "8080");
        assert_eq!(origin("192.0.2.1:1", &claims), seen);
    }

    #[test]
    fn a_trusted_proxy_is_believed_up_to_the_first_stranger() {
        let peer = "10.0.0.1:1";
        for (chain, ip) in [
            ("192.0.2.9", "192.0.2.9"),
            ("6.6.6.6, 192.0.2.9, 10.0.0.2", "192.0.2.9"),
            ("6.6.6.6, garbage, 10.0.0.2", "10.0.0.2"),
            ("192.0.2.9:4711", "192.0.2.9"),
            ("10.0.0.3", "10.0.0.3"),
            ("garbage", "10.0.0.1"),
        ] {
            assert_eq!(origin(peer, &[("X-Forwarded-For", chain)]).0, ip, "{chain}");
        }
        let claims = [
            ("X-Forwarded-For", "192.0.2.9"),
            ("X-Forwarded-For", "10.0.0.2"),
            ("X-Forwarded-Proto", "https"),
            ("X-Forwarded-Host", "shop.test"),
        ];
        let told = expected("192.0.2.9", "192.0.2.9, 10.0.0.2, 10.0.0.1", "https", "shop.test", "443");
        assert_eq!(origin(peer, &claims), told);
        let nonsense = [("X-Forwarded-Proto", "gopher"), ("X-Forwarded-Port", "99999")];
        assert_eq!(origin(peer, &nonsense), expected("10.0.0.1", "10.0.0.1", "http", "a.test", "8080"));
    }
}
