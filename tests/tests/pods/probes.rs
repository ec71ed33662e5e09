//! Liveness, readiness and startup probes of every kind.

use serde_json::json;

use crate::{Pods, condition, container, script_with, spec};

pub(crate) fn failing_probes_are_told_and_acted_on(pods: &Pods<'_>) {
    let serve = "mkdir /w; echo ok > /w/h; httpd -p 8080 -h /w; sleep 2; rm /w/h; sleep 600";
    let cases = [
        (
            "live-exec",
            "touch /tmp/h; sleep 1; rm /tmp/h; sleep 600",
            json!({"exec": {"command": ["cat", "/tmp/h"]}, "initialDelaySeconds": 1}),
            "Liveness probe failed: cat: can't open '/tmp/h': No such file or directory",
        ),
        (
            "live-http",
            serve,
            json!({"httpGet": {"path": "/h", "port": "web", "httpHeaders": [{"name": "X", "value": "y"}]},
                "initialDelaySeconds": 1}),
            "Liveness probe failed: HTTP probe failed with statuscode: 404",
        ),
        ("live-tcp", "sleep 600", json!({"tcpSocket": {"port": 8080}}), "8080: connect: connection refused"),
        ("live-grpc", "sleep 600", json!({"grpc": {"port": 8080}}), "Liveness probe failed: failed to connect service"),
        (
            "live-slow",
            "sleep 600",
            json!({"exec": {"command": ["sleep", "10"]}, "timeoutSeconds": 1}),
            "command timed out: \"sleep 10\" timed out after 1s",
        ),
    ];
    for (name, text, mut probe, _) in cases.clone() {
        probe["periodSeconds"] = 1.into();
        probe["failureThreshold"] = 2.into();
        probe["terminationGracePeriodSeconds"] = 1.into();
        let ports = json!([{"name": "web", "containerPort": 8080}]);
        let container = script_with("c", text, json!({"livenessProbe": probe, "ports": ports}));
        // The probe's own grace wins over the pod's.
        pods.create(name, spec(vec![container], json!({"terminationGracePeriodSeconds": 300})));
    }
    for (name, _, _, message) in cases {
        pods.until(name, "is restarted", |pod| container(pod, "c")["restartCount"].as_i64() >= Some(1));
        pods.event(name, "Unhealthy", message);
        pods.event(name, "Killing", "Container c failed liveness probe, will be restarted");
        pods.kubectl.ok(&format!("delete pod {name} --force --grace-period=0"));
    }
}

pub(crate) fn startup_holds_the_others_back(pods: &Pods<'_>) {
    let probes = json!({
        "startupProbe": {"exec": {"command": ["cat", "/tmp/s"]}, "periodSeconds": 1, "failureThreshold": 60},
        "livenessProbe": {"exec": {"command": ["cat", "/tmp/s"]}, "periodSeconds": 1, "failureThreshold": 1},
    });
    pods.create("startup", spec(vec![script_with("c", "sleep 4; touch /tmp/s; sleep 600", probes)], json!({})));
    pods.event("startup", "Unhealthy", "Startup probe failed: cat: can't open '/tmp/s'");
    let waiting = pods.until("startup", "runs", |pod| container(pod, "c")["state"]["running"].is_object());
    assert_eq!(container(&waiting, "c")["started"], false);
    pods.ready("startup");
    let ready = pods.get("startup");
    let status = container(&ready, "c");
    assert_eq!((&status["started"], &status["restartCount"]), (&json!(true), &json!(0)));
}

pub(crate) fn gates_hold_a_pod_back(pods: &Pods<'_>) {
    let gates = json!({"readinessGates": [{"conditionType": "example.com/gate"}]});
    pods.create("gated", spec(vec![script_with("c", "sleep 600", json!({}))], gates));
    let pod = pods.until("gated", "has ready containers", |pod| condition(pod, "ContainersReady")["status"] == "True");
    let ready = condition(&pod, "Ready");
    assert_eq!(ready["reason"], "ReadinessGatesNotReady");
    for kind in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
        assert_eq!(condition(&pod, kind)["observedGeneration"], 1, "{kind}");
    }
    let patch = r#"{"status":{"conditions":[{"type":"example.com/gate","status":"True"}]}}"#;
    pods.kubectl.ok(&format!("patch pod gated --subresource=status -p {patch}"));
    pods.ready("gated");
}
