//! Name servers out of a `resolv.conf(5)`.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

const PORT: u16 = 53;
/// Where systemd-resolved writes the servers that it asks itself.
pub(super) const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";

/// The servers in their order, each once; lines that name none are passed over, as resolvers do.
pub(super) fn parse(text: &str) -> Vec<SocketAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        if let Some(server) = words.next().and_then(server).filter(|server| !servers.contains(server)) {
            servers.push(server);
        }
    }
    servers
}

fn server(text: &str) -> Option<SocketAddr> {
    let Some((address, scope)) = text.split_once('%') else {
        return text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, PORT));
    };
    let scope = scope.parse().or_else(|_| nix::net::if_::if_nametoindex(scope)).ok()?;
    Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, scope).into())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn only_name_servers_count() {
        let text = "# comment\nsearch example\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 # home\n\
                    ;nameserver 192.0.2.9\nnameserver 192.0.2.1\nnameserver\nnameserver x\noptions ndots:5\n\
                    nameserver fe80::1%lo\nnameserver fe80::1%no-such-link\n";
        let servers: Vec<String> = parse(text).iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%1]:53"]);
    }
}
