//! Service addresses and node ports. What is taken is a key in the store, written in the same transaction as the
//! Service, so that nothing has to be rebuilt, repaired or kept in memory.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use control_api::meta;
use control_api::registry::Resource;
use control_api::status::Status;
use control_api::strategy::service::{self, Family};
use control_store::{Expect, Op, Store};
use rand::Rng;
use serde_json::{Value, json};

use crate::state::store_failure;
use crate::write::invalid;

const ADDRESS_PREFIX: &str = "/registry/ranges/serviceips/";
const PORT_PREFIX: &str = "/registry/ranges/servicenodeports/";
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;
/// Ports below are left to those who ask for one by number, as long as others are free.
const NODE_PORTS_STATIC: u16 = 86;
/// Random guesses before the whole range is searched.
const GUESSES: usize = 32;
/// A search of a huge range ends somewhere.
const SEARCH_MAX: u128 = 1 << 17;

#[derive(Debug)]
pub(crate) struct Allocator {
    /// The primary family first.
    ranges: Vec<Cidr>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Cidr {
    text: String,
    base: u128,
    /// Addresses that can be given, counted from `base` + 1.
    count: u128,
    family: Family,
}

/// What a write of a Service takes and gives back.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    taken: Vec<String>,
    freed: Vec<String>,
    owner: Bytes,
}

impl Claims {
    pub(crate) fn ops(&self) -> impl Iterator<Item = Op> {
        let taken = self.taken.iter().map(|key| Op::create(key, self.owner.clone()));
        taken.chain(self.freed.iter().map(|key| Op::delete(key, Expect::Any)))
    }
}

/// Gives back everything that a deleted object had.
pub(crate) fn release(resource: &Resource, object: &Value) -> Vec<Op> {
    if !is_service(resource) {
        return Vec::new();
    }
    keys(object).iter().map(|key| Op::delete(key, Expect::Any)).collect()
}

fn is_service(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "services"
}

impl Allocator {
    pub(crate) fn new(cidrs: &[String]) -> anyhow::Result<Self> {
        let ranges: Vec<Cidr> = cidrs.iter().map(|cidr| Cidr::parse(cidr)).collect::<Result<_, _>>()?;
        match ranges.as_slice() {
            [_] => {}
            [first, second] if first.family != second.family => {}
            _ => bail!("service CIDRs must be one, or one of each family, but are {cidrs:?}"),
        }
        Ok(Self { ranges })
    }

    /// The first address of each range: the API server's own Service.
    pub(crate) fn first_addresses(&self) -> Vec<IpAddr> {
        self.ranges.iter().map(|range| range.address(0)).collect()
    }

    /// Fills in the addresses and ports that a Service needs, and says what that takes.
    ///
    /// # Errors
    /// 422 if what it asks for is taken or out of range, 500 if nothing is left.
    pub(crate) async fn claim(
        &self,
        store: &dyn Store,
        resource: &Resource,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<Claims, Status> {
        if !is_service(resource) {
            return Ok(Claims::default());
        }
        let held = old.map(keys).unwrap_or_default();
        let mut chosen = BTreeSet::new();
        self.set_addresses(store, resource, object, &held, &mut chosen).await?;
        self.set_ports(store, resource, object, &held, &mut chosen).await?;
        let wanted = keys(object);
        let owner = format!("{}/{}", meta::namespace(object), meta::name(object));
        let claims = Claims {
            taken: wanted.difference(&held).cloned().collect(),
            freed: held.difference(&wanted).cloned().collect(),
            owner: owner.into(),
        };
        for key in claims.taken.iter().filter(|key| !chosen.contains(*key)) {
            if store.get(key).await.map_err(store_failure)?.is_some() {
                return Err(taken(resource, object, key));
            }
        }
        Ok(claims)
    }

    async fn set_addresses(
        &self,
        store: &dyn Store,
        resource: &Resource,
        object: &mut Value,
        held: &BTreeSet<String>,
        chosen: &mut BTreeSet<String>,
    ) -> Result<(), Status> {
        let families: Vec<Family> = self.ranges.iter().map(|range| range.family).collect();
        let plan = service::plan_addresses(object, &families)
            .map_err(|causes| Status::invalid("", "Service", meta::name(object), causes))?;
        let mut addresses = Vec::new();
        for (family, asked) in plan.wanted {
            let range = self.ranges.iter().find(|range| range.family == family);
            // The plan names no family that is not offered.
            let Some(range) = range else { continue };
            let address = match asked {
                Some(address) => {
                    self.check_address(resource, object, address, range, held)?;
                    address
                }
                None => {
                    let address = range.choose(store).await?;
                    chosen.insert(format!("{ADDRESS_PREFIX}{address}"));
                    address
                }
            };
            addresses.push(address);
        }
        service::set_addresses(object, &addresses);
        if service::is_headless(object) {
            object["spec"]["clusterIP"] = "None".into();
            object["spec"]["clusterIPs"] = json!(["None"]);
        }
        Ok(())
    }

    fn check_address(
        &self,
        resource: &Resource,
        object: &Value,
        address: IpAddr,
        range: &Cidr,
        held: &BTreeSet<String>,
    ) -> Result<(), Status> {
        if held.contains(&format!("{ADDRESS_PREFIX}{address}")) || range.contains(address) {
            return Ok(());
        }
        let why = format!(
            "Invalid value: [\"{address}\"]: failed to allocate IP {address}: the provided IP ({address}) is not in the \
             valid range. The range of valid IPs is {}",
            range.text
        );
        Err(invalid(resource, object, "FieldValueInvalid", &why, "spec.clusterIPs"))
    }

    async fn set_ports(
        &self,
        store: &dyn Store,
        resource: &Resource,
        object: &mut Value,
        held: &BTreeSet<String>,
        chosen: &mut BTreeSet<String>,
    ) -> Result<(), Status> {
        let needs = service::needs_node_ports(object);
        let count = object["spec"]["ports"].as_array().map_or(0, Vec::len);
        for at in 0..count {
            let port = object["spec"]["ports"][at]["nodePort"].as_u64().unwrap_or(0);
            if port > 0 {
                let is_held = held.contains(&format!("{PORT_PREFIX}{port}"));
                if !is_held && !u16::try_from(port).is_ok_and(|port| NODE_PORTS.contains(&port)) {
                    let why = format!(
                        "Invalid value: {port}: provided port is not in the valid range. The range of valid ports is \
                         {}-{}",
                        NODE_PORTS.start(),
                        NODE_PORTS.end()
                    );
                    let field = format!("spec.ports[{at}].nodePort");
                    return Err(invalid(resource, object, "FieldValueInvalid", &why, &field));
                }
            } else if needs {
                let port = choose_port(store, chosen).await?;
                object["spec"]["ports"][at]["nodePort"] = port.into();
            }
        }
        let health = object["spec"]["healthCheckNodePort"].as_u64().unwrap_or(0);
        if service::needs_health_check_port(object) && health == 0 {
            object["spec"]["healthCheckNodePort"] = choose_port(store, chosen).await?.into();
        }
        Ok(())
    }
}

fn taken(resource: &Resource, object: &Value, key: &str) -> Status {
    if let Some(address) = key.strip_prefix(ADDRESS_PREFIX) {
        let why = format!(
            "Invalid value: [\"{address}\"]: failed to allocate IP {address}: provided IP is already allocated"
        );
        return invalid(resource, object, "FieldValueInvalid", &why, "spec.clusterIPs");
    }
    let port = key.strip_prefix(PORT_PREFIX).unwrap_or_default();
    let ports = object["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let number: Option<u64> = port.parse().ok();
    let at = ports.iter().position(|entry| entry["nodePort"].as_u64() == number).unwrap_or(0);
    let why = format!("Invalid value: {port}: provided port is already allocated");
    invalid(resource, object, "FieldValueInvalid", &why, &format!("spec.ports[{at}].nodePort"))
}

/// The keys of everything a Service has.
fn keys(object: &Value) -> BTreeSet<String> {
    let addresses = service::addresses_of(object).into_iter().map(|address| format!("{ADDRESS_PREFIX}{address}"));
    // A port taken for one protocol is taken for all, as by upstream's allocator.
    let ports = service::node_ports_of(object).into_iter().map(|(_, port)| format!("{PORT_PREFIX}{port}"));
    addresses.chain(ports).collect()
}

async fn choose_port(store: &dyn Store, chosen: &mut BTreeSet<String>) -> Result<u16, Status> {
    let (first, last) = (*NODE_PORTS.start(), *NODE_PORTS.end());
    let guesses: Vec<u16> = (0..GUESSES).map(|_| rand::rng().random_range(first + NODE_PORTS_STATIC..=last)).collect();
    let dynamic_then_static = (first + NODE_PORTS_STATIC..=last).chain(first..first + NODE_PORTS_STATIC);
    for port in guesses.into_iter().chain(dynamic_then_static) {
        let key = format!("{PORT_PREFIX}{port}");
        if !chosen.contains(&key) && store.get(&key).await.map_err(store_failure)?.is_none() {
            chosen.insert(key);
            return Ok(port);
        }
    }
    Err(Status::internal("failed to allocate a nodePort: range is full"))
}

impl Cidr {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let (address, length) = text.split_once('/').with_context(|| format!("{text:?} is not a CIDR"))?;
        let address: IpAddr = address.parse().with_context(|| format!("{text:?} is not a CIDR"))?;
        let length: u32 = length.parse().with_context(|| format!("{text:?} is not a CIDR"))?;
        let family = Family::of(address);
        let bits = if family == Family::V4 { 32 } else { 128 };
        if length == 0 || length > bits - 2 {
            bail!("{text:?} is too large or too small for Services");
        }
        let host_bits = bits - length;
        let base = number(address) >> host_bits << host_bits;
        // IPv4 has a broadcast address at the end.
        let size = 1u128.checked_shl(host_bits).unwrap_or(u128::MAX);
        let count = if family == Family::V6 { size - 1 } else { size - 2 };
        Ok(Self { text: text.to_owned(), base, count, family })
    }

    fn address(&self, at: u128) -> IpAddr {
        let number = self.base + 1 + at;
        if self.family == Family::V6 {
            Ipv6Addr::from(number).into()
        } else {
            Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into()
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        let offset = number(address).wrapping_sub(self.base + 1);
        Family::of(address) == self.family && offset < self.count
    }

    /// The lower part is left to those who ask for an address by name, as long as others are free.
    fn static_count(&self) -> u128 {
        (self.count / 16).clamp(16, 256).min(self.count)
    }

    async fn choose(&self, store: &dyn Store) -> Result<IpAddr, Status> {
        let low = self.static_count();
        let guesses: Vec<u128> = if low < self.count {
            (0..GUESSES).map(|_| rand::rng().random_range(low..self.count)).collect()
        } else {
            Vec::new()
        };
        let search = (low..self.count).take(SEARCH_MAX as usize).chain(0..low);
        for at in guesses.into_iter().chain(search) {
            let address = self.address(at);
            let key = format!("{ADDRESS_PREFIX}{address}");
            if store.get(&key).await.map_err(store_failure)?.is_none() {
                return Ok(address);
            }
        }
        Err(Status::internal(format!("failed to allocate a serviceIP: range {} is full", self.text)))
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

#[cfg(test)]
mod tests {
    use super::{Allocator, Claims};
    use control_api::registry::{Registry, Resource};
    use control_api::status::Status;
    use control_store::{Embedded, Store};
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn services() -> Arc<Resource> {
        Registry::builtin().get("", "v1", "services").unwrap().clone()
    }

    async fn write(store: &Embedded, cidrs: &[&str], mut object: Value, old: Option<&Value>) -> Result<Value, Status> {
        let cidrs: Vec<String> = cidrs.iter().map(|cidr| (*cidr).to_owned()).collect();
        let allocator = Allocator::new(&cidrs).unwrap();
        match old {
            Some(old) => control_api::strategy::prepare_for_update(&services(), "", old, &mut object),
            None => control_api::strategy::service::normalize(None, &mut object),
        }
        let claims: Claims = allocator.claim(store, &services(), &mut object, old).await?;
        store.txn(claims.ops().collect()).await.unwrap();
        Ok(object)
    }

    fn service(spec: Value) -> Value {
        json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec})
    }

    const BOTH: [&str; 2] = ["10.96.0.0/16", "fd00:10:96::/112"];

    async fn used(store: &Embedded) -> Vec<String> {
        let page = store.range(control_store::Range::prefix("/registry/ranges/")).await.unwrap();
        page.entries.iter().filter_map(|entry| entry.key.rsplit('/').next().map(str::to_owned)).collect()
    }

    #[tokio::test]
    async fn a_service_gets_addresses_of_the_families_it_wants() {
        let store = Embedded::in_memory().unwrap();
        let single = write(&store, &BOTH, service(json!({"type": "ClusterIP"})), None).await.unwrap();
        assert_eq!(single["spec"]["ipFamilies"], json!(["IPv4"]));
        assert_eq!(single["spec"]["ipFamilyPolicy"], "SingleStack");
        assert!(single["spec"]["clusterIP"].as_str().unwrap().starts_with("10.96."));
        let spec = json!({"type": "ClusterIP", "ipFamilyPolicy": "PreferDualStack"});
        let dual = write(&store, &BOTH, service(spec.clone()), None).await.unwrap();
        assert_eq!(dual["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
        assert!(dual["spec"]["clusterIPs"][1].as_str().unwrap().starts_with("fd00:10:96::"));
        let alone = write(&store, &["10.96.0.0/16"], service(spec), None).await.unwrap();
        assert_eq!(alone["spec"]["clusterIPs"].as_array().unwrap().len(), 1);
        let headless =
            write(&store, &BOTH, service(json!({"clusterIP": "None", "selector": {"a": "b"}})), None).await.unwrap();
        assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
        assert_eq!(used(&store).await.len(), 4);
    }

    #[tokio::test]
    async fn what_is_taken_or_out_of_range_is_refused() {
        let store = Embedded::in_memory().unwrap();
        let asked = || {
            service(json!({"clusterIP": "10.96.0.10", "type": "NodePort", "ports": [{"port": 1, "nodePort": 30001}]}))
        };
        write(&store, &BOTH, asked(), None).await.unwrap();
        let again = write(&store, &BOTH, asked(), None).await.unwrap_err();
        assert!(again.message.contains("provided IP is already allocated"), "{again}");
        let outside = write(&store, &BOTH, service(json!({"clusterIP": "10.97.0.1"})), None).await.unwrap_err();
        assert_eq!(outside.code, 422);
        let port = service(json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 80}]}));
        assert!(write(&store, &BOTH, port, None).await.unwrap_err().message.contains("30000-32767"));
    }

    #[tokio::test]
    async fn a_full_range_is_used_to_its_last_address() {
        let store = Embedded::in_memory().unwrap();
        for _ in 0..6 {
            write(&store, &["10.0.0.0/29"], service(json!({})), None).await.unwrap();
        }
        let full = write(&store, &["10.0.0.0/29"], service(json!({})), None).await.unwrap_err();
        assert!(full.message.contains("is full"), "{full}");
    }

    #[tokio::test]
    async fn an_update_keeps_what_it_needs_and_gives_back_the_rest() {
        let store = Embedded::in_memory().unwrap();
        let spec = json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP"}]});
        let first = write(&store, &BOTH, service(spec.clone()), None).await.unwrap();
        assert_eq!(used(&store).await.len(), 2);
        let same = write(&store, &BOTH, service(spec), Some(&first)).await.unwrap();
        assert_eq!(same, first);
        let mut plain = first.clone();
        plain["spec"]["type"] = "ClusterIP".into();
        let plain = write(&store, &BOTH, plain, Some(&first)).await.unwrap();
        assert_eq!(plain["spec"]["ports"], json!([{"port": 80, "protocol": "TCP"}]));
        assert_eq!(used(&store).await, [plain["spec"]["clusterIP"].as_str().unwrap()]);
        let mut external = plain.clone();
        external["spec"]["type"] = "ExternalName".into();
        let external = write(&store, &BOTH, external, Some(&plain)).await.unwrap();
        assert!(external["spec"].get("clusterIP").is_none());
        assert!(used(&store).await.is_empty());
    }
}
