//! Endpoints beside EndpointSlices, ReplicationControllers, cordoned nodes, and what is said of mistakes: a whole cluster
//! through real kubectl.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

use serde_json::{Value, json};
use tidegate_tests::cluster::Cluster;
use tidegate_tests::kubectl::{Kubectl, VERSIONS, with_cluster};

const APP: &str = r#"
apiVersion: v1
kind: ReplicationController
metadata: {name: web}
spec:
  replicas: 2
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: "tidegate/echo:dev", ports: [{name: http, containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web, labels: {tier: front}}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, selector: {app: web}}
"#;

const WRITTEN: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {ports: [{name: pg, port: 5432}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: outside, labels: {a: b}}
subsets: [{addresses: [{ip: 198.51.100.7}], notReadyAddresses: [{ip: 198.51.100.8}], ports: [{name: pg, port: 5432}]}]
"#;

#[test]
fn older_kinds() {
    with_cluster(&VERSIONS, |cluster, kubectl| {
        kubectl.feed("apply -f -", APP);
        replication_controller(kubectl);
        endpoints(kubectl);
        mirrored(kubectl);
        cordon(cluster, kubectl);
        mistakes(kubectl);
    });
}

fn get(kubectl: &Kubectl, what: &str) -> Value {
    serde_json::from_str(&kubectl.ok(&format!("get {what} -o json"))).unwrap()
}

fn replication_controller(kubectl: &Kubectl) {
    kubectl.becomes("get rc web -o jsonpath={.status.readyReplicas}", "2");
    kubectl.says("get rc", "NAME   DESIRED   CURRENT   READY   AGE");
    kubectl.says("get rc -o wide", "app=web");
    kubectl.says("get all", "replicationcontroller/web");
    kubectl.ok("scale rc web --replicas=3");
    kubectl.becomes("get rc web -o jsonpath={.status.readyReplicas}", "3");
    kubectl.ok("create poddisruptionbudget web --selector=app=web --min-available=50%");
    kubectl.becomes("get pdb web -o jsonpath={.status.expectedPods}/{.status.desiredHealthy}", "3/2");
    kubectl.ok("delete pdb web");
    kubectl.ok("scale rc web --replicas=2");
    kubectl.becomes(
        "get pods -l app=web -o jsonpath={.items[*].metadata.ownerReferences[0].kind}",
        &["ReplicationController"; 2].join(" "),
    );
    kubectl.comes_to_say("describe rc web", "replication-controller  Created pod: web-");
    kubectl.says("get --raw /api/v1/namespaces/default/replicationcontrollers", "ReplicationControllerList");
}

fn endpoints(kubectl: &Kubectl) {
    let pods = get(kubectl, "pods -l app=web");
    let mut ips: Vec<&str> =
        pods["items"].as_array().unwrap().iter().map(|pod| pod["status"]["podIP"].as_str().unwrap()).collect();
    ips.sort_unstable();
    let shown = format!("{}:8080,{}:8080", ips[0], ips[1]);
    kubectl.comes_to_say("get endpoints web", &shown);
    let output = kubectl.run("get endpoints web", "");
    let warned = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        warned.contains("Warning: v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        "{warned}"
    );
    let found = get(kubectl, "endpoints web");
    assert_eq!(
        found["metadata"]["labels"],
        json!({"tier": "front", "endpoints.kubernetes.io/managed-by": "endpoint-controller"})
    );
    let subset = &found["subsets"][0];
    assert_eq!(subset["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
    assert_eq!(
        (&subset["addresses"][0]["ip"], &subset["addresses"][0]["targetRef"]["kind"]),
        (&json!(ips[0]), &json!("Pod"))
    );
    let headless = get(kubectl, "endpoints headless");
    assert_eq!(headless["metadata"]["labels"]["service.kubernetes.io/headless"], "");
    assert_eq!(
        (&headless["subsets"][0]["ports"], headless["subsets"][0]["addresses"].as_array().unwrap().len()),
        (&Value::Null, 2)
    );
    kubectl.says("get endpoints kubernetes -n default", ":6443");
    kubectl.ok("delete service headless");
    kubectl.becomes("get endpoints -o name", "endpoints/web");
}

fn mirrored(kubectl: &Kubectl) {
    kubectl.feed("apply -f -", WRITTEN);
    let slices = "get endpointslices -l kubernetes.io/service-name=outside";
    kubectl.becomes(
        &format!("{slices} -o jsonpath={{.items[*].metadata.labels.endpointslice\\.kubernetes\\.io/managed-by}}"),
        "endpointslicemirroring-controller.k8s.io",
    );
    let slice = &get(kubectl, "endpointslices -l kubernetes.io/service-name=outside")["items"][0];
    assert_eq!(
        slice["endpoints"],
        json!([{"addresses": ["198.51.100.7"], "conditions": {"ready": true}},
               {"addresses": ["198.51.100.8"], "conditions": {"ready": false}}])
    );
    assert_eq!((&slice["metadata"]["labels"]["a"], &slice["addressType"]), (&json!("b"), &json!("IPv4")));
    kubectl.ok("label endpoints outside endpointslice.kubernetes.io/skip-mirror=true");
    kubectl.becomes(&format!("{slices} -o name"), "");
    kubectl.ok("label endpoints outside endpointslice.kubernetes.io/skip-mirror-");
    kubectl.comes_to_say(slices, "5432");
    kubectl.ok("delete service outside");
    kubectl.becomes(&format!("{slices} -o name"), "");
}

fn cordon(cluster: &Cluster, kubectl: &Kubectl) {
    let node = cluster.node();
    let taints = format!("get node {node} -o jsonpath={{.spec.taints[*].key}}");
    kubectl.ok(&format!("cordon {node}"));
    kubectl.becomes(&taints, "node.kubernetes.io/unschedulable");
    kubectl.ok("run late --image=tidegate/echo:dev");
    kubectl.comes_to_say(
        "get events --field-selector=reason=FailedScheduling -o jsonpath={.items[*].message}",
        "0/1 nodes are available: 1 node(s) were unschedulable. preemption: 0/1 nodes are available: 1 Preemption is not \
         helpful for scheduling.",
    );
    let events =
        format!("get events -n default --field-selector=involvedObject.name={node} -o jsonpath={{.items[*].message}}");
    kubectl.comes_to_say(&events, &format!("Node {node} status is now: NodeNotSchedulable"));
    kubectl.ok(&format!("uncordon {node}"));
    kubectl.becomes(&taints, "");
    kubectl.ok("wait --for=condition=Ready pod/late --timeout=60s");
    kubectl.comes_to_say(&events, &format!("Node {node} status is now: NodeSchedulable"));
    let version = |text: String| text.trim().split('+').next().map(str::to_owned);
    let kubelet = kubectl.ok(&format!("get node {node} -o jsonpath={{.status.nodeInfo.kubeletVersion}}"));
    let server: Value = serde_json::from_str(&kubectl.ok("get --raw /version")).unwrap();
    assert_eq!(version(kubelet), version(server["gitVersion"].as_str().unwrap().to_owned()));
}

fn mistakes(kubectl: &Kubectl) {
    kubectl.refuses(
        "create cronjob tick --image=x --schedule=61_*_*_*_*",
        "spec.schedule: Invalid value: \"61_*_*_*_*\": expected exactly 5 fields, found 1: [61_*_*_*_*]",
    );
    let patch = |kind: &str, body: &str| {
        let output = kubectl.words(&["patch", "pod", "late", kind, "-p", body]).output().unwrap();
        assert!(!output.status.success(), "{body}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let refused = patch("--type=json", r#"[{"op": "destroy", "path": "/spec"}]"#);
    assert!(refused.contains("the server rejected our request due to an error in our request"), "{refused}");
    let refused = patch("--type=json", r#"[{"op": 1}]"#);
    assert!(
        refused.contains(
            "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string"
        ),
        "{refused}"
    );
    let refused = patch("--type=merge", r#"{"spec": {"hostname": "other"}}"#);
    assert!(refused.contains("pod updates may not change fields other than `spec.containers[*].image`"), "{refused}");
    assert!(refused.contains("+ \"hostname\": \"other\","), "{refused}");
    kubectl.refuses("get pods -l a=b=c", "found '=', expected: ',' or 'end of string'");
    let all: Value = serde_json::from_str(&kubectl.ok("get --raw /api/v1/namespaces?limit=-1")).unwrap();
    assert!(all["items"].as_array().unwrap().len() >= 4 && all["metadata"]["continue"].is_null());
}
