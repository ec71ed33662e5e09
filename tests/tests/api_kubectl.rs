//! The real kubectl, oldest and newest supported, against the API server alone: no controllers, no nodes.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

use std::io::{BufRead, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use control_apiserver::{Config, ServiceAccountKeys, TlsFiles};
use control_store::{Embedded, Options};
use tidegate_tests::kubectl::{Kubectl, VERSIONS};
use tokio_util::sync::{CancellationToken, DropGuard};

#[path = "../../control/apiserver/examples/dev/pki.rs"]
mod pki;

const PATIENCE: Duration = Duration::from_secs(30);

/// A server on a loopback port, its store on disk, in a runtime of its own.
struct Server {
    dir: tempfile::TempDir,
    _shutdown: DropGuard,
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = Ipv4Addr::new(192, 168, 77, 10).into();
        pki::ensure(dir.path(), port, "node-1", &[address]).unwrap();
        let file = |name: &str| dir.path().join("pki").join(name);
        let config = Config {
            listeners: vec![listener],
            tls: TlsFiles { certificate: file("apiserver.crt"), key: file("apiserver.key"), client_ca: file("ca.crt") },
            service_accounts: ServiceAccountKeys {
                private_key: file("sa.key"),
                public_key: file("sa.pub"),
                issuer: ServiceAccountKeys::DEFAULT_ISSUER.into(),
            },
            store: Arc::new(Embedded::open(&dir.path().join("store"), Options::default()).unwrap()),
            service_cidrs: vec!["10.96.0.0/16".into(), "fd00:10:96::/112".into()],
            advertise_addresses: vec![address],
            advertise_port: 6443,
            kubelet: None,
            limits: control_apiserver::Limits::default(),
        };
        let shutdown = CancellationToken::new();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.spawn(control_apiserver::serve(config, shutdown.clone()));
        Self { dir, _shutdown: shutdown.drop_guard(), _runtime: runtime }
    }
}

/// Runs a test with each version, on one server.
fn with_each(test: impl Fn(&Server, &Kubectl)) {
    let server = Server::start();
    for version in VERSIONS {
        let namespace = version.replace('.', "-");
        let dir = server.dir.path();
        let kubectl = Kubectl::new(version, &dir.join("kubeconfig/admin.yaml"), dir, &namespace);
        let started = Instant::now();
        while !kubectl.run("get --raw /readyz", "").status.success() {
            assert!(started.elapsed() < PATIENCE, "the server is not ready in time");
            std::thread::sleep(Duration::from_millis(50));
        }
        kubectl.ok(&format!("create namespace {namespace}"));
        kubectl.ok("create serviceaccount default");
        test(&server, &kubectl);
    }
}

const APP: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, labels: {app: app}}
spec:
  replicas: 2
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      containers:
      - {name: main, image: "tidegate/echo:dev", ports: [{containerPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: app}
spec:
  selector: {app: app}
  ports: [{port: 80, targetPort: 8080}]
"#;

#[test]
fn apply_creates_then_changes_then_finds_nothing_to_do() {
    with_each(|_, kubectl| {
        let created = kubectl.feed("apply -f -", APP);
        assert!(
            created.contains("deployment.apps/app created") && created.contains("service/app created"),
            "{created}"
        );
        let again = kubectl.feed("apply -f -", APP);
        assert!(again.contains("deployment.apps/app unchanged"), "{again}");
        let changed = kubectl.feed("apply -f -", &APP.replace("replicas: 2", "replicas: 3"));
        assert!(changed.contains("deployment.apps/app configured"), "{changed}");
        assert_eq!(kubectl.ok("get deployment app -o jsonpath={.spec.replicas}"), "3");
        let misspelt = kubectl.fails("apply -f -", &APP.replace("replicas:", "replica:"));
        assert!(misspelt.contains("unknown field \"spec.replica\""), "{misspelt}");
        let deleted = kubectl.feed("delete -f -", APP);
        assert!(deleted.contains("service \"app\" deleted"), "{deleted}");
    });
}

#[test]
fn server_side_apply_owns_shares_conflicts_and_forces() {
    with_each(|_, kubectl| {
        let applied = kubectl.feed("apply --server-side -f -", APP);
        assert!(applied.contains("deployment.apps/app serverside-applied"), "{applied}");
        let version = || kubectl.ok("get deployment app -o jsonpath={.metadata.resourceVersion}");
        let before = version();
        kubectl.feed("apply --server-side -f -", APP);
        assert_eq!(version(), before, "nothing changed");
        kubectl.says("scale deployment app --replicas=5", "scaled");
        let conflict = kubectl.fails("apply --server-side -f -", APP);
        let expected = "Apply failed with 1 conflict: conflict with \"kubectl\" with subresource \"scale\" using apps/v1: .spec.replicas";
        assert!(conflict.contains(expected), "{conflict}");
        let other = kubectl.fails("apply --server-side --field-manager=other -f -", APP);
        assert!(other.contains(".spec.replicas"), "{other}");
        kubectl.feed("apply --server-side --force-conflicts -f -", APP);
        assert_eq!(kubectl.ok("get deployment app -o jsonpath={.spec.replicas}"), "2");
        let changed = APP.replace("replicas: 2", "replicas: 4");
        let tried = kubectl.feed("apply --server-side --dry-run=server -f -", &changed);
        assert!(tried.contains("(server dry run)"), "{tried}");
        let diff = kubectl.run("diff --server-side -f -", &changed);
        let shown = String::from_utf8_lossy(&diff.stdout).into_owned();
        assert!(diff.status.code() == Some(1) && shown.contains("+  replicas: 4"), "{diff:?}");
        assert_eq!(kubectl.ok("get deployment app -o jsonpath={.spec.replicas}"), "2");
        let misspelt = kubectl.fails("apply --server-side -f -", &APP.replace("replicas:", "replica:"));
        assert!(misspelt.contains(".spec.replica: field not declared in schema"), "{misspelt}");
    });
}

#[test]
fn client_side_apply_turns_into_server_side_apply() {
    with_each(|_, kubectl| {
        kubectl.feed("apply -f -", APP);
        let changed = APP.replace("replicas: 2", "replicas: 3").replace("targetPort: 8080", "targetPort: 9090");
        let applied = kubectl.run("apply --server-side -f -", &changed);
        assert!(applied.status.success() && applied.stderr.is_empty(), "{applied:?}");
        let managers = "get deployment app --show-managed-fields -o jsonpath={.metadata.managedFields[*].manager}";
        let managers = kubectl.ok(managers);
        assert!(!managers.contains("client-side-apply") && managers.contains("kubectl"), "{managers}");
        assert_eq!(kubectl.ok("get service app -o jsonpath={.spec.ports[*].targetPort}"), "9090");
        // The annotation follows, so that the way back is free of surprises.
        let back = kubectl.feed("apply -f -", &changed.replace(", labels: {app: app}}", "}"));
        assert!(back.contains("deployment.apps/app configured"), "{back}");
        assert_eq!(kubectl.ok("get deployment app -o jsonpath={.metadata.labels}"), "");
    });
}

const LIST: &str = r#"
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: one}, data: {a: b}}
- apiVersion: v1
  kind: Pod
  metadata: {name: two}
  spec:
    containers:
    - name: main
      image: a
      resources: {limits: {cpu: 1, memory: 64Mi}}
      readinessProbe: {httpGet: {path: /, port: http}}
"#;

#[test]
fn lists_are_checked_on_the_client_with_the_swagger_document() {
    with_each(|_, kubectl| {
        let created = kubectl.feed("create -f -", LIST);
        assert!(created.contains("configmap/one created") && created.contains("pod/two created"), "{created}");
        let unknown = kubectl.fails("create -f -", &LIST.replace("data:", "dat:"));
        assert!(unknown.contains("unknown field \"dat\" in io.k8s.api.core.v1.ConfigMap"), "{unknown}");
        let missing = kubectl.fails("create -f -", &LIST.replace("    - name: main\n      image", "    - image"));
        assert!(missing.contains("missing required field \"name\""), "{missing}");
        kubectl.feed("replace --force -f -", LIST);
        kubectl.feed("delete --now -f -", LIST);
    });
}

#[test]
fn prune_takes_what_is_left_out() {
    with_each(|_, kubectl| {
        let map = |name: &str| {
            format!(
                "---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}, labels: {{set: mine}}}}, data: {{a: b}}}}\n"
            )
        };
        let both = map("one") + &map("two");
        let prune = "apply -l set=mine --prune --prune-allowlist=core/v1/ConfigMap -f -";
        kubectl.feed(prune, &both);
        let pruned = kubectl.feed(prune, &map("one"));
        assert!(pruned.contains("configmap/two pruned"), "{pruned}");
        kubectl.ok("delete configmap one");
        let set = |input: &str| {
            let arguments = "apply --server-side --prune --applyset=set -f -";
            let mut child = kubectl.command(arguments);
            let child = child.env("KUBECTL_APPLYSET", "true").stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = child.stderr(Stdio::piped()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        set(&both);
        let pruned = set(&map("two"));
        assert!(pruned.contains("configmap/one pruned"), "{pruned}");
        assert_eq!(kubectl.ok("get configmaps -l set=mine -o name").trim(), "configmap/two");
    });
}

#[test]
fn edit_sends_what_changed_and_keeps_what_is_refused() {
    with_each(|_, kubectl| {
        kubectl.ok("create configmap c --from-literal=key=before");
        let edit = |editor: &str, more: &str| {
            let mut command = kubectl.command(&format!("edit configmap c {more}"));
            command.env("EDITOR", editor).output().unwrap()
        };
        assert!(edit("sed -i s/before/after/", "").status.success());
        assert_eq!(kubectl.ok("get configmap c -o jsonpath={.data.key}"), "after");
        let unchanged = edit("true", "");
        assert!(String::from_utf8_lossy(&unchanged.stderr).contains("no changes made"), "{unchanged:?}");
        let shown = edit("sed -i s/after/later/", "--output-patch");
        assert!(String::from_utf8_lossy(&shown.stdout).contains(r#"{"data":{"key":"later"}}"#), "{shown:?}");
        let refused = edit("sed -i s/^data:/dat:/", "");
        assert!(!refused.status.success(), "{refused:?}");
        assert_eq!(kubectl.ok("get configmap c -o jsonpath={.data.key}"), "later");
        kubectl.feed("apply -f -", APP);
        let mut command = kubectl.command("apply edit-last-applied service/app");
        assert!(command.env("EDITOR", "sed -i s/8080/9090/").output().unwrap().status.success());
        kubectl.says("apply view-last-applied service/app", "9090");
    });
}

#[test]
fn dry_runs_of_the_server_change_nothing() {
    with_each(|_, kubectl| {
        kubectl.ok("create configmap c --from-literal=a=b");
        for command in [
            "create configmap d --dry-run=server",
            "delete configmap c --dry-run=server",
            "label configmap c x=y --dry-run=server",
            "annotate configmap c x=y --dry-run=server",
        ] {
            kubectl.says(command, "(server dry run)");
        }
        kubectl.says(r#"patch configmap c -p {"data":{"a":"c"}} --dry-run=server"#, "patched");
        assert!(kubectl.fails("get configmap d", "").contains("not found"));
        let left = kubectl.ok("get configmap c -o jsonpath={.data.a},{.metadata.labels},{.metadata.annotations}");
        assert_eq!(left, "b,,");
        let late = kubectl.fails("wait --for=jsonpath={.data.a}=z configmap/c --timeout=200ms", "");
        assert!(late.contains("timed out waiting for the condition"), "{late}");
    });
}

#[test]
fn create_get_and_describe() {
    with_each(|_, kubectl| {
        kubectl.says("create deployment web --image=tidegate/echo:dev --replicas=3", "deployment.apps/web created");
        let refused = kubectl.fails("create deployment web --image=x", "");
        assert!(refused.contains("deployments.apps \"web\" already exists"), "{refused}");
        kubectl.says("get deployments -o wide", "CONTAINERS");
        kubectl.says("get deployment web -o yaml", "revisionHistoryLimit: 10");
        kubectl.says("get deployments -l app=web", "0/3");
        assert_eq!(kubectl.ok("get deployments -l app=other"), "");
        kubectl.says("get deployments --show-labels", "app=web");
        kubectl.says("describe deployment web", "3 desired");
        kubectl.says("expose deployment web --port=80 --target-port=8080", "service/web exposed");
        kubectl.says("describe service web", "10.96.");
        kubectl.says("get all", "service/web");
        for command in [
            "create configmap c --from-literal=a=b",
            "create secret generic s --from-literal=a=b",
            "create role r --verb=get --resource=pods",
            "create rolebinding b --role=r --user=ann",
            "create ingress i --rule=example.com/=web:80 --class=tidegate",
        ] {
            kubectl.says(command, "created");
        }
        kubectl.says("get ingress i", "example.com");
        kubectl.says("get secrets s -o jsonpath={.data.a}", "Yg==");
        let missing = kubectl.fails("get pods nope", "");
        assert!(missing.contains("Error from server (NotFound): pods \"nope\" not found"), "{missing}");
    });
}

#[test]
fn scale_label_patch_and_set() {
    with_each(|_, kubectl| {
        kubectl.ok("create deployment web --image=a");
        kubectl.says("scale deployment web --replicas=5", "scaled");
        kubectl.says("label deployment web tier=front", "labeled");
        kubectl.says("annotate deployment web note=x", "annotated");
        kubectl.says("set image deployment/web *=b", "image updated");
        kubectl.says("set env deployment/web COLOR=blue", "env updated");
        kubectl.says("rollout pause deployment/web", "paused");
        kubectl.says("rollout resume deployment/web", "resumed");
        kubectl.says("rollout restart deployment/web", "restarted");
        kubectl.says(
            r#"patch deployment web --type=json -p [{"op":"replace","path":"/spec/replicas","value":2}]"#,
            "patched",
        );
        kubectl.says(r#"patch deployment web --type=merge -p {"spec":{"minReadySeconds":7}}"#, "patched");
        let recreate = kubectl.fails(r#"patch deployment web -p {"spec":{"strategy":{"type":"Recreate"}}}"#, "");
        assert!(recreate.contains("spec.strategy.rollingUpdate: Forbidden"), "{recreate}");
        let retained = r#"patch deployment web -p {"spec":{"strategy":{"$retainKeys":["type"],"type":"Recreate"}}}"#;
        kubectl.says(retained, "patched");
        let path = "{.spec.replicas},{.spec.minReadySeconds},{.spec.strategy},{.metadata.labels.tier}";
        let found = kubectl.ok(&format!("get deployment web -o jsonpath={path}"));
        assert_eq!(found, r#"2,7,{"type":"Recreate"},front"#);
        let diff = kubectl.run("diff -f -", &APP.replace("name: app,", "name: other,"));
        assert_eq!(diff.status.code(), Some(1), "{diff:?}");
    });
}

#[test]
fn watch_sees_what_others_do() {
    with_each(|_, kubectl| {
        kubectl.ok("create configmap first");
        let mut watch = kubectl.command("get configmaps -w").stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
        let mut next = || lines.next().expect("the watch ended").unwrap();
        assert!(next().starts_with("NAME"));
        assert!(next().starts_with("first"));
        kubectl.ok("create configmap second --from-literal=a=b");
        let line = next();
        assert!(line.starts_with("second") && line.contains(" 1 "), "{line}");
        stop(watch);
        kubectl.says("wait --for=jsonpath={.data.a}=b configmap/second --timeout=10s", "condition met");
        kubectl.says("delete configmap second --wait=true", "deleted");
        kubectl.ok("run p --image=a --restart=Never");
        kubectl.says("delete pod p", "pod \"p\" deleted");
    });
}

fn stop(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn discovery_explanation_and_identity() {
    with_each(|server, kubectl| {
        kubectl.says("version", "Server Version: v1.36.");
        kubectl.says("api-resources", "deployments");
        kubectl.says("api-versions", "networking.k8s.io/v1");
        kubectl.says("explain deployment.spec.template.spec.containers.ports", "containerPort");
        kubectl.says("explain deployment.spec.replicas", "Number of desired pods");
        kubectl.says("explain service --recursive", "Service is a named abstraction of software service");
        assert_eq!(kubectl.ok("auth can-i create deployments").trim(), "yes");
        let denied = kubectl.run("auth can-i list secrets --as=bob", "");
        assert_eq!((String::from_utf8_lossy(&denied.stdout).trim(), denied.status.code()), ("no", Some(1)));
        kubectl.says("auth can-i --list", "*.*");
        kubectl.says("auth whoami", "tidegate-admin");
        let token = kubectl.ok("create token default --duration=10m");
        assert_eq!(token.trim().split('.').count(), 3);
        let robot =
            kubectl.run(&format!("--token={} --kubeconfig={} get pods", token.trim(), no_user(server).display()), "");
        let refused = String::from_utf8_lossy(&robot.stderr).into_owned();
        let user = format!("system:serviceaccount:{}:default", kubectl.namespace);
        assert!(refused.contains(&format!("User \"{user}\" cannot list resource \"pods\"")), "{refused}");
    });
}

/// A kubeconfig that knows the server but nobody.
fn no_user(server: &Server) -> PathBuf {
    let path = server.dir.path().join("nobody.yaml");
    let admin = std::fs::read(server.dir.path().join("kubeconfig/admin.yaml")).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&admin).unwrap();
    config["users"][0]["user"] = serde_json::json!({});
    std::fs::write(&path, config.to_string()).unwrap();
    path
}
