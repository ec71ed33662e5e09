//! What a pod asks for as a whole, and what of that a quota measures.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::Amounts;
use crate::meta;
use crate::quantity::Quantity;
use crate::value::{items, text};

const REQUESTS: &str = "requests.";
const LIMITS: &str = "limits.";
const PODS: &str = "pods";
const COMPUTE: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];
const HUGE_PAGES: &str = "hugepages-";
/// What every container must name once a quota limits it.
const DEMANDED: [&str; 6] = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];

/// Whether pods are what an amount of a quota measures.
pub(super) fn measures(name: &str) -> bool {
    let bare = name.strip_prefix(REQUESTS).unwrap_or(name);
    let is_extended = name.starts_with(REQUESTS) && is_extended(bare);
    name == PODS
        || COMPUTE.contains(&bare)
        || name.strip_prefix(LIMITS).is_some_and(|name| COMPUTE.contains(&name))
        || bare.starts_with(HUGE_PAGES)
        || is_extended
}

/// Devices and the like, whose names carry the domain of who made them up.
fn is_extended(name: &str) -> bool {
    name.split_once('/').is_some_and(|(domain, _)| domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io"))
}

/// What a pod uses while it lives; a finished one only its place in the store.
pub(super) fn weigh(pod: &Value, now: Timestamp, usage: &mut Amounts) {
    if is_over(pod, now) {
        return;
    }
    usage.set(PODS, Quantity::ONE);
    usage.add(&measured(&requests(pod), &limits(pod)));
}

fn is_over(pod: &Value, now: Timestamp) -> bool {
    if matches!(text(&pod["status"]["phase"]), "Failed" | "Succeeded") {
        return true;
    }
    let grace = SignedDuration::from_secs(pod["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(i64::MAX));
    let deleted = meta::deletion_timestamp(pod).and_then(|text| text.parse::<Timestamp>().ok());
    // The node has not told the end in the time it was given: it is gone itself.
    deleted.and_then(|time| time.checked_add(grace).ok()).is_some_and(|end| now > end)
}

/// Requests and limits under the names that quotas have for them.
fn measured(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut found = Amounts::default();
    for name in requests.names() {
        let quantity = requests.value(name);
        if COMPUTE.contains(&name) || name.starts_with(HUGE_PAGES) {
            found.set(name, quantity);
        }
        if COMPUTE.contains(&name) || name.starts_with(HUGE_PAGES) || is_extended(name) {
            found.set(&format!("{REQUESTS}{name}"), quantity);
        }
    }
    for name in COMPUTE {
        if let Some(quantity) = limits.get(name) {
            found.set(&format!("{LIMITS}{name}"), quantity);
        }
    }
    found
}

/// What containers leave unsaid although a quota measures it: `cpu for: a,b; memory for: a`.
pub(super) fn missing(pod: &Value, amounts: &BTreeSet<&str>) -> Option<String> {
    let spec = &pod["spec"];
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in items(&spec["containers"]).iter().chain(items(&spec["initContainers"])) {
        let list = |name: &str| Amounts::read(&container["resources"][name]);
        let said = measured(&list("requests"), &list("limits"));
        for name in DEMANDED.into_iter().filter(|name| amounts.contains(name) && said.get(name).is_none()) {
            missing.entry(name).or_default().insert(text(&container["name"]));
        }
    }
    let texts: Vec<String> = missing
        .into_iter()
        .map(|(name, containers)| format!("{name} for: {}", containers.into_iter().collect::<Vec<_>>().join(",")))
        .collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// What a pod must have at once: its containers together, or what an init container needs if that is more.
#[must_use]
pub fn requests(pod: &Value) -> Amounts {
    let mut total = total(pod, "requests");
    total.add(&Amounts::read(&pod["spec"]["overhead"]));
    total
}

/// What a pod may have at most, of that which is limited.
#[must_use]
pub fn limits(pod: &Value) -> Amounts {
    let mut total = total(pod, "limits");
    let overhead = Amounts::read(&pod["spec"]["overhead"]);
    for name in overhead.names() {
        if let Some(limit) = total.get(name).filter(|limit| !limit.is_zero()) {
            total.set(name, limit.plus(overhead.value(name)));
        }
    }
    total
}

fn total(pod: &Value, list: &str) -> Amounts {
    let spec = &pod["spec"];
    let of = |container: &Value| Amounts::read(&container["resources"][list]);
    let mut running = Amounts::default();
    for container in items(&spec["containers"]) {
        running.add(&of(container));
    }
    let (mut sidecars, mut starting) = (Amounts::default(), Amounts::default());
    for container in items(&spec["initContainers"]) {
        let own = of(container);
        if container["restartPolicy"] == "Always" {
            running.add(&own);
            sidecars.add(&own);
            starting.raise_to(&sidecars);
        } else {
            let mut together = own;
            together.add(&sidecars);
            starting.raise_to(&together);
        }
    }
    running.raise_to(&starting);
    // What is said of the pod as a whole holds.
    let whole = Amounts::read(&spec["resources"][list]);
    for name in whole.names() {
        running.set(name, whole.value(name));
    }
    running
}
