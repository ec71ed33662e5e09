//! Requests and limits: QoS class, cgroup path and cgroup values.

use std::collections::BTreeMap;

use control_runtime::Resources;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::pod_ref::PodRef;
use super::quantity::{milli, units};

const CPU_PERIOD_US: u64 = 100_000;
const CPU_QUOTA_MIN_US: i64 = 1_000;
const CPU_SHARES_MIN: u64 = 2;
const CPU_SHARES_MAX: u64 = 262_144;
const CPU_SHARES_PER_CORE: u64 = 1_024;
const OOM_ADJ_GUARANTEED: i32 = -997;
const OOM_ADJ_BEST_EFFORT: i32 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// Guaranteed if every container limits CPU and memory and requests just that; BestEffort if none asks for anything.
pub(crate) fn qos(pod: &Pod) -> Qos {
    let containers = || pod.containers().iter().chain(pod.init_containers());
    let asks = |container: &Container| {
        ["cpu", "memory"]
            .iter()
            .any(|name| positive(container, name, Side::Request) || positive(container, name, Side::Limit))
    };
    if !containers().any(asks) {
        return Qos::BestEffort;
    }
    let exact = |container: &Container| {
        ["cpu", "memory"].iter().all(|name| {
            let limit = get(container, name, Side::Limit).and_then(milli).filter(|value| *value > 0);
            limit.is_some() && get(container, name, Side::Request).and_then(milli).or(limit) == limit
        })
    };
    if containers().all(exact) { Qos::Guaranteed } else { Qos::Burstable }
}

/// The pod's cgroup below the node's `kubepods`.
pub(crate) fn cgroup(pod: &Pod) -> String {
    let uid = pod.uid();
    match qos(pod) {
        Qos::Guaranteed => format!("pod{uid}"),
        Qos::Burstable => format!("burstable/pod{uid}"),
        Qos::BestEffort => format!("besteffort/pod{uid}"),
    }
}

/// How a running container comes to other resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Live,
    /// Its resize policy wants it started anew.
    Restart,
}

/// What is to be done for a container that runs with `applied`.
pub(crate) fn change(applied: &ResourceRequirements, wanted: &Container) -> Option<Change> {
    let before = Container { resources: Some(applied.clone()), ..Container::default() };
    let differs = |name: &str| {
        [Side::Request, Side::Limit]
            .into_iter()
            .any(|side| get(&before, name, side).and_then(milli) != get(wanted, name, side).and_then(milli))
    };
    let changed: Vec<&str> = ["cpu", "memory"].into_iter().filter(|name| differs(name)).collect();
    let restarts = |name: &str| {
        let mut policies = wanted.resize_policy.iter().flatten();
        policies.any(|policy| policy.resource_name == name && policy.restart_policy == "RestartContainer")
    };
    match changed.as_slice() {
        [] => None,
        changed if changed.iter().any(|name| restarts(name)) => Some(Change::Restart),
        _ => Some(Change::Live),
    }
}

/// The cgroup values of one container, on a machine with this much memory.
pub(crate) fn cgroup_values(pod: &Pod, container: &Container, machine_memory: u64) -> Resources {
    let cpu_limit = get(container, "cpu", Side::Limit).and_then(milli).filter(|value| *value > 0);
    let cpu_request = get(container, "cpu", Side::Request).and_then(milli).or(cpu_limit).unwrap_or(0);
    let memory_limit = get(container, "memory", Side::Limit).and_then(units).filter(|value| *value > 0);
    let memory_request = get(container, "memory", Side::Request).and_then(units).or(memory_limit).unwrap_or(0);
    Resources {
        cpu_shares: Some(shares(u64::try_from(cpu_request).unwrap_or(0))),
        cpu_quota_us: cpu_limit
            .map(|milli| (milli * i64::try_from(CPU_PERIOD_US).unwrap_or(i64::MAX) / 1_000).max(CPU_QUOTA_MIN_US)),
        cpu_period_us: cpu_limit.map(|_| CPU_PERIOD_US),
        memory_limit_bytes: memory_limit,
        pids_limit: None,
        oom_score_adj: Some(oom_score_adj(qos(pod), memory_request, machine_memory)),
    }
}

fn shares(cpu_milli: u64) -> u64 {
    (cpu_milli * CPU_SHARES_PER_CORE / 1_000).clamp(CPU_SHARES_MIN, CPU_SHARES_MAX)
}

/// The more of the machine a burstable container requested, the later it is chosen when memory runs out.
fn oom_score_adj(qos: Qos, memory_request: i64, machine_memory: u64) -> i32 {
    match qos {
        Qos::Guaranteed => OOM_ADJ_GUARANTEED,
        Qos::BestEffort => OOM_ADJ_BEST_EFFORT,
        Qos::Burstable => {
            let share = 1_000 * i128::from(memory_request) / i128::from(machine_memory.max(1));
            let floor = i128::from(1_000 + OOM_ADJ_GUARANTEED);
            i32::try_from((1_000 - share).clamp(floor, i128::from(OOM_ADJ_BEST_EFFORT - 1)))
                .unwrap_or(OOM_ADJ_BEST_EFFORT)
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    Request,
    Limit,
}

/// A container's request or limit of a resource.
pub(crate) fn get<'a>(container: &'a Container, resource: &str, side: Side) -> Option<&'a Quantity> {
    let resources = container.resources.as_ref()?;
    let list: &BTreeMap<String, Quantity> = match side {
        Side::Request => resources.requests.as_ref()?,
        Side::Limit => resources.limits.as_ref()?,
    };
    list.get(resource)
}

fn positive(container: &Container, resource: &str, side: Side) -> bool {
    get(container, resource, side).and_then(milli).is_some_and(|value| value > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(resources: &[Value]) -> Pod {
        let containers: Vec<Value> = resources
            .iter()
            .enumerate()
            .map(|(index, resources)| json!({"name": format!("c{index}"), "resources": resources}))
            .collect();
        serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": {"containers": containers}})).unwrap()
    }

    #[test]
    fn a_resize_restarts_only_where_its_policy_says_so() {
        let of = |limits: Value, policy: Value| -> Container {
            serde_json::from_value(json!({"name": "c", "resources": {"limits": limits}, "resizePolicy": policy}))
                .unwrap()
        };
        let before = of(json!({"cpu": "1", "memory": "64Mi"}), json!([])).resources.unwrap();
        let policy = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
        for (limits, expected) in [
            (json!({"cpu": "1000m", "memory": "65536Ki"}), None),
            (json!({"cpu": "2", "memory": "64Mi"}), Some(Change::Live)),
            (json!({"cpu": "2", "memory": "128Mi"}), Some(Change::Restart)),
        ] {
            assert_eq!(change(&before, &of(limits.clone(), policy.clone())), expected, "{limits}");
        }
    }

    #[test]
    fn qos_follows_requests_and_limits() {
        let full = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}});
        let limits_only = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        let some = json!({"requests": {"cpu": "100m"}});
        let less = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}});
        for (resources, class, path) in [
            (vec![json!({})], Qos::BestEffort, "besteffort/podu"),
            (vec![full.clone()], Qos::Guaranteed, "podu"),
            (vec![limits_only], Qos::Guaranteed, "podu"),
            (vec![full.clone(), some.clone()], Qos::Burstable, "burstable/podu"),
            (vec![json!({}), some], Qos::Burstable, "burstable/podu"),
            (vec![less], Qos::Burstable, "burstable/podu"),
            (vec![json!({"requests": {"cpu": "0"}})], Qos::BestEffort, "besteffort/podu"),
        ] {
            let pod = pod(&resources);
            assert_eq!((qos(&pod), cgroup(&pod).as_str()), (class, path), "{resources:?}");
        }
    }

    #[test]
    fn cgroup_values_follow_requests_and_limits() {
        let pod =
            pod(&[json!({"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"cpu": "5m", "memory": "2Gi"}})]);
        let values = cgroup_values(&pod, &pod.containers()[0], 10 << 30);
        assert_eq!(values.cpu_shares, Some(256));
        assert_eq!(values.cpu_quota_us, Some(1_000), "the kernel takes no quota below one millisecond");
        assert_eq!(values.memory_limit_bytes, Some(2 << 30));
        assert_eq!(values.oom_score_adj, Some(900));
    }

    #[test]
    fn a_container_without_requests_gets_the_smallest_share() {
        let pod = pod(&[json!({})]);
        let values = cgroup_values(&pod, &pod.containers()[0], 1 << 30);
        assert_eq!((values.cpu_shares, values.cpu_quota_us, values.oom_score_adj), (Some(2), None, Some(1_000)));
    }
}
