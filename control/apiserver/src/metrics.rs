//! What the server counts, under upstream's metric names where they mean the same.

use std::time::Duration;

use http::StatusCode;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::request::RequestInfo;

pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    pub(crate) watches: IntGaugeVec,
    pub(crate) watch_events: IntCounter,
    store_revision: IntGauge,
}

/// The labels of a request: values come from the paths' resources only if they exist, so that paths cannot grow them.
pub(crate) struct Labels {
    verb: &'static str,
    group: String,
    resource: String,
    subresource: String,
}

impl Metrics {
    pub(crate) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let labels = ["verb", "group", "resource", "subresource"];
        let requests = IntCounterVec::new(
            Opts::new("apiserver_request_total", "Requests by verb, resource and status code"),
            &["verb", "group", "resource", "subresource", "code"],
        )?;
        let buckets = prometheus::exponential_buckets(0.000_25, 2.0, 16)?;
        let durations = HistogramVec::new(
            HistogramOpts::new("apiserver_request_duration_seconds", "Time to the answer's first byte")
                .buckets(buckets),
            &labels,
        )?;
        let watches = IntGaugeVec::new(
            Opts::new("apiserver_longrunning_requests", "Open watches and log streams"),
            &["verb", "group", "resource"],
        )?;
        let watch_events = IntCounter::new("apiserver_watch_events_total", "Events sent to watchers")?;
        let store_revision = IntGauge::new("control_store_revision", "Newest durable revision")?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(watches.clone()))?;
        registry.register(Box::new(watch_events.clone()))?;
        registry.register(Box::new(store_revision.clone()))?;
        Ok(Self { registry, requests, durations, watches, watch_events, store_revision })
    }

    pub(crate) fn labels(&self, info: &RequestInfo) -> Labels {
        let (group, resource, subresource) = if info.is_resource {
            (info.group.clone(), info.resource.clone(), info.subresource.clone())
        } else {
            Default::default()
        };
        Labels { verb: info.verb, group, resource, subresource }
    }

    pub(crate) fn observe(&self, labels: Labels, code: StatusCode, elapsed: Duration) {
        let Labels { verb, mut group, mut resource, mut subresource } = labels;
        // Unknown and refused paths share one series.
        if matches!(code, StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            (group, resource, subresource) = Default::default();
        }
        let values = [verb, group.as_str(), resource.as_str(), subresource.as_str()];
        self.requests.with_label_values(&[values[0], values[1], values[2], values[3], code.as_str()]).inc();
        self.durations.with_label_values(&values).observe(elapsed.as_secs_f64());
    }

    pub(crate) fn render(&self, store_revision: u64) -> Result<Vec<u8>, prometheus::Error> {
        self.store_revision.set(i64::try_from(store_revision).unwrap_or(i64::MAX));
        let mut body = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut body)?;
        Ok(body)
    }
}
