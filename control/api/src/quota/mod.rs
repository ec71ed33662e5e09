//! What objects cost their namespace, and whether its ResourceQuotas can pay: pure, for admission and for the recount alike.

mod amounts;
mod pod;
mod scope;

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Value, json};

pub use amounts::Amounts;
pub use pod::{limits as pod_limits, requests as pod_requests};

use crate::meta;
use crate::quantity::Quantity;
use crate::status::qualified;
use crate::value::{items, text};

const COUNT: &str = "count/";
/// Kinds of the core group whose plural alone counts them, as before there was `count/`.
const COUNTED_BY_NAME: &[&str] =
    &["configmaps", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas", "secrets", "services"];
const NODE_PORTS: &str = "services.nodeports";
const LOAD_BALANCERS: &str = "services.loadbalancers";

/// A resource whose objects are counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    pub group: String,
    pub plural: String,
}

/// The object that a quota is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    pub source: &'a Source,
    pub object: &'a Value,
    /// The object before a change; none at its creation.
    pub old: Option<&'a Value>,
    pub now: Timestamp,
}

impl Source {
    #[must_use]
    pub fn new(group: &str, plural: &str) -> Self {
        Self { group: group.into(), plural: plural.into() }
    }

    /// What an amount is measured by; none for what nobody here measures.
    fn of_amount(name: &str) -> Option<Self> {
        if let Some(counted) = name.strip_prefix(COUNT) {
            let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
            return Some(Self::new(group, plural));
        }
        if name == NODE_PORTS || name == LOAD_BALANCERS {
            return Some(Self::new("", "services"));
        }
        if COUNTED_BY_NAME.contains(&name) {
            return Some(Self::new("", name));
        }
        pod::measures(name).then(|| Self::new("", "pods"))
    }

    fn is_core(&self, plural: &str) -> bool {
        self.group.is_empty() && self.plural == plural
    }

    /// Whether more than the number of objects is measured, so that a recount must see them whole.
    #[must_use]
    pub fn is_weighed(&self) -> bool {
        self.is_core("pods") || self.is_core("services")
    }

    /// Everything that one object of this resource costs.
    #[must_use]
    pub fn usage(&self, object: &Value, now: Timestamp) -> Amounts {
        let mut usage = Amounts::default();
        usage.set(&format!("{COUNT}{}", qualified(&self.group, &self.plural)), Quantity::ONE);
        if self.group.is_empty() && COUNTED_BY_NAME.contains(&self.plural.as_str()) {
            usage.set(&self.plural, Quantity::ONE);
        }
        if self.is_core("pods") {
            pod::weigh(object, now, &mut usage);
        } else if self.is_core("services") {
            weigh_service(object, &mut usage);
        }
        usage
    }
}

/// Node ports are counted before they are given out, by how many there will be.
fn weigh_service(service: &Value, usage: &mut Amounts) {
    let spec = &service["spec"];
    let ports = items(&spec["ports"]);
    let (node_ports, balancers) = match text(&spec["type"]) {
        "NodePort" => (ports.len(), 0),
        "LoadBalancer" if spec["allocateLoadBalancerNodePorts"] == false => {
            (ports.iter().filter(|port| port["nodePort"].as_i64().is_some_and(|number| number != 0)).count(), 1)
        }
        "LoadBalancer" => (ports.len(), 1),
        _ => (0, 0),
    };
    usage.set(NODE_PORTS, Quantity::count(node_ports));
    usage.set(LOAD_BALANCERS, Quantity::count(balancers));
}

/// What has to be listed to recount a quota.
#[must_use]
pub fn sources(quota: &Value) -> BTreeSet<Source> {
    Amounts::read(&quota["spec"]["hard"]).names().filter_map(Source::of_amount).collect()
}

/// What objects of one resource use of a quota; every amount of that resource is there, be it zero.
#[must_use]
pub fn used_by(quota: &Value, source: &Source, objects: &[Value], now: Timestamp) -> Amounts {
    let hard = Amounts::read(&quota["spec"]["hard"]);
    let mine: BTreeSet<&str> = hard.names().filter(|name| Source::of_amount(name).as_ref() == Some(source)).collect();
    let mut used = Amounts::default();
    for name in &mine {
        used.set(name, Quantity::ZERO);
    }
    for object in objects.iter().filter(|object| scope::covers(quota, source.is_core("pods"), object)) {
        used.add(&source.usage(object, now).only(&mine));
    }
    used
}

/// The status of a quota after a recount.
#[must_use]
pub fn status(quota: &Value, used: &Amounts) -> Value {
    json!({"hard": quota["spec"]["hard"], "used": used.to_json()})
}

/// Charges a quota for an object: its new `used`, or none if the object costs it nothing.
///
/// # Errors
/// If the quota does not allow it: the reason as upstream words it.
pub fn charge(quota: &Value, subject: Subject<'_>) -> Result<Option<Value>, String> {
    let Subject { source, object, old, now } = subject;
    let (hard, used) = (Amounts::read(&quota["status"]["hard"]), Amounts::read(&quota["status"]["used"]));
    let measured: BTreeSet<&str> =
        hard.names().filter(|name| Source::of_amount(name).as_ref() == Some(source)).collect();
    if measured.is_empty() || !scope::covers(quota, source.is_core("pods"), object) {
        return Ok(None);
    }
    let name = meta::name(quota);
    if source.is_core("pods")
        && let Some(missing) = pod::missing(object, &measured)
    {
        return Err(format!("failed quota: {name}: must specify {missing}"));
    }
    if let Some(unknown) = measured.iter().copied().find(|amount| used.get(amount).is_none()) {
        return Err(format!("status unknown for quota: {name}, resources: {unknown}"));
    }
    let mut requested = source.usage(object, now).only(&measured);
    if let Some(old) = old.filter(|old| scope::covers(quota, source.is_core("pods"), old)) {
        requested.subtract(&source.usage(old, now).only(&measured));
    }
    requested.drop_zeros();
    if requested.is_empty() {
        return Ok(None);
    }
    let mut total = used.clone();
    total.add(&requested);
    let exceeded: BTreeSet<&str> = requested.names().filter(|name| total.value(name) > hard.value(name)).collect();
    if exceeded.is_empty() {
        return Ok(Some(total.to_json()));
    }
    Err(format!(
        "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
        requested.only(&exceeded),
        used.only(&exceeded),
        hard.only(&exceeded)
    ))
}

#[cfg(test)]
mod tests;
