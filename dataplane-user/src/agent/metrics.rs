//! The agent's own metrics: kube-proxy's names where they mean the same, `tidegate_agent_*` elsewhere.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dataplane_plan::Contents;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::reconcile::Outcome;

/// Handles to every metric.
#[derive(Clone)]
pub(super) struct Metrics {
    sync: Histogram,
    sync_full: Histogram,
    sync_partial: Histogram,
    last_applied: Gauge,
    last_queued: Gauge,
    service_changes: IntCounter,
    endpoint_changes: IntCounter,
    operations: IntCounterVec,
    failures: IntCounterVec,
    drift: IntCounter,
    frontends: IntGauge,
    slots: IntGauge,
    backends: IntGauge,
    refused: IntGauge,
    pods: IntGauge,
    pod_failures: IntCounter,
}

impl Metrics {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| add(registry, IntCounter::new(name, help));
        let gauge = |name: &str, help: &str| add(registry, IntGauge::new(name, help));
        let vector = |name: &str, help: &str| add(registry, IntCounterVec::new(Opts::new(name, help), &["operation"]));
        let seconds = |name: &str, help: &str| {
            let buckets = prometheus::exponential_buckets(0.0005, 2.0, 16)?;
            add(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)))
        };
        Ok(Self {
            sync: seconds("kubeproxy_sync_proxy_rules_duration_seconds", "Time of one plan and its application")?,
            sync_full: seconds("kubeproxy_sync_full_proxy_rules_duration_seconds", "The same, plans of everything")?,
            sync_partial: seconds(
                "kubeproxy_sync_partial_proxy_rules_duration_seconds",
                "The same, plans of a change",
            )?,
            last_applied: add(
                registry,
                Gauge::new("kubeproxy_sync_proxy_rules_last_timestamp_seconds", "When the maps were last made true"),
            )?,
            last_queued: add(
                registry,
                Gauge::new("kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", "When a change last came in"),
            )?,
            service_changes: counter("kubeproxy_sync_proxy_rules_service_changes_total", "Changes of Services")?,
            endpoint_changes: counter(
                "kubeproxy_sync_proxy_rules_endpoint_changes_total",
                "Changes of EndpointSlices",
            )?,
            operations: vector("tidegate_agent_map_operations_total", "Map operations done")?,
            failures: vector("tidegate_agent_map_operation_failures_total", "Map operations failed or left out")?,
            drift: counter("tidegate_agent_drift_operations_total", "Map operations that repaired foreign changes")?,
            frontends: gauge("tidegate_agent_frontends", "Frontends in the maps")?,
            slots: gauge("tidegate_agent_slots", "Slots in the map")?,
            backends: gauge("tidegate_agent_backends", "Backends in the maps")?,
            refused: gauge("tidegate_agent_frontends_refused", "Frontends not served as they should be")?,
            pods: gauge("tidegate_agent_pods", "Pods of this node in the endpoint maps")?,
            pod_failures: counter("tidegate_agent_pod_failures_total", "Pods that could not be given their programs")?,
        })
    }

    pub(super) fn queued(&self) {
        self.last_queued.set(now());
    }

    pub(super) fn changed(&self, services: bool, count: usize) {
        let counter = if services { &self.service_changes } else { &self.endpoint_changes };
        counter.inc_by(count as u64);
    }

    pub(super) fn drifted(&self, operations: u64) {
        self.drift.inc_by(operations);
    }

    pub(super) fn observe(&self, outcome: &Outcome, took: Duration, contents: &Contents, refused: usize) {
        let kind = if outcome.full { &self.sync_full } else { &self.sync_partial };
        for histogram in [&self.sync, kind] {
            histogram.observe(took.as_secs_f64());
        }
        for (counts, metric) in [(&outcome.done, &self.operations), (&outcome.failed, &self.failures)] {
            for (operation, count) in counts {
                metric.with_label_values(&[operation]).inc_by(*count);
            }
        }
        if outcome.is_complete() {
            self.last_applied.set(now());
        }
        for (gauge, value) in [
            (&self.frontends, contents.frontends.len()),
            (&self.slots, contents.slots.len()),
            (&self.backends, contents.backends.len()),
            (&self.refused, refused),
        ] {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn pods(&self, known: usize, failed: u64) {
        self.pods.set(i64::try_from(known).unwrap_or(i64::MAX));
        self.pod_failures.inc_by(failed);
    }
}

fn add<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<C>,
) -> prometheus::Result<C> {
    let metric = metric?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
