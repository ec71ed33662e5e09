//! Whether a container that has ended is started again: its own rules and policy, then the pod's.

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, Pod};

use super::pod_ref::{PodRef, RestartPolicy, is_sidecar};

/// `exit_code` is none for a container whose end nobody saw.
pub(crate) fn again(pod: &Pod, container: &Container, exit_code: Option<i32>) -> bool {
    let is_init = pod.init_containers().iter().any(|init| init.name == container.name);
    if is_init && is_sidecar(container) {
        return true;
    }
    let rules = container.restart_policy_rules.as_deref().unwrap_or_default();
    if exit_code.is_some_and(|code| rules.iter().any(|rule| restarts(rule, code))) {
        return true;
    }
    let policy = container.restart_policy.as_deref().map_or_else(|| pod.restart_policy(), RestartPolicy::parse);
    match policy {
        // An init container has to succeed once, not to run for ever.
        RestartPolicy::Always => !is_init || exit_code != Some(0),
        RestartPolicy::OnFailure => exit_code != Some(0),
        RestartPolicy::Never => false,
    }
}

fn restarts(rule: &ContainerRestartRule, exit_code: i32) -> bool {
    let Some(codes) = rule.exit_codes.as_ref().filter(|_| rule.action == "Restart") else { return false };
    let listed = codes.values.as_deref().unwrap_or_default().contains(&exit_code);
    match codes.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn rules_win_over_the_containers_policy_and_that_over_the_pods() {
        let rule = |operator: &str| json!([{"action": "Restart", "exitCodes": {"operator": operator, "values": [42]}}]);
        let cases: [(&str, Value, i32, bool); 9] = [
            ("Always", json!({}), 0, true),
            ("OnFailure", json!({}), 0, false),
            ("OnFailure", json!({}), 1, true),
            ("Never", json!({}), 1, false),
            ("Never", json!({"restartPolicy": "Always"}), 0, true),
            ("Always", json!({"restartPolicy": "Never"}), 1, false),
            ("Never", json!({"restartPolicy": "Never", "restartPolicyRules": rule("In")}), 42, true),
            ("Never", json!({"restartPolicy": "Never", "restartPolicyRules": rule("In")}), 1, false),
            ("Never", json!({"restartPolicy": "Never", "restartPolicyRules": rule("NotIn")}), 1, true),
        ];
        for (policy, mut container, code, expected) in cases {
            container["name"] = "c".into();
            let spec = json!({"restartPolicy": policy, "containers": [container]});
            let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
            assert_eq!(again(&pod, &pod.containers()[0], Some(code)), expected, "{spec} {code}");
        }
    }

    #[test]
    fn init_containers_run_until_they_succeed_and_sidecars_for_ever() {
        let init = json!([{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]);
        for (policy, code, expected) in
            [("Always", 0, [false, true]), ("Always", 1, [true, true]), ("Never", 1, [false, true])]
        {
            let spec = json!({"restartPolicy": policy, "initContainers": init, "containers": [{"name": "c"}]});
            let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
            let found: Vec<bool> = pod.init_containers().iter().map(|one| again(&pod, one, Some(code))).collect();
            assert_eq!(found, expected, "{policy} {code}");
        }
    }
}
