//! From a name and a type to records.

use std::net::IpAddr;

use hickory_proto::rr::rdata::{A, AAAA, CNAME, HINFO, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::Zone;
use super::place::Place;
use super::view::{Host, Kind, View};
use crate::model::Port;

const SCHEMA_VERSION: &str = "1.1.0";
/// The Service that clusters put their DNS server behind, by convention.
const SERVER: [&str; 3] = ["kube-dns", "kube-system", "svc"];
/// What SRV records share out among the endpoints of a port.
const WEIGHT_SUM: usize = 100;
/// RFC 8482: what a question for everything gets.
const ANY: &str = "RFC8482";

/// What a zone says to a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The name is not the zone's.
    Outside,
    /// No such name, and none below it.
    NxDomain,
    /// The name exists, but has no record of this type.
    NoData,
    /// At least one record of this type; the additional ones spare the client a question.
    Records { answers: Vec<Record>, additionals: Vec<Record> },
    /// The name is another name for this one, which the client asks about, too.
    Alias { record: Box<Record>, target: Name },
}

impl Zone {
    /// What the zone says to a question. Records bear the name as it was asked for.
    #[must_use]
    pub fn answer(&self, name: &Name, kind: RecordType) -> Answer {
        let place = self.domain.place(name);
        let answer = Question { zone: self, name, kind }.answer(&place);
        // The SOA of a negative answer comes from its caller, so nothing else has to say that the name exists.
        match (kind, answer) {
            (RecordType::ANY, Answer::NoData | Answer::Records { .. }) => {
                let data = HINFO::new(ANY.to_owned(), String::new());
                Answer::records(vec![Record::from_rdata(name.clone(), self.ttl, RData::HINFO(data))])
            }
            (_, answer) => answer,
        }
    }

    /// The record that goes with negative answers.
    #[must_use]
    pub fn soa(&self) -> Record {
        let contact = self.below(&["hostmaster"]).unwrap_or_else(|| self.domain.name.clone());
        // Secondary servers do not exist; the times are the usual ones.
        let data = SOA::new(self.server(), contact, self.serial, 7200, 1800, 86_400, self.ttl);
        Record::from_rdata(self.domain.name.clone(), self.ttl, RData::SOA(data))
    }

    fn server(&self) -> Name {
        self.below(&SERVER).unwrap_or_else(|| self.domain.name.clone())
    }

    /// A name in the domain, unless it is too long to be one.
    fn below(&self, labels: &[&str]) -> Option<Name> {
        let name = Name::from_labels(labels.iter().map(|label| label.as_bytes())).ok()?;
        name.append_domain(&self.domain.name).ok()
    }

    fn service_name(&self, namespace: &str, service: &str, host: Option<&str>) -> Option<Name> {
        match host {
            Some(host) => self.below(&[host, service, namespace, "svc"]),
            None => self.below(&[service, namespace, "svc"]),
        }
    }
}

impl Answer {
    fn records(answers: Vec<Record>) -> Self {
        if answers.is_empty() { Self::NoData } else { Self::Records { answers, additionals: Vec::new() } }
    }
}

/// What SRV records point at.
struct Target<'a> {
    name: Name,
    addresses: &'a [IpAddr],
    ports: Vec<&'a Port>,
}

struct Question<'a> {
    zone: &'a Zone,
    name: &'a Name,
    kind: RecordType,
}

impl Question<'_> {
    fn answer(&self, place: &Place) -> Answer {
        match place {
            Place::Outside => Answer::Outside,
            Place::Nowhere => Answer::NxDomain,
            Place::Apex => self.apex(),
            Place::Branch => Answer::NoData,
            Place::SchemaVersion if self.kind == RecordType::TXT => {
                self.one(RData::TXT(TXT::new(vec![SCHEMA_VERSION.to_owned()])))
            }
            Place::SchemaVersion => Answer::NoData,
            Place::Namespace(namespace) => self.exists(self.zone.has_namespace(namespace)),
            Place::Pod { namespace, address } if self.zone.has_namespace(namespace) => self.addresses(&[*address]),
            Place::Pod { .. } => Answer::NxDomain,
            Place::Reverse(address) => self.reverse(*address),
            Place::Service { namespace, service } => {
                self.with_view(namespace, service, |view| self.service(view, namespace, service))
            }
            Place::Host { namespace, service, host } => self.with_view(namespace, service, |view| {
                let found = view.hosts.get(host.as_str());
                found.map_or(Answer::NxDomain, |found| self.host(found, (namespace, service, host)))
            }),
            Place::Protocol { namespace, service, protocol } => {
                self.with_view(namespace, service, |view| self.exists(view.has_port(protocol, None)))
            }
            Place::Port { namespace, service, protocol, port } => self.with_view(namespace, service, |view| {
                let is_asked = |of: &Port| *of.protocol == **protocol && *of.name == **port;
                match (view.has_port(protocol, Some(port)), self.kind) {
                    (false, _) => Answer::NxDomain,
                    (true, RecordType::SRV) => self.targets(view, namespace, service, is_asked),
                    (true, _) => Answer::NoData,
                }
            }),
        }
    }

    fn apex(&self) -> Answer {
        match self.kind {
            RecordType::SOA => Answer::records(vec![self.zone.soa()]),
            RecordType::NS => self.one(RData::NS(NS(self.zone.server()))),
            _ => Answer::NoData,
        }
    }

    /// Below a headless Service without endpoints, and at it, there is no name.
    fn with_view(&self, namespace: &str, service: &str, then: impl FnOnce(&View) -> Answer) -> Answer {
        match self.zone.view(namespace, service) {
            Some(View { kind: Kind::Headless { addresses }, .. }) if addresses.is_empty() => Answer::NxDomain,
            Some(view) => then(view),
            None => Answer::NxDomain,
        }
    }

    fn service(&self, view: &View, namespace: &str, service: &str) -> Answer {
        match &view.kind {
            Kind::Alias(target) => {
                let data = RData::CNAME(CNAME(target.clone()));
                Answer::Alias { record: Box::new(self.record(data)), target: target.clone() }
            }
            // Not in the specification, but what clients that look for their peers ask.
            _ if self.kind == RecordType::SRV => self.targets(view, namespace, service, |_| true),
            Kind::ClusterIp { addresses, .. } | Kind::Headless { addresses } => self.addresses(addresses),
        }
    }

    fn host(&self, host: &Host, (namespace, service, label): (&str, &str, &str)) -> Answer {
        if self.kind != RecordType::SRV {
            return self.addresses(&host.addresses);
        }
        let Some(name) = self.zone.service_name(namespace, service, Some(label)) else { return Answer::NoData };
        self.services(vec![Target { name, addresses: &host.addresses, ports: host.ports.iter().collect() }])
    }

    /// SRV records for those ports of a Service that pass.
    fn targets<'v>(&self, view: &'v View, namespace: &str, service: &str, passes: impl Fn(&Port) -> bool) -> Answer {
        let name = |host| self.zone.service_name(namespace, service, host);
        let target = |host, addresses, ports: &'v [Port]| {
            Some(Target { name: name(host)?, addresses, ports: ports.iter().filter(|port| passes(port)).collect() })
        };
        let targets = match &view.kind {
            Kind::Alias(_) => Vec::new(),
            Kind::ClusterIp { addresses, ports } => target(None, addresses.as_slice(), ports).into_iter().collect(),
            Kind::Headless { .. } => {
                let hosts = view.hosts.iter();
                hosts.filter_map(|(label, host)| target(Some(label), &host.addresses, &host.ports)).collect()
            }
        };
        self.services(targets)
    }

    /// SRV records for the ports of targets, with the targets' addresses as additional ones.
    fn services(&self, targets: Vec<Target<'_>>) -> Answer {
        let sum: usize = targets.iter().map(|target| target.ports.len()).sum();
        // At most WEIGHT_SUM, so it fits.
        let weight = (WEIGHT_SUM / sum.max(1)).max(1) as u16;
        let (mut answers, mut additionals) = (Vec::with_capacity(sum), Vec::new());
        for Target { name, addresses, ports } in targets.iter().filter(|target| !target.ports.is_empty()) {
            let of_address = |address: &IpAddr| Record::from_rdata(name.clone(), self.zone.ttl, data(*address));
            additionals.extend(addresses.iter().map(of_address));
            let of_port = |port: &&Port| self.record(RData::SRV(SRV::new(0, weight, port.number, name.clone())));
            answers.extend(ports.iter().map(of_port));
        }
        if answers.is_empty() { Answer::NoData } else { Answer::Records { answers, additionals } }
    }

    /// The records of those addresses that the type is for.
    fn addresses(&self, addresses: &[IpAddr]) -> Answer {
        let is_asked = |address: &&IpAddr| match self.kind {
            RecordType::A => address.is_ipv4(),
            RecordType::AAAA => address.is_ipv6(),
            _ => false,
        };
        Answer::records(addresses.iter().filter(is_asked).map(|address| self.record(data(*address))).collect())
    }

    /// Addresses that are not the cluster's belong to somebody else's zone.
    fn reverse(&self, address: IpAddr) -> Answer {
        let owners = self.zone.reverse.owners(address);
        let mut names = owners
            .filter_map(|owner| self.zone.service_name(&owner.namespace, &owner.service, owner.host.as_deref()))
            .peekable();
        match (names.peek().is_some(), self.kind) {
            (false, _) => Answer::Outside,
            (true, RecordType::PTR) => Answer::records(names.map(|name| self.record(RData::PTR(PTR(name)))).collect()),
            (true, _) => Answer::NoData,
        }
    }

    fn exists(&self, does: bool) -> Answer {
        if does { Answer::NoData } else { Answer::NxDomain }
    }

    fn one(&self, data: RData) -> Answer {
        Answer::records(vec![self.record(data)])
    }

    fn record(&self, data: RData) -> Record {
        Record::from_rdata(self.name.clone(), self.zone.ttl, data)
    }
}

fn data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}
