//! How a pod is printed: its STATUS is computed from phase, conditions and the states of its containers.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::duration::since;
use crate::meta;
use crate::value::{int, is_set, items, text};

/// The row condition of a pod that has ended.
pub(super) fn completion(pod: &Value) -> Option<Value> {
    let message = match text(&pod["status"]["phase"]) {
        "Succeeded" => "The pod has completed successfully.",
        "Failed" => "The pod failed.",
        _ => return None,
    };
    Some(json!({"type": "Completed", "status": "True", "reason": pod["status"]["phase"], "message": message}))
}

pub(super) fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summarize(pod);
    let or_none = |value: &str| if value.is_empty() { "<none>".to_owned() } else { value.to_owned() };
    let status = &pod["status"];
    let ip = items(&status["podIPs"]).first().map_or_else(|| text(&status["podIP"]), |entry| text(&entry["ip"]));
    vec![
        meta::name(pod).into(),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.status.into(),
        summary.restarts.text(now).into(),
        since(&pod["metadata"]["creationTimestamp"], now).into(),
        or_none(ip).into(),
        or_none(text(&pod["spec"]["nodeName"])).into(),
        or_none(text(&status["nominatedNodeName"])).into(),
        readiness_gates(pod).into(),
    ]
}

struct Summary {
    ready: usize,
    total: usize,
    status: String,
    restarts: Restarts,
}

/// How often containers were started again, and when one last ended.
#[derive(Debug, Clone, Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, container: &Value) {
        self.count += int(&container["restartCount"]);
        let ended = text(&container["lastState"]["terminated"]["finishedAt"]).parse().ok();
        self.last = self.last.max(ended);
    }

    fn text(&self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.count != 0 => {
                format!("{} ({} ago)", self.count, super::duration::human(now.duration_since(last).as_secs()))
            }
            _ => self.count.to_string(),
        }
    }
}

fn summarize(pod: &Value) -> Summary {
    let (spec, status) = (&pod["spec"], &pod["status"]);
    let init_specs = items(&spec["initContainers"]);
    let is_sidecar = |name: &str| {
        init_specs.iter().any(|container| container["name"] == name && container["restartPolicy"] == "Always")
    };
    let sidecars = init_specs.iter().filter(|container| container["restartPolicy"] == "Always").count();
    let mut summary = Summary {
        ready: 0,
        total: items(&spec["containers"]).len() + sidecars,
        status: phase(status),
        restarts: Restarts::default(),
    };
    let (initializing, sidecar_restarts) = init_containers(pod, is_sidecar, &mut summary);
    if !initializing || condition(status, "Initialized") {
        summary.restarts = sidecar_restarts;
        main_containers(status, &mut summary);
    }
    if meta::deletion_timestamp(pod).is_some() {
        let ended = matches!(text(&status["phase"]), "Succeeded" | "Failed");
        if status["reason"] == "NodeLost" {
            summary.status = "Unknown".into();
        } else if !ended {
            summary.status = "Terminating".into();
        }
    }
    summary
}

fn phase(status: &Value) -> String {
    let gated = items(&status["conditions"])
        .iter()
        .any(|condition| condition["type"] == "PodScheduled" && condition["reason"] == "SchedulingGated");
    if gated {
        "SchedulingGated".to_owned()
    } else if text(&status["reason"]).is_empty() {
        text(&status["phase"]).to_owned()
    } else {
        text(&status["reason"]).to_owned()
    }
}

fn condition(status: &Value, kind: &str) -> bool {
    items(&status["conditions"]).iter().any(|condition| condition["type"] == kind && condition["status"] == "True")
}

/// Walks the init containers up to the first that has not done its part; says whether there is one.
fn init_containers(pod: &Value, is_sidecar: impl Fn(&str) -> bool, summary: &mut Summary) -> (bool, Restarts) {
    let mut sidecar_restarts = Restarts::default();
    for (index, container) in items(&pod["status"]["initContainerStatuses"]).iter().enumerate() {
        summary.restarts.add(container);
        let sidecar = is_sidecar(text(&container["name"]));
        if sidecar {
            sidecar_restarts.add(container);
        }
        let (ended, waiting) = (&container["state"]["terminated"], &container["state"]["waiting"]);
        if is_set(ended) && int(&ended["exitCode"]) == 0 {
            continue;
        }
        if sidecar && container["started"] == true {
            if container["ready"] == true {
                summary.ready += 1;
            }
            continue;
        }
        let reason = text(&waiting["reason"]);
        summary.status = if is_set(ended) {
            format!("Init:{}", ending(ended))
        } else if !reason.is_empty() && reason != "PodInitializing" {
            format!("Init:{reason}")
        } else {
            format!("Init:{index}/{}", items(&pod["spec"]["initContainers"]).len())
        };
        return (true, sidecar_restarts);
    }
    (false, sidecar_restarts)
}

fn main_containers(status: &Value, summary: &mut Summary) {
    let mut running = false;
    for container in items(&status["containerStatuses"]).iter().rev() {
        summary.restarts.add(container);
        let state = &container["state"];
        let waiting = text(&state["waiting"]["reason"]);
        if !waiting.is_empty() {
            summary.status = waiting.to_owned();
        } else if is_set(&state["terminated"]) {
            summary.status = ending(&state["terminated"]);
        } else if container["ready"] == true && is_set(&state["running"]) {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.status == "Completed" && running {
        summary.status = if condition(status, "Ready") { "Running" } else { "NotReady" }.to_owned();
    }
}

fn ending(terminated: &Value) -> String {
    let reason = text(&terminated["reason"]);
    if !reason.is_empty() {
        reason.to_owned()
    } else if int(&terminated["signal"]) != 0 {
        format!("Signal:{}", int(&terminated["signal"]))
    } else {
        format!("ExitCode:{}", int(&terminated["exitCode"]))
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates = items(&pod["spec"]["readinessGates"]);
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates.iter().filter(|gate| condition(&pod["status"], text(&gate["conditionType"]))).count();
    format!("{open}/{}", gates.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(pod: &Value) -> (String, String, String) {
        let now = "2026-01-01T00:01:00Z".parse().expect("time");
        let cells = cells(pod, now);
        let cell = |index: usize| text(&cells[index]).to_owned();
        (cell(1), cell(2), cell(3))
    }

    fn case(status: Value) -> Value {
        json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}],
            "initContainers": [{"name": "i"}, {"name": "j"}]}, "status": status})
    }

    #[test]
    fn status_is_computed_as_upstream_does() {
        let running = json!({"ready": true, "state": {"running": {}}});
        let done = json!({"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
        let cases = [
            (json!({"phase": "Pending"}), "0/2", "Pending"),
            (json!({"phase": "Failed", "reason": "Evicted"}), "0/2", "Evicted"),
            (
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
                "0/2",
                "SchedulingGated",
            ),
            (json!({"phase": "Pending", "initContainerStatuses": [{"state": {"running": {}}}]}), "0/2", "Init:0/2"),
            (
                json!({"phase": "Pending", "initContainerStatuses": [done.clone(), {"state": {"waiting": {"reason": "PodInitializing"}}}]}),
                "0/2",
                "Init:1/2",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
                "0/2",
                "Init:CrashLoopBackOff",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}),
                "0/2",
                "Init:ExitCode:3",
            ),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"state": {"terminated": {"exitCode": 1, "signal": 9}}}]}),
                "0/2",
                "Init:Signal:9",
            ),
            (
                json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}),
                "0/2",
                "ContainerCreating",
            ),
            (json!({"phase": "Running", "containerStatuses": [running.clone(), running.clone()]}), "2/2", "Running"),
            (
                json!({"phase": "Running", "containerStatuses": [running.clone(), {"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
                "1/2",
                "CrashLoopBackOff",
            ),
            (
                json!({"phase": "Running", "containerStatuses": [running.clone(), done.clone()], "conditions": [{"type": "Ready", "status": "True"}]}),
                "1/2",
                "Running",
            ),
            (json!({"phase": "Running", "containerStatuses": [running, done.clone()]}), "1/2", "NotReady"),
            (json!({"phase": "Succeeded", "containerStatuses": [done.clone(), done]}), "0/2", "Completed"),
            (
                json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 2}}}]}),
                "0/2",
                "ExitCode:2",
            ),
        ];
        for (status, ready, shown) in cases {
            let (ready_cell, status_cell, _) = show(&case(status.clone()));
            assert_eq!((ready_cell.as_str(), status_cell.as_str()), (ready, shown), "{status}");
        }
    }

    #[test]
    fn a_deleted_pod_terminates_unless_it_has_ended() {
        let mut pod = case(json!({"phase": "Running"}));
        pod["metadata"] = json!({"deletionTimestamp": "2026-01-01T00:00:00Z"});
        assert_eq!(show(&pod).1, "Terminating");
        pod["status"]["phase"] = "Failed".into();
        assert_eq!(show(&pod).1, "Failed");
        pod["status"]["reason"] = "NodeLost".into();
        assert_eq!(show(&pod).1, "Unknown");
        assert_eq!(completion(&pod).expect("ended")["reason"], "Failed");
    }

    #[test]
    fn restarts_tell_when_the_last_one_was() {
        let pod = case(json!({"phase": "Running", "containerStatuses": [
            {"restartCount": 2, "lastState": {"terminated": {"finishedAt": "2026-01-01T00:00:40Z"}}, "state": {"running": {}}},
            {"restartCount": 1, "lastState": {"terminated": {"finishedAt": "2026-01-01T00:00:10Z"}}, "state": {"running": {}}}]}));
        assert_eq!(show(&pod).2, "3 (20s ago)");
        assert_eq!(show(&case(json!({}))).2, "0");
    }

    #[test]
    fn sidecars_count_as_containers() {
        let pod = json!({"spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]},
            "status": {"phase": "Running",
                "initContainerStatuses": [{"name": "s", "started": true, "ready": true, "restartCount": 4, "state": {"running": {}}}],
                "containerStatuses": [{"ready": true, "state": {"running": {}}}]}});
        assert_eq!(show(&pod), ("2/2".into(), "Running".into(), "4".into()));
    }
}
