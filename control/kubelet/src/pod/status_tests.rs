//! The status of pods, by table.

use serde_json::{Value, json};

use super::*;
use crate::pod::memory::{Health, Reason};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + second).unwrap()
}

fn instance(name: &str, attempt: u32, state: Seen, exit_code: Option<i32>) -> Instance {
    Instance {
        id: format!("{name}{attempt}"),
        sandbox_id: "s".into(),
        name: name.into(),
        attempt,
        image: "img".into(),
        image_id: "sha256:1".into(),
        state,
        pid: None,
        created_at: at(0),
        started_at: Some(at(1)),
        finished_at: exit_code.map(|_| at(2)),
        exit_code,
        reason: None,
        message: None,
        log_path: "/l".into(),
        labels: std::collections::BTreeMap::new(),
    }
}

/// Status of a pod with this spec as JSON.
fn run(
    pod: Value,
    containers: Vec<Instance>,
    memory: &Memory,
    crash_loops: &[(String, SignedDuration)],
    ended: bool,
) -> Value {
    let pod: Pod = serde_json::from_value(pod).unwrap();
    let sandbox = control_runtime::Sandbox {
        id: "s".into(),
        spec: crate::spec::container::sandbox(&pod, 0),
        state: control_runtime::SandboxState::Ready,
        netns: "/n".into(),
        created_at: at(0),
    };
    let input = Input {
        pod: &pod,
        observed: &Observed::new(vec![sandbox], containers),
        memory,
        host_ips: &["192.168.77.2".parse().unwrap()],
        crash_loops,
        ended,
        now: at(60),
    };
    serde_json::to_value(compute(&input)).unwrap()
}

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u", "generation": 3}, "spec": spec})
}

fn memory() -> Memory {
    Memory {
        pod_ips: vec!["10.244.0.5".parse().unwrap(), "fd00::5".parse().unwrap()],
        seen_at: at(0),
        ..Memory::default()
    }
}

fn conditions(status: &Value) -> Vec<String> {
    let list = status["conditions"].as_array().unwrap().iter();
    list.map(|condition| {
        let reason = condition["reason"].as_str().map(|reason| format!(" {reason}")).unwrap_or_default();
        format!("{} {}{reason}", condition["type"].as_str().unwrap(), condition["status"].as_str().unwrap())
    })
    .collect()
}

#[test]
fn a_running_pod_is_described_whole() {
    let one = pod(json!({"containers": [{"name": "c", "image": "img"}]}));
    let status = run(one, vec![instance("c", 0, Seen::Running, None)], &memory(), &[], false);
    assert_eq!(
        conditions(&status),
        [
            "PodReadyToStartContainers True",
            "Initialized True",
            "Ready True",
            "ContainersReady True",
            "PodScheduled True"
        ]
    );
    let mut status = status;
    status.as_object_mut().unwrap().remove("conditions");
    assert_eq!(
        status,
        json!({
            "phase": "Running", "qosClass": "BestEffort", "observedGeneration": 3,
            "hostIP": "192.168.77.2", "hostIPs": [{"ip": "192.168.77.2"}],
            "podIP": "10.244.0.5", "podIPs": [{"ip": "10.244.0.5"}, {"ip": "fd00::5"}],
            "startTime": "2026-01-01T00:00:00Z",
            "containerStatuses": [{
                "name": "c", "image": "img", "imageID": "sha256:1", "containerID": "tidegate://c0",
                "ready": true, "started": true, "restartCount": 0, "lastState": {},
                "state": {"running": {"startedAt": "2026-01-01T00:00:01Z"}}}]
        })
    );
}

#[test]
fn a_new_pod_waits_for_its_containers() {
    for (spec, reason) in [
        (json!({"containers": [{"name": "c"}]}), "ContainerCreating"),
        (json!({"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]}), "PodInitializing"),
    ] {
        let status = run(pod(spec), vec![], &Memory::default(), &[], false);
        assert_eq!(status["phase"], "Pending");
        assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], reason);
        assert_eq!(status["podIP"], Value::Null);
    }
}

#[test]
fn probes_decide_ready_and_started() {
    let probe = json!({"tcpSocket": {"port": 1}});
    for (startup, readiness, health, ready, started) in [
        (false, false, (false, false), true, true),
        (false, true, (false, false), false, true),
        (false, true, (true, false), true, true),
        (true, false, (false, false), false, false),
        (true, false, (false, true), true, true),
        (true, true, (true, false), false, false),
    ] {
        let mut container = json!({"name": "c"});
        if startup {
            container["startupProbe"] = probe.clone();
        }
        if readiness {
            container["readinessProbe"] = probe.clone();
        }
        let mut memory = memory();
        memory.container("c").health =
            Health { container_id: "c0".into(), ready: health.0, started: health.1, condemned: None };
        let one = pod(json!({"containers": [container]}));
        let status = run(one, vec![instance("c", 0, Seen::Running, None)], &memory, &[], false);
        let container = &status["containerStatuses"][0];
        assert_eq!(
            (&container["ready"], &container["started"]),
            (&json!(ready), &json!(started)),
            "{startup} {readiness}"
        );
        let expected = if ready { "Ready True" } else { "Ready False ContainersNotReady" };
        assert_eq!(conditions(&status)[2], expected);
    }
}

#[test]
fn a_crash_loop_shows_the_last_end() {
    let one = pod(json!({"containers": [{"name": "c"}]}));
    let instances = vec![instance("c", 4, Seen::Exited, Some(1))];
    let loops = [("c".to_owned(), SignedDuration::from_secs(80))];
    let status = run(one.clone(), instances.clone(), &memory(), &loops, false);
    let container = &status["containerStatuses"][0];
    assert_eq!(
        container["state"],
        json!({"waiting": {"reason": "CrashLoopBackOff",
            "message": "back-off 1m20s restarting failed container=c pod=p_ns(u)"}})
    );
    assert_eq!(container["restartCount"], 4);
    assert_eq!(
        container["lastState"]["terminated"],
        json!({"exitCode": 1, "reason": "Error", "containerID": "tidegate://c4",
            "startedAt": "2026-01-01T00:00:01Z", "finishedAt": "2026-01-01T00:00:02Z"})
    );
    // A pod that has ended shows the end itself.
    let status = run(one, instances, &memory(), &loops, true);
    assert_eq!(status["containerStatuses"][0]["state"]["terminated"]["exitCode"], 1);
    assert_eq!(status["phase"], "Failed");
}

#[test]
fn why_a_container_cannot_start_is_said() {
    let mut memory = memory();
    memory.container("c").waiting = Some(Reason::new("ErrImagePull", "no such image"));
    let status = run(pod(json!({"containers": [{"name": "c"}]})), vec![], &memory, &[], false);
    assert_eq!(
        status["containerStatuses"][0]["state"],
        json!({"waiting": {"reason": "ErrImagePull", "message": "no such image"}})
    );
}

#[test]
fn a_container_is_not_running_before_its_hook_has_ended() {
    let mut memory = memory();
    memory.busy.insert(crate::pod::memory::Busy::Start("c".into()));
    let one = pod(json!({"containers": [{"name": "c"}]}));
    let status = run(one, vec![instance("c", 0, Seen::Running, None)], &memory, &[], false);
    assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "ContainerCreating");
    assert_eq!(status["phase"], "Pending");
}

#[test]
fn transition_times_move_only_with_the_status() {
    let mut one = pod(json!({"containers": [{"name": "c"}], "readinessGates": [{"conditionType": "x/gate"}]}));
    one["status"] = json!({"conditions": [
        {"type": "Initialized", "status": "True", "lastTransitionTime": "2025-01-01T00:00:00Z"},
        {"type": "ContainersReady", "status": "False", "lastTransitionTime": "2025-01-01T00:00:00Z"},
        {"type": "x/gate", "status": "False", "lastTransitionTime": "2025-01-01T00:00:00Z"}]});
    let status = run(one, vec![instance("c", 0, Seen::Running, None)], &memory(), &[], false);
    let time = |index: usize| status["conditions"][index]["lastTransitionTime"].as_str().unwrap().to_owned();
    assert_eq!(time(1), "2025-01-01T00:00:00Z");
    assert_eq!(time(3), "2026-01-01T00:01:00Z");
    assert_eq!(
        conditions(&status)[2..],
        ["Ready False ReadinessGatesNotReady", "ContainersReady True", "PodScheduled True", "x/gate False"]
    );
}

#[test]
fn a_terminal_phase_is_kept_and_waits_for_the_last_container() {
    let mut one = pod(json!({"restartPolicy": "Never", "containers": [{"name": "c"}],
        "initContainers": [{"name": "side", "restartPolicy": "Always"}]}));
    let containers = vec![instance("c", 0, Seen::Exited, Some(0)), instance("side", 0, Seen::Running, None)];
    assert_eq!(run(one.clone(), containers, &memory(), &[], true)["phase"], "Running");
    let containers = vec![instance("c", 0, Seen::Exited, Some(0)), instance("side", 0, Seen::Exited, Some(143))];
    let status = run(one.clone(), containers.clone(), &memory(), &[], true);
    assert_eq!((&status["phase"], conditions(&status)[2].as_str()), (&json!("Succeeded"), "Ready False PodCompleted"));
    one["status"] = json!({"phase": "Failed", "reason": "Evicted"});
    let status = run(one, containers, &memory(), &[], true);
    assert_eq!((&status["phase"], &status["reason"]), (&json!("Failed"), &json!("Evicted")));
}
