//! A beginner's notebook: every common kubectl command on a whole cluster, with three versions of kubectl.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

use std::fs;
use std::path::Path;

use tidegate_tests::kubectl::{ALL_VERSIONS, Kubectl, with_cluster};

#[test]
fn notebook() {
    with_cluster(&ALL_VERSIONS, |cluster, kubectl| {
        write_files(&cluster.path(""));
        config_maps_and_secrets(kubectl);
        pods_and_labels(kubectl);
        output_formats(kubectl);
        inside_pods(&cluster.path(""), kubectl);
        services_and_ingress(kubectl);
        deployments(kubectl);
        files(kubectl);
        other_workloads(kubectl);
        cluster_and_identity(cluster.node(), kubectl);
    });
}

fn write_files(dir: &Path) {
    fs::create_dir_all(dir.join("folder")).unwrap();
    fs::write(dir.join("settings.env"), "A=1\nB=2\n").unwrap();
    fs::write(dir.join("folder/one.txt"), "first").unwrap();
    fs::write(dir.join("folder/two.txt"), "second").unwrap();
    fs::write(dir.join("app.yaml"), APP).unwrap();
}

const APP: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  replicas: 1
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: "tidegate/echo:dev"}]
"#;

fn config_maps_and_secrets(kubectl: &Kubectl) {
    let data = |kind: &str, name: &str| kubectl.ok(&format!("get {kind} {name} -o jsonpath={{.data}}"));
    kubectl.ok("create configmap file --from-file=folder/one.txt");
    assert_eq!(data("configmap", "file"), r#"{"one.txt":"first"}"#);
    kubectl.ok("create configmap folder --from-file=folder");
    assert_eq!(data("configmap", "folder"), r#"{"one.txt":"first","two.txt":"second"}"#);
    kubectl.ok("create configmap named --from-file=other=folder/two.txt --from-literal=a=b");
    assert_eq!(data("configmap", "named"), r#"{"a":"b","other":"second"}"#);
    kubectl.ok("create configmap env --from-env-file=settings.env");
    assert_eq!(data("configmap", "env"), r#"{"A":"1","B":"2"}"#);
    kubectl.says("describe configmap folder", "two.txt:");
    kubectl.ok("create secret generic secret --from-literal=password=hidden --from-file=folder/one.txt");
    assert_eq!(kubectl.ok("get secret secret -o go-template={{.data.password|base64decode}}"), "hidden");
    let described = kubectl.ok("describe secret secret");
    assert!(described.contains("password:  6 bytes") && !described.contains("hidden"), "{described}");
}

fn pods_and_labels(kubectl: &Kubectl) {
    kubectl
        .says("run web --image=tidegate/echo:dev --port=8080 --labels=app=web,tier=front --env=A=B", "pod/web created");
    kubectl.says("wait --for=condition=Ready pod/web --timeout=60s", "pod/web condition met");
    kubectl.says("get pods --show-labels", "app=web,tier=front");
    kubectl.says("label pod web env=prod", "labeled");
    kubectl.refuses("label pod web env=dev", "already has a value (prod), and --overwrite is false");
    kubectl.ok("label pod web env=dev --overwrite");
    for (selector, found) in [
        ("env=dev", "pod/web"),
        ("env==dev,tier!=back", "pod/web"),
        ("env in (dev,prod)", "pod/web"),
        ("env notin (prod),app", "pod/web"),
        ("!env", ""),
        ("env=prod", ""),
    ] {
        assert_eq!(kubectl.ok_words(&["get", "pods", "-o", "name", "-l", selector]).trim(), found, "{selector}");
    }
    kubectl.says("get pods -L env,app", "ENV");
    kubectl.says("label pod web env-", "unlabeled");
    kubectl.says("annotate pod web note=hello", "annotated");
    kubectl.says("describe pod web", "note: hello");
    kubectl.comes_to_say("events --for pod/web", "Scheduled");
    kubectl.says("get events --sort-by=.metadata.creationTimestamp", "Started container web");
    kubectl.says("logs web", "HTTP");
}

fn output_formats(kubectl: &Kubectl) {
    kubectl.says("get pod web -o wide", "NOMINATED NODE");
    kubectl.says("get pod web -o yaml", "image: tidegate/echo:dev");
    kubectl.says("get pod web -o json", "\"image\": \"tidegate/echo:dev\"");
    assert_eq!(kubectl.ok("get pod web -o name").trim(), "pod/web");
    assert_eq!(kubectl.ok("get pod web -o jsonpath={.spec.containers[0].env[?(@.name==\"A\")].value}"), "B");
    let columns = kubectl.ok("get pod web -o custom-columns=NAME:.metadata.name,IMAGE:.spec.containers[0].image");
    assert_eq!(columns.split_whitespace().collect::<Vec<_>>(), ["NAME", "IMAGE", "web", "tidegate/echo:dev"]);
    assert_eq!(kubectl.ok_words(&["get", "pods", "-o", "go-template={{len .items}}"]), "1");
    kubectl.says("get pods --no-headers", "web");
    kubectl.says("get pods --field-selector=status.phase=Running", "web");
}

fn inside_pods(dir: &Path, kubectl: &Kubectl) {
    kubectl.ok("run box --image=busybox:dev --restart=Never --command -- sleep 1000");
    kubectl.ok("wait --for=condition=Ready pod/box --timeout=60s");
    assert_eq!(kubectl.ok_words(&["exec", "box", "--", "sh", "-c", "echo hello $HOSTNAME"]).trim(), "hello box");
    assert_eq!(kubectl.feed("exec -i box -- cat", "typed"), "typed");
    kubectl.refuses("exec box -- false", "command terminated with exit code 1");
    kubectl.ok("cp folder/one.txt box:/tmp/copied.txt");
    kubectl.ok("cp box:/tmp/copied.txt back.txt");
    assert_eq!(fs::read_to_string(dir.join("back.txt")).unwrap(), "first");
    kubectl.ok("cp folder box:/tmp/");
    assert_eq!(kubectl.ok("exec box -- cat /tmp/folder/two.txt"), "second");
    let said = kubectl.feed("run once -i --rm --quiet --image=busybox:dev --restart=Never -- cat", "typed\n");
    assert!(said.contains("typed"), "{said}");
    kubectl.refuses("get pod once", "NotFound");
    kubectl.says("delete pod box --now", "deleted");
    kubectl.refuses("top pods", "Metrics API not available");
}

fn services_and_ingress(kubectl: &Kubectl) {
    kubectl.says("expose pod web --port=80 --target-port=8080 --name=front", "service/front exposed");
    kubectl.says("get service front -o wide", "app=web,tier=front");
    kubectl.comes_to_say("describe service front", ":8080");
    for (kind, shown) in [("clusterip", "ClusterIP"), ("nodeport", "NodePort")] {
        kubectl.ok(&format!("create service {kind} s-{kind} --tcp=80:8080"));
        kubectl.says(&format!("get service s-{kind}"), shown);
    }
    kubectl.ok("create service externalname out --external-name=example.com");
    kubectl.says("get service out", "example.com");
    let rule = format!("{}.test/*=front:80", kubectl.namespace);
    kubectl.ok(&format!("create ingress web --class=tidegate --rule={rule}"));
    kubectl.comes_to_say("get ingress web", "tidegate");
    kubectl.says("describe ingress web", "front:80");
    kubectl.says("get endpointslices", "front-");
}

fn deployments(kubectl: &Kubectl) {
    kubectl.ok("create deployment dep --image=tidegate/echo:dev --replicas=2 --port=8080");
    kubectl.says("rollout status deployment/dep --timeout=60s", "successfully rolled out");
    kubectl.says("expose deployment dep --port=80 --target-port=8080", "service/dep exposed");
    kubectl.says("scale deployment dep --replicas=3", "scaled");
    kubectl.says("scale deployment dep --current-replicas=3 --replicas=2", "scaled");
    kubectl.says("set env deployment/dep COLOR=blue", "env updated");
    kubectl.says("set resources deployment/dep --limits=cpu=200m,memory=64Mi", "resource requirements updated");
    kubectl.says("rollout restart deployment/dep", "restarted");
    kubectl.says("rollout status deployment/dep --timeout=60s", "successfully rolled out");
    kubectl.says("rollout history deployment/dep", "REVISION");
    kubectl.says("rollout undo deployment/dep", "rolled back");
    kubectl.says("rollout pause deployment/dep", "paused");
    kubectl.says("rollout resume deployment/dep", "resumed");
    kubectl.says("rollout status deployment/dep --timeout=60s", "successfully rolled out");
    kubectl.says("describe deployment dep", "NewReplicaSetAvailable");
    kubectl.says("get all", "replicaset.apps/dep-");
    kubectl.says("delete deployment dep", "deleted");
    kubectl.becomes("get pods -l app=dep -o name", "");
}

fn files(kubectl: &Kubectl) {
    let difference = kubectl.run("diff -f app.yaml", "");
    assert_eq!(difference.status.code(), Some(1), "{difference:?}");
    kubectl.says("apply -f app.yaml", "deployment.apps/app created");
    kubectl.says("apply -f app.yaml", "unchanged");
    kubectl.ok("rollout status deployment/app --timeout=60s");
    let difference = kubectl.run("diff -f app.yaml", "");
    assert_eq!(difference.status.code(), Some(0), "{difference:?}");
    let changed = kubectl.feed("apply -f -", &APP.replace("replicas: 1", "replicas: 2"));
    assert!(changed.contains("configured"), "{changed}");
    kubectl.says("get -f app.yaml", "app");
    kubectl.says("apply -f app.yaml --dry-run=server", "(server dry run)");
    kubectl.says("replace -f app.yaml", "replaced");
    kubectl.says("delete -f app.yaml", "deleted");
    let misspelt = kubectl.fails("apply -f -", &APP.replace("replicas", "replica"));
    assert!(misspelt.contains("unknown field \"spec.replica\""), "{misspelt}");
}

fn other_workloads(kubectl: &Kubectl) {
    kubectl.ok("create job hello --image=busybox:dev -- echo hello");
    kubectl.says("wait --for=condition=complete job/hello --timeout=60s", "condition met");
    assert_eq!(kubectl.ok("logs job/hello").trim(), "hello");
    for (kind, spec) in [("DaemonSet", ""), ("StatefulSet", "serviceName: none, ")] {
        let name = kind.to_lowercase();
        let manifest = format!(
            "apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{spec}selector: {{matchLabels: {{app: \
             {name}}}}}, template: {{metadata: {{labels: {{app: {name}}}}}, spec: {{containers: [{{name: main, image: \
             \"tidegate/echo:dev\"}}]}}}}}}\n"
        );
        kubectl.feed("apply -f -", &manifest);
        kubectl.ok(&format!("rollout status {name}/{name} --timeout=60s"));
        kubectl.says(&format!("get {name} {name} -o wide"), "tidegate/echo:dev");
        kubectl.ok(&format!("delete {name} {name}"));
    }
}

fn cluster_and_identity(node: &str, kubectl: &Kubectl) {
    kubectl.says("cluster-info", "control plane");
    kubectl.says("version", "Server Version: v1.36.");
    kubectl.says("config view --minify", "current-context");
    kubectl.says("config get-contexts", "CURRENT");
    kubectl.ok("config set-context --current --namespace=default");
    kubectl.says("auth whoami", "system:masters");
    assert_eq!(kubectl.ok("auth can-i create pods").trim(), "yes");
    kubectl.ok("create serviceaccount robot");
    kubectl.ok("create role reader --verb=get,list --resource=pods");
    kubectl.ok(&format!("create rolebinding reads --role=reader --serviceaccount={}:robot", kubectl.namespace));
    let robot = format!("--as=system:serviceaccount:{}:robot", kubectl.namespace);
    assert_eq!(kubectl.ok(&format!("auth can-i list pods {robot}")).trim(), "yes");
    kubectl.refuses(&format!("get secrets {robot}"), "cannot list resource \"secrets\"");
    assert_eq!(kubectl.ok("create token robot").split('.').count(), 3);
    kubectl.says("explain pod.spec.containers", "image\t<string>");
    kubectl.says("explain job.spec.completions", "completions <integer>");
    kubectl.says("api-resources", "resourcequotas");
    kubectl.says("api-versions", "batch/v1");
    kubectl.says("get nodes -o wide", node);
    kubectl.says(&format!("describe node {node}"), "Allocatable");
    kubectl.refuses("get nothing", "the server doesn't have a resource type \"nothing\"");
    kubectl.says("get namespaces", &kubectl.namespace);
}
