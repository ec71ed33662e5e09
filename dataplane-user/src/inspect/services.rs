//! `tidegate service list` and `show`.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use dataplane_abi::backend::state;
use dataplane_abi::counters::FrontendCounters;
use dataplane_abi::frontend::{Frontend, Interval, flag};
use dataplane_abi::slot::SlotKey;
use dataplane_plan::{Backend, Contents, FrontendKey};
use serde::Serialize;

use super::{Output, Place, print_json, table};
use crate::apply::ServiceMaps;
use crate::kernel::Maps;
use crate::names::{self, FrontendName};

/// One address of a Service, as the kernel serves it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceView {
    /// Empty when the agent's journal does not know the id.
    namespace: String,
    name: String,
    port_name: String,
    address: String,
    id: u32,
    epoch: u32,
    flags: Vec<&'static str>,
    connections: u64,
    rejections: u64,
    /// Who serves clients under traffic policy Cluster.
    cluster: Vec<String>,
    /// Who serves clients under traffic policy Local.
    local: Vec<String>,
    endpoints: Vec<EndpointView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EndpointView {
    address: String,
    id: u32,
    states: Vec<&'static str>,
}

/// Prints all frontends.
pub(super) fn list(place: &Place) -> anyhow::Result<()> {
    let views = read(place)?;
    if place.output == Output::Json {
        return print_json(&views);
    }
    let rows: Vec<_> = views
        .iter()
        .map(|view| {
            [
                view.namespace.clone(),
                view.name.clone(),
                view.port_name.clone(),
                view.address.clone(),
                view.endpoints.len().to_string(),
                view.local.len().to_string(),
                view.connections.to_string(),
                view.rejections.to_string(),
            ]
        })
        .collect();
    let header = ["NAMESPACE", "NAME", "PORT", "ADDRESS", "ENDPOINTS", "LOCAL", "CONNECTIONS", "REJECTIONS"];
    print!("{}", table::render(header, &rows));
    Ok(())
}

/// Prints one Service.
pub(super) fn show(place: &Place, name: &str) -> anyhow::Result<()> {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    let mut views = read(place)?;
    views.retain(|view| view.namespace == namespace && view.name == name);
    if views.is_empty() {
        bail!("the kernel serves no Service {namespace}/{name} on node {}", place.node);
    }
    if place.output == Output::Json {
        return print_json(&views);
    }
    for view in &views {
        println!("{}  {}", view.address, view.port_name);
        println!("  id {}  epoch {}  {}", view.id, view.epoch, view.flags.join(" "));
        println!("  connections {}  rejections {}", view.connections, view.rejections);
        let mark = |set: &[String], address: &String| if set.contains(address) { "yes" } else { "no" }.to_owned();
        let rows: Vec<_> = view
            .endpoints
            .iter()
            .map(|endpoint| {
                [
                    format!("  {}", endpoint.address),
                    endpoint.id.to_string(),
                    mark(&view.cluster, &endpoint.address),
                    mark(&view.local, &endpoint.address),
                    endpoint.states.join(" "),
                ]
            })
            .collect();
        println!("{}", table::render(["  ENDPOINT", "ID", "CLUSTER", "LOCAL", "STATE"], &rows));
    }
    Ok(())
}

fn read(place: &Place) -> anyhow::Result<Vec<ServiceView>> {
    let maps = Maps::open(&place.pin_dir)?;
    let contents = maps.dump()?;
    let counters = maps.frontend_counters.dump()?;
    let (names, _) = names::read(&names::path(&place.run_dir)).context("cannot read the journal of names")?;
    Ok(views(&contents, &counters, &names))
}

fn views(
    contents: &Contents,
    counters: &BTreeMap<u32, FrontendCounters>,
    names: &BTreeMap<u32, FrontendName>,
) -> Vec<ServiceView> {
    let mut views: Vec<_> =
        contents.frontends.iter().map(|(key, frontend)| view(contents, counters, names, key, frontend)).collect();
    views.sort_by(|a, b| {
        (&a.namespace, &a.name, &a.port_name, &a.address).cmp(&(&b.namespace, &b.name, &b.port_name, &b.address))
    });
    views
}

fn view(
    contents: &Contents,
    counters: &BTreeMap<u32, FrontendCounters>,
    names: &BTreeMap<u32, FrontendName>,
    key: &FrontendKey,
    frontend: &Frontend,
) -> ServiceView {
    let text = |read: fn(&FrontendName) -> &str| names.get(&frontend.id).map(read).unwrap_or_default().to_owned();
    let counters = counters.get(&frontend.id).copied().unwrap_or_default();
    let addresses = |set| members(contents, frontend, set).map(|(_, backend)| backend.key.to_string()).collect();
    let mut endpoints: BTreeMap<u32, EndpointView> = BTreeMap::new();
    for (id, backend) in
        members(contents, frontend, frontend.cluster).chain(members(contents, frontend, frontend.local))
    {
        endpoints.insert(id, EndpointView { address: backend.key.to_string(), id, states: states(backend) });
    }
    ServiceView {
        namespace: text(|name| &name.namespace),
        name: text(|name| &name.service),
        port_name: text(|name| &name.port_name),
        address: key.to_string(),
        id: frontend.id,
        epoch: frontend.epoch,
        flags: flags(frontend.flags),
        connections: counters.connections,
        rejections: counters.rejections,
        cluster: addresses(frontend.cluster),
        local: addresses(frontend.local),
        endpoints: endpoints.into_values().collect(),
    }
}

fn members<'a>(
    contents: &'a Contents,
    frontend: &Frontend,
    set: Interval,
) -> impl Iterator<Item = (u32, &'a Backend)> + use<'a> {
    let Frontend { id, epoch, .. } = *frontend;
    (set.start..set.start.saturating_add(set.count)).filter_map(move |index| {
        let backend = *contents.slots.get(&SlotKey { frontend: id, epoch, index })?;
        Some((backend, contents.backends.get(&backend)?))
    })
}

fn flags(bits: u32) -> Vec<&'static str> {
    let names = [
        (flag::CLUSTER_IP, "cluster-ip"),
        (flag::NODE_PORT, "node-port"),
        (flag::EXTERNAL_IP, "external-ip"),
        (flag::LOAD_BALANCER, "load-balancer"),
        (flag::HOST_PORT, "host-port"),
        (flag::INTERNAL_LOCAL, "internal-local"),
        (flag::EXTERNAL_LOCAL, "external-local"),
        (flag::AFFINITY, "affinity"),
        (flag::SOURCE_RANGES, "source-ranges"),
        (flag::MAGLEV, "maglev"),
    ];
    names.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect()
}

fn states(backend: &Backend) -> Vec<&'static str> {
    let names = [(state::ACTIVE, "active"), (state::TERMINATING, "terminating"), (state::LOCAL, "local")];
    names.iter().filter(|(bit, _)| backend.state & bit != 0).map(|(_, name)| *name).collect()
}
