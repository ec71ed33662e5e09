//! Metrics. Label values come from small fixed sets, so that no tenant and no client can make series.

use std::time::Duration;

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::serve::Scheme;

const DURATION_BUCKETS_SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
const CODE_CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
const PROTOCOLS: [&str; 2] = ["http/1.1", "h2"];

#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) registry: Registry,
    /// By scheme, then protocol, then code class: looked up once, so that a request costs one addition.
    requests: Vec<IntCounter>,
    durations: [Histogram; 2],
    connections: [IntCounter; 2],
    open_connections: [IntGauge; 2],
    handshakes: IntCounterVec,
    refused: IntCounterVec,
    pub(crate) upstream_connect_failures: IntCounter,
    pub(crate) upstream_retries: IntCounter,
    pub(crate) upstream_retries_over_budget: IntCounter,
    pub(crate) upstream_ejections: IntCounter,
    pub(crate) health_checks: IntCounterVec,
    pub(crate) request_bytes: IntCounter,
    pub(crate) response_bytes: IntCounter,
    pub(crate) generation: IntGauge,
    pub(crate) rules: IntGauge,
    pub(crate) conflicts: IntGauge,
    pub(crate) objects: IntGaugeVec,
    pub(crate) publish_seconds: Histogram,
    pub(crate) publish_time: Gauge,
    pub(crate) watch_errors: IntCounterVec,
    pub(crate) status_writes: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new() -> prometheus::Result<Self> {
        let make = Maker(Registry::new());
        let requests = make.counters("requests_total", "Requests answered", &["scheme", "protocol", "code_class"])?;
        let durations =
            make.durations("request_duration_seconds", "From request header to end of answer", "protocol")?;
        let connections = make.counters("connections_total", "Connections accepted", &["scheme"])?;
        let open = make.gauges("connections_open", "Connections open now", "scheme")?;
        let every_request = Scheme::ALL.iter().flat_map(|scheme| {
            PROTOCOLS.iter().flat_map(move |protocol| CODE_CLASSES.map(|class| [scheme.as_str(), protocol, class]))
        });
        Ok(Self {
            requests: every_request.map(|labels| requests.with_label_values(&labels)).collect(),
            durations: PROTOCOLS.map(|protocol| durations.with_label_values(&[protocol])),
            connections: Scheme::ALL.map(|scheme| connections.with_label_values(&[scheme.as_str()])),
            open_connections: Scheme::ALL.map(|scheme| open.with_label_values(&[scheme.as_str()])),
            handshakes: make.counters("tls_handshakes_total", "TLS handshakes by result", &["result"])?,
            refused: make.counters("requests_refused_total", "Requests not sent to an endpoint", &["reason"])?,
            upstream_connect_failures: make
                .counter("upstream_connect_failures_total", "Endpoints that could not be connected to")?,
            upstream_retries: make.counter("upstream_retries_total", "Attempts beyond the first of a request")?,
            upstream_retries_over_budget: make
                .counter("upstream_retries_over_budget_total", "Retries not made because there were too many")?,
            upstream_ejections: make
                .counter("upstream_ejections_total", "Endpoints taken out for a while because requests failed")?,
            health_checks: make.counters("health_checks_total", "Active health checks by result", &["result"])?,
            request_bytes: make.counter("request_body_bytes_total", "Request body bytes received")?,
            response_bytes: make.counter("response_body_bytes_total", "Response body bytes sent")?,
            generation: make.gauge("snapshot_generation", "Number of the snapshot that is served")?,
            rules: make.gauge("rules", "Rules in the routing table")?,
            conflicts: make.gauge("rule_conflicts", "Rules that an older Ingress hides")?,
            objects: make.gauges("objects", "API objects known", "kind")?,
            publish_seconds: make
                .duration("publish_duration_seconds", "Time from a batch of changes to its snapshot")?,
            publish_time: make.float("last_publish_timestamp_seconds", "When the last snapshot was published")?,
            watch_errors: make.counters("watch_errors_total", "Errors of watches", &["kind"])?,
            status_writes: make.counters("status_writes_total", "Writes of Ingress status by result", &["result"])?,
            registry: make.0,
        })
    }

    /// Counts one answered request. `status` is that of the answer, 0 if none was sent.
    pub(crate) fn request(&self, scheme: Scheme, http2: bool, status: u16, duration: Duration) {
        let (protocol, class) = (usize::from(http2), usize::from(status / 100).min(CODE_CLASSES.len() - 1));
        let index = (scheme as usize * PROTOCOLS.len() + protocol) * CODE_CLASSES.len() + class;
        self.requests[index].inc();
        self.durations[protocol].observe(duration.as_secs_f64());
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    pub(crate) fn handshake(&self, result: &'static str) {
        self.handshakes.with_label_values(&[result]).inc();
    }

    /// Counts a connection as open until the guard is dropped.
    pub(crate) fn connection_opened(&self, scheme: Scheme) -> OpenConnection {
        self.connections[scheme as usize].inc();
        let gauge = self.open_connections[scheme as usize].clone();
        gauge.inc();
        OpenConnection(gauge)
    }

    pub(crate) fn open_connections(&self) -> i64 {
        self.open_connections.iter().map(IntGauge::get).sum()
    }
}

#[derive(Debug)]
pub(crate) struct OpenConnection(IntGauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Makes and registers metrics of the gateway's namespace.
struct Maker(Registry);

impl Maker {
    fn opts(name: &str, help: &str) -> Opts {
        Opts::new(name, help).namespace("ingress")
    }

    fn register<M: prometheus::core::Collector + Clone + 'static>(&self, metric: M) -> prometheus::Result<M> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.register(IntCounter::with_opts(Self::opts(name, help))?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.register(IntCounterVec::new(Self::opts(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.register(IntGauge::with_opts(Self::opts(name, help))?)
    }

    fn float(&self, name: &str, help: &str) -> prometheus::Result<Gauge> {
        self.register(Gauge::with_opts(Self::opts(name, help))?)
    }

    fn gauges(&self, name: &str, help: &str, label: &str) -> prometheus::Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(Self::opts(name, help), &[label])?)
    }

    fn duration(&self, name: &str, help: &str) -> prometheus::Result<Histogram> {
        self.register(Histogram::with_opts(Self::histogram(name, help))?)
    }

    fn durations(&self, name: &str, help: &str, label: &str) -> prometheus::Result<HistogramVec> {
        self.register(HistogramVec::new(Self::histogram(name, help), &[label])?)
    }

    fn histogram(name: &str, help: &str) -> HistogramOpts {
        HistogramOpts { common_opts: Self::opts(name, help), buckets: DURATION_BUCKETS_SECONDS.to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Metrics;
    use crate::serve::Scheme;

    #[test]
    fn a_request_is_counted_under_its_labels() {
        let metrics = Metrics::new().unwrap();
        metrics.request(Scheme::Https, true, 404, Duration::from_millis(3));
        metrics.request(Scheme::Http, false, 0, Duration::ZERO);
        metrics.request(Scheme::Http, false, 999, Duration::ZERO);
        let families = metrics.registry.gather();
        let family = families.iter().find(|family| family.name() == "ingress_requests_total").unwrap();
        let mut counted: Vec<_> = (family.get_metric().iter())
            .filter(|metric| metric.get_counter().get_value() > 0.0)
            .map(|metric| metric.get_label().iter().map(|l| l.value()).collect::<Vec<_>>().join(" "))
            .collect();
        counted.sort();
        assert_eq!(counted, ["4xx h2 https", "5xx http/1.1 http", "none http/1.1 http"]);
    }

    #[test]
    fn a_connection_is_open_until_its_guard_goes() {
        let metrics = Metrics::new().unwrap();
        let guard = metrics.connection_opened(Scheme::Http);
        assert_eq!(metrics.open_connections(), 1);
        drop(guard);
        assert_eq!(metrics.open_connections(), 0);
    }
}
