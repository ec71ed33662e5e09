//! What can be done to a pod that runs: debugging it, giving it other resources.

use serde_json::json;

use crate::{Pods, container, script, script_with, spec};

pub(crate) fn a_running_pod_can_be_debugged(pods: &Pods<'_>) {
    let kubectl = pods.kubectl;
    pods.create("patient", spec(vec![script("main", "sleep 601")], json!({})));
    pods.ready("patient");
    let debug = ["debug", "patient", "--image=busybox:dev", "--profile=general", "--target=main", "-c", "doctor", "--"];
    let see = ["sh", "-c", "ps -o args; cat /etc/hosts; sleep 600"];
    kubectl.ok_words(&[debug.as_slice(), &see].concat());
    let pod = pods.until("patient", "is looked at", |pod| container(pod, "doctor")["state"]["running"].is_object());
    assert_eq!(pod["metadata"]["generation"], 2);
    assert_eq!(pod["status"]["phase"], "Running");
    kubectl.comes_to_say("logs patient -c doctor", "sleep 601");
    kubectl.says("logs patient -c doctor", "patient");
    kubectl.says("exec patient -c doctor -- hostname", "patient");
    kubectl.says("describe pod patient", "Ephemeral Containers:");

    let once =
        ["debug", "patient", "--image=busybox:dev", "--profile=general", "-c", "second", "--", "sh", "-c", "exit 5"];
    kubectl.ok_words(&once);
    let pod = pods.until("patient", "has been seen twice", |pod| {
        container(pod, "second")["state"]["terminated"]["exitCode"] == 5
    });
    assert_eq!(container(&pod, "second")["restartCount"], 0);
    assert_eq!(container(&pod, "main")["restartCount"], 0);
    let missing = "debug patient --image=busybox:dev --profile=general --target=none -- true";
    kubectl.refuses(missing, "targetContainerName");
    kubectl.ok("delete pod patient");
}

pub(crate) fn a_running_pod_gets_other_resources(pods: &Pods<'_>) {
    let kubectl = pods.kubectl;
    let resources = |cpu: &str, memory: &str| json!({"requests": {"cpu": cpu, "memory": "32Mi"}, "limits": {"cpu": cpu, "memory": memory}});
    let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
    let live = script_with("live", "sleep 600", json!({"resources": resources("100m", "64Mi")}));
    let anew =
        script_with("anew", "sleep 600", json!({"resources": resources("100m", "64Mi"), "resizePolicy": policy}));
    pods.create("elastic", spec(vec![live, anew], json!({})));
    pods.ready("elastic");
    let pod = pods.get("elastic");
    assert_eq!(pod["status"]["qosClass"], "Burstable");
    assert_eq!(container(&pod, "live")["resources"]["limits"]["memory"], "64Mi");
    let quota = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d' ' -f1 /sys/fs/cgroup/cpu.max";
    let memory = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";
    assert_eq!(pods.sh("elastic", "live", quota), "10000");
    assert_eq!(pods.sh("elastic", "live", memory), "67108864");

    let patch = json!({"spec": {"containers": [
        {"name": "live", "resources": resources("300m", "96Mi")},
        {"name": "anew", "resources": resources("100m", "96Mi")}]}});
    kubectl.ok_words(&["patch", "pod", "elastic", "--subresource=resize", "-p", &patch.to_string()]);
    let pod = pods.until("elastic", "is resized", |pod| {
        let of = |name: &str| container(pod, name)["resources"]["limits"]["memory"] == "96Mi";
        of("live") && of("anew")
    });
    assert_eq!(container(&pod, "live")["restartCount"], 0);
    assert_eq!(container(&pod, "anew")["restartCount"], 1);
    assert_eq!(container(&pod, "live")["allocatedResources"]["cpu"], "300m");
    assert_eq!(pods.sh("elastic", "live", quota), "30000");
    assert_eq!(pods.sh("elastic", "live", memory), "100663296");
    let class = json!({"spec": {"containers": [{"name": "live", "resources": {"limits": {"cpu": "1"}}}]}});
    let less = json!({"spec": {"containers": [{"name": "live", "image": "other:1"}]}});
    for (patch, kept) in [(class, "1"), (less, "1")] {
        kubectl.ok_words(&["patch", "pod", "elastic", "--subresource=resize", "-p", &patch.to_string()]);
        pods.until("elastic", "takes its limit", |pod| container(pod, "live")["resources"]["limits"]["cpu"] == kept);
    }
    assert_eq!(pods.get("elastic")["spec"]["containers"][0]["image"], "busybox:dev");
    let gone = r#"{"spec":{"containers":[{"name":"live","resources":{"limits":{"memory":null}}}]}}"#;
    let words = ["patch", "pod", "elastic", "--subresource=resize", "-p", gone];
    let output = kubectl.words(&words).output().expect("kubectl runs");
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot be removed"), "{output:?}");
}
