//! Amounts: what a pod asks for and what a node has, as whole numbers (cpu in thousandths, the rest in units).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Amounts by resource name.
pub(crate) type Amounts = BTreeMap<String, i64>;

pub(crate) const CPU: &str = "cpu";
pub(crate) const MEMORY: &str = "memory";
pub(crate) const PODS: &str = "pods";
/// What a container without requests counts as when nodes are scored (upstream's defaults).
const SCORED_CPU_MILLI: i64 = 100;
const SCORED_MEMORY: i64 = 200 << 20;

/// Reads a list of quantities; what cannot be read counts as nothing.
pub(crate) fn amounts(list: Option<&BTreeMap<String, Quantity>>) -> Amounts {
    let read = |(name, quantity): (&String, &Quantity)| {
        let scale = if name == CPU { 1000.0 } else { 1.0 };
        Some((name.clone(), (parse(&quantity.0)? * scale).ceil() as i64))
    };
    list.into_iter().flatten().filter_map(read).collect()
}

/// A quantity as a number: decimal and binary suffixes and exponents.
fn parse(text: &str) -> Option<f64> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    // An exponent's `e` is followed by a digit or sign; the suffix `E` by nothing.
    if text[split..].len() > 1 && text[split..].starts_with(['e', 'E']) && !text.ends_with('i') {
        return text.parse().ok();
    }
    let number: f64 = text[..split].parse().ok()?;
    let factor = match &text[split..] {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024.0_f64.powi(2),
        "Gi" => 1024.0_f64.powi(3),
        "Ti" => 1024.0_f64.powi(4),
        "Pi" => 1024.0_f64.powi(5),
        "Ei" => 1024.0_f64.powi(6),
        _ => return None,
    };
    Some(number * factor)
}

pub(crate) fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *to.entry(name.clone()).or_default() += amount;
    }
}

fn raise(to: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let entry = to.entry(name.clone()).or_default();
        *entry = (*entry).max(*amount);
    }
}

/// What a pod asks for: the larger of its containers (with sidecars) and any one init container, plus overhead, plus
/// one pod.
pub(crate) fn requests(pod: &Pod) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::new() };
    let mut total =
        sum(spec, &|container| amounts(container.resources.as_ref().and_then(|resources| resources.requests.as_ref())));
    add(&mut total, &amounts(spec.overhead.as_ref()));
    total.insert(PODS.into(), 1);
    total
}

/// As [`requests`], but a container that asks for nothing still weighs something.
pub(crate) fn scored_requests(pod: &Pod) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::new() };
    sum(spec, &|container| {
        let mut asked = amounts(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()));
        asked.entry(CPU.into()).or_insert(SCORED_CPU_MILLI);
        asked.entry(MEMORY.into()).or_insert(SCORED_MEMORY);
        asked
    })
}

fn sum(spec: &PodSpec, of: &dyn Fn(&Container) -> Amounts) -> Amounts {
    let mut total = Amounts::new();
    spec.containers.iter().for_each(|container| add(&mut total, &of(container)));
    let (mut sidecars, mut init_peak) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let asked = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut sidecars, &asked);
            raise(&mut init_peak, &sidecars);
        } else {
            let mut with_sidecars = sidecars.clone();
            add(&mut with_sidecars, &asked);
            raise(&mut init_peak, &with_sidecars);
        }
    }
    add(&mut total, &sidecars);
    raise(&mut total, &init_peak);
    total
}

#[cfg(test)]
mod tests {
    use super::{parse, requests};
    use serde_json::json;

    #[test]
    fn quantities_are_read() {
        for (text, number) in [
            ("100m", 0.1),
            ("2", 2.0),
            ("1Gi", 1_073_741_824.0),
            ("1e3", 1000.0),
            ("1E", 1e18),
            ("0.5", 0.5),
            ("2Ei", 2.0 * 1024.0_f64.powi(6)),
        ] {
            assert_eq!(parse(text), Some(number), "{text}");
        }
        assert_eq!(parse("x"), None);
    }

    #[test]
    fn sidecars_add_and_init_containers_peak() {
        let container = |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = container("100m");
        sidecar["restartPolicy"] = json!("Always");
        let pod = json!({"spec": {"containers": [container("200m")], "initContainers": [sidecar, container("500m")]}});
        assert_eq!(requests(&serde_json::from_value(pod).unwrap())["cpu"], 600);
    }
}
