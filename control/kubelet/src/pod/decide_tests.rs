//! What a pod needs next, by table.

use serde_json::{Value, json};

use super::*;
use crate::pod::memory::{Health, Reason};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec})).unwrap()
}

fn sandbox(id: &str, ready: bool) -> control_runtime::Sandbox {
    control_runtime::Sandbox {
        id: id.into(),
        spec: crate::spec::container::sandbox(&pod(json!({"containers": []})), 0),
        state: if ready { SandboxState::Ready } else { SandboxState::NotReady },
        netns: "/n".into(),
        created_at: at(0),
    }
}

fn instance(name: &str, attempt: u32, state: ContainerState, exit_code: Option<i32>) -> Instance {
    Instance {
        id: format!("{name}{attempt}"),
        sandbox_id: "s".into(),
        name: name.into(),
        attempt,
        image: "i".into(),
        image_id: "i".into(),
        state,
        pid: None,
        created_at: at(0),
        started_at: Some(at(0)),
        finished_at: exit_code.map(|_| at(0)),
        exit_code,
        reason: None,
        message: None,
        log_path: "/l".into(),
        labels: std::collections::BTreeMap::new(),
    }
}

fn running(name: &str, attempt: u32) -> Instance {
    instance(name, attempt, ContainerState::Running, None)
}

fn exited(name: &str, attempt: u32, code: i32) -> Instance {
    instance(name, attempt, ContainerState::Exited, Some(code))
}

fn set_up() -> Memory {
    Memory { volumes_ready: true, pod_ips: vec!["10.244.0.5".parse().unwrap()], ..Memory::default() }
}

fn with(containers: Vec<Instance>) -> Observed {
    Observed::new(vec![sandbox("s", true)], containers)
}

fn start(name: &str, attempt: u32) -> Action {
    Action::Start { name: name.into(), attempt }
}

fn two() -> Value {
    json!({"containers": [{"name": "a"}, {"name": "b"}]})
}

fn actions(spec: Value, observed: &Observed, memory: &Memory) -> Vec<Action> {
    next(&pod(spec), observed, memory, false, at(0)).actions
}

#[test]
fn a_pod_is_set_up_step_by_step() {
    let nothing = Observed::default();
    assert_eq!(actions(two(), &nothing, &Memory::default()), [Action::SetUpVolumes]);
    assert_eq!(actions(two(), &nothing, &set_up()), [Action::RunSandbox { attempt: 0 }]);
    assert_eq!(actions(two(), &with(vec![]), &set_up()), [start("a", 0)], "one container at a time");
    assert_eq!(actions(two(), &with(vec![running("a", 0)]), &set_up()), [start("b", 0)]);
    assert_eq!(actions(two(), &with(vec![running("a", 0), running("b", 0)]), &set_up()), []);
}

#[test]
fn nothing_is_asked_for_twice() {
    let busy = |busy: Busy| Memory { busy: [busy].into(), ..set_up() };
    let nothing = Observed::default();
    let setting_up = Memory { busy: [Busy::Volumes].into(), ..Memory::default() };
    assert_eq!(actions(two(), &nothing, &setting_up), []);
    assert_eq!(actions(two(), &nothing, &busy(Busy::Sandbox)), []);
    assert_eq!(actions(two(), &with(vec![]), &busy(Busy::Start("a".into()))), []);
    let condemned = condemned("a0");
    let once = actions(two(), &with(vec![running("a", 0), running("b", 0)]), &condemned);
    assert_eq!(once.len(), 1);
    let killing = Memory { busy: [Busy::Kill("a0".into())].into(), ..condemned };
    assert_eq!(actions(two(), &with(vec![running("a", 0), running("b", 0)]), &killing), []);
}

fn condemned(id: &str) -> Memory {
    let mut memory = set_up();
    memory.container("a").health =
        Health { container_id: id.into(), condemned: Some(Condemned::Liveness), ..Health::default() };
    memory
}

#[test]
fn restart_policies_decide_what_an_exit_means() {
    for (policy, code, restarted) in [
        ("Always", 0, true),
        ("Always", 1, true),
        ("OnFailure", 0, false),
        ("OnFailure", 1, true),
        ("Never", 0, false),
        ("Never", 1, false),
    ] {
        let spec = json!({"restartPolicy": policy, "containers": [{"name": "a"}]});
        let expected = if restarted { vec![start("a", 4)] } else { vec![] };
        assert_eq!(actions(spec, &with(vec![exited("a", 3, code)]), &set_up()), expected, "{policy} {code}");
    }
}

#[test]
fn a_crash_loop_waits_and_says_until_when() {
    let mut memory = set_up();
    memory.container("a").backoff = Some(Backoff::restarted(None, at(0), at(0)));
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let decision = next(&pod, &with(vec![exited("a", 1, 1)]), &memory, false, at(3));
    let expected = Decision {
        actions: vec![],
        wake: Some(at(10)),
        crash_loops: vec![("a".into(), SignedDuration::from_secs(10))],
    };
    assert_eq!(decision, expected);
    let later = next(&pod, &with(vec![exited("a", 1, 1)]), &memory, false, at(10));
    assert_eq!(later.actions, [start("a", 2)]);
}

#[test]
fn init_containers_go_first_in_order() {
    let spec = |policy: &str| json!({"restartPolicy": policy, "initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}]});
    for (policy, containers, expected) in [
        ("Always", vec![], vec![start("i", 0)]),
        ("Always", vec![running("i", 0)], vec![]),
        ("Always", vec![exited("i", 0, 0)], vec![start("j", 0)]),
        ("Always", vec![exited("i", 0, 1)], vec![start("i", 1)]),
        ("Never", vec![exited("i", 0, 1)], vec![]),
        ("Always", vec![exited("i", 0, 0), exited("j", 0, 0)], vec![start("a", 0)]),
        // Once a main container has been there, init containers are history.
        ("Always", vec![exited("a", 0, 1)], vec![start("a", 1)]),
    ] {
        let shown = format!("{policy} {containers:?}");
        assert_eq!(actions(spec(policy), &with(containers), &set_up()), expected, "{shown}");
    }
}

#[test]
fn a_sidecar_must_have_started_before_the_next() {
    let probe = json!({"tcpSocket": {"port": 1}});
    let spec = json!({"containers": [{"name": "a"}],
        "initContainers": [{"name": "side", "restartPolicy": "Always", "startupProbe": probe}]});
    assert_eq!(actions(spec.clone(), &with(vec![running("side", 0)]), &set_up()), []);
    let mut memory = set_up();
    memory.container("side").health = Health { container_id: "side0".into(), started: true, ..Health::default() };
    assert_eq!(actions(spec.clone(), &with(vec![running("side", 0)]), &memory), [start("a", 0)]);
    // It is restarted whatever it ended with, also after the main containers have begun.
    let ended = with(vec![exited("side", 0, 0), running("a", 0)]);
    assert_eq!(actions(spec, &ended, &memory), [start("side", 1)]);
}

#[test]
fn a_new_sandbox_runs_init_containers_again_but_not_finished_ones_of_the_main_list() {
    let lost = |container: Instance| Instance { sandbox_id: String::new(), ..container };
    let spec = json!({"restartPolicy": "OnFailure", "initContainers": [{"name": "i"}],
        "containers": [{"name": "a"}, {"name": "b"}]});
    let observed = with(vec![lost(exited("i", 0, 0)), lost(exited("a", 0, 0)), lost(exited("b", 0, 137))]);
    assert_eq!(actions(spec.clone(), &observed, &set_up()), [start("i", 1)]);
    let initialised = with(vec![exited("i", 1, 0), lost(exited("a", 0, 0)), lost(exited("b", 0, 137))]);
    assert_eq!(actions(spec, &initialised, &set_up()), [start("b", 1)]);
}

#[test]
fn a_dead_sandbox_is_stopped_removed_and_replaced() {
    let dead = Observed::new(vec![sandbox("s", false)], vec![exited("a", 0, 137)]);
    let spec = || json!({"containers": [{"name": "a"}]});
    assert_eq!(actions(spec(), &dead, &set_up()), [Action::StopSandbox { id: "s".into() }]);
    let stopped = Memory { stopped_sandboxes: ["s".into()].into(), ..set_up() };
    assert_eq!(actions(spec(), &dead, &stopped), [Action::RemoveSandbox { id: "s".into() }]);
    let memory = Memory { next_sandbox_attempt: 1, ..set_up() };
    assert_eq!(actions(spec(), &Observed::default(), &memory), [Action::RunSandbox { attempt: 1 }]);
    // One that was never connected is of no use either.
    let unconnected = Memory { volumes_ready: true, ..Memory::default() };
    assert_eq!(actions(spec(), &with(vec![]), &unconnected), [Action::StopSandbox { id: "s".into() }]);
}

#[test]
fn running_containers_are_replaced_for_reasons_only() {
    let spec = || {
        json!({"terminationGracePeriodSeconds": 9, "containers": [
        {"name": "a", "image": "new", "livenessProbe": {"terminationGracePeriodSeconds": 4}}]})
    };
    let kill =
        |cause, grace_s| Action::Kill(Kill { id: "a0".into(), name: "a".into(), cause, grace_s, with_hook: true });
    let mut changed = running("a", 0);
    changed.labels.insert(HASH_LABEL.into(), "other".into());
    assert_eq!(actions(spec(), &with(vec![changed]), &set_up()), [kill(KillCause::Changed, 9)]);
    let same = with(vec![running("a", 0)]);
    let unhealthy = KillCause::Unhealthy(Condemned::Liveness);
    assert_eq!(actions(spec(), &same, &condemned("a0")), [kill(unhealthy, 4)]);
    assert_eq!(actions(spec(), &same, &condemned("of an older instance")), []);
    let lost = instance("a", 0, ContainerState::Unknown, None);
    assert_eq!(actions(spec(), &with(vec![lost]), &set_up()), [kill(KillCause::Lost, 9)]);
    let unstarted = instance("a", 0, ContainerState::Created, None);
    let discard = Action::Discard { id: "a0".into(), name: "a".into(), attempt: 0 };
    assert_eq!(actions(spec(), &with(vec![unstarted]), &set_up()), [discard]);
}

#[test]
fn only_the_newest_two_instances_are_kept() {
    let observed = with(vec![running("a", 3), exited("a", 2, 1), exited("a", 1, 1), exited("a", 0, 1)]);
    let discard = |attempt: u32| Action::Discard { id: format!("a{attempt}"), name: "a".into(), attempt };
    assert_eq!(actions(json!({"containers": [{"name": "a"}]}), &observed, &set_up()), [discard(1), discard(0)]);
}

#[test]
fn failures_wait_for_their_retry() {
    let mut memory = set_up();
    let container = memory.container("a");
    container.waiting = Some(Reason::new("ErrImagePull", "x"));
    container.retry.failed(at(0), SignedDuration::from_secs(2), SignedDuration::from_secs(2));
    let decision = next(&pod(two()), &with(vec![]), &memory, false, at(1));
    assert_eq!((decision.actions, decision.wake), (vec![start("b", 0)], Some(at(2))), "others do not wait");
}

fn ending(memory: Memory) -> Memory {
    Memory { terminating_since: Some(at(0)), ..memory }
}

fn deleted(spec: Value, grace: i64) -> Pod {
    let mut pod = pod(spec);
    pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(grace)));
    pod.metadata.deletion_grace_period_seconds = Some(grace);
    pod
}

fn stop(name: &str, grace_s: i64, with_hook: bool) -> Action {
    Action::Kill(Kill { id: format!("{name}0"), name: name.into(), cause: KillCause::Stopping, grace_s, with_hook })
}

#[test]
fn a_pod_ends_containers_then_sidecars_then_sandbox_then_object() {
    let spec = json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [
        {"name": "s1", "restartPolicy": "Always"}, {"name": "s2", "restartPolicy": "Always"}]});
    let pod = deleted(spec, 30);
    let run = |containers: Vec<Instance>, memory: &Memory, second: i64| {
        next(&pod, &with(containers), memory, true, at(second)).actions
    };
    let memory = ending(set_up());
    let all = vec![running("a", 0), running("b", 0), running("s1", 0), running("s2", 0)];
    assert_eq!(run(all, &memory, 0), [stop("a", 30, true), stop("b", 30, true)]);
    let sidecars = vec![exited("a", 0, 0), exited("b", 0, 0), running("s1", 0), running("s2", 0)];
    assert_eq!(run(sidecars, &memory, 10), [stop("s2", 20, true)]);
    let last = vec![exited("a", 0, 0), exited("b", 0, 0), running("s1", 0), exited("s2", 0, 0)];
    assert_eq!(run(last, &memory, 40), [stop("s1", 0, true)]);
    let none = || vec![exited("a", 0, 0), exited("b", 0, 0)];
    assert_eq!(run(none(), &memory, 1), [Action::StopSandbox { id: "s".into() }]);
    let stopped = Memory { stopped_sandboxes: ["s".into()].into(), ..ending(set_up()) };
    assert_eq!(run(none(), &stopped, 1), [Action::Delete]);
}

#[test]
fn a_pod_that_ended_by_itself_keeps_its_object() {
    let pod = pod(two());
    let stopped = Memory { stopped_sandboxes: ["s".into()].into(), ..ending(set_up()) };
    assert_eq!(next(&pod, &with(vec![exited("a", 0, 0)]), &stopped, true, at(1)).actions, []);
}

#[test]
fn a_pod_that_never_ran_is_let_go_at_once() {
    let decision = next(&deleted(two(), 30), &Observed::default(), &ending(Memory::default()), true, at(0));
    assert_eq!(decision.actions, [Action::Delete]);
}

#[test]
fn a_shorter_grace_stops_again_without_the_hook() {
    let mut memory = ending(set_up());
    memory.busy.insert(Busy::Kill("a0".into()));
    memory.kill_deadlines.insert("a0".into(), at(600));
    let spec = || json!({"containers": [{"name": "a"}]});
    let observed = with(vec![running("a", 0)]);
    assert_eq!(next(&deleted(spec(), 600), &observed, &memory, true, at(5)).actions, []);
    assert_eq!(next(&deleted(spec(), 10), &observed, &memory, true, at(5)).actions, [stop("a", 5, false)]);
}

#[test]
fn nothing_is_taken_away_under_a_running_effect() {
    let observed = with(vec![exited("a", 0, 0)]);
    for busy in [Busy::Start("a".into()), Busy::Sandbox, Busy::Volumes, Busy::Kill("a0".into())] {
        let memory = Memory { busy: [busy.clone()].into(), ..ending(set_up()) };
        assert_eq!(next(&deleted(two(), 30), &observed, &memory, true, at(0)).actions, [], "{busy:?}");
    }
}
