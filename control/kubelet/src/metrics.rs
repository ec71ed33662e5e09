//! What this node counts.

use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry};

pub(crate) struct Metrics {
    /// From the first sight of a pod to its containers' running, as upstream's `kubelet_pod_start_duration_seconds`.
    pub pod_start_seconds: Histogram,
    pub pods: IntGauge,
    pub effect_errors: IntCounterVec,
    pub container_starts: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let buckets = vec![0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0];
        let metrics = Self {
            pod_start_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "kubelet_pod_start_duration_seconds",
                    "Time from the kubelet seeing a pod for the first time to the pod running",
                )
                .buckets(buckets),
            )?,
            pods: IntGauge::new("kubelet_working_pods", "Pods that have a worker")?,
            effect_errors: IntCounterVec::new(
                Opts::new("kubelet_effect_errors_total", "Failed effects by kind"),
                &["effect"],
            )?,
            container_starts: IntCounterVec::new(
                Opts::new("kubelet_started_containers_total", "Container starts by result"),
                &["result"],
            )?,
        };
        registry.register(Box::new(metrics.pod_start_seconds.clone()))?;
        registry.register(Box::new(metrics.pods.clone()))?;
        registry.register(Box::new(metrics.effect_errors.clone()))?;
        registry.register(Box::new(metrics.container_starts.clone()))?;
        Ok(metrics)
    }
}
