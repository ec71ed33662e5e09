//! Which external names Services may stand for. Whoever may write a Service could otherwise have the gateway fetch from
//! where only the gateway gets to, so the operator names the domains.

use std::net::IpAddr;

#[derive(Clone, Debug, Default)]
pub(crate) struct ExternalNames {
    domains: Vec<Box<str>>,
}

impl ExternalNames {
    /// `*` is every domain.
    pub(crate) fn new(domains: &[String]) -> Self {
        let normal = |domain: &String| domain.trim_matches('.').to_ascii_lowercase().into();
        Self { domains: domains.iter().map(normal).collect() }
    }

    /// Whether a name in lower case and without a trailing dot is in one of the domains.
    pub(crate) fn allows(&self, name: &str) -> bool {
        self.domains.iter().any(|domain| {
            &**domain == "*" || name.strip_suffix(&**domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
    }

    /// Whether an allowed name may mean this address: nothing that is different on every machine, except where the
    /// operator named it.
    pub(crate) fn allows_address(&self, ip: IpAddr) -> bool {
        let own = ip.is_unspecified() || ip.is_multicast();
        let link_local = match ip {
            IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        let loopback_named = || self.domains.iter().any(|domain| &**domain == "localhost");
        !own && !link_local && (!ip.is_loopback() || loopback_named())
    }
}

#[cfg(test)]
mod tests {
    use super::ExternalNames;

    #[test]
    fn names_are_allowed_by_domain() {
        let some = ExternalNames::new(&["Example.com.".to_owned(), "db.internal".to_owned()]);
        for (name, allowed) in [
            ("example.com", true),
            ("a.b.example.com", true),
            ("evilexample.com", false),
            ("internal", false),
            ("db.internal", true),
        ] {
            assert_eq!(some.allows(name), allowed, "{name}");
        }
        assert!(!ExternalNames::default().allows("example.com"));
        assert!(ExternalNames::new(&["*".to_owned()]).allows("example.com"));
    }

    #[test]
    fn addresses_of_the_own_machine_and_link_are_not() {
        let any = ExternalNames::new(&["*".to_owned()]);
        let local = ExternalNames::new(&["localhost".to_owned()]);
        for (ip, by_any, by_local) in [
            ("192.0.2.1", true, true),
            ("127.0.0.1", false, true),
            ("::1", false, true),
            ("169.254.169.254", false, false),
            ("fe80::1", false, false),
            ("0.0.0.0", false, false),
        ] {
            let ip = ip.parse().unwrap();
            assert_eq!((any.allows_address(ip), local.allows_address(ip)), (by_any, by_local), "{ip}");
        }
    }
}
