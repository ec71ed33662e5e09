//! How a pod ends: with grace, seen by its Service, or by force.

use std::time::Instant;

use serde_json::{Value, json};
use tidegate_tests::cluster::eventually;

use crate::{Pods, script_with, spec};

pub(crate) fn a_pod_ends_with_grace(pods: &Pods<'_>) {
    let kubectl = pods.kubectl;
    let serve = "trap 'sleep 5; exit 0' TERM; httpd -p 8080; while :; do sleep 0.1; done";
    let probe = json!({"readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1}});
    let more = json!({"terminationGracePeriodSeconds": 30});
    pods.create("leaving", spec(vec![script_with("c", serve, probe.clone())], more));
    kubectl.ok("expose pod leaving --port=80 --target-port=8080");
    pods.ready("leaving");
    let conditions = || -> Value {
        let slices = kubectl.run("get endpointslices -l kubernetes.io/service-name=leaving -o json", "").stdout;
        let slices: Value = serde_json::from_slice(&slices).unwrap_or_default();
        slices["items"][0]["endpoints"][0]["conditions"].clone()
    };
    eventually("the endpoint is ready", || (conditions()["ready"] == true).then_some(()));
    kubectl.ok("delete pod leaving --wait=false");
    eventually("the endpoint still serves", || {
        (conditions() == json!({"ready": false, "serving": true, "terminating": true})).then_some(())
    });
    kubectl.says("get pod leaving", "Terminating");
    kubectl.ok("wait --for=delete pod/leaving --timeout=60s");
    pods.event("leaving", "Killing", "Stopping container c");

    let deaf = spec(vec![script_with("c", "trap '' TERM; while :; do sleep 0.1; done", json!({}))], json!({}));
    let mut slow = deaf.clone();
    slow["terminationGracePeriodSeconds"] = 600.into();
    pods.create("deaf", slow);
    pods.ready("deaf");
    let started = Instant::now();
    kubectl.ok("delete pod deaf --grace-period=2");
    assert!((2..30).contains(&started.elapsed().as_secs()), "the shorter grace counts: {:?}", started.elapsed());
    pods.create("forced", deaf);
    pods.ready("forced");
    kubectl.ok("delete pod forced --force --grace-period=0");
    assert!(pods.get("forced").is_null());
}
