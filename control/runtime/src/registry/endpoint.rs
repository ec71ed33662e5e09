//! Where a repository is served. Pure.

use std::net::IpAddr;

use crate::image::Reference;

/// A registry's address and the repository's name there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// As it is called in references and credentials.
    pub(super) registry: String,
    /// `host` or `host:port` to connect to.
    pub(super) authority: String,
    pub(super) repository: String,
}

impl Endpoint {
    pub(super) fn of(reference: &Reference) -> Self {
        let (registry, repository) = reference.repository.split_once('/').unwrap_or(("", &reference.repository));
        // The one registry that is served under another name.
        let authority = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        Self { registry: registry.into(), authority: authority.into(), repository: repository.into() }
    }
}

/// Whether a host is this machine, so that nobody can listen in on what is said to it in the clear.
pub(super) fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_found_where_they_are_served() {
        for (name, authority, repository) in [
            ("busybox", "registry-1.docker.io", "library/busybox"),
            ("a/b", "registry-1.docker.io", "a/b"),
            ("registry.k8s.io/pause", "registry.k8s.io", "pause"),
            ("localhost:5000/x/y", "localhost:5000", "x/y"),
        ] {
            let endpoint = Endpoint::of(&Reference::parse(name).unwrap());
            assert_eq!((endpoint.authority.as_str(), endpoint.repository.as_str()), (authority, repository), "{name}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["localhost", "127.0.0.1", "127.9.9.9", "[::1]", "::1"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example.com", "128.0.0.1", "10.0.0.1", "127.0.0.1.example.com", "[::2]", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
