//! Jobs and CronJobs on a whole cluster, through real kubectl.

use tidegate_tests::kubectl::{Kubectl, VERSIONS, with_cluster};

#[test]
fn jobs() {
    with_cluster(&VERSIONS, |_, kubectl| {
        completions(kubectl);
        failures(kubectl);
        ends(kubectl);
        suspension(kubectl);
        cron_jobs(kubectl);
    });
}

fn create(kubectl: &Kubectl, name: &str, spec: &str, script: &str) {
    let job = format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n  {spec}\n  template:\n    spec:\n      \
         restartPolicy: Never\n      terminationGracePeriodSeconds: 1\n      containers:\n      - {{name: main, image: \
         \"busybox:dev\", command: [sh, -c, '{script}']}}\n"
    );
    kubectl.feed("create -f -", &job);
}

fn ends_as(kubectl: &Kubectl, name: &str, condition: &str, reason: &str) {
    kubectl.says(&format!("wait --for=condition={condition} job/{name} --timeout=60s"), "condition met");
    let found = kubectl.ok(&format!("get job {name} -o jsonpath={{.status.conditions[*].reason}}"));
    assert!(found.contains(reason), "{name}: {found}");
}

fn completions(kubectl: &Kubectl) {
    create(kubectl, "four", "completions: 4\n  parallelism: 2", "sleep 1");
    ends_as(kubectl, "four", "Complete", "CompletionsReached");
    kubectl.says("get job four", "4/4");
    create(
        kubectl,
        "indexed",
        "completions: 3\n  parallelism: 3\n  completionMode: Indexed",
        "echo $JOB_COMPLETION_INDEX; hostname",
    );
    ends_as(kubectl, "indexed", "Complete", "CompletionsReached");
    assert_eq!(kubectl.ok("get job indexed -o jsonpath={.status.completedIndexes}"), "0-2");
    let said = kubectl.ok("logs -l job-name=indexed --tail=-1");
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["0", "1", "2", "indexed-0", "indexed-1", "indexed-2"]);
}

fn failures(kubectl: &Kubectl) {
    create(kubectl, "fails", "backoffLimit: 0", "exit 3");
    ends_as(kubectl, "fails", "Failed", "BackoffLimitExceeded");
    let policy = "podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, values: [42]}}]}";
    create(kubectl, "policy", policy, "exit 42");
    ends_as(kubectl, "policy", "Failed", "PodFailurePolicy");
    create(kubectl, "late", "activeDeadlineSeconds: 2", "sleep 100");
    ends_as(kubectl, "late", "Failed", "DeadlineExceeded");
    kubectl.becomes("get pods -l job-name=late -o jsonpath={.items[*].status.phase}", "");
}

fn ends(kubectl: &Kubectl) {
    create(kubectl, "brief", "ttlSecondsAfterFinished: 1", "exit 0");
    kubectl.ok("wait --for=delete job/brief --timeout=60s");
    kubectl.becomes("get pods -l job-name=brief -o name", "");
}

fn suspension(kubectl: &Kubectl) {
    create(kubectl, "held", "suspend: true", "sleep 1");
    kubectl.comes_to_say("get job held", "Suspended");
    assert_eq!(kubectl.ok("get pods -l job-name=held -o name"), "");
    kubectl.ok(r#"patch job held -p {"spec":{"suspend":false}}"#);
    ends_as(kubectl, "held", "Complete", "CompletionsReached");
}

fn cron_jobs(kubectl: &Kubectl) {
    kubectl.ok_words(&["create", "cronjob", "tick", "--image=busybox:dev", "--schedule=* * * * *", "--", "date"]);
    kubectl.ok("create job manual --from=cronjob/tick");
    ends_as(kubectl, "manual", "Complete", "CompletionsReached");
    assert_eq!(kubectl.ok("get job manual -o jsonpath={.metadata.ownerReferences[0].name}"), "tick");
    kubectl.refuses("create cronjob bad --image=busybox:dev --schedule=nope", "spec.schedule: Invalid value: \"nope\"");
    kubectl.says("get cronjob tick", "* * * * *");
    let last = "wait --for=jsonpath={.status.lastScheduleTime} cronjob/tick --timeout=90s";
    kubectl.says(last, "condition met");
    let jobs = kubectl.ok("get jobs -o jsonpath={.items[*].metadata.name}");
    assert!(jobs.split(' ').any(|name| name.starts_with("tick-")), "{jobs}");
    kubectl.ok(r#"patch cronjob tick -p {"spec":{"suspend":true}}"#);
    kubectl.says("get cronjob tick", "True");
}
