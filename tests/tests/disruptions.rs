//! Budgets, drains and taints on a whole cluster, through real kubectl.

use tidegate_tests::cluster::Cluster;
use tidegate_tests::kubectl::{Kubectl, VERSIONS, with_cluster};

#[test]
fn disruptions() {
    with_cluster(&VERSIONS, |cluster, kubectl| {
        kubectl.ok("create deployment web --image=tidegate/echo:dev --replicas=3");
        kubectl.ok(r#"patch deployment web -p {"spec":{"template":{"spec":{"terminationGracePeriodSeconds":1}}}}"#);
        kubectl.ok("rollout status deployment/web --timeout=60s");
        drain(cluster, kubectl);
        taint(cluster, kubectl);
    });
}

fn drain(cluster: &Cluster, kubectl: &Kubectl) {
    let node = cluster.node();
    kubectl.ok("create poddisruptionbudget web --selector=app=web --min-available=3");
    kubectl.becomes("get pdb web -o jsonpath={.status.currentHealthy},{.status.disruptionsAllowed}", "3,0");
    let drain =
        |timeout: u32| format!("drain {node} --force --ignore-daemonsets --pod-selector=app=web --timeout={timeout}s");
    kubectl.refuses(&drain(2), "Cannot evict pod as it would violate the pod's disruption budget.");
    kubectl.says("get nodes", "SchedulingDisabled");
    assert_eq!(kubectl.ok("get pods -l app=web -o name").lines().count(), 3);
    // Two may go now; their successors find no node, so the third must stay.
    kubectl.ok(r#"patch pdb web -p {"spec":{"minAvailable":1}}"#);
    kubectl.becomes("get pdb web -o jsonpath={.status.disruptionsAllowed}", "2");
    let blocked = kubectl.run(&drain(8), "");
    assert_eq!(String::from_utf8_lossy(&blocked.stdout).matches(" evicted").count(), 2, "{blocked:?}");
    kubectl.becomes(
        "get pods -l app=web --field-selector status.phase=Running -o go-template={{range.items}}x{{end}}",
        "x",
    );
    kubectl.says(&format!("uncordon {node}"), "uncordoned");
    kubectl.says(&format!("uncordon {node}"), "already uncordoned");
    kubectl.ok("rollout status deployment/web --timeout=60s");
    kubectl.ok("delete pdb web");
    kubectl.says(&drain(60), "drained");
    kubectl.ok(&format!("uncordon {node}"));
    kubectl.ok("rollout status deployment/web --timeout=60s");
}

/// NoExecute drives out at once who does not tolerate it, and later who tolerates it for a while.
fn taint(cluster: &Cluster, kubectl: &Kubectl) {
    let node = cluster.node();
    for (name, tolerations) in [
        ("stays", r#"[{"key":"maint","operator":"Exists","effect":"NoExecute"}]"#),
        ("leaves", r#"[{"key":"maint","operator":"Exists","effect":"NoExecute","tolerationSeconds":5}]"#),
        ("flees", "[]"),
    ] {
        let spec = format!(r#"{{"spec":{{"terminationGracePeriodSeconds":1,"tolerations":{tolerations}}}}}"#);
        kubectl.ok(&format!("run {name} --image=busybox:dev --overrides={spec} -- sleep 1000"));
    }
    kubectl.ok("wait --for=condition=Ready pod/stays pod/leaves pod/flees --timeout=60s");
    kubectl.ok(&format!("taint node {node} maint=yes:NoExecute"));
    kubectl.ok("wait --for=delete pod/flees --timeout=60s");
    kubectl.ok("wait --for=delete pod/leaves --timeout=60s");
    assert_eq!(kubectl.ok("get pod stays -o jsonpath={.status.phase}"), "Running");
    kubectl.says("get events --field-selector reason=TaintManagerEviction", "pod/flees");
    kubectl.ok(&format!("taint node {node} maint-"));
    kubectl.ok("rollout status deployment/web --timeout=60s");
}
