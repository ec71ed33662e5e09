//! ResourceQuotas and LimitRanges on a whole cluster, through real kubectl.

use tidegate_tests::kubectl::{Kubectl, VERSIONS, with_cluster};

#[test]
fn quotas() {
    with_cluster(&VERSIONS, |_, kubectl| {
        counts(kubectl);
        pods(kubectl);
        defaults(kubectl);
    });
}

/// What goes away is given back, also by kinds that only `count/` knows.
fn counts(kubectl: &Kubectl) {
    kubectl.ok("create quota counts --hard=count/deployments.apps=1,secrets=2,services.nodeports=1");
    kubectl.becomes("get quota counts -o jsonpath={.status.used.secrets}", "0");
    kubectl.ok("create deployment one --image=tidegate/echo:dev --replicas=0");
    kubectl.refuses(
        "create deployment two --image=tidegate/echo:dev",
        "deployments.apps \"two\" is forbidden: exceeded quota: counts, requested: count/deployments.apps=1, used: \
         count/deployments.apps=1, limited: count/deployments.apps=1",
    );
    kubectl.ok("delete deployment one");
    kubectl.becomes(r"get quota counts -o jsonpath={.status.used.count/deployments\.apps}", "0");
    kubectl.ok("create service nodeport open --tcp=80");
    kubectl.refuses("create service nodeport more --tcp=80", "exceeded quota: counts, requested: services.nodeports=1");
    kubectl.says("describe quota counts", "services.nodeports");
    kubectl.says("get quota counts", "count/deployments.apps: 0/1, secrets: 0/2, services.nodeports: 1/1");
    kubectl.ok("delete quota counts");
}

/// Living pods count; a ReplicaSet says why it makes no more.
fn pods(kubectl: &Kubectl) {
    kubectl.ok("create quota pods --hard=pods=2");
    kubectl.ok("create quota best --hard=pods=1 --scopes=BestEffort");
    kubectl.becomes("get quota pods -o jsonpath={.status.used.pods}", "0");
    kubectl.becomes("get quota best -o jsonpath={.status.used.pods}", "0");
    kubectl.ok("create deployment web --image=tidegate/echo:dev --replicas=3");
    kubectl.comes_to_say(
        "get events --field-selector reason=FailedCreate",
        "exceeded quota: best, requested: pods=1, used: pods=1",
    );
    kubectl.becomes(
        r#"get deployment web -o jsonpath={.status.conditions[?(@.type=="ReplicaFailure")].reason}"#,
        "FailedCreate",
    );
    kubectl.ok("delete quota best");
    kubectl.ok("delete deployment web");
    kubectl.becomes("get quota pods -o jsonpath={.status.used.pods}", "0");
    kubectl.ok("run done --image=busybox:dev --restart=Never -- true");
    kubectl.becomes("get pod done -o jsonpath={.status.phase}", "Succeeded");
    kubectl.becomes("get quota pods -o jsonpath={.status.used.pods}", "0");
    kubectl.ok("delete quota pods");
}

const RANGE: &str = r#"
apiVersion: v1
kind: LimitRange
metadata: {name: range}
spec:
  limits:
  - type: Container
    default: {cpu: 200m, memory: 64Mi}
    defaultRequest: {cpu: 50m}
    max: {cpu: "1", memory: 128Mi}
"#;

fn defaults(kubectl: &Kubectl) {
    kubectl.ok("create quota compute --hard=requests.cpu=100m,limits.memory=256Mi");
    kubectl.becomes("get quota compute -o jsonpath={.status.used.limits\\.memory}", "0");
    kubectl.refuses(
        "run bare --image=busybox:dev",
        "failed quota: compute: must specify limits.memory for: bare; requests.cpu for: bare",
    );
    kubectl.feed("create -f -", RANGE);
    kubectl.says("describe limitrange range", "128Mi");
    kubectl.ok("run bare --image=busybox:dev -- sleep 1000");
    assert_eq!(kubectl.ok("get pod bare -o jsonpath={.spec.containers[0].resources.requests.cpu}"), "50m");
    assert_eq!(kubectl.ok("get quota compute -o jsonpath={.status.used.limits\\.memory}"), "64Mi");
    let large = r#"run large --image=busybox:dev --overrides={"spec":{"containers":[{"name":"large","image":"busybox:dev","resources":{"limits":{"cpu":"2"}}}]}}"#;
    kubectl.refuses(large, "pods \"large\" is forbidden: maximum cpu usage per Container is 1, but limit is 2");
    kubectl.ok("delete pod bare --now");
    kubectl.becomes("get quota compute -o jsonpath={.status.used.limits\\.memory}", "0");
}
