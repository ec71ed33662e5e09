//! Volumes: content, modes, owners, updates, and those that cannot be.

use serde_json::{Value, json};
use tidegate_tests::cluster::eventually;

use crate::{Pods, container, script, script_with, spec};

pub(crate) fn files_have_their_content_and_modes(pods: &Pods<'_>) {
    let kubectl = pods.kubectl;
    kubectl.ok("create configmap files --from-literal=a=one --from-literal=b=two");
    kubectl.ok("create secret generic keys --from-literal=user=admin");
    let volumes = json!([
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        {"name": "disk", "emptyDir": {}},
        {"name": "map", "configMap": {"name": "files", "defaultMode": 0o400}},
        {"name": "some", "configMap": {"name": "files", "items": [{"key": "a", "path": "x/y", "mode": 0o600}]}},
        {"name": "maybe", "configMap": {"name": "not-there", "optional": true}},
        {"name": "keys", "secret": {"secretName": "keys"}},
        {"name": "all", "projected": {"sources": [
            {"configMap": {"name": "files", "items": [{"key": "b", "path": "b"}]}},
            {"secret": {"name": "keys", "items": [{"key": "user", "path": "in/user"}]}},
            {"downwardAPI": {"items": [
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                {"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu", "divisor": "1m"}}]}},
            {"serviceAccountToken": {"path": "token"}}]}},
    ]);
    let mounts = json!([
        {"name": "memory", "mountPath": "/memory"},
        {"name": "disk", "mountPath": "/disk"},
        {"name": "disk", "mountPath": "/ro", "readOnly": true},
        {"name": "disk", "mountPath": "/sub", "subPathExpr": "$(POD)/in"},
        {"name": "map", "mountPath": "/map"},
        {"name": "map", "mountPath": "/one", "subPath": "a"},
        {"name": "some", "mountPath": "/some"},
        {"name": "maybe", "mountPath": "/maybe"},
        {"name": "keys", "mountPath": "/keys"},
        {"name": "all", "mountPath": "/all"},
    ]);
    let more = json!({"volumeMounts": mounts, "resources": {"limits": {"cpu": "250m"}},
        "env": [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]});
    let security = json!({"fsGroup": 2000, "runAsUser": 1000, "runAsGroup": 1500});
    pods.create(
        "files",
        spec(vec![script_with("c", "sleep 600", more)], json!({"volumes": volumes, "securityContext": security})),
    );
    pods.ready("files");
    let mounted = pods.get("files");
    assert_eq!(container(&mounted, "c")["volumeMounts"][2]["recursiveReadOnly"], "Disabled");
    for (script, expected) in [
        ("cat /map/a /map/b /one /some/x/y /keys/user /all/b /all/in/user", "onetwooneoneadmintwoadmin"),
        ("cat /all/labels /all/cpu", "app=\"files\"250"),
        ("readlink /map/a", "..data/a"),
        (
            "stat -L -c '%a %g' /map/a /some/x/y /keys/user /disk /memory",
            "440 2000\n640 2000\n644 2000\n2777 2000\n2777 2000",
        ),
        ("stat -f -c %T /memory", "tmpfs"),
        ("ls /maybe | wc -l", "0"),
        ("touch /sub/f && ls /disk/files/in", "f"),
        ("touch /disk/mine && stat -c '%u %g' /disk/mine", "1000 2000"),
        ("touch /ro/x 2>&1 || true", "touch: /ro/x: Read-only file system"),
        ("touch /map/x 2>&1 || true", "touch: /map/x: Read-only file system"),
        ("cut -d. -f1 /all/token | wc -l", "1"),
    ] {
        assert_eq!(pods.sh("files", "c", script), expected, "{script}");
    }
    kubectl.ok(r#"patch configmap files -p {"data":{"a":"new","c":"three"}}"#);
    kubectl.ok("label pod files more=yes");
    let wanted = b"newthreeapp=\"files\"\nmore=\"yes\"";
    eventually("the files are the new ones", || {
        let output = kubectl.run("exec files -c c -- cat /map/a /map/c /all/labels", "");
        (output.stdout == wanted).then_some(())
    });
    assert_eq!(pods.sh("files", "c", "cat /one"), "one", "a subPath is not updated");
}

pub(crate) fn volumes_that_cannot_be_are_told(pods: &Pods<'_>) {
    let one = |source: Value| {
        let mut volume = source;
        volume["name"] = "v".into();
        json!({"volumes": [volume]})
    };
    let mounts = || json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let cases = [
        ("no-dir", json!({"hostPath": {"path": "/no/such/dir", "type": "Directory"}}), "hostPath type check failed"),
        ("no-config", json!({"configMap": {"name": "not-there"}}), "configmap \"not-there\" not found"),
        ("no-claim", json!({"persistentVolumeClaim": {"claimName": "x"}}), "is not supported"),
    ];
    for (name, source, message) in cases {
        pods.create(name, spec(vec![script_with("c", "sleep 600", mounts())], one(source)));
        pods.event(name, "FailedMount", message);
    }
    let fill = "dd if=/dev/zero of=/v/f bs=1M count=3 2>/dev/null; sleep 600";
    let small = one(json!({"emptyDir": {"sizeLimit": "1Mi"}}));
    pods.create("too-much", spec(vec![script_with("c", fill, mounts())], small));
    let pod = pods.ended("too-much");
    assert_eq!(pod["status"]["reason"], "Evicted");
    pods.event("too-much", "Evicted", "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\"");

    let env =
        json!({"env": [{"name": "K", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "env", "key": "K"}}}]});
    let mut more = one(json!({"emptyDir": {}}));
    more["restartPolicy"] = "Never".into();
    more["initContainers"] = json!([script_with("i", "echo \"K='from a file'\" > /v/env", mounts())]);
    pods.create("env-file", spec(vec![script_with("c", "echo $K", env)], more));
    pods.ended("env-file");
    assert_eq!(pods.kubectl.ok("logs env-file -c c"), "from a file\n");
    pods.create("no-volume", spec(vec![script("c", "sleep 600")], json!({})));
    pods.ready("no-volume");
}
