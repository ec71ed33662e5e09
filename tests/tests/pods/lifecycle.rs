//! From start to end of containers: hooks, init containers, restarts, and what becomes of each.

use serde_json::{Value, json};

use crate::{Pods, container, script, script_with, spec};

pub(crate) fn failed_hooks_are_told(pods: &Pods<'_>) {
    let exec = |text: &str| json!({"exec": {"command": ["sh", "-c", text]}});
    let started = script_with("c", "sleep 600", json!({"lifecycle": {"postStart": exec("echo secret; exit 3")}}));
    pods.create("post-start", spec(vec![started], json!({})));
    pods.event("post-start", "FailedPostStartHook", "PostStartHook failed");
    pods.event("post-start", "Killing", "FailedPostStartHook");
    pods.until("post-start", "is restarted", |pod| container(pod, "c")["restartCount"].as_i64() >= Some(1));

    let stopped = script_with("c", "sleep 600", json!({"lifecycle": {"preStop": exec("exit 3")}}));
    pods.create("pre-stop", spec(vec![stopped], json!({})));
    pods.ready("pre-stop");
    pods.kubectl.ok("delete pod pre-stop");
    pods.event("pre-stop", "FailedPreStopHook", "PreStopHook failed");

    let signal = script_with(
        "c",
        "trap 'echo by USR1 > /dev/termination-log; exit 0' USR1; touch /tmp/up; while :; do sleep 0.1; done",
        json!({"lifecycle": {"stopSignal": "SIGUSR1"}, "readinessProbe": {"exec": {"command": ["cat", "/tmp/up"]}}}),
    );
    let more = json!({"os": {"name": "linux"}, "terminationGracePeriodSeconds": 60, "activeDeadlineSeconds": 4});
    pods.create("signal", spec(vec![signal], more));
    let pod = pods.ended("signal");
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
    assert_eq!(container(&pod, "c")["state"]["terminated"]["message"], "by USR1\n");
}

pub(crate) fn every_end_has_its_reason_and_message(pods: &Pods<'_>) {
    let logs = || json!({"terminationMessagePolicy": "FallbackToLogsOnError"});
    let own = json!({"terminationMessagePath": "/dev/own", "securityContext": {"runAsUser": 1000}});
    let small = json!({"resources": {"limits": {"memory": "20Mi"}}});
    let cases = [
        (script("a", "echo -n DONE > /dev/termination-log"), 0, "Completed", json!("DONE")),
        (script_with("b", "echo -n LOGS; exit 1", logs()), 1, "Error", json!("LOGS")),
        (script_with("c", "echo -n LOGS", logs()), 0, "Completed", Value::Null),
        (script_with("d", "echo -n OWN > /dev/own; exit 7", own), 7, "Error", json!("OWN")),
        (script_with("e", "exec dd if=/dev/zero of=/dev/null bs=200M count=1", small), 137, "OOMKilled", Value::Null),
    ];
    let containers = cases.iter().map(|(container, ..)| container.clone()).collect();
    pods.create("endings", spec(containers, json!({"restartPolicy": "Never"})));
    let pod = pods.ended("endings");
    assert_eq!(pod["status"]["phase"], "Failed");
    for (wanted, code, reason, message) in cases {
        let name = wanted["name"].as_str().unwrap_or_default();
        let end = &container(&pod, name)["state"]["terminated"];
        assert_eq!(
            (&end["exitCode"], &end["reason"], &end["message"]),
            (&json!(code), &json!(reason), &message),
            "{name}"
        );
    }
}

pub(crate) fn what_cannot_start_says_why(pods: &Pods<'_>) {
    let missing = json!({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "not-there", "key": "x"}}}]});
    let image = |name: &str| json!({"image": name, "imagePullPolicy": "IfNotPresent"});
    let non_root = json!({"securityContext": {"runAsNonRoot": true}});
    let root = json!({"securityContext": {"runAsNonRoot": true, "runAsUser": 0}});
    let local = json!({"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "x.json"}}});
    let cases = [
        ("no-map", missing, "CreateContainerConfigError", "configmap \"not-there\" not found"),
        ("no-pull", json!({"image": "a/b:1", "imagePullPolicy": "Never"}), "ErrImageNeverPull", "pull policy of Never"),
        ("no-host", image("registry.invalid/x:1"), "ImagePullBackOff", "Back-off pulling image"),
        ("no-name", image("Bad:::name"), "InvalidImageName", "couldn't parse image name"),
        (
            "is-root",
            non_root,
            "CreateContainerConfigError",
            "container has runAsNonRoot and image will run as root (pod:",
        ),
        ("to-root", root, "CreateContainerConfigError", "container's runAsUser breaks non-root policy"),
        ("local", local, "CreateContainerConfigError", "Localhost are not supported"),
    ];
    for (name, more, ..) in &cases {
        pods.create(name, spec(vec![script_with("c", "sleep 600", more.clone())], json!({})));
    }
    pods.create(
        "no-program",
        spec(vec![json!({"name": "c", "image": "busybox:dev", "command": ["/no/such"]})], json!({})),
    );
    for (name, _, reason, message) in cases {
        let pod = pods.until(name, reason, |pod| container(pod, "c")["state"]["waiting"]["reason"] == reason);
        let text = container(&pod, "c")["state"]["waiting"]["message"].to_string().replace("\\\"", "\"");
        assert!(text.contains(message), "{name}: {text}");
        assert_eq!(pod["status"]["phase"], "Pending", "{name}");
    }
    let pod = pods.until("no-program", "is held back", |pod| {
        container(pod, "c")["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    });
    assert_eq!(container(&pod, "c")["lastState"]["terminated"]["reason"], "StartError");
}

pub(crate) fn init_containers_go_first(pods: &Pods<'_>) {
    let volumes = json!([{"name": "v", "emptyDir": {}}]);
    let mounts = || json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let sidecar = json!({
        "restartPolicy": "Always",
        "volumeMounts": mounts()["volumeMounts"],
        "startupProbe": {"exec": {"command": ["cat", "/v/side"]}, "periodSeconds": 1},
    });
    let init = json!([
        script_with("one", "echo one >> /v/order", mounts()),
        script_with("side", "echo side >> /v/order; sleep 1; touch /v/side; sleep 600", sidecar),
        script_with("two", "cat /v/side && echo two >> /v/order", mounts()),
    ]);
    let main = script_with("main", "echo main >> /v/order; cat /v/order", mounts());
    let more = json!({"initContainers": init, "volumes": volumes, "restartPolicy": "Never"});
    pods.create("in-order", spec(vec![main], more));
    let pod = pods.ended("in-order");
    assert_eq!(pod["status"]["phase"], "Succeeded", "the sidecar is stopped after the others");
    assert_eq!(pods.kubectl.ok("logs in-order -c main"), "one\nside\ntwo\nmain\n");

    let failing = json!({"initContainers": [script("a", "true"), script("b", "exit 4")], "restartPolicy": "Never"});
    pods.create("init-fails", spec(vec![script("main", "sleep 600")], failing));
    let pod = pods.ended("init-fails");
    assert_eq!(pod["status"]["phase"], "Failed");
    assert_eq!(container(&pod, "main")["state"]["waiting"]["reason"], "PodInitializing");
    pods.kubectl.says("get pod init-fails", "Init:Error");

    let again = json!({"initContainers": [script("a", "false"), script("b", "true")]});
    pods.create("init-again", spec(vec![script("main", "sleep 600")], again));
    pods.kubectl.comes_to_say("get pod init-again", "Init:CrashLoopBackOff");
}

pub(crate) fn containers_have_rules_of_their_own(pods: &Pods<'_>) {
    let rules = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
    // Ends with 42 once, then with 1, which no rule names.
    let text = "if [ -e /v/done ]; then exit 1; fi; touch /v/done; exit 42";
    let more = json!({"restartPolicy": "Never", "restartPolicyRules": rules,
        "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let volumes = json!({"volumes": [{"name": "v", "emptyDir": {}}], "restartPolicy": "Always"});
    pods.create("rules", spec(vec![script_with("c", text, more)], volumes));
    let pod = pods.ended("rules");
    let status = container(&pod, "c");
    assert_eq!((&pod["status"]["phase"], &status["restartCount"]), (&json!("Failed"), &json!(1)));
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 42);

    pods.create("crashes", spec(vec![script("c", "echo once more; exit 1")], json!({})));
    let pod = pods.until("crashes", "is held back", |pod| {
        let status = container(pod, "c");
        status["state"]["waiting"]["reason"] == "CrashLoopBackOff" && status["restartCount"].as_i64() >= Some(1)
    });
    let message = container(&pod, "c")["state"]["waiting"]["message"].to_string();
    assert!(message.contains("back-off 10s restarting failed container=c pod=crashes_"), "{message}");
    assert_eq!(pod["status"]["phase"], "Running");
    pods.event("crashes", "BackOff", "Back-off restarting failed container c in pod crashes_");
    pods.kubectl.says("logs crashes --previous", "once more");
}
