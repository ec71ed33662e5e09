//! The pod's phase from its containers' statuses.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::spec::pod_ref::{PodRef, is_sidecar};
use crate::spec::restart;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl Phase {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    pub(crate) fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }

    /// The phase that the API server holds, if terminal: it never changes again.
    pub(crate) fn terminal_of(pod: &Pod) -> Option<Self> {
        match pod.status.as_ref()?.phase.as_deref()? {
            "Succeeded" => Some(Self::Succeeded),
            "Failed" => Some(Self::Failed),
            _ => None,
        }
    }
}

/// `ended`: no container of this pod will be started again.
pub(crate) fn phase(pod: &Pod, init: &[ContainerStatus], main: &[ContainerStatus], ended: bool) -> Phase {
    let counts = Counts::of(pod, main);
    let initialisation = Initialisation::of(pod, init);
    if initialisation == Initialisation::Lost || initialisation == Initialisation::Failed && ended {
        return Phase::Failed;
    }
    if ended && counts.running == 0 {
        let all = counts.succeeded == main.len() && initialisation == Initialisation::Done;
        return if all { Phase::Succeeded } else { Phase::Failed };
    }
    // A pod that has run is past initialisation, even if a new sandbox makes it run again.
    let has_run = counts.running + counts.stopped > 0;
    if initialisation != Initialisation::Done && !has_run || counts.waiting > 0 {
        return Phase::Pending;
    }
    if counts.running > 0 {
        return Phase::Running;
    }
    match counts {
        Counts { again: 1.., .. } => Phase::Running,
        Counts { succeeded, stopped, .. } if succeeded == stopped => Phase::Succeeded,
        _ => Phase::Failed,
    }
}

#[derive(Debug, Default)]
struct Counts {
    running: usize,
    /// Ended, or waiting to be restarted.
    stopped: usize,
    succeeded: usize,
    /// Of the stopped ones, those that will run again.
    again: usize,
    /// Never started.
    waiting: usize,
}

impl Counts {
    fn of(pod: &Pod, statuses: &[ContainerStatus]) -> Self {
        let mut counts = Self::default();
        for (container, status) in pod.containers().iter().zip(statuses) {
            let state = status.state.as_ref();
            if state.is_some_and(|state| state.running.is_some()) {
                counts.running += 1;
            } else if let Some(terminated) = state.and_then(|state| state.terminated.as_ref()) {
                counts.stopped += 1;
                counts.succeeded += usize::from(terminated.exit_code == 0);
                counts.again += usize::from(restart::again(pod, container, Some(terminated.exit_code)));
            } else if let Some(last) = status.last_state.as_ref().and_then(|last| last.terminated.as_ref()) {
                counts.stopped += 1;
                counts.again += usize::from(restart::again(pod, container, Some(last.exit_code)));
            } else {
                counts.waiting += 1;
            }
        }
        counts
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Initialisation {
    Done,
    Pending,
    /// It will be tried again.
    Failed,
    Lost,
}

impl Initialisation {
    fn of(pod: &Pod, statuses: &[ContainerStatus]) -> Self {
        let mut result = Self::Done;
        for (container, status) in pod.init_containers().iter().zip(statuses) {
            let state = status.state.as_ref();
            let terminated = state.and_then(|state| state.terminated.as_ref());
            if is_sidecar(container) {
                if !status.started.unwrap_or(false) && terminated.is_none() {
                    result = Self::Pending;
                }
            } else if let Some(terminated) = terminated {
                if terminated.exit_code != 0 {
                    let again = restart::again(pod, container, Some(terminated.exit_code));
                    return if again { Self::Failed } else { Self::Lost };
                }
            } else {
                let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
                let failed =
                    state.is_some_and(|state| state.waiting.is_some()) && last.is_some_and(|last| last.exit_code != 0);
                if failed {
                    return Self::Failed;
                }
                result = Self::Pending;
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn status(state: Value, last: Value) -> ContainerStatus {
        serde_json::from_value(json!({"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "started": state.get("running").is_some(), "state": state, "lastState": last}))
        .unwrap()
    }

    fn run(policy: &str, init: usize, statuses: &[ContainerStatus], ended: bool) -> Phase {
        let names: Vec<Value> = (0..statuses.len() - init).map(|i| json!({"name": format!("c{i}")})).collect();
        let inits: Vec<Value> = (0..init).map(|i| json!({"name": format!("i{i}")})).collect();
        let pod = serde_json::from_value(json!({"spec": {
            "restartPolicy": policy, "containers": names, "initContainers": inits}}))
        .unwrap();
        phase(&pod, &statuses[..init], &statuses[init..], ended)
    }

    #[test]
    fn phases_follow_the_containers() {
        let running = || status(json!({"running": {}}), json!({}));
        let waiting = || status(json!({"waiting": {}}), json!({}));
        let crashing = || status(json!({"waiting": {}}), json!({"terminated": {"exitCode": 1}}));
        let exit = |code: i32| status(json!({"terminated": {"exitCode": code}}), json!({}));
        for (policy, init, statuses, ended, expected) in [
            ("Always", 0, vec![waiting()], false, Phase::Pending),
            ("Always", 0, vec![running(), waiting()], false, Phase::Pending),
            ("Always", 0, vec![running(), running()], false, Phase::Running),
            ("Always", 0, vec![crashing()], false, Phase::Running),
            ("Always", 0, vec![exit(0)], false, Phase::Running),
            ("Always", 0, vec![exit(0)], true, Phase::Succeeded),
            ("Always", 0, vec![exit(137)], true, Phase::Failed),
            ("Always", 0, vec![waiting()], true, Phase::Failed),
            ("Always", 0, vec![running()], true, Phase::Running),
            ("OnFailure", 0, vec![exit(1)], false, Phase::Running),
            ("OnFailure", 0, vec![exit(0), exit(0)], false, Phase::Succeeded),
            ("OnFailure", 0, vec![exit(0), running()], false, Phase::Running),
            ("Never", 0, vec![exit(0), exit(3)], false, Phase::Failed),
            ("Never", 0, vec![exit(0), exit(0)], false, Phase::Succeeded),
            ("Always", 1, vec![running(), waiting()], false, Phase::Pending),
            ("Always", 1, vec![exit(0), waiting()], false, Phase::Pending),
            ("Always", 1, vec![exit(0), running()], false, Phase::Running),
            ("Always", 1, vec![crashing(), waiting()], false, Phase::Pending),
            ("Never", 1, vec![exit(1), waiting()], false, Phase::Failed),
            ("OnFailure", 1, vec![exit(1), waiting()], false, Phase::Pending),
            ("OnFailure", 1, vec![exit(1), waiting()], true, Phase::Failed),
            ("Always", 1, vec![waiting(), crashing()], false, Phase::Running),
        ] {
            assert_eq!(run(policy, init, &statuses, ended), expected, "{policy} {init} {ended} {statuses:?}");
        }
    }
}
