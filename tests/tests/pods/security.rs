//! Security contexts, kernel parameters and shared namespaces; and what a node does not allow.

use serde_json::{Value, json};

use crate::{Pods, script, script_with, spec};

pub(crate) fn contexts_are_obeyed(pods: &Pods<'_>) {
    let with = |name: &str, context: Value| script_with(name, "sleep 600", json!({"securityContext": context}));
    let containers = vec![
        script("plain", "sleep 600"),
        with(
            "strict",
            json!({"allowPrivilegeEscalation": false, "runAsUser": 1000, "runAsGroup": 1001, "runAsNonRoot": true,
                "readOnlyRootFilesystem": true, "seccompProfile": {"type": "RuntimeDefault"},
                "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}),
        ),
        with("open", json!({"seccompProfile": {"type": "Unconfined"}})),
        with("privileged", json!({"privileged": true})),
    ];
    let sysctls = json!([{"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"}]);
    let more = json!({"shareProcessNamespace": true,
        "securityContext": {"supplementalGroups": [3000], "sysctls": sysctls}});
    pods.create("secure", spec(containers, more));
    pods.ready("secure");
    let status = |field: &str| format!("grep {field}: /proc/self/status | cut -f2");
    for (container, script, expected) in [
        ("plain", status("Seccomp"), "2"),
        ("plain", status("NoNewPrivs"), "0"),
        ("plain", status("CapEff"), "00000000a80425fb"),
        ("plain", "id -G".into(), "0 3000"),
        ("plain", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start".into(), "80"),
        ("plain", "ps -o args | grep -c '^sleep 600'".into(), "4"),
        ("strict", status("Seccomp"), "2"),
        ("strict", status("NoNewPrivs"), "1"),
        ("strict", status("CapBnd"), "0000000000000400"),
        ("strict", "id -u; id -g".into(), "1000\n1001"),
        ("strict", "touch /x 2>&1 || true".into(), "touch: /x: Read-only file system"),
        ("open", status("Seccomp"), "0"),
        ("open", status("CapEff"), "00000000a80425fb"),
        ("privileged", status("Seccomp"), "0"),
        ("privileged", "unshare -m true && echo yes".into(), "yes"),
    ] {
        assert_eq!(pods.sh("secure", container, &script), expected, "{container}: {script}");
    }
}

pub(crate) fn what_is_not_allowed_is_refused(pods: &Pods<'_>) {
    let sysctl = |name: &str| json!({"securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
    let main = || vec![script("c", "sleep 600")];
    pods.create("unsafe-sysctl", spec(main(), sysctl("kernel.msgmax")));
    let pod = pods.ended("unsafe-sysctl");
    assert_eq!(pod["status"]["reason"], "SysctlForbidden");
    pods.event("unsafe-sysctl", "SysctlForbidden", "forbidden sysctl: \"kernel.msgmax\" not allowlisted");

    pods.create("own-users", spec(main(), json!({"hostUsers": false})));
    pods.event("own-users", "FailedCreatePodSandBox", "user namespaces");

    let refused = |more: Value| {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bad"}, "spec": spec(main(), more)});
        pods.kubectl.fails("create -f -", &pod.to_string())
    };
    for (more, complaint) in [
        (sysctl("foo-"), "spec.securityContext.sysctls[0].name: Invalid value"),
        (json!({"runtimeClassName": "none"}), "pod rejected: RuntimeClass \"none\" not found"),
        (json!({"restartPolicy": "Sometimes"}), "spec.restartPolicy: Unsupported value"),
    ] {
        let found = refused(more);
        assert!(found.contains(complaint), "{found}");
    }
}
