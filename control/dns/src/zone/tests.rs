use std::collections::BTreeSet;

use hickory_proto::rr::{Name, RecordType};

use super::{Answer, Zone};
use crate::model::{Endpoint, ObjectKey, Port, Service, ServiceKind, Slice};

use RecordType::{A, AAAA, ANY, CNAME, MX, NS, PTR, SOA, SRV, TXT};

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn service(name: &str, kind: ServiceKind, ports: &[(&str, &str, u16)]) -> Service {
    let ports = ports.iter().map(|(name, protocol, number)| Port::new(name, protocol, *number)).collect();
    Service { key: ObjectKey::new("default", name), kind, ports }
}

fn cluster_ip(name: &str, addresses: &[&str], ports: &[(&str, &str, u16)]) -> Service {
    service(name, ServiceKind::ClusterIp(addresses.iter().map(|text| text.parse().unwrap()).collect()), ports)
}

fn slice(slice: &str, service: &str, ports: &[(&str, &str, u16)], endpoints: &[(&str, &str)]) -> Slice {
    let endpoint = |(address, hostname): &(&str, &str)| Endpoint {
        address: address.parse().unwrap(),
        hostname: (!hostname.is_empty()).then(|| (*hostname).into()),
    };
    Slice {
        key: ObjectKey::new("default", slice),
        service: service.into(),
        ports: ports.iter().map(|(name, protocol, number)| Port::new(name, protocol, *number)).collect(),
        endpoints: endpoints.iter().map(endpoint).collect(),
    }
}

/// The specification's examples, in one cluster.
fn zone() -> Zone {
    let peer_ports = [("https", "TCP", 443), ("gossip", "UDP", 7946), ("", "TCP", 9)];
    let mut zone = Zone::from(
        name("cluster.local."),
        5,
        [
            cluster_ip("kubernetes", &["10.3.0.1"], &[("https", "TCP", 443)]),
            cluster_ip("dual", &["10.3.0.7", "fd00::7"], &[("http", "TCP", 80), ("", "UDP", 81)]),
            service("headless", ServiceKind::Headless, &[("https", "TCP", 443)]),
            service("empty", ServiceKind::Headless, &[("https", "TCP", 443)]),
            service("portless", ServiceKind::Headless, &[]),
            service("foo", ServiceKind::ExternalName(name("www.example.com.")), &[]),
            cluster_ip("pending", &[], &[]),
        ],
        [
            slice("h-1", "headless", &peer_ports, &[("10.3.0.100", "my-pet"), ("10.3.0.101", "my-pet-2")]),
            slice("h-2", "headless", &peer_ports, &[("10.3.0.102", "")]),
            slice("h-3", "headless", &peer_ports, &[("fd00::100", "my-pet"), ("fd00::a", "")]),
            slice("k-1", "kubernetes", &[("https", "TCP", 6443)], &[("172.16.0.2", "")]),
            slice("p-1", "portless", &[], &[("10.3.0.50", "")]),
            slice("stray", "nobody", &[("https", "TCP", 443)], &[("10.9.9.9", "")]),
        ],
    );
    zone.apply_namespace("bare");
    zone
}

/// An answer in short: `nxdomain`, `nodata`, `outside`, or the data of its records in some order.
fn ask(zone: &Zone, question: &str, kind: RecordType) -> BTreeSet<String> {
    let text = match zone.answer(&name(question), kind) {
        Answer::Outside => "outside".to_owned(),
        Answer::NxDomain => "nxdomain".to_owned(),
        Answer::NoData => "nodata".to_owned(),
        Answer::Alias { record, target } => format!("alias {} {target}", record.data),
        Answer::Records { answers, .. } => {
            assert!(answers.iter().all(|record| record.ttl == 5 && record.name.to_string() == question), "{answers:?}");
            return answers.iter().map(|record| record.data.to_string()).collect();
        }
    };
    [text].into()
}

#[track_caller]
fn check(zone: &Zone, table: &[(&str, RecordType, &[&str])]) {
    for (question, kind, expected) in table {
        let expected: BTreeSet<String> = expected.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(ask(zone, question, *kind), expected, "{question} {kind}");
    }
}

#[test]
fn the_schema_version_and_the_domain_itself() {
    check(
        &zone(),
        &[
            ("dns-version.cluster.local.", TXT, &["1.1.0"]),
            ("dns-version.cluster.local.", A, &["nodata"]),
            ("cluster.local.", NS, &["kube-dns.kube-system.svc.cluster.local."]),
            ("cluster.local.", A, &["nodata"]),
            ("svc.cluster.local.", A, &["nodata"]),
            ("pod.cluster.local.", A, &["nodata"]),
            ("cluster.local.default.svc.cluster.local.", A, &["nxdomain"]),
            ("www.example.com.cluster.local.", A, &["nxdomain"]),
            ("www.example.com.", A, &["outside"]),
            ("local.", A, &["outside"]),
            (".", NS, &["outside"]),
        ],
    );
    assert_eq!(ask(&zone(), "cluster.local.", SOA).len(), 1);
}

#[test]
fn services_with_a_cluster_ip() {
    check(
        &zone(),
        &[
            ("kubernetes.default.svc.cluster.local.", A, &["10.3.0.1"]),
            ("KUBERNETES.Default.SVC.cluster.LOCAL.", A, &["10.3.0.1"]),
            ("kubernetes.default.svc.cluster.local.", AAAA, &["nodata"]),
            ("kubernetes.default.svc.cluster.local.", MX, &["nodata"]),
            ("kubernetes.default.svc.cluster.local.", CNAME, &["nodata"]),
            ("dual.default.svc.cluster.local.", A, &["10.3.0.7"]),
            ("dual.default.svc.cluster.local.", AAAA, &["fd00::7"]),
            ("pending.default.svc.cluster.local.", A, &["nodata"]),
            ("none.default.svc.cluster.local.", A, &["nxdomain"]),
            ("kubernetes.other.svc.cluster.local.", A, &["nxdomain"]),
            ("nobody.default.svc.cluster.local.", A, &["nxdomain"]),
            ("default.svc.cluster.local.", A, &["nodata"]),
            ("bare.svc.cluster.local.", A, &["nodata"]),
            ("other.svc.cluster.local.", A, &["nxdomain"]),
            ("172-16-0-2.kubernetes.default.svc.cluster.local.", A, &["172.16.0.2"]),
            ("kubernetes.default.svc.cluster.local.", ANY, &["RFC8482 "]),
            ("none.default.svc.cluster.local.", ANY, &["nxdomain"]),
        ],
    );
}

#[test]
fn named_ports() {
    check(
        &zone(),
        &[
            (
                "_https._tcp.kubernetes.default.svc.cluster.local.",
                SRV,
                &["0 100 443 kubernetes.default.svc.cluster.local."],
            ),
            ("_https._tcp.kubernetes.default.svc.cluster.local.", A, &["nodata"]),
            ("_https._udp.kubernetes.default.svc.cluster.local.", SRV, &["nxdomain"]),
            ("_http._tcp.kubernetes.default.svc.cluster.local.", SRV, &["nxdomain"]),
            ("_tcp.kubernetes.default.svc.cluster.local.", SRV, &["nodata"]),
            ("_udp.kubernetes.default.svc.cluster.local.", SRV, &["nxdomain"]),
            ("_udp.dual.default.svc.cluster.local.", SRV, &["nxdomain"]),
            ("https._tcp.kubernetes.default.svc.cluster.local.", SRV, &["nxdomain"]),
            ("_https._tcp.foo.default.svc.cluster.local.", SRV, &["nxdomain"]),
            ("_https._tcp.empty.default.svc.cluster.local.", SRV, &["nxdomain"]),
            (
                "_gossip._udp.headless.default.svc.cluster.local.",
                SRV,
                &[
                    "0 25 7946 my-pet.headless.default.svc.cluster.local.",
                    "0 25 7946 my-pet-2.headless.default.svc.cluster.local.",
                    "0 25 7946 10-3-0-102.headless.default.svc.cluster.local.",
                    "0 25 7946 fd00--a.headless.default.svc.cluster.local.",
                ],
            ),
            (
                "dual.default.svc.cluster.local.",
                SRV,
                &["0 50 80 dual.default.svc.cluster.local.", "0 50 81 dual.default.svc.cluster.local."],
            ),
            (
                "my-pet-2.headless.default.svc.cluster.local.",
                SRV,
                &[
                    "0 33 443 my-pet-2.headless.default.svc.cluster.local.",
                    "0 33 7946 my-pet-2.headless.default.svc.cluster.local.",
                    "0 33 9 my-pet-2.headless.default.svc.cluster.local.",
                ],
            ),
        ],
    );
    let question = name("_https._tcp.headless.default.svc.cluster.local.");
    let Answer::Records { additionals, .. } = zone().answer(&question, SRV) else { panic!("no records") };
    let additionals: BTreeSet<String> =
        additionals.iter().map(|record| format!("{} {}", record.name, record.data)).collect();
    let expected = [
        "my-pet.headless.default.svc.cluster.local. 10.3.0.100",
        "my-pet.headless.default.svc.cluster.local. fd00::100",
        "my-pet-2.headless.default.svc.cluster.local. 10.3.0.101",
        "10-3-0-102.headless.default.svc.cluster.local. 10.3.0.102",
        "fd00--a.headless.default.svc.cluster.local. fd00::a",
    ];
    assert_eq!(additionals, expected.map(str::to_owned).into());
}

#[test]
fn headless_services() {
    check(
        &zone(),
        &[
            ("headless.default.svc.cluster.local.", A, &["10.3.0.100", "10.3.0.101", "10.3.0.102"]),
            ("headless.default.svc.cluster.local.", AAAA, &["fd00::100", "fd00::a"]),
            ("my-pet.headless.default.svc.cluster.local.", A, &["10.3.0.100"]),
            ("my-pet.headless.default.svc.cluster.local.", AAAA, &["fd00::100"]),
            ("my-pet-2.headless.default.svc.cluster.local.", AAAA, &["nodata"]),
            ("10-3-0-102.headless.default.svc.cluster.local.", A, &["10.3.0.102"]),
            ("10-3-0-100.headless.default.svc.cluster.local.", A, &["nxdomain"]),
            ("my-pet-3.headless.default.svc.cluster.local.", A, &["nxdomain"]),
            ("x.my-pet.headless.default.svc.cluster.local.", A, &["nxdomain"]),
            ("portless.default.svc.cluster.local.", A, &["10.3.0.50"]),
            ("portless.default.svc.cluster.local.", AAAA, &["nodata"]),
            ("empty.default.svc.cluster.local.", A, &["nxdomain"]),
            ("empty.default.svc.cluster.local.", AAAA, &["nxdomain"]),
        ],
    );
}

#[test]
fn external_names_pods_and_addresses() {
    check(
        &zone(),
        &[
            ("foo.default.svc.cluster.local.", A, &["alias www.example.com. www.example.com."]),
            ("foo.default.svc.cluster.local.", CNAME, &["alias www.example.com. www.example.com."]),
            ("bar.foo.default.svc.cluster.local.", A, &["nxdomain"]),
            ("1-2-3-4.default.pod.cluster.local.", A, &["1.2.3.4"]),
            ("1-2-3-4.default.pod.cluster.local.", AAAA, &["nodata"]),
            ("2001-db8--1.bare.pod.cluster.local.", AAAA, &["2001:db8::1"]),
            ("2001-db8--1.bare.pod.cluster.local.", A, &["nodata"]),
            ("1-2-3-256.default.pod.cluster.local.", A, &["nxdomain"]),
            ("1-2-3-4.other.pod.cluster.local.", A, &["nxdomain"]),
            ("default.pod.cluster.local.", A, &["nodata"]),
            ("1.0.3.10.in-addr.arpa.", PTR, &["kubernetes.default.svc.cluster.local."]),
            ("1.0.3.10.in-addr.arpa.", A, &["nodata"]),
            ("100.0.3.10.in-addr.arpa.", PTR, &["my-pet.headless.default.svc.cluster.local."]),
            ("102.0.3.10.in-addr.arpa.", PTR, &["10-3-0-102.headless.default.svc.cluster.local."]),
            ("2.0.16.172.in-addr.arpa.", PTR, &["172-16-0-2.kubernetes.default.svc.cluster.local."]),
            ("9.9.9.10.in-addr.arpa.", PTR, &["outside"]),
            ("0.3.10.in-addr.arpa.", PTR, &["outside"]),
            (
                "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.D.F.ip6.arpa.",
                PTR,
                &["dual.default.svc.cluster.local."],
            ),
        ],
    );
}

#[test]
fn every_target_of_a_pointer_is_a_name_of_that_address() {
    let zone = zone();
    let addresses = ["10.3.0.1", "10.3.0.7", "fd00::7", "10.3.0.100", "fd00::100", "fd00::a", "10.3.0.50"];
    for address in addresses.map(|text| text.parse::<std::net::IpAddr>().unwrap()) {
        let targets = ask(&zone, &Name::from(address).to_string(), PTR);
        assert!(!targets.contains("outside"), "{address}");
        for target in targets {
            let kind = if address.is_ipv4() { A } else { AAAA };
            assert!(ask(&zone, &target, kind).contains(&address.to_string()), "{address} {target}");
        }
    }
}

#[test]
fn changes_leave_nothing_behind() {
    let mut zone = zone();
    zone.apply_slice(slice("h-1", "headless", &[], &[("10.3.0.200", "my-pet")]));
    check(
        &zone,
        &[
            ("headless.default.svc.cluster.local.", A, &["10.3.0.102", "10.3.0.200"]),
            ("100.0.3.10.in-addr.arpa.", PTR, &["outside"]),
            ("200.0.3.10.in-addr.arpa.", PTR, &["my-pet.headless.default.svc.cluster.local."]),
        ],
    );
    // A slice that changes hands.
    zone.apply_slice(slice("h-1", "empty", &[], &[("10.3.0.200", "my-pet")]));
    check(
        &zone,
        &[
            ("my-pet.headless.default.svc.cluster.local.", A, &["nodata"]),
            ("my-pet.empty.default.svc.cluster.local.", A, &["10.3.0.200"]),
            ("200.0.3.10.in-addr.arpa.", PTR, &["my-pet.empty.default.svc.cluster.local."]),
        ],
    );
    zone.apply_service(cluster_ip("kubernetes", &["10.3.0.2"], &[]));
    check(
        &zone,
        &[
            ("1.0.3.10.in-addr.arpa.", PTR, &["outside"]),
            ("2.0.3.10.in-addr.arpa.", PTR, &["kubernetes.default.svc.cluster.local."]),
        ],
    );
    for service in ["kubernetes", "dual", "headless", "empty", "portless", "foo", "pending"] {
        zone.delete_service(&ObjectKey::new("default", service));
    }
    check(
        &zone,
        &[
            ("headless.default.svc.cluster.local.", A, &["nxdomain"]),
            ("200.0.3.10.in-addr.arpa.", PTR, &["outside"]),
            ("default.svc.cluster.local.", A, &["nxdomain"]),
        ],
    );
    for slice in ["h-1", "h-2", "h-3", "k-1", "p-1", "stray"] {
        zone.delete_slice(&ObjectKey::new("default", slice));
    }
    zone.delete_namespace("bare");
    assert!(zone.namespaces.is_empty() && zone.slice_owners.is_empty());
}

#[test]
fn slices_may_come_before_their_service() {
    let mut zone = Zone::new(name("cluster.local."), 5, 1);
    zone.apply_slice(slice("h-1", "headless", &[], &[("10.3.0.100", "")]));
    check(&zone, &[("headless.default.svc.cluster.local.", A, &["nxdomain"])]);
    zone.apply_service(service("headless", ServiceKind::Headless, &[]));
    check(&zone, &[("headless.default.svc.cluster.local.", A, &["10.3.0.100"])]);
}

#[test]
fn only_changes_raise_the_serial_number() {
    let mut zone = zone();
    let before = zone.serial;
    zone.apply_service(cluster_ip("kubernetes", &["10.3.0.1"], &[("https", "TCP", 443)]));
    zone.apply_slice(slice("p-1", "portless", &[], &[("10.3.0.50", "")]));
    assert_eq!(zone.serial, before);
    zone.delete_slice(&ObjectKey::new("default", "p-1"));
    assert_eq!(zone.serial, before + 1);
}
