//! What a name could mean in a cluster's zone, by its form alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::Name;

/// A cluster's domain, with its labels in lower case.
#[derive(Debug)]
pub(super) struct Domain {
    pub(super) name: Name,
    labels: Vec<Box<str>>,
}

/// A form that names of the zone have. Labels are lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Not in the domain.
    Outside,
    /// In the domain, in a form that no name has.
    Nowhere,
    /// The domain itself.
    Apex,
    /// `svc` or `pod`.
    Branch,
    /// `dns-version`.
    SchemaVersion,
    /// `<namespace>.svc` or `<namespace>.pod`.
    Namespace(String),
    /// `<address with dashes>.<namespace>.pod`.
    Pod { namespace: String, address: IpAddr },
    /// `<service>.<namespace>.svc`.
    Service { namespace: String, service: String },
    /// `<host>.<service>.<namespace>.svc`.
    Host { namespace: String, service: String, host: String },
    /// `_<protocol>.<service>.<namespace>.svc`: the parent of ports.
    Protocol { namespace: String, service: String, protocol: String },
    /// `_<port>._<protocol>.<service>.<namespace>.svc`.
    Port { namespace: String, service: String, protocol: String, port: String },
    /// A whole address below `in-addr.arpa` or `ip6.arpa`.
    Reverse(IpAddr),
}

impl Domain {
    pub(super) fn new(name: Name) -> Self {
        let labels = labels(&name).into_iter().map(Into::into).collect();
        Self { name, labels }
    }

    pub(super) fn place(&self, name: &Name) -> Place {
        let mut labels = labels(name);
        let own = labels.len().checked_sub(self.labels.len());
        let Some(own) = own.filter(|own| labels[*own..].iter().eq(self.labels.iter().map(AsRef::as_ref))) else {
            return address(&labels).map_or(Place::Outside, Place::Reverse);
        };
        labels.truncate(own);
        inside(labels)
    }
}

/// The labels in lower case. What is not UTF-8 becomes something that is no label of ours.
fn labels(name: &Name) -> Vec<String> {
    name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect()
}

/// The place of a name without the domain's labels.
fn inside(mut labels: Vec<String>) -> Place {
    // From the right: the branch, the namespace, and so on.
    let Some(branch) = labels.pop() else { return Place::Apex };
    match (branch.as_str(), labels.pop()) {
        ("dns-version", None) => Place::SchemaVersion,
        ("svc" | "pod", None) => Place::Branch,
        ("svc", Some(namespace)) => match labels.pop() {
            None => Place::Namespace(namespace),
            Some(service) => below_service(namespace, service, labels),
        },
        ("pod", Some(namespace)) => match (labels.pop(), labels.is_empty()) {
            (None, _) => Place::Namespace(namespace),
            (Some(host), true) => dashed(&host).map_or(Place::Nowhere, |address| Place::Pod { namespace, address }),
            _ => Place::Nowhere,
        },
        _ => Place::Nowhere,
    }
}

fn below_service(namespace: String, service: String, mut labels: Vec<String>) -> Place {
    let Some(label) = labels.pop() else { return Place::Service { namespace, service } };
    let port = labels.pop();
    match (label.strip_prefix('_'), port.as_deref().map(|port| port.strip_prefix('_'))) {
        _ if !labels.is_empty() => Place::Nowhere,
        (None, None) => Place::Host { namespace, service, host: label },
        (Some(protocol), None) => Place::Protocol { namespace, service, protocol: protocol.to_owned() },
        (Some(protocol), Some(Some(port))) => {
            Place::Port { namespace, service, protocol: protocol.to_owned(), port: port.to_owned() }
        }
        _ => Place::Nowhere,
    }
}

/// `1-2-3-4` or `2001-db8--1`.
fn dashed(label: &str) -> Option<IpAddr> {
    let four = label.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
    four.or_else(|_| label.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6)).ok()
}

/// The address of a reverse name.
fn address(labels: &[String]) -> Option<IpAddr> {
    let (arpa, labels) = labels.split_last()?;
    let (family, digits) = labels.split_last()?;
    if arpa != "arpa" {
        return None;
    }
    match (family.as_str(), digits.len()) {
        ("in-addr", 4) => {
            let mut octets = [0; 4];
            for (octet, label) in octets.iter_mut().zip(digits.iter().rev()) {
                *octet = label.parse().ok()?;
            }
            Some(Ipv4Addr::from(octets).into())
        }
        ("ip6", 32) => {
            let mut bits = 0_u128;
            for label in digits.iter().rev() {
                let &[digit] = label.as_bytes() else { return None };
                bits = bits << 4 | u128::from(char::from(digit).to_digit(16)?);
            }
            Some(Ipv6Addr::from(bits).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::Name;

    use super::{Domain, Place};

    #[test]
    fn the_form_of_a_name_says_what_it_could_mean() {
        let domain = Domain::new(Name::from_ascii("cluster.local.").unwrap());
        let (namespace, service) = (|| "ns".to_owned(), || "web".to_owned());
        for (text, expected) in [
            ("Cluster.LOCAL.", Place::Apex),
            ("local.", Place::Outside),
            ("xcluster.local.", Place::Outside),
            ("svc.cluster.local.", Place::Branch),
            ("dns-version.cluster.local.", Place::SchemaVersion),
            ("a.dns-version.cluster.local.", Place::Nowhere),
            ("other.cluster.local.", Place::Nowhere),
            ("ns.svc.cluster.local.", Place::Namespace(namespace())),
            ("WEB.ns.svc.cluster.local.", Place::Service { namespace: namespace(), service: service() }),
            ("10.in-addr.arpa.", Place::Outside),
            ("4.3.2.1.in-addr.arpa.", Place::Reverse("1.2.3.4".parse().unwrap())),
            ("400.3.2.1.in-addr.arpa.", Place::Outside),
            ("a.b.c.web.ns.svc.cluster.local.", Place::Nowhere),
            ("http._tcp.web.ns.svc.cluster.local.", Place::Nowhere),
            ("1-2-3.ns.pod.cluster.local.", Place::Nowhere),
            ("x.1-2-3-4.ns.pod.cluster.local.", Place::Nowhere),
            (
                "fd00--1.ns.pod.cluster.local.",
                Place::Pod { namespace: namespace(), address: "fd00::1".parse().unwrap() },
            ),
        ] {
            assert_eq!(domain.place(&Name::from_ascii(text).unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn labels_that_hold_dots_are_no_two_labels() {
        let domain = Domain::new(Name::from_ascii("cluster.local.").unwrap());
        let mut name = Name::from_labels([&b"web.ns"[..], b"svc", b"cluster", b"local"]).unwrap();
        name.set_fqdn(true);
        assert_eq!(domain.place(&name), Place::Namespace("web.ns".to_owned()));
    }
}
