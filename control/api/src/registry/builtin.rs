//! The built-in resources, in the order in which upstream's discovery lists groups.

use super::hooks::{self, Hooks};
use super::{GroupVersionKind, Resource, Subresource, Verb, event};
use crate::custom;

const APPS: &str = "apps";
const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
const BATCH: &str = "batch";
const NETWORKING: &str = "networking.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";

/// WebSockets begin with GET, everything else with POST.
const CONNECT: &[Verb] = &[Verb::Create, Verb::Get];
const READ_WRITE: &[Verb] = &[Verb::Get, Verb::Patch, Verb::Update];

pub(super) fn resources() -> Vec<Resource> {
    let mut all = core();
    all.extend(apps());
    all.extend([events()]);
    all.extend(reviews());
    all.extend(batch());
    all.extend(networking());
    all.extend([namespaced("policy", "PodDisruptionBudget", "poddisruptionbudgets", &["pdb"])
        .hooked(&hooks::DISRUPTION_BUDGET)
        .status()
        .generations()]);
    all.extend(rbac());
    all.extend([
        cluster("scheduling.k8s.io", "PriorityClass", "priorityclasses", &["pc"])
            .hooked(&hooks::PRIORITY_CLASS)
            .generations(),
        namespaced("coordination.k8s.io", "Lease", "leases", &[]).hooked(&hooks::LEASE).creating().conditional(),
        namespaced("discovery.k8s.io", "EndpointSlice", "endpointslices", &[])
            .hooked(&hooks::ENDPOINT_SLICE)
            .generations(),
        cluster(custom::GROUP, "CustomResourceDefinition", custom::PLURAL, &["crd", "crds"])
            .hooked(&hooks::CUSTOM_RESOURCE_DEFINITION)
            .category("api-extensions")
            .conditional()
            .status()
            .generations(),
    ]);
    all
}

fn core() -> Vec<Resource> {
    let authentication = |kind| GroupVersionKind::new(AUTHENTICATION, "v1", kind);
    let options = |kind| GroupVersionKind::new("", "v1", kind);
    vec![
        namespaced("", "ConfigMap", "configmaps", &["cm"]).hooked(&hooks::CONFIG_MAP),
        Resource {
            deprecation: Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".into()),
            ..namespaced("", "Endpoints", "endpoints", &["ep"]).hooked(&hooks::ENDPOINTS).creating()
        },
        namespaced("", "Event", "events", &["ev"]).hooked(&hooks::CORE_EVENT).creating(),
        namespaced("", "LimitRange", "limitranges", &["limits"]).hooked(&hooks::LIMIT_RANGE).creating(),
        Resource {
            verbs: without_delete_collection(),
            ..cluster("", "Namespace", "namespaces", &["ns"]).hooked(&hooks::NAMESPACE)
        }
        .status()
        .sub("finalize", None, &[Verb::Update]),
        cluster("", "Node", "nodes", &["no"]).hooked(&hooks::NODE).status(),
        Resource { graceful_deletion: true, ..namespaced("", "Pod", "pods", &["po"]).hooked(&hooks::POD) }
            .all()
            .status()
            .generations()
            .sub("binding", Some(GroupVersionKind::new("", "v1", "Binding")), &[Verb::Create])
            .sub("eviction", Some(GroupVersionKind::new("policy", "v1", "Eviction")), &[Verb::Create])
            .sub("ephemeralcontainers", None, READ_WRITE)
            .sub("resize", None, READ_WRITE)
            .sub("log", None, &[Verb::Get])
            .sub("attach", Some(options("PodAttachOptions")), CONNECT)
            .sub("exec", Some(options("PodExecOptions")), CONNECT)
            .sub("portforward", Some(options("PodPortForwardOptions")), CONNECT),
        namespaced("", "ReplicationController", "replicationcontrollers", &["rc"])
            .hooked(&hooks::REPLICATION_CONTROLLER)
            .all()
            .status()
            .generations()
            .sub("scale", Some(GroupVersionKind::new("autoscaling", "v1", "Scale")), READ_WRITE),
        namespaced("", "ResourceQuota", "resourcequotas", &["quota"])
            .hooked(&hooks::RESOURCE_QUOTA)
            .creating()
            .status(),
        namespaced("", "Secret", "secrets", &[]).hooked(&hooks::SECRET),
        namespaced("", "ServiceAccount", "serviceaccounts", &["sa"]).hooked(&hooks::SERVICE_ACCOUNT).sub(
            "token",
            Some(authentication("TokenRequest")),
            &[Verb::Create],
        ),
        namespaced("", "Service", "services", &["svc"]).hooked(&hooks::SERVICE).creating().all().status(),
    ]
}

fn apps() -> Vec<Resource> {
    let scale = || Some(GroupVersionKind::new("autoscaling", "v1", "Scale"));
    vec![
        namespaced(APPS, "ControllerRevision", "controllerrevisions", &[]).hooked(&hooks::CONTROLLER_REVISION),
        namespaced(APPS, "DaemonSet", "daemonsets", &["ds"]).hooked(&hooks::DAEMON_SET).all().status().generations(),
        namespaced(APPS, "Deployment", "deployments", &["deploy"])
            .hooked(&hooks::DEPLOYMENT)
            .all()
            .status()
            .generations()
            .sub("scale", scale(), READ_WRITE),
        namespaced(APPS, "ReplicaSet", "replicasets", &["rs"])
            .hooked(&hooks::REPLICA_SET)
            .all()
            .status()
            .generations()
            .sub("scale", scale(), READ_WRITE),
        namespaced(APPS, "StatefulSet", "statefulsets", &["sts"])
            .hooked(&hooks::STATEFUL_SET)
            .all()
            .status()
            .generations()
            .sub("scale", scale(), READ_WRITE),
    ]
}

fn batch() -> Vec<Resource> {
    vec![
        namespaced(BATCH, "CronJob", "cronjobs", &["cj"]).hooked(&hooks::CRON_JOB).all().status().generations(),
        namespaced(BATCH, "Job", "jobs", &[]).hooked(&hooks::JOB).all().status().generations(),
    ]
}

fn events() -> Resource {
    let storage = (String::new(), "events".to_owned());
    let conversion = Some(event::CONVERSION);
    Resource {
        storage,
        conversion,
        ..namespaced("events.k8s.io", "Event", "events", &["ev"]).hooked(&hooks::EVENT).creating()
    }
}

fn reviews() -> Vec<Resource> {
    let local = Resource {
        namespaced: true,
        ..review(AUTHORIZATION, "LocalSubjectAccessReview", "localsubjectaccessreviews")
            .hooked(&hooks::LOCAL_ACCESS_REVIEW)
    };
    vec![
        review(AUTHENTICATION, "SelfSubjectReview", "selfsubjectreviews"),
        review(AUTHENTICATION, "TokenReview", "tokenreviews"),
        local,
        review(AUTHORIZATION, "SelfSubjectAccessReview", "selfsubjectaccessreviews").hooked(&hooks::SELF_ACCESS_REVIEW),
        review(AUTHORIZATION, "SelfSubjectRulesReview", "selfsubjectrulesreviews"),
        review(AUTHORIZATION, "SubjectAccessReview", "subjectaccessreviews").hooked(&hooks::ACCESS_REVIEW),
    ]
}

fn networking() -> Vec<Resource> {
    vec![
        cluster(NETWORKING, "IngressClass", "ingressclasses", &[]).hooked(&hooks::INGRESS_CLASS).generations(),
        namespaced(NETWORKING, "Ingress", "ingresses", &["ing"]).hooked(&hooks::INGRESS).status().generations(),
        namespaced(NETWORKING, "NetworkPolicy", "networkpolicies", &["netpol"])
            .hooked(&hooks::NETWORK_POLICY)
            .generations(),
    ]
}

fn rbac() -> Vec<Resource> {
    vec![
        cluster(RBAC, "ClusterRoleBinding", "clusterrolebindings", &[]).hooked(&hooks::CLUSTER_ROLE_BINDING).creating(),
        cluster(RBAC, "ClusterRole", "clusterroles", &[]).hooked(&hooks::CLUSTER_ROLE).creating(),
        namespaced(RBAC, "RoleBinding", "rolebindings", &[]).hooked(&hooks::ROLE_BINDING).creating(),
        namespaced(RBAC, "Role", "roles", &[]).hooked(&hooks::ROLE).creating(),
    ]
}

fn cluster(group: &str, kind: &str, plural: &str, short_names: &[&str]) -> Resource {
    Resource {
        group: group.into(),
        version: "v1".into(),
        kind: kind.into(),
        list_kind: format!("{kind}List"),
        plural: plural.into(),
        singular: kind.to_lowercase(),
        short_names: short_names.iter().map(|&name| name.to_owned()).collect(),
        categories: Vec::new(),
        namespaced: false,
        verbs: Verb::ALL.to_vec(),
        subresources: Vec::new(),
        create_on_update: false,
        unconditional_update: true,
        has_generation: false,
        graceful_deletion: false,
        terminating: false,
        is_virtual: false,
        conversion: None,
        storage: (group.into(), plural.into()),
        hooks: &hooks::GENERIC,
        deprecation: None,
        custom: None,
    }
}

fn namespaced(group: &str, kind: &str, plural: &str, short_names: &[&str]) -> Resource {
    Resource { namespaced: true, ..cluster(group, kind, plural, short_names) }
}

fn review(group: &str, kind: &str, plural: &str) -> Resource {
    Resource { verbs: vec![Verb::Create], is_virtual: true, ..cluster(group, kind, plural, &[]) }
}

fn without_delete_collection() -> Vec<Verb> {
    Verb::ALL.iter().copied().filter(|&verb| verb != Verb::DeleteCollection).collect()
}

impl Resource {
    /// Lists it under `kubectl get all`.
    fn all(self) -> Self {
        self.category("all")
    }

    fn category(mut self, name: &str) -> Self {
        self.categories.push(name.into());
        self
    }

    fn generations(mut self) -> Self {
        self.has_generation = true;
        self
    }

    fn creating(mut self) -> Self {
        self.create_on_update = true;
        self
    }

    fn conditional(mut self) -> Self {
        self.unconditional_update = false;
        self
    }

    fn hooked(mut self, hooks: &'static Hooks) -> Self {
        self.hooks = hooks;
        self
    }

    fn status(self) -> Self {
        self.sub("status", None, READ_WRITE)
    }

    fn sub(mut self, name: &str, kind: Option<GroupVersionKind>, verbs: &[Verb]) -> Self {
        let kind = kind.unwrap_or_else(|| self.gvk());
        self.subresources.push(Subresource { name: name.into(), kind, verbs: verbs.to_vec() });
        self.subresources.sort_by(|a, b| a.name.cmp(&b.name));
        self
    }
}
