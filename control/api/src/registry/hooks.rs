//! What a kind does beyond what every kind does; plain functions, so that each lives beside its own rules.

/// The behaviour of one kind.
#[derive(Debug)]
pub struct Hooks {
    /// What a field selector may name beside `metadata.name` and `metadata.namespace`, and the stored field it means.
    pub field_labels: &'static [(&'static str, &'static str)],
}

impl Hooks {
    /// A kind without rules of its own.
    pub const GENERIC: Self = Self { field_labels: &[] };
}

/// The events field labels, by both names that the two event kinds give them.
const CORE_EVENT_LABELS: &[(&str, &str)] = &[
    ("involvedObject.kind", "involvedObject.kind"),
    ("involvedObject.namespace", "involvedObject.namespace"),
    ("involvedObject.name", "involvedObject.name"),
    ("involvedObject.uid", "involvedObject.uid"),
    ("involvedObject.apiVersion", "involvedObject.apiVersion"),
    ("involvedObject.resourceVersion", "involvedObject.resourceVersion"),
    ("involvedObject.fieldPath", "involvedObject.fieldPath"),
    ("reason", "reason"),
    ("reportingComponent", "reportingComponent"),
    ("source", "source"),
    ("type", "type"),
];
const EVENT_LABELS: &[(&str, &str)] = &[
    ("regarding.kind", "involvedObject.kind"),
    ("regarding.namespace", "involvedObject.namespace"),
    ("regarding.name", "involvedObject.name"),
    ("regarding.uid", "involvedObject.uid"),
    ("regarding.apiVersion", "involvedObject.apiVersion"),
    ("regarding.resourceVersion", "involvedObject.resourceVersion"),
    ("regarding.fieldPath", "involvedObject.fieldPath"),
    ("reason", "reason"),
    ("reportingController", "reportingComponent"),
    ("type", "type"),
];

pub(super) static CORE_EVENT: Hooks = Hooks { field_labels: CORE_EVENT_LABELS, ..Hooks::GENERIC };
pub(super) static EVENT: Hooks = Hooks { field_labels: EVENT_LABELS, ..Hooks::GENERIC };
pub(super) static NAMESPACE: Hooks = Hooks { field_labels: &[("status.phase", "status.phase")], ..Hooks::GENERIC };
pub(super) static NODE: Hooks =
    Hooks { field_labels: &[("spec.unschedulable", "spec.unschedulable")], ..Hooks::GENERIC };
pub(super) static POD: Hooks = Hooks {
    field_labels: &[
        ("spec.nodeName", "spec.nodeName"),
        ("spec.host", "spec.nodeName"),
        ("spec.restartPolicy", "spec.restartPolicy"),
        ("spec.schedulerName", "spec.schedulerName"),
        ("spec.serviceAccountName", "spec.serviceAccountName"),
        ("spec.hostNetwork", "spec.hostNetwork"),
        ("status.phase", "status.phase"),
        ("status.podIP", "status.podIP"),
        ("status.podIPs", "status.podIP"),
        ("status.nominatedNodeName", "status.nominatedNodeName"),
    ],
    ..Hooks::GENERIC
};
pub(super) static SECRET: Hooks = Hooks { field_labels: &[("type", "type")], ..Hooks::GENERIC };
pub(super) static SERVICE: Hooks =
    Hooks { field_labels: &[("spec.clusterIP", "spec.clusterIP"), ("spec.type", "spec.type")], ..Hooks::GENERIC };
