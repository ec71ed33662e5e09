//! The real Helm, both majors that are supported, on a whole cluster: a release of the sample chart from its
//! installation to its end.
//!
//! Needs root, and the programs that `cargo xtask setup` installs; it says so where they are missing.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tidegate_tests::cluster::{Cluster, eventually, root};

const MAJORS: [u32; 2] = [3, 4];
const RELEASE: &str = "shop";
const DEFINITION: &str = "widgets.charts.sample.test";

/// One Helm, working in a namespace of its own.
struct Helm<'a> {
    program: PathBuf,
    major: u32,
    cluster: &'a Cluster,
    namespace: String,
    /// The gateway for clear-text HTTP, on loopback.
    http_port: u16,
}

#[test]
fn a_release_from_its_installation_to_its_end() {
    with_each(|helm| {
        charts_are_looked_at_without_a_cluster(helm);
        install(helm);
        look(helm);
        upgrade(helm);
        an_upgrade_that_fails_is_taken_back(helm);
        roll_back(helm);
        if helm.major > 3 {
            fields_of_others_are_not_taken(helm);
        }
        uninstall(helm);
        a_history_outlives_its_release(helm);
        an_installation_that_fails_leaves_nothing(helm);
        install_as_somebody_with_few_rights(helm);
    });
}

fn charts_are_looked_at_without_a_cluster(helm: &Helm<'_>) {
    helm.says("lint CHART", "0 chart(s) failed");
    let rendered = helm.ok("template shop CHART --include-crds --set greeting=ahoy");
    for part in
        ["kind: Deployment", "kind: CustomResourceDefinition", "helm.sh/hook: pre-upgrade", "ahoy from revision 1"]
    {
        assert!(rendered.contains(part), "{part:?} is missing in\n{rendered}");
    }
    let refused = helm.fails("template shop CHART --set replicas=many");
    assert!(refused.contains("replicas"), "{refused}");
}

fn install(helm: &Helm<'_>) {
    let with_definitions = helm.definitions_are_served();
    let crds = if with_definitions { "" } else { "--skip-crds" };
    let said = helm.ok(&format!("install shop CHART --create-namespace --wait ATOMIC --timeout 120s {crds}"));
    assert!(said.contains("STATUS: deployed") && said.contains("hello: http://"), "{said}");
    assert_eq!(helm.hook("pre-install")["phase"], "Succeeded");
    assert_eq!(helm.hook("post-install")["phase"], "Succeeded");
    let time = |hook: &str, field: &str| helm.hook(hook)[field].as_str().unwrap().to_owned();
    assert!(time("pre-install", "completed_at") <= time("post-install", "started_at"));
    assert_eq!(helm.get(&["job", "shop-pre-install"]), Value::Null, "its policy is to go when it has succeeded");
    assert_eq!(helm.get(&["job", "shop-post-install"])["status"]["succeeded"], 1);
    helm.page_becomes("hello from revision 1");
    let may = |what: &str| {
        let robot = format!("--as=system:serviceaccount:{}:shop", helm.namespace);
        let answer = helm.cluster.kubectl().run(&["auth", "can-i", "get", what, &robot, "-n", &helm.namespace]);
        String::from_utf8_lossy(&answer.stdout).trim().to_owned()
    };
    assert_eq!((may("configmaps/shop"), may("configmaps/other")), ("yes".into(), "no".into()));
    if with_definitions {
        assert_eq!(helm.get(&["widget", RELEASE])["spec"]["text"], "hello");
    }
    let twice = helm.fails("install shop CHART");
    assert!(twice.contains("a name that is still in use"), "{twice}");
}

fn look(helm: &Helm<'_>) {
    helm.says("test shop --logs --timeout 60s", "hello from revision 1");
    assert_eq!(helm.hook("test")["phase"], "Succeeded");
    let listed = helm.json("list -o json");
    assert_eq!((&listed[0]["name"], &listed[0]["status"]), (&json!(RELEASE), &json!("deployed")));
    assert!(helm.ok("list -A -q").lines().any(|name| name == RELEASE));
    assert_eq!(helm.json("get values shop -a -o json")["greeting"], "hello");
    helm.says("get manifest shop", "kind: RoleBinding");
    helm.says("get hooks shop", "helm.sh/hook: post-delete");
    helm.says("get notes shop", "revision 1");
    assert_eq!(helm.json("get metadata shop -o json")["revision"], 1);
    helm.says("get all shop", "COMPUTED VALUES");
    let asked = helm.ok("upgrade shop CHART --dry-run=server --set greeting=moin");
    assert!(asked.contains("moin from revision 2"), "{asked}");
    assert_eq!(helm.statuses(), ["deployed"], "a dry run leaves nothing");
}

fn upgrade(helm: &Helm<'_>) {
    let password = helm.get(&["secret", RELEASE])["data"]["password"].clone();
    let said = helm.ok("upgrade shop CHART --wait ATOMIC --timeout 120s --set greeting=bonjour --set replicas=3");
    assert!(said.contains("bonjour: http://"), "{said}");
    helm.page_becomes("bonjour from revision 2");
    assert_eq!(helm.get(&["deployment", RELEASE])["status"]["readyReplicas"], 3);
    assert_eq!(helm.get(&["secret", RELEASE])["data"]["password"], password, "the chart looks up what it has made");
    assert_eq!(helm.json("get values shop -o json"), json!({"greeting": "bonjour", "replicas": 3}));
    helm.ok("upgrade shop CHART --wait --timeout 120s --reuse-values --set replicas=2");
    assert_eq!(helm.json("get values shop -o json"), json!({"greeting": "bonjour", "replicas": 2}));
    helm.page_becomes("bonjour from revision 3");
}

fn an_upgrade_that_fails_is_taken_back(helm: &Helm<'_>) {
    let failed = helm.fails("upgrade shop CHART ATOMIC --timeout 60s --reuse-values --set hooks.fail=true");
    assert!(failed.contains("pre-upgrade") && failed.contains("has been rolled back"), "{failed}");
    assert_eq!(helm.get(&["job", "shop-pre-upgrade"])["status"]["failed"], 1);
    if helm.major > 3 {
        assert!(failed.contains("cannot go on"), "the hook's log is missing in {failed}");
    }
    let failed = helm.fails("upgrade shop CHART --wait ATOMIC --timeout 8s --reuse-values --set ready=false");
    assert!(failed.contains("has been rolled back"), "{failed}");
    assert_eq!(helm.statuses()[3..], ["failed", "superseded", "failed", "deployed"]);
    helm.page_becomes("bonjour from revision 3");
    assert_eq!(helm.get(&["deployment", RELEASE])["status"]["readyReplicas"], 2);
}

fn roll_back(helm: &Helm<'_>) {
    helm.says("rollback shop 1 --wait --timeout 120s", "Rollback was a success");
    helm.page_becomes("hello from revision 1");
    helm.says("status shop", "STATUS: deployed");
    let newest = helm.json("history shop -o json").as_array().unwrap().last().unwrap().clone();
    assert_eq!((&newest["revision"], &newest["description"]), (&json!(8), &json!("Rollback to 1")));
}

/// From its fourth major on, Helm applies on the server, which knows who owns what.
fn fields_of_others_are_not_taken(helm: &Helm<'_>) {
    let _ = helm.cluster.kubectl().ok(&["scale", "deployment/shop", "--replicas=1", "-n", &helm.namespace]);
    let refused = helm.fails("upgrade shop CHART --wait --timeout 60s --set replicas=3");
    assert!(refused.contains("conflict") && refused.contains(".spec.replicas"), "{refused}");
    helm.ok("upgrade shop CHART --wait --timeout 120s --set replicas=3 --force-conflicts");
    assert_eq!(helm.get(&["deployment", RELEASE])["status"]["readyReplicas"], 3);
    let managers = helm.get(&["deployment", RELEASE, "--show-managed-fields"])["metadata"]["managedFields"].clone();
    let is_helm = |entry: &&Value| entry["manager"] == "helm" && entry["operation"] == "Apply";
    assert_eq!(managers.as_array().unwrap().iter().filter(is_helm).count(), 1, "{managers}");
}

fn uninstall(helm: &Helm<'_>) {
    helm.says("uninstall shop --wait --timeout 120s", "release \"shop\" uninstalled");
    assert_eq!(helm.get(&["job", "shop-post-delete"])["status"]["succeeded"], 1);
    helm.nothing_is_left();
    let gone = helm.fails("status shop");
    assert!(gone.contains("not found"), "{gone}");
}

fn a_history_outlives_its_release(helm: &Helm<'_>) {
    let package = helm.ok("package CHART").trim().rsplit(' ').next().unwrap().to_owned();
    let described = format!("upgrade --install shop {package} --skip-crds --wait --timeout 120s --labels team=sea");
    helm.says(&described, "STATUS: deployed");
    assert_eq!(helm.json("list -o json --selector team=sea")[0]["name"], RELEASE);
    helm.ok("uninstall shop --keep-history --wait --timeout 120s");
    assert_eq!(helm.statuses(), ["uninstalled"]);
    helm.nothing_is_left();
    helm.ok("rollback shop 1 --wait --timeout 120s");
    helm.page_becomes("hello from revision 1");
    helm.ok("uninstall shop --wait --timeout 120s");
}

fn an_installation_that_fails_leaves_nothing(helm: &Helm<'_>) {
    helm.fails("install shop CHART --skip-crds --wait ATOMIC --timeout 5s --set ready=false");
    helm.nothing_is_left();
    let gone = helm.fails("history shop");
    assert!(gone.contains("not found"), "{gone}");
}

/// A Role and its binding come right after one another, and whoever makes them must hold what they grant.
fn install_as_somebody_with_few_rights(helm: &Helm<'_>) {
    let kubectl = helm.cluster.kubectl();
    let grant = ["create", "rolebinding", "ann", "--clusterrole=admin", "--user=ann", "-n", &helm.namespace];
    let _ = kubectl.ok(&grant);
    // What an administrator of a namespace may do with custom resources is for whoever defines them to say. The second
    // Helm finds it said.
    if !kubectl.run(&["get", "clusterrole", "widgets"]).status.success() {
        let _ = kubectl.ok(&["create", "clusterrole", "widgets", "--verb=*", "--resource=widgets.charts.sample.test"]);
        let aggregated = "rbac.authorization.k8s.io/aggregate-to-admin=true";
        let _ = kubectl.ok(&["label", "clusterrole", "widgets", aggregated]);
    }
    helm.ok("install shop CHART --skip-crds --wait --timeout 120s --kube-as-user=ann");
    helm.page_becomes("hello from revision 1");
    helm.ok("uninstall shop --wait --timeout 120s --kube-as-user=ann");
    let refused = helm.fails("install shop CHART --skip-crds --kube-as-user=bob");
    assert!(refused.contains("User \"bob\" cannot"), "{refused}");
}

impl Helm<'_> {
    /// Runs Helm; `CHART` and `ATOMIC` stand for the sample chart and for what this major calls an atomic change.
    fn run(&self, arguments: &str) -> Output {
        let chart = root().join("tests/charts/sample");
        let mut command = Command::new(&self.program);
        self.cluster.kubectl().prepare(&mut command);
        // Both majors, and kubectl, keep what they have discovered in one place: each shall see for itself.
        command.env("HELM_NAMESPACE", &self.namespace).env("KUBECACHEDIR", self.cluster.path(&self.namespace));
        for word in arguments.split_whitespace() {
            match word {
                "CHART" => command.arg(&chart),
                "ATOMIC" if self.major == 3 => command.arg("--atomic"),
                "ATOMIC" => command.arg("--rollback-on-failure"),
                _ => command.arg(word),
            };
        }
        command.output().unwrap_or_else(|error| panic!("cannot run {}: {error}", self.program.display()))
    }

    /// The output of a command that must succeed.
    #[track_caller]
    fn ok(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "helm {} {arguments}:\n{out}{error}", self.major);
        out.into_owned()
    }

    /// All that a command says that must fail.
    #[track_caller]
    fn fails(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "helm {} {arguments} succeeded", self.major);
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    #[track_caller]
    fn says(&self, arguments: &str, expected: &str) {
        let out = self.ok(arguments);
        assert!(out.contains(expected), "helm {} {arguments}: {expected:?} is missing in\n{out}", self.major);
    }

    #[track_caller]
    fn json(&self, arguments: &str) -> Value {
        serde_json::from_str(&self.ok(arguments)).unwrap()
    }

    /// The statuses of all revisions, oldest first.
    #[track_caller]
    fn statuses(&self) -> Vec<String> {
        let history = self.json("history shop -o json");
        history.as_array().unwrap().iter().map(|entry| entry["status"].as_str().unwrap().to_owned()).collect()
    }

    /// How the newest revision's hook for this event has gone.
    #[track_caller]
    fn hook(&self, event: &str) -> Value {
        let status = self.json("status shop -o json");
        let hooks = status["hooks"].as_array().unwrap();
        let hook = hooks.iter().find(|hook| hook["events"] == json!([event]));
        hook.unwrap_or_else(|| panic!("no hook for {event} in {hooks:?}"))["last_run"].clone()
    }

    /// An object in the release's namespace as JSON; null if there is none.
    fn get(&self, what: &[&str]) -> Value {
        self.cluster.kubectl().get(&[what, &["-n", &self.namespace]].concat())
    }

    #[track_caller]
    fn nothing_is_left(&self) {
        let kinds = "deployment,replicaset,service,configmap,secret,role,rolebinding,ingress,serviceaccount";
        let by_release = format!("--selector=app.kubernetes.io/instance={RELEASE}");
        eventually("a release's objects are gone", || {
            let found = self.get(&[kinds, &by_release]);
            (found["items"].as_array()?.is_empty()).then_some(())
        });
    }

    #[track_caller]
    fn page_becomes(&self, expected: &str) {
        eventually(expected, || page(self.http_port).filter(|page| page.contains(expected)));
    }

    fn definitions_are_served(&self) -> bool {
        let found = self.cluster.kubectl().run(&["get", "customresourcedefinitions"]).status.success();
        if !found {
            eprintln!("SKIPPED: the cluster serves no CustomResourceDefinitions, the chart goes without its own");
        }
        found
    }
}

/// What the gateway answers for the chart's host.
fn page(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: sample.test\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.starts_with("HTTP/1.1 200 ").then_some(answer)
}

/// Runs a test with each Helm, on one cluster.
fn with_each(test: impl Fn(&Helm<'_>)) {
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("SKIPPED: Helm's tests need root, because they start a cluster");
        return;
    }
    let programs = MAJORS.map(|major| (major, root().join(format!(".tools/helm-{major}/helm"))));
    if programs.iter().all(|(_, program)| !program.exists()) {
        eprintln!("SKIPPED: there is no Helm; run: cargo xtask setup");
        return;
    }
    let mut http_port = 0;
    let cluster = Cluster::start_with(|up| {
        let flag = up.get_args().skip_while(|word| *word != "--http-port").nth(1);
        http_port = flag.unwrap().to_string_lossy().parse().unwrap();
    });
    for (major, program) in programs {
        if !program.exists() {
            eprintln!("SKIPPED: Helm {major} is missing ({}); run: cargo xtask setup", program.display());
        } else if major > 3 && !server_side_apply(&cluster) {
            eprintln!("SKIPPED: Helm {major} applies on the server, and this one does not");
        } else {
            println!("helm {major}");
            let namespace = format!("helm-{major}");
            let helm = Helm { program, major, cluster: &cluster, namespace, http_port };
            test(&helm);
            // The next one shall install it anew.
            let _ = cluster.kubectl().run(&["delete", "customresourcedefinition", DEFINITION, "--ignore-not-found"]);
        }
    }
}

fn server_side_apply(cluster: &Cluster) -> bool {
    let object = br#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe"}}"#;
    cluster.kubectl().feed(&["apply", "--server-side", "--dry-run=server", "-f", "-"], object).status.success()
}
