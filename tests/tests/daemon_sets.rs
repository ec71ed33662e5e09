//! DaemonSets on a whole cluster, through real kubectl.

use tidegate_tests::kubectl::{VERSIONS, with_cluster};

const AGENT: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: main, image: "tidegate/echo:dev"}
"#;

#[test]
fn daemon_sets() {
    with_cluster(&VERSIONS, |cluster, kubectl| {
        kubectl.feed("create -f -", AGENT);
        let rolled_out = || kubectl.says("rollout status daemonset/agent --timeout=60s", "successfully rolled out");
        rolled_out();
        kubectl.ok("set env daemonset/agent RELEASE=second");
        rolled_out();
        kubectl.says("rollout history daemonset/agent", "\n2 ");
        kubectl.ok("rollout undo daemonset/agent");
        rolled_out();
        kubectl.says("rollout history daemonset/agent", "\n3 ");
        assert_eq!(kubectl.ok("get pods -l app=agent -o jsonpath={.items[*].spec.containers[0].env}"), "");

        // OnDelete: a pod stays what it is until somebody deletes it.
        kubectl.ok(r#"patch daemonset agent --type=merge -p {"spec":{"updateStrategy":{"type":"OnDelete","rollingUpdate":null}}}"#);
        kubectl.ok("set env daemonset/agent RELEASE=third");
        let status = "get daemonset agent -o jsonpath={.status.observedGeneration},{.status.updatedNumberScheduled}";
        kubectl.comes_to_say(status, ",");
        kubectl.refuses("rollout status daemonset/agent", "rollout status is only available for RollingUpdate");
        kubectl.becomes("get pods -l app=agent -o jsonpath={.items[*].spec.containers[0].env}", "");
        kubectl.ok("delete pods -l app=agent");
        kubectl
            .becomes("get daemonset agent -o jsonpath={.status.updatedNumberScheduled},{.status.numberReady}", "1,1");

        // Where its nodes are.
        kubectl.ok(r#"patch daemonset agent -p {"spec":{"template":{"spec":{"nodeSelector":{"disk":"ssd"}}}}}"#);
        let pods = "get pods -l app=agent -o name";
        kubectl.becomes(pods, "");
        kubectl.ok(&format!("label node {} disk=ssd", cluster.node()));
        kubectl.becomes("get daemonset agent -o jsonpath={.status.numberReady}", "1");
        kubectl.ok(&format!("label node {} disk-", cluster.node()));
        kubectl.becomes(pods, "");
    });
}
