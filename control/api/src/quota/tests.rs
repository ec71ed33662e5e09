//! Quotas as tables: what is charged, what is refused and how, what a recount finds.

use serde_json::{Value, json};

use super::{Amounts, Source, Subject, charge, sources, status, used_by};

fn now() -> jiff::Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("time")
}

fn pods() -> Source {
    Source::new("", "pods")
}

fn pod(resources: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "resources": resources}]}})
}

fn quota(spec: Value, used: Value) -> Value {
    json!({"metadata": {"name": "q"}, "spec": spec, "status": {"hard": spec["hard"], "used": used}})
}

fn ask(quota: &Value, source: &Source, object: &Value) -> Result<Option<Value>, String> {
    charge(quota, Subject { source, object, old: None, now: now() })
}

#[test]
fn a_pod_is_charged_for_all_that_is_measured() {
    let hard = json!({"pods": "2", "requests.cpu": "1", "limits.memory": "1Gi", "count/pods": "5", "secrets": "1"});
    let used =
        json!({"pods": "1", "requests.cpu": "500m", "limits.memory": "512Mi", "count/pods": "1", "secrets": "0"});
    let quota = quota(json!({"hard": hard}), used);
    let fits = pod(json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "500m", "memory": "512Mi"}}));
    assert_eq!(
        ask(&quota, &pods(), &fits).expect("fits"),
        Some(json!({"pods": "2", "requests.cpu": "1", "limits.memory": "1Gi", "count/pods": "2", "secrets": "0"}))
    );
    let large = pod(json!({"requests": {"cpu": "600m"}, "limits": {"memory": "1Gi"}}));
    assert_eq!(
        ask(&quota, &pods(), &large).expect_err("large"),
        "exceeded quota: q, requested: limits.memory=1Gi,requests.cpu=600m, used: limits.memory=512Mi,requests.cpu=500m, \
         limited: limits.memory=1Gi,requests.cpu=1"
    );
    assert_eq!(
        ask(&quota, &pods(), &pod(json!({}))).expect_err("silent"),
        "failed quota: q: must specify limits.memory for: c; requests.cpu for: c"
    );
    assert_eq!(ask(&quota, &Source::new("", "configmaps"), &json!({})), Ok(None));
}

#[test]
fn nothing_passes_a_quota_that_was_never_counted() {
    let quota = quota(json!({"hard": {"pods": "2"}}), json!({}));
    assert_eq!(
        ask(&quota, &pods(), &pod(json!({}))).expect_err("uncounted"),
        "status unknown for quota: q, resources: pods"
    );
}

#[test]
fn scopes_choose_pods() {
    let deadline = json!({"spec": {"activeDeadlineSeconds": 5, "priorityClassName": "high", "containers": []}});
    let plain = pod(json!({"requests": {"cpu": "1"}}));
    let priority = |operator: &str, values: Value| {
        json!({"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
    };
    let cases = [
        (json!({"scopes": ["Terminating"]}), true, false),
        (json!({"scopes": ["NotTerminating"]}), false, true),
        (json!({"scopes": ["BestEffort"]}), true, false),
        (json!({"scopes": ["NotBestEffort", "NotTerminating"]}), false, true),
        (priority("In", json!(["high"])), true, false),
        (priority("NotIn", json!(["high"])), false, true),
        (priority("Exists", json!([])), true, false),
        (priority("DoesNotExist", json!([])), false, true),
    ];
    for (mut spec, first, second) in cases {
        spec["hard"] = json!({"pods": "5"});
        let quota = quota(spec, json!({"pods": "0"}));
        for (object, expected) in [(&deadline, first), (&plain, second)] {
            assert_eq!(ask(&quota, &pods(), object).expect("allowed").is_some(), expected, "{quota} {object}");
        }
        assert_eq!(ask(&quota, &Source::new("", "services"), &json!({})), Ok(None));
    }
}

#[test]
fn a_change_is_charged_by_its_difference() {
    let services = Source::new("", "services");
    let service = |kind: &str| json!({"spec": {"type": kind, "ports": [{"port": 80}, {"port": 81}]}});
    let hard = json!({"services": "1", "services.nodeports": "2", "services.loadbalancers": "0"});
    let used = json!({"services": "1", "services.nodeports": "0", "services.loadbalancers": "0"});
    let quota = quota(json!({"hard": hard}), used);
    let (old, new) = (service("ClusterIP"), service("NodePort"));
    let subject = Subject { source: &services, object: &new, old: Some(&old), now: now() };
    assert_eq!(
        charge(&quota, subject).expect("fits"),
        Some(json!({"services": "1", "services.nodeports": "2", "services.loadbalancers": "0"}))
    );
    assert_eq!(
        charge(&quota, Subject { object: &service("LoadBalancer"), ..subject }).expect_err("balancer"),
        "exceeded quota: q, requested: services.loadbalancers=1, used: services.loadbalancers=0, \
         limited: services.loadbalancers=0"
    );
    assert_eq!(charge(&quota, Subject { object: &old, ..subject }), Ok(None));
}

#[test]
fn a_recount_sees_what_lives() {
    let hard = json!({"pods": "9", "count/pods": "9", "requests.cpu": "9", "count/deployments.apps": "1"});
    let quota = quota(json!({"hard": hard}), json!({}));
    let mut done = pod(json!({"requests": {"cpu": "1"}}));
    done["status"]["phase"] = "Succeeded".into();
    let mut lost = pod(json!({}));
    lost["metadata"] = json!({"deletionTimestamp": "2025-12-31T23:59:00Z", "deletionGracePeriodSeconds": 30});
    let objects = [done, lost, pod(json!({"requests": {"cpu": "250m"}}))];
    let mut used = used_by(&quota, &pods(), &objects, now());
    used.add(&used_by(&quota, &Source::new("apps", "deployments"), &[json!({})], now()));
    assert_eq!(
        status(&quota, &used)["used"],
        json!({"count/deployments.apps": "1", "count/pods": "3", "pods": "1", "requests.cpu": "250m"})
    );
    let found: Vec<Source> = sources(&quota).into_iter().collect();
    assert_eq!(found, [pods(), Source::new("apps", "deployments")]);
}

#[test]
fn init_containers_count_when_they_need_more() {
    let container = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
    let mut sidecar = container("1");
    sidecar["restartPolicy"] = "Always".into();
    let pod = json!({"spec": {"containers": [container("1"), container("1")], "overhead": {"cpu": "100m"},
        "initContainers": [container("2"), sidecar, container("3")]}});
    assert_eq!(super::pod_requests(&pod), Amounts::read(&json!({"cpu": "4100m"})));
}
