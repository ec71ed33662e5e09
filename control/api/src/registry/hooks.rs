//! What a kind does beyond what every kind does; plain functions, so that each lives beside its own rules.

use serde_json::Value;

use crate::names::NameRule;
use crate::table::{Printer, printers};
use crate::validation::{
    self, Errors, cluster, config, definition, disruption, endpoints, ingress, job, limit_range, network_policy, pod,
    quota, rbac, stateful, workload,
};
use crate::{defaults, strategy};

/// The behaviour of one kind.
#[derive(Debug)]
pub struct Hooks {
    /// What a field selector may name beside `metadata.name` and `metadata.namespace`, and the stored field it means.
    pub field_labels: &'static [(&'static str, &'static str)],
    pub names: NameRule,
    pub defaults: fn(&mut Value),
    /// Prepares a new object, after metadata and status have been reset.
    pub create: fn(&mut Value),
    /// Prepares a change of the resource itself, after status and identity have been taken from the old object.
    pub update: fn(old: &Value, new: &mut Value),
    pub validate: fn(&Value, &mut Errors),
    pub validate_update: fn(old: &Value, new: &Value, &mut Errors),
    /// An update is checked by `validate` too, not only by `validate_update`.
    pub revalidate: bool,
    /// A change of annotations counts as a change of the desired state.
    pub annotations_count: bool,
    pub printer: &'static Printer,
}

impl Hooks {
    /// A kind without rules of its own.
    pub const GENERIC: Self = Self {
        field_labels: &[],
        names: NameRule::Subdomain,
        defaults: defaults::nothing,
        create: strategy::nothing,
        update: strategy::no_change,
        validate: validation::nothing,
        validate_update: validation::no_change_rules,
        revalidate: true,
        annotations_count: false,
        printer: &printers::GENERIC,
    };
}

/// The field labels of events, by the names of the core kind.
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

/// The same by the names of `events.k8s.io`.
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

const POD_LABELS: &[(&str, &str)] = &[
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
];

pub(super) static GENERIC: Hooks = Hooks::GENERIC;

pub(super) static CONFIG_MAP: Hooks = Hooks {
    validate: config::config_map,
    validate_update: config::config_map_update,
    printer: &printers::CONFIG_MAP,
    ..Hooks::GENERIC
};

pub(super) static ENDPOINTS: Hooks = Hooks {
    defaults: defaults::endpoints,
    validate: endpoints::endpoints,
    printer: &printers::ENDPOINTS,
    ..Hooks::GENERIC
};

pub(super) static ENDPOINT_SLICE: Hooks = Hooks {
    defaults: defaults::endpoint_slice,
    validate: endpoints::endpoint_slice,
    validate_update: endpoints::endpoint_slice_update,
    printer: &printers::ENDPOINT_SLICE,
    ..Hooks::GENERIC
};

pub(super) static CORE_EVENT: Hooks =
    Hooks { field_labels: CORE_EVENT_LABELS, validate: cluster::event, printer: &printers::EVENT, ..Hooks::GENERIC };

/// Rules see the stored form, the core kind's.
pub(super) static EVENT: Hooks =
    Hooks { field_labels: EVENT_LABELS, validate: cluster::event, printer: &printers::EVENT, ..Hooks::GENERIC };

pub(super) static LIMIT_RANGE: Hooks =
    Hooks { defaults: defaults::limit_range, validate: limit_range::limit_range, ..Hooks::GENERIC };

pub(super) static RESOURCE_QUOTA: Hooks = Hooks {
    defaults: defaults::resource_quota,
    validate: quota::resource_quota,
    validate_update: quota::resource_quota_update,
    printer: &printers::RESOURCE_QUOTA,
    ..Hooks::GENERIC
};

pub(super) static NAMESPACE: Hooks = Hooks {
    field_labels: &[("status.phase", "status.phase")],
    names: NameRule::Label,
    defaults: defaults::namespace,
    create: strategy::namespace::create,
    update: strategy::namespace::update,
    validate: cluster::namespace,
    printer: &printers::NAMESPACE,
    ..Hooks::GENERIC
};

pub(super) static NODE: Hooks = Hooks {
    field_labels: &[("spec.unschedulable", "spec.unschedulable")],
    defaults: defaults::node,
    validate: cluster::node,
    validate_update: cluster::node_update,
    printer: &printers::NODE,
    ..Hooks::GENERIC
};

pub(super) static POD: Hooks = Hooks {
    field_labels: POD_LABELS,
    defaults: defaults::pod,
    create: strategy::pod::create,
    validate: pod::pod,
    validate_update: pod::update,
    revalidate: false,
    printer: &printers::POD,
    ..Hooks::GENERIC
};

pub(super) static SECRET: Hooks = Hooks {
    field_labels: &[("type", "type")],
    defaults: defaults::secret,
    validate: config::secret,
    validate_update: config::secret_update,
    printer: &printers::SECRET,
    ..Hooks::GENERIC
};

pub(super) static SERVICE_ACCOUNT: Hooks = Hooks { printer: &printers::SERVICE_ACCOUNT, ..Hooks::GENERIC };

pub(super) static SERVICE: Hooks = Hooks {
    field_labels: &[("spec.clusterIP", "spec.clusterIP"), ("spec.type", "spec.type")],
    names: NameRule::Label1035,
    defaults: defaults::service,
    create: strategy::service::create,
    update: strategy::service::update,
    validate: validation::service::service,
    validate_update: validation::service::update,
    printer: &printers::SERVICE,
    ..Hooks::GENERIC
};

pub(super) static CONTROLLER_REVISION: Hooks = Hooks {
    validate: workload::controller_revision,
    validate_update: workload::controller_revision_update,
    printer: &printers::CONTROLLER_REVISION,
    ..Hooks::GENERIC
};

pub(super) static DEPLOYMENT: Hooks = Hooks {
    defaults: defaults::deployment,
    validate: workload::deployment,
    validate_update: workload::update,
    annotations_count: true,
    printer: &printers::DEPLOYMENT,
    ..Hooks::GENERIC
};

pub(super) static REPLICA_SET: Hooks = Hooks {
    defaults: defaults::replica_set,
    validate: workload::replica_set,
    validate_update: workload::update,
    printer: &printers::REPLICA_SET,
    ..Hooks::GENERIC
};

pub(super) static REPLICATION_CONTROLLER: Hooks = Hooks {
    field_labels: &[("status.replicas", "status.replicas")],
    defaults: defaults::replication_controller,
    validate: workload::replication_controller,
    printer: &printers::REPLICATION_CONTROLLER,
    ..Hooks::GENERIC
};

pub(super) static DAEMON_SET: Hooks = Hooks {
    defaults: defaults::daemon_set,
    create: strategy::daemon_set::create,
    update: strategy::daemon_set::update,
    validate: workload::daemon_set,
    validate_update: workload::update,
    printer: &printers::DAEMON_SET,
    ..Hooks::GENERIC
};

pub(super) static STATEFUL_SET: Hooks = Hooks {
    defaults: defaults::stateful_set,
    validate: stateful::stateful_set,
    validate_update: stateful::update,
    printer: &printers::STATEFUL_SET,
    ..Hooks::GENERIC
};

pub(super) static JOB: Hooks = Hooks {
    field_labels: &[("status.successful", "status.succeeded")],
    defaults: defaults::job,
    create: strategy::job::create,
    validate: job::job,
    validate_update: job::update,
    printer: &printers::JOB,
    ..Hooks::GENERIC
};

pub(super) static CRON_JOB: Hooks =
    Hooks { defaults: defaults::cron_job, validate: job::cron_job, printer: &printers::CRON_JOB, ..Hooks::GENERIC };

pub(super) static DISRUPTION_BUDGET: Hooks =
    Hooks { validate: disruption::budget, printer: &printers::DISRUPTION_BUDGET, ..Hooks::GENERIC };

pub(super) static INGRESS: Hooks = Hooks { validate: ingress::ingress, printer: &printers::INGRESS, ..Hooks::GENERIC };

pub(super) static INGRESS_CLASS: Hooks = Hooks {
    defaults: defaults::ingress_class,
    validate: ingress::class,
    validate_update: ingress::class_update,
    printer: &printers::INGRESS_CLASS,
    ..Hooks::GENERIC
};

pub(super) static NETWORK_POLICY: Hooks = Hooks {
    defaults: defaults::network_policy,
    validate: network_policy::network_policy,
    printer: &printers::NETWORK_POLICY,
    ..Hooks::GENERIC
};

pub(super) static ROLE: Hooks = Hooks { names: NameRule::PathSegment, validate: rbac::role, ..Hooks::GENERIC };

pub(super) static CLUSTER_ROLE: Hooks =
    Hooks { names: NameRule::PathSegment, validate: rbac::cluster_role, ..Hooks::GENERIC };

pub(super) static ROLE_BINDING: Hooks = Hooks {
    names: NameRule::PathSegment,
    defaults: defaults::role_binding,
    validate: rbac::role_binding,
    validate_update: rbac::binding_update,
    printer: &printers::ROLE_BINDING,
    ..Hooks::GENERIC
};

pub(super) static CLUSTER_ROLE_BINDING: Hooks = Hooks {
    names: NameRule::PathSegment,
    defaults: defaults::role_binding,
    validate: rbac::cluster_role_binding,
    validate_update: rbac::binding_update,
    printer: &printers::ROLE_BINDING,
    ..Hooks::GENERIC
};

pub(super) static PRIORITY_CLASS: Hooks = Hooks {
    defaults: defaults::priority_class,
    validate: cluster::priority_class,
    validate_update: cluster::priority_class_update,
    printer: &printers::PRIORITY_CLASS,
    ..Hooks::GENERIC
};

pub(super) static LEASE: Hooks = Hooks { validate: cluster::lease, printer: &printers::LEASE, ..Hooks::GENERIC };

pub(super) static CUSTOM_RESOURCE_DEFINITION: Hooks = Hooks {
    defaults: defaults::definition,
    create: strategy::definition::create,
    update: strategy::definition::update,
    validate: definition::definition,
    validate_update: definition::update,
    ..Hooks::GENERIC
};

pub(super) static ACCESS_REVIEW: Hooks = Hooks { validate: cluster::access_review, ..Hooks::GENERIC };

pub(super) static LOCAL_ACCESS_REVIEW: Hooks = Hooks { validate: cluster::local_access_review, ..Hooks::GENERIC };

pub(super) static SELF_ACCESS_REVIEW: Hooks = Hooks { validate: cluster::self_access_review, ..Hooks::GENERIC };
