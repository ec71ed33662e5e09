//! What the scheduler knows: nodes, what is promised on each, and bindings that the watch has not shown yet.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::{Resource, ResourceExt};

use crate::filter::{self, Verdict};
use crate::preemption;
use crate::resources::{self, Amounts};

/// A node with what is already promised on it.
#[derive(Debug, Default)]
pub(crate) struct NodeView {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) taints: Vec<Taint>,
    pub(crate) unschedulable: bool,
    pub(crate) allocatable: Amounts,
    pub(crate) requested: Amounts,
    pub(crate) scored: Amounts,
    /// Host ports in use: address, protocol, port.
    pub(crate) ports: BTreeSet<HostPort>,
    pub(crate) images: BTreeSet<String>,
    /// How many pods have which priority.
    pub(crate) priorities: BTreeMap<i32, usize>,
}

/// Why a pod fits nowhere, each reason with the number of nodes that it holds for.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    pub(crate) filters: BTreeMap<Verdict, usize>,
    pub(crate) preemption: BTreeMap<&'static str, usize>,
}

pub(crate) type HostPort = (String, String, i32);

#[derive(Debug, Default)]
pub(crate) struct View {
    nodes: BTreeMap<String, NodeView>,
    pods: HashMap<String, Placed>,
    relisted: Option<BTreeSet<String>>,
}

/// A pod on a node, with what it takes there.
#[derive(Debug)]
struct Placed {
    node: String,
    requested: Amounts,
    scored: Amounts,
    ports: Vec<HostPort>,
    priority: i32,
}

pub(crate) fn is_terminal(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// The host ports that a pod takes.
pub(crate) fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let ports =
        spec.containers.iter().chain(spec.init_containers.iter().flatten()).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            let address = port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".into());
            Some((address, port.protocol.clone().unwrap_or_else(|| "TCP".into()), number))
        })
        .collect()
}

impl View {
    pub(crate) fn begin_nodes(&mut self) {
        self.relisted = Some(BTreeSet::new());
    }

    pub(crate) fn end_nodes(&mut self) {
        if let Some(listed) = self.relisted.take() {
            self.nodes.retain(|name, _| listed.contains(name));
        }
    }

    pub(crate) fn begin_pods(&mut self) {
        self.pods.clear();
        for node in self.nodes.values_mut() {
            node.requested.clear();
            node.scored.clear();
            node.ports.clear();
            node.priorities.clear();
        }
    }

    pub(crate) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Returns whether something changed that could let a waiting pod fit.
    pub(crate) fn put_node(&mut self, node: Node) -> bool {
        let name = node.name_any();
        if let Some(listed) = &mut self.relisted {
            listed.insert(name.clone());
        }
        let spec = node.spec.clone().unwrap_or_default();
        let status = node.status.clone().unwrap_or_default();
        let images = status.images.into_iter().flatten().flat_map(|image| image.names.into_iter().flatten());
        let view = self.nodes.entry(name.clone()).or_insert_with(|| NodeView { name, ..NodeView::default() });
        let before = (view.labels.clone(), view.taints.clone(), view.unschedulable, view.allocatable.clone());
        view.labels = node.meta().labels.clone().unwrap_or_default();
        view.taints = spec.taints.unwrap_or_default();
        view.unschedulable = spec.unschedulable.unwrap_or(false);
        view.allocatable = resources::amounts(status.allocatable.as_ref());
        view.images = images.collect();
        before != (view.labels.clone(), view.taints.clone(), view.unschedulable, view.allocatable.clone())
    }

    pub(crate) fn remove_node(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// Learns of an assigned pod; returns whether it freed what it held.
    pub(crate) fn put_pod(&mut self, pod: &Pod) -> bool {
        if is_terminal(pod) {
            return self.remove_pod(pod);
        }
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
        self.assume(pod, &node);
        false
    }

    pub(crate) fn is_assumed(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// Counts a pod on a node, replacing what was counted for it before.
    pub(crate) fn assume(&mut self, pod: &Pod, node: &str) {
        self.remove_pod(pod);
        let placed = Placed {
            node: node.into(),
            requested: resources::requests(pod),
            scored: resources::scored_requests(pod),
            ports: host_ports(pod),
            priority: preemption::priority(pod),
        };
        if let Some(view) = self.nodes.get_mut(node) {
            resources::add(&mut view.requested, &placed.requested);
            resources::add(&mut view.scored, &placed.scored);
            view.ports.extend(placed.ports.iter().cloned());
            *view.priorities.entry(placed.priority).or_default() += 1;
        }
        self.pods.insert(pod.uid().unwrap_or_default(), placed);
    }

    pub(crate) fn remove_pod(&mut self, pod: &Pod) -> bool {
        let Some(placed) = self.pods.remove(&pod.uid().unwrap_or_default()) else { return false };
        if let Some(view) = self.nodes.get_mut(&placed.node) {
            let negated = |amounts: Amounts| amounts.into_iter().map(|(name, amount)| (name, -amount)).collect();
            resources::add(&mut view.requested, &negated(placed.requested));
            resources::add(&mut view.scored, &negated(placed.scored));
            placed.ports.iter().for_each(|port| {
                view.ports.remove(port);
            });
            if let Some(count) = view.priorities.get_mut(&placed.priority) {
                *count -= 1;
            }
            view.priorities.retain(|_, count| *count > 0);
        }
        true
    }

    /// The nodes on which a pod fits, and why it does not fit on the others.
    pub(crate) fn filter(&self, pod: &Pod) -> (Vec<&NodeView>, Refusals) {
        let (mut fitting, mut refusals) = (Vec::new(), Refusals::default());
        for node in self.nodes.values() {
            let verdicts = filter::check(pod, node);
            if verdicts.is_empty() {
                fitting.push(node);
                continue;
            }
            *refusals.preemption.entry(preemption::verdict(pod, node, &verdicts)).or_default() += 1;
            for verdict in verdicts {
                *refusals.filters.entry(verdict).or_default() += 1;
            }
        }
        (fitting, refusals)
    }
}
