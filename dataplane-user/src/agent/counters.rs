//! The kernel's counters as metrics: read when someone asks, never kept.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::PoisonError;

use dataplane_abi::counters::FrontendCounters;
use prometheus::Registry;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, LabelPair, Metric, MetricFamily, MetricType};

use crate::kernel::{Counted, KernelError, Maps};
use crate::names::{FrontendName, SharedNames};

const CONNECTIONS: (&str, &str) =
    ("tidegate_agent_service_connections_total", "Connections (first datagrams for UDP) that were given an endpoint");
const REJECTIONS: (&str, &str) =
    ("tidegate_agent_service_rejections_total", "Connections refused because the Service had no endpoint");
const PACKETS: (&str, &str) =
    ("tidegate_agent_service_packets_total", "Packets translated one by one, both directions: the packet path");
const BYTES: (&str, &str) = ("tidegate_agent_service_bytes_total", "Bytes of these packets, link headers included");
const REASONS: (&str, &str) = ("tidegate_agent_verdicts_total", "Socket calls and packets by what was decided");

/// Registers the counters of the maps pinned in this folder.
pub(super) fn register(registry: &Registry, pin_dir: &Path, names: SharedNames) -> anyhow::Result<()> {
    let service_labels = || ["namespace", "service", "port"].map(String::from).to_vec();
    let describe = |(name, help): (&str, &str), labels| Desc::new(name.into(), help.into(), labels, HashMap::new());
    let descriptions = vec![
        describe(CONNECTIONS, service_labels())?,
        describe(REJECTIONS, service_labels())?,
        describe(PACKETS, service_labels())?,
        describe(BYTES, service_labels())?,
        describe(REASONS, vec!["reason".to_owned()])?,
    ];
    registry.register(Box::new(KernelCounters { maps: Maps::open(pin_dir)?, names, descriptions }))?;
    Ok(())
}

struct KernelCounters {
    maps: Maps,
    names: SharedNames,
    descriptions: Vec<Desc>,
}

impl KernelCounters {
    fn gather(&self) -> Result<Vec<MetricFamily>, KernelError> {
        let counters = self.maps.frontend_counters.dump()?;
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let services = by_service(counters, &names);
        drop(names);
        let count = |read: fn(&FrontendCounters) -> u64| {
            services.iter().map(|(labels, counters)| metric(labels, read(counters))).collect()
        };
        let reasons = self.maps.reason_counters.dump()?;
        let reasons =
            reasons.iter().map(|(reason, counters)| metric(&[("reason", reason.label().to_owned())], counters.count));
        Ok(vec![
            family(CONNECTIONS, count(|counters| counters.connections)),
            family(REJECTIONS, count(|counters| counters.rejections)),
            family(PACKETS, count(|counters| counters.packets)),
            family(BYTES, count(|counters| counters.bytes)),
            family(REASONS, reasons.collect()),
        ])
    }
}

impl Collector for KernelCounters {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gather().unwrap_or_else(|error| {
            tracing::warn!(error = %super::health::chain(&error), "cannot read the kernel's counters");
            Vec::new()
        })
    }
}

type Labels = [(&'static str, String); 3];

/// A Service port has a frontend per address; its counters are their sum.
fn by_service(
    counters: BTreeMap<u32, FrontendCounters>,
    names: &HashMap<u32, FrontendName>,
) -> BTreeMap<Labels, FrontendCounters> {
    let mut sums: BTreeMap<Labels, FrontendCounters> = BTreeMap::new();
    for (id, counters) in counters {
        let Some(name) = names.get(&id) else { continue };
        let labels = [
            ("namespace", name.namespace.to_string()),
            ("service", name.service.to_string()),
            ("port", name.port_name.to_string()),
        ];
        sums.entry(labels).or_default().add(&counters);
    }
    sums
}

fn metric(labels: &[(&'static str, String)], value: u64) -> Metric {
    let pair = |(name, value): &(&'static str, String)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value.clone());
        pair
    };
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    let mut metric = Metric::from_label(labels.iter().map(pair).collect());
    metric.set_counter(counter);
    metric
}

fn family((name, help): (&str, &str), metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(MetricType::COUNTER);
    family.set_metric(metrics);
    family
}
