//! The columns of every kind, each with the function that fills them.

use super::cells::{
    age, cron_job, daemon_set, disruption_budget, endpoint_slice, event, ingress, ingress_class, job, labels, name,
    node, reference, resource_quota, role_binding, selector, service, subsets, template,
};
use super::{Column, Printer, pod};
use crate::meta;
use crate::selector::LabelSelector;
use crate::value::{entries, int, items, text};

pub(super) const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    description: "Name is unique among the objects of its kind in a namespace.",
    priority: 0,
};
const AGE: Column = column("Age", "Time since the object was created.");
const CONTAINERS: Column = wide(column("Containers", "Names of the containers in the template."));
const IMAGES: Column = wide(column("Images", "Images of the containers in the template."));
const SELECTOR: Column = wide(column("Selector", "Labels by which pods are selected."));

const fn column(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "string", format: "", description, priority: 0 }
}

const fn integer(name: &'static str, description: &'static str) -> Column {
    Column { kind: "integer", ..column(name, description) }
}

const fn wide(column: Column) -> Column {
    Column { priority: 1, ..column }
}

/// A kind without columns of its own.
pub(crate) static GENERIC: Printer = Printer {
    columns: &[NAME, Column { kind: "date", ..column("Created At", "Time at which the object was created.") }],
    cells: |object, _| vec![name(object), meta::creation_timestamp(object).into()],
};

pub(crate) static POD: Printer = Printer {
    columns: &[
        NAME,
        column("Ready", "Containers that are ready, of all containers."),
        column("Status", "What the pod as a whole is doing."),
        column("Restarts", "How often containers of the pod were restarted."),
        AGE,
        wide(column("IP", "Address of the pod.")),
        wide(column("Node", "Node the pod runs on.")),
        wide(column("Nominated Node", "Node that is being made free for the pod.")),
        wide(column("Readiness Gates", "Readiness gates that are open, of all gates.")),
    ],
    cells: pod::cells,
};

pub(crate) static CONFIG_MAP: Printer = Printer {
    columns: &[NAME, column("Data", "Number of entries."), AGE],
    cells: |map, now| {
        let count = entries(&map["data"]).count() + entries(&map["binaryData"]).count();
        vec![name(map), count.into(), age(map, now)]
    },
};

pub(crate) static SECRET: Printer = Printer {
    columns: &[NAME, column("Type", "What the secret is for."), column("Data", "Number of entries."), AGE],
    cells: |secret, now| {
        vec![name(secret), text(&secret["type"]).into(), entries(&secret["data"]).count().into(), age(secret, now)]
    },
};

pub(crate) static SERVICE_ACCOUNT: Printer = Printer {
    columns: &[NAME, column("Secrets", "Number of secrets the account may use."), AGE],
    cells: |account, now| vec![name(account), items(&account["secrets"]).len().into(), age(account, now)],
};

pub(crate) static NAMESPACE: Printer = Printer {
    columns: &[NAME, column("Status", "Whether the namespace is active or going away."), AGE],
    cells: |namespace, now| vec![name(namespace), text(&namespace["status"]["phase"]).into(), age(namespace, now)],
};

pub(crate) static NODE: Printer = Printer {
    columns: &[
        NAME,
        column("Status", "Whether the node is ready."),
        column("Roles", "Roles of the node."),
        AGE,
        column("Version", "Version of the kubelet."),
        wide(column("Internal-IP", "Address of the node within the cluster.")),
        wide(column("External-IP", "Address of the node outside the cluster.")),
        wide(column("OS-Image", "Operating system.")),
        wide(column("Kernel-Version", "Version of the kernel.")),
        wide(column("Container-Runtime", "Container runtime and its version.")),
    ],
    cells: node,
};

pub(crate) static EVENT: Printer = Printer {
    columns: &[
        column("Last Seen", "Time since the event was last seen."),
        column("Type", "Kind of the event: Normal or Warning."),
        column("Reason", "Short reason for the event."),
        column("Object", "Object the event is about."),
        wide(column("Subobject", "Part of the object the event is about.")),
        wide(column("Source", "Component that reported the event.")),
        column("Message", "Description of the event."),
        wide(column("First Seen", "Time since the event was first seen.")),
        wide(column("Count", "How often the event was seen.")),
        wide(NAME),
    ],
    cells: event,
};

pub(crate) static SERVICE: Printer = Printer {
    columns: &[
        NAME,
        column("Type", "How the service is reached."),
        column("Cluster-IP", "Address within the cluster."),
        column("External-IP", "Addresses from outside the cluster."),
        column("Port(s)", "Ports, node ports and protocols."),
        AGE,
        SELECTOR,
    ],
    cells: service,
};

pub(crate) static ENDPOINTS: Printer = Printer {
    columns: &[NAME, column("Endpoints", "Addresses and ports of the endpoints."), AGE],
    cells: |endpoints, now| vec![name(endpoints), subsets(endpoints).into(), age(endpoints, now)],
};

pub(crate) static ENDPOINT_SLICE: Printer = Printer {
    columns: &[
        NAME,
        column("AddressType", "Kind of the addresses."),
        column("Ports", "Ports of the endpoints."),
        column("Endpoints", "Addresses of the endpoints."),
        AGE,
    ],
    cells: endpoint_slice,
};

pub(crate) static DEPLOYMENT: Printer = Printer {
    columns: &[
        NAME,
        column("Ready", "Pods that are ready, of those desired."),
        column("Up-to-date", "Pods of the newest template."),
        column("Available", "Pods that have been ready for long enough."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |object, now| {
        let (spec, status) = (&object["spec"], &object["status"]);
        let (containers, images) = template(object);
        let selector = LabelSelector::from_object(&spec["selector"]);
        vec![
            name(object),
            format!("{}/{}", int(&status["readyReplicas"]), int(&spec["replicas"])).into(),
            int(&status["updatedReplicas"]).into(),
            int(&status["availableReplicas"]).into(),
            age(object, now),
            containers.into(),
            images.into(),
            selector.map_or_else(|_| "<invalid>".to_owned(), |selector| selector.to_string()).into(),
        ]
    },
};

pub(crate) static REPLICA_SET: Printer = Printer {
    columns: &[
        NAME,
        integer("Desired", "Pods that should run."),
        integer("Current", "Pods that exist."),
        integer("Ready", "Pods that are ready."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: |object, now| {
        let (containers, images) = template(object);
        vec![
            name(object),
            int(&object["spec"]["replicas"]).into(),
            int(&object["status"]["replicas"]).into(),
            int(&object["status"]["readyReplicas"]).into(),
            age(object, now),
            containers.into(),
            images.into(),
            selector(&object["spec"]["selector"]).into(),
        ]
    },
};

/// As a ReplicaSet, but for the form of the selector.
pub(crate) static REPLICATION_CONTROLLER: Printer = Printer {
    columns: REPLICA_SET.columns,
    cells: |object, now| {
        let mut cells = (REPLICA_SET.cells)(object, now);
        cells.pop();
        cells.push(labels(&object["spec"]["selector"]).into());
        cells
    },
};

pub(crate) static DAEMON_SET: Printer = Printer {
    columns: &[
        NAME,
        integer("Desired", "Nodes that should run the pod."),
        integer("Current", "Nodes that have at least one pod and should."),
        integer("Ready", "Nodes whose pod is ready."),
        integer("Up-to-date", "Nodes whose pod has the newest template."),
        integer("Available", "Nodes whose pod has been ready for long enough."),
        column("Node Selector", "Labels of the nodes that should run the pod."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: daemon_set,
};

pub(crate) static STATEFUL_SET: Printer = Printer {
    columns: &[NAME, column("Ready", "Pods that are ready, of those desired."), AGE, CONTAINERS, IMAGES],
    cells: |object, now| {
        let (containers, images) = template(object);
        let ready = format!("{}/{}", int(&object["status"]["readyReplicas"]), int(&object["spec"]["replicas"]));
        vec![name(object), ready.into(), age(object, now), containers.into(), images.into()]
    },
};

pub(crate) static JOB: Printer = Printer {
    columns: &[
        NAME,
        column("Status", "What the job as a whole is doing."),
        column("Completions", "Pods that succeeded, of those wanted."),
        column("Duration", "Time from the start to the end, or until now."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: job,
};

pub(crate) static CRON_JOB: Printer = Printer {
    columns: &[
        NAME,
        column("Schedule", "When jobs are started."),
        column("Timezone", "Time zone of the schedule."),
        Column { kind: "boolean", ..column("Suspend", "Whether no jobs are started for now.") },
        integer("Active", "Jobs that run."),
        column("Last Schedule", "Time since a job was last started."),
        AGE,
        CONTAINERS,
        IMAGES,
        SELECTOR,
    ],
    cells: cron_job,
};

pub(crate) static DISRUPTION_BUDGET: Printer = Printer {
    columns: &[
        NAME,
        column("Min Available", "Pods that must stay available."),
        column("Max Unavailable", "Pods that may be missing."),
        integer("Allowed Disruptions", "Pods that may be evicted now."),
        AGE,
    ],
    cells: disruption_budget,
};

pub(crate) static RESOURCE_QUOTA: Printer = Printer {
    columns: &[
        NAME,
        column("Request", "What is used of each amount, and how much of it there is."),
        column("Limit", "The same of limits."),
        AGE,
    ],
    cells: resource_quota,
};

pub(crate) static CONTROLLER_REVISION: Printer = Printer {
    columns: &[
        NAME,
        column("Controller", "Object the revision belongs to."),
        column("Revision", "Number of the revision."),
        AGE,
    ],
    cells: |revision, now| {
        let controller = meta::controller_of(revision).map_or_else(|| "<none>".to_owned(), reference);
        vec![name(revision), controller.into(), int(&revision["revision"]).into(), age(revision, now)]
    },
};

pub(crate) static INGRESS: Printer = Printer {
    columns: &[
        NAME,
        column("Class", "Class whose controller serves the ingress."),
        column("Hosts", "Hosts the rules apply to."),
        column("Address", "Addresses of the load balancer."),
        column("Ports", "Ports that are open."),
        AGE,
    ],
    cells: ingress,
};

pub(crate) static INGRESS_CLASS: Printer = Printer {
    columns: &[
        NAME,
        column("Controller", "Controller that serves the class."),
        column("Parameters", "Object with further parameters."),
        AGE,
    ],
    cells: ingress_class,
};

pub(crate) static NETWORK_POLICY: Printer = Printer {
    columns: &[NAME, column("Pod-Selector", "Labels of the pods the policy applies to."), AGE],
    cells: |policy, now| vec![name(policy), selector(&policy["spec"]["podSelector"]).into(), age(policy, now)],
};

/// Role and cluster role bindings alike.
pub(crate) static ROLE_BINDING: Printer = Printer {
    columns: &[
        NAME,
        column("Role", "Role that is granted."),
        AGE,
        wide(column("Users", "Users it is granted to.")),
        wide(column("Groups", "Groups it is granted to.")),
        wide(column("ServiceAccounts", "Service accounts it is granted to.")),
    ],
    cells: role_binding,
};

pub(crate) static PRIORITY_CLASS: Printer = Printer {
    columns: &[
        NAME,
        column("Value", "Priority of the pods of the class."),
        column("Global-Default", "Whether pods without a class get this one."),
        AGE,
        column("PreemptionPolicy", "Whether pods of the class may displace others."),
    ],
    cells: |class, now| {
        vec![
            name(class),
            int(&class["value"]).into(),
            (class["globalDefault"] == true).into(),
            age(class, now),
            text(&class["preemptionPolicy"]).into(),
        ]
    },
};

pub(crate) static LEASE: Printer = Printer {
    columns: &[NAME, column("Holder", "Who holds the lease."), AGE],
    cells: |lease, now| vec![name(lease), text(&lease["spec"]["holderIdentity"]).into(), age(lease, now)],
};

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn cells(printer: &Printer, object: Value) -> Value {
        let now = "2026-01-01T01:00:00Z".parse().expect("time");
        let mut object = object;
        object["metadata"]["name"] = "x".into();
        object["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        (printer.cells)(&object, now).into()
    }

    #[test]
    fn workloads() {
        let object = json!({"spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
            "template": {"spec": {"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "j"}]}}},
            "status": {"replicas": 2, "readyReplicas": 1, "updatedReplicas": 2}});
        assert_eq!(cells(&DEPLOYMENT, object.clone()), json!(["x", "1/3", 2, 0, "60m", "a,b", "i,j", "app=web"]));
        assert_eq!(cells(&REPLICA_SET, object.clone()), json!(["x", 3, 2, 1, "60m", "a,b", "i,j", "app=web"]));
        let mut older = object;
        older["spec"]["selector"] = json!({"app": "web", "a": "b"});
        assert_eq!(cells(&REPLICATION_CONTROLLER, older), json!(["x", 3, 2, 1, "60m", "a,b", "i,j", "a=b,app=web"]));
        let set = json!({"spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
            "template": {"spec": {"nodeSelector": {"disk": "ssd"}, "containers": [{"name": "a", "image": "i"}]}}},
            "status": {"desiredNumberScheduled": 3, "currentNumberScheduled": 2, "numberReady": 1, "readyReplicas": 1}});
        assert_eq!(
            cells(&DAEMON_SET, set.clone()),
            json!(["x", 3, 2, 1, 0, 0, "disk=ssd", "60m", "a", "i", "app=web"])
        );
        assert_eq!(cells(&STATEFUL_SET, set), json!(["x", "1/3", "60m", "a", "i"]));
        let owners = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "controller": true}]);
        assert_eq!(
            cells(&CONTROLLER_REVISION, json!({"metadata": {"ownerReferences": owners}, "revision": 2})),
            json!(["x", "deployment.apps/web", 2, "60m"])
        );
    }

    #[test]
    fn jobs() {
        let job = |spec: Value, status: Value| {
            let row = cells(&JOB, json!({"spec": spec, "status": status}));
            [row[1].clone(), row[2].clone(), row[3].clone()]
        };
        let started = "2026-01-01T00:59:50Z";
        assert_eq!(
            job(json!({"completions": 3}), json!({"succeeded": 1, "startTime": started})),
            [json!("Running"), json!("1/3"), json!("10s")]
        );
        let done = json!({"succeeded": 1, "startTime": started, "completionTime": "2026-01-01T00:59:55Z",
            "conditions": [{"type": "SuccessCriteriaMet", "status": "True"}, {"type": "Complete", "status": "True"}]});
        assert_eq!(job(json!({"parallelism": 2}), done), [json!("Complete"), json!("1/1 of 2"), json!("5s")]);
        let suspended = json!({"conditions": [{"type": "Suspended", "status": "True"}]});
        assert_eq!(job(json!({"completions": 1}), suspended), [json!("Suspended"), json!("0/1"), json!("")]);
        let cron = json!({"spec": {"schedule": "* * * * *", "suspend": false}, "status": {"active": [{}]}});
        assert_eq!(
            cells(&CRON_JOB, cron),
            json!(["x", "* * * * *", "<none>", "False", 1, "<none>", "60m", "", "", "<none>"])
        );
        let quota = json!({"status": {"hard": {"pods": "4", "cpu": "2", "limits.cpu": "3"}, "used": {"pods": "1", "limits.cpu": "1"}}});
        assert_eq!(cells(&RESOURCE_QUOTA, quota), json!(["x", "cpu: 0/2, pods: 1/4", "limits.cpu: 1/3", "60m"]));
        let budget = json!({"spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 2}});
        assert_eq!(cells(&DISRUPTION_BUDGET, budget), json!(["x", "50%", "N/A", 2, "60m"]));
    }

    #[test]
    fn services_and_endpoints() {
        let service = json!({"spec": {"type": "LoadBalancer", "clusterIPs": ["10.0.0.1"], "externalIPs": ["1.1.1.1"],
            "selector": {"a": "b"}, "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}, {"port": 53, "protocol": "UDP"}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "9.9.9.9"}, {"hostname": "h"}]}}});
        assert_eq!(
            cells(&SERVICE, service),
            json!(["x", "LoadBalancer", "10.0.0.1", "9.9.9.9,h,1.1.1.1", "80:30080/TCP,53/UDP", "60m", "a=b"])
        );
        assert_eq!(
            cells(&SERVICE, json!({"spec": {"type": "LoadBalancer"}})),
            json!(["x", "LoadBalancer", "<none>", "<pending>", "<none>", "60m", "<none>"])
        );
        let endpoints =
            json!({"subsets": [{"addresses": [{"ip": "a"}, {"ip": "fd00::1"}], "ports": [{"port": 1}, {"port": 2}]}]});
        assert_eq!(cells(&ENDPOINTS, endpoints), json!(["x", "a:1,[fd00::1]:1,a:2 + 1 more...", "60m"]));
        let slice = json!({"addressType": "IPv4", "ports": [{"port": 80}, {"name": "n"}, {}],
            "endpoints": [{"addresses": ["a", "b"]}, {"addresses": ["c"]}, {"addresses": ["d"]}]});
        assert_eq!(cells(&ENDPOINT_SLICE, slice), json!(["x", "IPv4", "80,n,*", "a,b,c + 1 more...", "60m"]));
        assert_eq!(cells(&ENDPOINT_SLICE, json!({})), json!(["x", "", "<unset>", "<unset>", "60m"]));
    }

    #[test]
    fn ingresses() {
        let object = json!({"spec": {"ingressClassName": "tidegate", "tls": [{}],
            "rules": [{"host": "a"}, {"host": "b"}, {"host": "c"}, {"host": "d"}, {}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}});
        assert_eq!(cells(&INGRESS, object), json!(["x", "tidegate", "a,b,c + 2 more...", "1.2.3.4", "80, 443", "60m"]));
        assert_eq!(cells(&INGRESS, json!({})), json!(["x", "<none>", "*", "", "80", "60m"]));
        let class = json!({"spec": {"controller": "a/b", "parameters": {"apiGroup": "g", "kind": "K", "name": "n"}}});
        assert_eq!(cells(&INGRESS_CLASS, class), json!(["x", "a/b", "K.g/n", "60m"]));
    }

    #[test]
    fn nodes() {
        let object = json!({"metadata": {"labels": {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "edge"}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "1.1.1.1"}],
                "nodeInfo": {"kubeletVersion": "v1", "osImage": "os"}}});
        assert_eq!(
            cells(&NODE, object),
            json!([
                "x",
                "Ready,SchedulingDisabled",
                "edge,worker",
                "60m",
                "v1",
                "1.1.1.1",
                "<none>",
                "os",
                "<unknown>",
                "<unknown>"
            ])
        );
    }

    #[test]
    fn events_and_the_rest() {
        let object = json!({"series": {"count": 5, "lastObservedTime": "2026-01-01T00:59:00.000000Z"}, "type": "Warning",
            "eventTime": "2026-01-01T00:00:00Z", "reason": "R", "message": " m ", "reportingComponent": "c", "reportingInstance": "i",
            "involvedObject": {"kind": "Node", "fieldPath": "f"}});
        assert_eq!(cells(&EVENT, object), json!(["60s", "Warning", "R", "node", "f", "c, i", "m", "60m", 5, "x"]));
        let binding = json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"},
            {"kind": "ServiceAccount", "name": "s", "namespace": "n"}, {"kind": "User", "name": "v"}]});
        assert_eq!(cells(&ROLE_BINDING, binding), json!(["x", "Role/r", "60m", "u, v", "", "n/s"]));
        assert_eq!(cells(&NETWORK_POLICY, json!({"spec": {"podSelector": {}}})), json!(["x", "<none>", "60m"]));
        assert_eq!(cells(&GENERIC, json!({})), json!(["x", "2026-01-01T00:00:00Z"]));
        assert_eq!(cells(&SECRET, json!({"type": "Opaque", "data": {"a": ""}})), json!(["x", "Opaque", 1, "60m"]));
        let class = json!({"value": 5, "preemptionPolicy": "Never"});
        assert_eq!(cells(&PRIORITY_CLASS, class), json!(["x", 5, false, "60m", "Never"]));
    }
}
