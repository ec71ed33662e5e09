use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

use hickory_proto::op::{Edns, Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};

use super::{Responder, Step};
use crate::forward::{Forwarder, Upstreams};
use crate::message::Transport;
use crate::metrics::Metrics;
use crate::model::{Endpoint, ObjectKey, Port, Service, ServiceKind, Slice};
use crate::zone::Zone;

fn service(name: &str, kind: ServiceKind) -> Service {
    Service { key: ObjectKey::new("shop", name), kind, ports: vec![Port::new("http", "tcp", 80)] }
}

fn alias(name: &str, target: &str) -> Service {
    service(name, ServiceKind::ExternalName(Name::from_ascii(target).unwrap()))
}

fn responder(upstreams: &[SocketAddr]) -> Responder {
    let endpoints = (1..=8).map(|n| Endpoint { address: [10, 1, 0, n].into(), hostname: None }).collect();
    let slice = Slice { key: ObjectKey::new("shop", "db-1"), service: "db".into(), ports: Vec::new(), endpoints };
    let services = [
        service("web", ServiceKind::ClusterIp(vec!["10.0.0.1".parse().unwrap()])),
        service("db", ServiceKind::Headless),
        alias("near", "web.shop.svc.cluster.local."),
        alias("far", "www.example."),
        alias("ping", "pong.shop.svc.cluster.local."),
        alias("pong", "ping.shop.svc.cluster.local."),
    ];
    let zone = Zone::from(Name::from_ascii("cluster.local.").unwrap(), 5, services, [slice]);
    let metrics = Arc::new(Metrics::new().unwrap());
    let forwarder = Forwarder::new(Arc::new(Upstreams::new(upstreams)), 10, Arc::clone(&metrics));
    Responder::new(zone, Arc::new(forwarder), metrics)
}

fn complete() -> Responder {
    let responder = responder(&[]);
    responder.set_complete();
    responder
}

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.set_edns(Edns::new());
    message.to_vec().unwrap()
}

fn ask(responder: &Responder, name: &str, kind: RecordType) -> Message {
    match responder.begin(&question(name, kind), Transport::Udp) {
        Step::Done(Some(bytes)) => Message::from_vec(&bytes).unwrap(),
        Step::Done(None) => panic!("no answer to {name}"),
        Step::Wait(_) => panic!("{name} waits for upstream servers"),
    }
}

#[test]
fn negative_answers_carry_the_soa_and_authority() {
    let responder = complete();
    for (name, kind, code) in [
        ("none.shop.svc.cluster.local.", RecordType::A, ResponseCode::NXDomain),
        ("web.shop.svc.cluster.local.", RecordType::AAAA, ResponseCode::NoError),
    ] {
        let answer = ask(&responder, name, kind);
        assert_eq!((answer.metadata.response_code, answer.metadata.authoritative), (code, true), "{name}");
        assert_eq!(answer.answers, []);
        assert_eq!(answer.authorities.iter().map(|soa| soa.record_type()).collect::<Vec<_>>(), [RecordType::SOA]);
    }
}

#[test]
fn before_the_zone_is_complete_a_missing_name_is_no_answer() {
    let responder = responder(&[]);
    let code = |name| ask(&responder, name, RecordType::A).metadata.response_code;
    assert_eq!(code("none.shop.svc.cluster.local."), ResponseCode::ServFail);
    assert_eq!(code("web.shop.svc.cluster.local."), ResponseCode::NoError);
    responder.set_complete();
    assert_eq!(code("none.shop.svc.cluster.local."), ResponseCode::NXDomain);
}

#[test]
fn aliases_are_followed_inside_the_zone() {
    let responder = complete();
    let answer = ask(&responder, "near.shop.svc.cluster.local.", RecordType::A);
    let records: Vec<String> = answer.answers.iter().map(|record| record.data.to_string()).collect();
    assert_eq!(records, ["web.shop.svc.cluster.local.", "10.0.0.1"]);
    let answer = ask(&responder, "ping.shop.svc.cluster.local.", RecordType::A);
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    let answer = ask(&responder, "far.shop.svc.cluster.local.", RecordType::CNAME);
    assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 1));
}

#[test]
fn without_upstream_servers_other_names_are_refused() {
    let responder = complete();
    let answer = ask(&responder, "www.example.", RecordType::A);
    assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    assert!(!answer.metadata.recursion_available);
    let answer = ask(&responder, "far.shop.svc.cluster.local.", RecordType::A);
    assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::ServFail, 1));
}

#[test]
fn clients_are_spread_over_endpoints() {
    let responder = complete();
    let first = || ask(&responder, "db.shop.svc.cluster.local.", RecordType::A).answers[0].data.to_string();
    let firsts: HashSet<String> = (0..200).map(|_| first()).collect();
    // The chance that one of eight stays out is 8 · (7/8)^200, one in a hundred thousand millions.
    assert_eq!(firsts.len(), 8);
}

#[test]
fn other_names_wait_for_upstream_servers() {
    let responder = responder(&["192.0.2.1:53".parse().unwrap()]);
    for name in ["www.example.", "far.shop.svc.cluster.local.", "1.2.0.192.in-addr.arpa."] {
        assert!(matches!(responder.begin(&question(name, RecordType::A), Transport::Udp), Step::Wait(_)), "{name}");
    }
}
