//! StatefulSets with their headless Service on a whole cluster, through real kubectl.

use tidegate_tests::kubectl::{Kubectl, VERSIONS, with_cluster};

const DB: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: db}
spec:
  clusterIP: None
  selector: {app: db}
  ports: [{port: 8080}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 3
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: main, image: "busybox:dev", command: [sleep, "3600"]}
"#;

const NAMES: &str = "get pods -l app=db --sort-by=.metadata.name -o jsonpath={.items[*].metadata.name}";

#[test]
fn stateful_sets() {
    with_cluster(&VERSIONS, |_, kubectl| {
        kubectl.feed("create -f -", DB);
        rolled_out(kubectl);
        assert_eq!(kubectl.ok(NAMES), "db-0 db-1 db-2");
        // One after the other: none was born before the one before it.
        let born = kubectl
            .ok("get pods -l app=db --sort-by=.metadata.name -o jsonpath={.items[*].metadata.creationTimestamp}");
        assert!(born.split(' ').is_sorted(), "{born}");
        let domain = format!("db.{}.svc.cluster.local", kubectl.namespace);
        assert_eq!(kubectl.ok("exec db-1 -- hostname -f").trim(), format!("db-1.{domain}"));
        let address = kubectl.ok("get pod db-2 -o jsonpath={.status.podIP}");
        kubectl.comes_to_say(&format!("exec db-0 -- nslookup db-2.{domain}"), &address);
        // A name outlives its pod.
        let before = kubectl.ok("get pod db-1 -o jsonpath={.metadata.uid}");
        kubectl.ok("delete pod db-1");
        rolled_out(kubectl);
        assert_ne!(kubectl.ok("get pod db-1 -o jsonpath={.metadata.uid}"), before);
        scale_down_and_up(kubectl);
        partition(kubectl);
        on_delete(kubectl);
        parallel(kubectl);
    });
}

fn rolled_out(kubectl: &Kubectl) {
    kubectl.ok("rollout status statefulset/db --timeout=60s");
    kubectl.becomes("get statefulset db -o jsonpath={.status.readyReplicas}", "3");
}

fn scale_down_and_up(kubectl: &Kubectl) {
    kubectl.ok("scale statefulset db --replicas=1");
    kubectl.becomes(NAMES, "db-0");
    let told = kubectl.ok(
        "get events --field-selector reason=SuccessfulDelete --sort-by=.firstTimestamp -o jsonpath={.items[*].message}",
    );
    assert!(told.contains("delete Pod db-2 in StatefulSet db successful"), "{told}");
    kubectl.ok("scale statefulset db --replicas=3");
    rolled_out(kubectl);
}

/// Only pods from the partition on get the new template.
fn partition(kubectl: &Kubectl) {
    kubectl.ok(r#"patch statefulset db -p {"spec":{"updateStrategy":{"rollingUpdate":{"partition":2}}}}"#);
    kubectl.ok("set env statefulset/db RELEASE=second");
    let releases = "get pods -l app=db --sort-by=.metadata.name -o jsonpath={range.items[*]}{.metadata.name}={.spec.containers[0].env[0].value},{end}";
    kubectl.becomes(releases, "db-0=,db-1=,db-2=second,");
    kubectl.says(
        "rollout status statefulset/db --timeout=60s",
        "partitioned roll out complete: 1 new pods have been updated",
    );
    kubectl.ok(r#"patch statefulset db -p {"spec":{"updateStrategy":{"rollingUpdate":{"partition":0}}}}"#);
    kubectl.becomes(releases, "db-0=second,db-1=second,db-2=second,");
    rolled_out(kubectl);
    kubectl.ok("rollout undo statefulset/db");
    kubectl.becomes(releases, "db-0=,db-1=,db-2=,");
    rolled_out(kubectl);
}

fn on_delete(kubectl: &Kubectl) {
    kubectl.ok(
        r#"patch statefulset db --type=merge -p {"spec":{"updateStrategy":{"type":"OnDelete","rollingUpdate":null}}}"#,
    );
    kubectl.ok("set env statefulset/db RELEASE=third");
    kubectl.ok("delete pod db-2");
    let release = |pod: &str| format!("get pod {pod} -o jsonpath={{.spec.containers[0].env[0].value}}");
    kubectl.becomes(&release("db-2"), "third");
    assert_eq!(kubectl.ok(&release("db-0")), "");
}

/// Parallel: a pod that never gets ready holds up nobody.
fn parallel(kubectl: &Kubectl) {
    let set = DB
        .replace("replicas: 3", "replicas: 3\n  podManagementPolicy: Parallel")
        .replace("busybox:dev", "busybox:missing");
    let set = set
        .replace("name: db", "name: all")
        .replace("app: db", "app: all")
        .replace("serviceName: db", "serviceName: all");
    kubectl.feed("create -f -", &set);
    kubectl.becomes(
        "get pods -l app=all --sort-by=.metadata.name -o jsonpath={.items[*].metadata.name}",
        "all-0 all-1 all-2",
    );
}
