//! Pods against a whole cluster, family by family, as users and upstream's conformance suite go through them.
//!
//! Each family makes pods of its own names in one namespace; all of them run at the same time.

mod endings;
mod environment;
mod lifecycle;
mod probes;
mod running;
mod security;
mod volumes;

use serde_json::{Value, json};
use tidegate_tests::cluster::eventually;
use tidegate_tests::kubectl::{Kubectl, with_cluster};

type Family = fn(&Pods<'_>);

#[test]
fn pods_do_what_they_say() {
    let families: [(&str, Family); 16] = [
        ("probes", probes::failing_probes_are_told_and_acted_on),
        ("startup probe", probes::startup_holds_the_others_back),
        ("readiness gates", probes::gates_hold_a_pod_back),
        ("hooks", lifecycle::failed_hooks_are_told),
        ("terminations", lifecycle::every_end_has_its_reason_and_message),
        ("starts", lifecycle::what_cannot_start_says_why),
        ("init containers", lifecycle::init_containers_go_first),
        ("restarts", lifecycle::containers_have_rules_of_their_own),
        ("volumes", volumes::files_have_their_content_and_modes),
        ("volume problems", volumes::volumes_that_cannot_be_are_told),
        ("environment", environment::variables_and_files_tell_of_the_pod),
        ("security", security::contexts_are_obeyed),
        ("refusals", security::what_is_not_allowed_is_refused),
        ("ephemeral containers", running::a_running_pod_can_be_debugged),
        ("resize", running::a_running_pod_gets_other_resources),
        ("endings", endings::a_pod_ends_with_grace),
    ];
    with_cluster(&["kubectl-1.37"], |_, kubectl| {
        let pods = Pods { kubectl };
        let failed: Vec<&str> = std::thread::scope(|scope| {
            let running: Vec<_> =
                families.iter().map(|(name, family)| (*name, scope.spawn(|| family(&pods)))).collect();
            running.into_iter().filter_map(|(name, thread)| thread.join().is_err().then_some(name)).collect()
        });
        assert!(failed.is_empty(), "failed: {failed:?}");
    });
}

struct Pods<'a> {
    kubectl: &'a Kubectl,
}

impl Pods<'_> {
    /// Makes a pod of this spec.
    #[track_caller]
    fn create(&self, name: &str, spec: Value) {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec});
        self.apply(&pod);
    }

    #[track_caller]
    fn apply(&self, object: &Value) {
        self.kubectl.feed("create -f -", &object.to_string());
    }

    fn get(&self, name: &str) -> Value {
        serde_json::from_slice(&self.kubectl.run(&format!("get pod {name} -o json"), "").stdout).unwrap_or_default()
    }

    /// Waits until the pod's JSON is as wanted.
    #[track_caller]
    fn until(&self, name: &str, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        eventually(&format!("{name} {what}"), || {
            last = self.get(name);
            is_it(&last).then(|| last.clone())
        })
    }

    #[track_caller]
    fn ready(&self, name: &str) {
        self.kubectl.ok(&format!("wait --for=condition=Ready pod/{name} --timeout=120s"));
    }

    #[track_caller]
    fn ended(&self, name: &str) -> Value {
        self.until(name, "has ended", |pod| pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed")
    }

    /// What a script in a container prints.
    #[track_caller]
    fn sh(&self, name: &str, container: &str, script: &str) -> String {
        self.kubectl.ok_words(&["exec", name, "-c", container, "--", "sh", "-c", script]).trim().to_owned()
    }

    /// Waits for an event of the pod that has this reason and says this.
    #[track_caller]
    fn event(&self, name: &str, reason: &str, text: &str) {
        let query = format!(
            "get events --field-selector=involvedObject.name={name},reason={reason} -o jsonpath={{.items[*].message}}"
        );
        self.kubectl.comes_to_say(&query, text);
    }
}

/// A container of the sample image that runs a script.
fn script(name: &str, text: &str) -> Value {
    json!({"name": name, "image": "busybox:dev", "command": ["sh", "-c", text]})
}

/// The same with more fields.
fn script_with(name: &str, text: &str, more: Value) -> Value {
    let mut container = script(name, text);
    for (field, value) in more.as_object().cloned().unwrap_or_default() {
        container[field] = value;
    }
    container
}

/// A pod of these containers that ends soon after it is told to.
fn spec(containers: Vec<Value>, more: Value) -> Value {
    let mut spec = json!({"terminationGracePeriodSeconds": 1, "containers": containers});
    for (field, value) in more.as_object().cloned().unwrap_or_default() {
        spec[field] = value;
    }
    spec
}

/// The status of a container of whatever kind.
fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    let mut all = lists.iter().filter_map(|list| pod["status"][*list].as_array()).flatten();
    all.find(|status| status["name"] == name).unwrap_or(&Value::Null)
}

fn condition<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let mut all = pod["status"]["conditions"].as_array().into_iter().flatten();
    all.find(|condition| condition["type"] == name).unwrap_or(&Value::Null)
}
