//! Deployments on a whole cluster, through real kubectl: rollouts, history, scaling, deadlines.

use tidegate_tests::kubectl::{Kubectl, VERSIONS, with_cluster};

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  revisionHistoryLimit: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: main, image: "tidegate/echo:dev"}
"#;

#[test]
fn deployments() {
    with_cluster(&VERSIONS, |_, kubectl| {
        kubectl.feed("create -f -", WEB);
        rolled_out(kubectl);
        // What the controller notes is no new generation of what the user wants.
        assert_eq!(kubectl.ok("get deployment web -o jsonpath={.metadata.generation}"), "1");
        history_and_undo(kubectl);
        pause_and_resume(kubectl);
        fenceposts(kubectl);
        rollover(kubectl);
        stuck_rollout(kubectl);
        recreate(kubectl);
        // The new set and three old ones are kept of the many there were.
        kubectl.becomes("get replicasets -o go-template={{range.items}}x{{end}}", "xxxx");
    });
}

fn rolled_out(kubectl: &Kubectl) {
    kubectl.says("rollout status deployment/web --timeout=60s", "successfully rolled out");
    let conditions = r#"get deployment web -o jsonpath={range.status.conditions[*]}{.type}={.reason},{end}"#;
    let found = kubectl.ok(conditions);
    assert!(found.contains("Available=MinimumReplicasAvailable,"), "{found}");
    assert!(found.contains("Progressing=NewReplicaSetAvailable,"), "{found}");
}

fn history_and_undo(kubectl: &Kubectl) {
    kubectl.ok("annotate deployment web kubernetes.io/change-cause=first");
    kubectl.ok("set env deployment/web RELEASE=second");
    // At once: the controller is in the middle of its own writes and must not undo this one.
    kubectl.ok("annotate deployment web kubernetes.io/change-cause=second --overwrite");
    rolled_out(kubectl);
    kubectl.comes_to_say("rollout history deployment/web", "2         second");
    kubectl.says("rollout history deployment/web", "1         first");
    kubectl.says("rollout history deployment/web --revision=2", "RELEASE:\tsecond");
    kubectl.says("rollout undo deployment/web --to-revision=1", "rolled back");
    rolled_out(kubectl);
    kubectl.comes_to_say("rollout history deployment/web", "3         first");
    kubectl.refuses("rollout undo deployment/web --to-revision=99", "unable to find specified revision 99 in history");
    kubectl.says("rollout undo deployment/web --to-revision=3", "skipped rollback");
}

fn pause_and_resume(kubectl: &Kubectl) {
    kubectl.says("rollout pause deployment/web", "paused");
    kubectl.refuses("rollout pause deployment/web", "is already paused");
    kubectl.ok("set env deployment/web PAUSED=yes");
    let reason = r#"get deployment web -o jsonpath={.status.conditions[?(@.type=="Progressing")].reason}"#;
    kubectl.becomes(reason, "DeploymentPaused");
    // Pods of the former release may still be ending.
    kubectl.becomes("get pods -l app=web -o jsonpath={.items[*].spec.containers[0].env[*].name}", "");
    // A paused Deployment still scales.
    kubectl.ok("scale deployment web --replicas=5");
    kubectl.becomes("get deployment web -o jsonpath={.status.readyReplicas}", "5");
    kubectl.refuses("rollout undo deployment/web", "you cannot rollback a paused deployment");
    kubectl.says("rollout resume deployment/web", "resumed");
    rolled_out(kubectl);
    assert_eq!(kubectl.ok("get deployment web -o jsonpath={.spec.template.spec.containers[0].env[*].name}"), "PAUSED");
    kubectl.ok("scale deployment web --replicas=4");
    rolled_out(kubectl);
}

/// With an image that never comes, a rollout stops where its bounds end.
fn fenceposts(kubectl: &Kubectl) {
    // surge, unavailable, then new and old pods of four wanted.
    let cases = [("1", "0", 1, 4), ("0", "1", 1, 3), ("25%", "25%", 2, 3), ("30%", "0%", 2, 4), ("0%", "49%", 1, 3)];
    for (surge, unavailable, new, old) in cases {
        let amount = |text: &str| if text.ends_with('%') { format!("{text:?}") } else { text.to_owned() };
        let rolling = format!("{{\"maxSurge\":{},\"maxUnavailable\":{}}}", amount(surge), amount(unavailable));
        kubectl.ok(&format!(r#"patch deployment web -p {{"spec":{{"strategy":{{"rollingUpdate":{rolling}}}}}}}"#));
        kubectl.ok("set image deployment/web main=tidegate/missing:dev");
        let sizes = "get deployment web -o jsonpath={.status.updatedReplicas},{.status.availableReplicas}";
        kubectl.becomes(sizes, &format!("{new},{old}"));
        let sizes = "get replicasets --sort-by=.spec.replicas -o jsonpath={.items[*].spec.replicas}";
        let found = kubectl.ok(sizes);
        let mut wanted = [new, old];
        wanted.sort_unstable();
        let found: Vec<i32> = found.split(' ').filter_map(|size| size.parse().ok()).filter(|size| *size > 0).collect();
        assert_eq!(found, wanted, "with surge {surge} and unavailable {unavailable}");
        kubectl.ok("rollout undo deployment/web");
        rolled_out(kubectl);
    }
    let both = r#"patch deployment web -p {"spec":{"strategy":{"rollingUpdate":{"maxSurge":0,"maxUnavailable":0}}}}"#;
    kubectl.refuses(both, "may not be 0 when `maxSurge` is 0");
}

/// A third version while the second is still rolling out: the second goes, too.
fn rollover(kubectl: &Kubectl) {
    kubectl.ok("set image deployment/web main=tidegate/missing:dev");
    kubectl.becomes("get deployment web -o jsonpath={.status.unavailableReplicas}", "1");
    kubectl.ok_words(&[
        "patch",
        "deployment",
        "web",
        "-p",
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"main","image":"tidegate/echo:dev","env":[{"name":"THIRD","value":"yes"}]}]}}}}"#,
    ]);
    rolled_out(kubectl);
    kubectl.becomes("get deployment web -o jsonpath={.status.replicas},{.status.updatedReplicas}", "4,4");
}

/// A rollout that does not come on passes its deadline, scales in proportion, and can be undone.
fn stuck_rollout(kubectl: &Kubectl) {
    kubectl.ok(r#"patch deployment web -p {"spec":{"progressDeadlineSeconds":3,"strategy":{"rollingUpdate":{"maxSurge":"25%","maxUnavailable":"25%"}}}}"#);
    kubectl.ok("set image deployment/web main=tidegate/missing:dev");
    kubectl.refuses("rollout status deployment/web --timeout=60s", "exceeded its progress deadline");
    let reason = r#"get deployment web -o jsonpath={.status.conditions[?(@.type=="Progressing")].reason}"#;
    kubectl.becomes(reason, "ProgressDeadlineExceeded");
    // Three old and two new of five become nine and six of fifteen.
    kubectl.ok("scale deployment web --replicas=12");
    kubectl.becomes("get deployment web -o jsonpath={.status.replicas},{.status.updatedReplicas}", "15,6");
    kubectl.ok(r#"patch deployment web -p {"spec":{"replicas":4,"progressDeadlineSeconds":600}}"#);
    kubectl.ok("rollout undo deployment/web");
    rolled_out(kubectl);
}

/// Never two versions at once.
fn recreate(kubectl: &Kubectl) {
    let strategy =
        r#"patch deployment web --type=merge -p {"spec":{"strategy":{"type":"Recreate","rollingUpdate":null}}}"#;
    kubectl.ok(strategy);
    kubectl.ok("set env deployment/web RECREATED=yes");
    rolled_out(kubectl);
    let scaled = kubectl.ok("get events --field-selector reason=ScalingReplicaSet -o jsonpath={.items[*].message}");
    assert!(scaled.contains("from 4 to 0") && scaled.contains("from 0 to 4"), "{scaled}");
}
