//! What a container is told of itself: variables, arguments, names and resolver files.

use serde_json::json;

use crate::{Pods, script_with, spec};

pub(crate) fn variables_and_files_tell_of_the_pod(pods: &Pods<'_>) {
    let kubectl = pods.kubectl;
    kubectl.ok("create service clusterip backend --tcp=80");
    kubectl.ok("create configmap colors --from-literal=red=1 --from-literal=under_score=2");
    // Only a Service that the kubelet has heard of when a container starts is in its environment.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    let env = json!([
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)-$(NONE)-$$(A)"},
        {"name": "POD", "valueFrom": field("metadata.name")},
        {"name": "LABEL", "valueFrom": field("metadata.labels['app']")},
        {"name": "IPS", "valueFrom": field("status.podIPs")},
        {"name": "NODE_IP", "valueFrom": field("status.hostIP")},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
        {"name": "RED", "valueFrom": {"configMapKeyRef": {"name": "colors", "key": "red"}}},
        {"name": "NO", "valueFrom": {"configMapKeyRef": {"name": "colors", "key": "none", "optional": true}}},
    ]);
    let more = json!({"env": env, "envFrom": [{"prefix": "P_", "configMapRef": {"name": "colors"}}],
        "resources": {"limits": {"cpu": "250m"}}, "args": ["$(A)", "$(NONE)", "$$(A)"]});
    let names = json!({
        "hostname": "web", "subdomain": "sub", "dnsPolicy": "None",
        "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["one.local", "two.local"]}],
        "dnsConfig": {"nameservers": ["9.9.9.9"], "searches": ["my.zone"], "options": [{"name": "ndots", "value": "2"}]},
    });
    let linked = script_with("c", "echo $0 $1 $2; sleep 600", more.clone());
    pods.create("env", spec(vec![linked], names));
    let plain = script_with("c", "sleep 600", json!({}));
    pods.create("unlinked", spec(vec![plain], json!({"enableServiceLinks": false})));
    pods.ready("env");
    let pod = pods.get("env");
    let text = |path: &str| pod.pointer(path).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
    let ips = format!("{},{}", text("/status/podIPs/0/ip"), text("/status/podIPs/1/ip"));
    let value = |name: &str| pods.sh("env", "c", &format!("echo \"${name}\""));
    for (name, expected) in [
        ("A", "1"),
        ("B", "1-$(NONE)-$(A)"),
        ("POD", "env"),
        ("LABEL", "env"),
        ("IPS", ips.as_str()),
        ("NODE_IP", text("/status/hostIP").as_str()),
        ("CPU", "250"),
        ("RED", "1"),
        ("NO", ""),
        ("P_under_score", "2"),
        ("HOSTNAME", "web"),
        ("BACKEND_SERVICE_PORT", "80"),
    ] {
        assert_eq!(value(name), expected, "{name}");
    }
    assert_eq!(kubectl.ok("logs env"), "1 $(NONE) $(A)\n");
    let name = format!("web.sub.{}.svc.cluster.local", kubectl.namespace);
    assert_eq!(pods.sh("env", "c", "hostname; hostname -f"), format!("web\n{name}"));
    assert_eq!(pods.sh("env", "c", "cat /etc/resolv.conf"), "search my.zone\nnameserver 9.9.9.9\noptions ndots:2");
    assert_eq!(pods.sh("env", "c", "tail -1 /etc/hosts"), "1.2.3.4\tone.local\ttwo.local");
    pods.ready("unlinked");
    assert_eq!(pods.sh("unlinked", "c", "env | grep -c BACKEND || true"), "0");
    let search = format!("search {}.svc.cluster.local svc.cluster.local cluster.local", kubectl.namespace);
    let resolver = pods.sh("unlinked", "c", "cat /etc/resolv.conf");
    assert!(resolver.starts_with(&search) && resolver.contains("nameserver 10.96.0.10"), "{resolver}");
}
