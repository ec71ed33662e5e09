//! Metrics, with CoreDNS's names where the meaning is the same, so that its dashboards work. Label values come from small
//! fixed sets.

use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::message::Transport;

const DURATION_BUCKETS_SECONDS: &[f64] =
    &[0.000_05, 0.000_25, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
const TYPES: [RecordType; 7] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::CNAME,
    RecordType::PTR,
    RecordType::SOA,
    RecordType::SRV,
    RecordType::TXT,
];
const CODES: [(ResponseCode, &str); 6] = [
    (ResponseCode::NoError, "NOERROR"),
    (ResponseCode::NXDomain, "NXDOMAIN"),
    (ResponseCode::ServFail, "SERVFAIL"),
    (ResponseCode::Refused, "REFUSED"),
    (ResponseCode::FormErr, "FORMERR"),
    (ResponseCode::NotImp, "NOTIMP"),
];
const OTHER: &str = "other";

#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) registry: Registry,
    /// By transport, then type: looked up once, so that a request costs one addition.
    requests: Vec<IntCounter>,
    responses: Vec<IntCounter>,
    durations: Histogram,
    /// Successful answers and denials.
    cache_hits: [IntCounter; 2],
    pub(crate) cache_misses: IntCounter,
    pub(crate) cache_entries: IntGauge,
    pub(crate) forward_requests: IntCounter,
    pub(crate) forward_failures: IntCounter,
    pub(crate) forward_rejects: IntCounter,
    pub(crate) watch_errors: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new() -> prometheus::Result<Self> {
        let make = Maker(Registry::new());
        let requests = make.counters("coredns_dns_requests_total", "Questions received", &["proto", "type"])?;
        let responses = make.counters("coredns_dns_responses_total", "Responses sent", &["rcode"])?;
        let hits = make.counters("coredns_cache_hits_total", "Forwarded names answered from the cache", &["type"])?;
        let per_transport = |proto: &'static str| {
            let names = TYPES.map(|kind| kind.to_string()).into_iter().chain([OTHER.to_owned()]);
            names.map(|name| requests.with_label_values(&[proto, &name])).collect::<Vec<_>>()
        };
        let codes = CODES.iter().map(|(_, name)| *name).chain([OTHER]);
        Ok(Self {
            requests: [per_transport("udp"), per_transport("tcp")].concat(),
            responses: codes.map(|code| responses.with_label_values(&[code])).collect(),
            durations: make.durations("coredns_dns_request_duration_seconds", "From question to response")?,
            cache_hits: ["success", "denial"].map(|kind| hits.with_label_values(&[kind])),
            cache_misses: make.counter("coredns_cache_misses_total", "Forwarded names that were not in the cache")?,
            cache_entries: make.gauge("coredns_cache_entries", "Answers in the cache")?,
            forward_requests: make.counter("dns_forward_requests_total", "Questions sent to upstream servers")?,
            forward_failures: make
                .counter("dns_forward_failures_total", "Questions that an upstream server did not answer")?,
            forward_rejects: make.counter(
                "coredns_forward_max_concurrent_rejects_total",
                "Questions refused because too many were under way",
            )?,
            watch_errors: make.counters("dns_watch_errors_total", "Errors of watches", &["kind"])?,
            registry: make.0,
        })
    }

    pub(crate) fn request(&self, transport: Transport, kind: RecordType) {
        let row = match transport {
            Transport::Udp => 0,
            Transport::Tcp => TYPES.len() + 1,
        };
        let column = TYPES.iter().position(|known| *known == kind).unwrap_or(TYPES.len());
        self.requests[row + column].inc();
    }

    pub(crate) fn response(&self, code: ResponseCode, duration: Duration) {
        let index = CODES.iter().position(|(known, _)| *known == code).unwrap_or(CODES.len());
        self.responses[index].inc();
        self.durations.observe(duration.as_secs_f64());
    }

    pub(crate) fn cache_hit(&self, code: ResponseCode) {
        self.cache_hits[usize::from(code != ResponseCode::NoError)].inc();
    }
}

struct Maker(Registry);

impl Maker {
    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        let metric = IntCounter::new(name, help)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        let metric = IntGauge::new(name, help)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn durations(&self, name: &str, help: &str) -> prometheus::Result<Histogram> {
        let options = HistogramOpts::new(name, help).buckets(DURATION_BUCKETS_SECONDS.to_vec());
        let metric = Histogram::with_opts(options)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}
