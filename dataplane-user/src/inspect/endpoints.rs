//! `tidegate endpoint list`.

use std::collections::HashMap;
use std::net::IpAddr;

use serde::Serialize;

use super::{Output, Place, print_json, table};
use crate::cni;
use crate::cni::record::{self, EndpointRecord, Mac};
use crate::kernel::Maps;

/// One pod address, as the kernel knows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EndpointView {
    address: IpAddr,
    /// Empty when there is no record of it.
    pod: String,
    interface: String,
    ifindex: u32,
    mac: Mac,
    identity: u32,
}

/// Prints all local pods.
pub(super) fn list(place: &Place) -> anyhow::Result<()> {
    let views = read(place)?;
    if place.output == Output::Json {
        return print_json(&views);
    }
    let rows: Vec<_> = views
        .iter()
        .map(|view| {
            [
                view.address.to_string(),
                view.pod.clone(),
                view.interface.clone(),
                view.ifindex.to_string(),
                view.mac.to_string(),
                view.identity.to_string(),
            ]
        })
        .collect();
    print!("{}", table::render(["ADDRESS", "POD", "INTERFACE", "INDEX", "MAC", "IDENTITY"], &rows));
    Ok(())
}

fn read(place: &Place) -> anyhow::Result<Vec<EndpointView>> {
    let maps = Maps::open(&place.pin_dir)?;
    let records = record::list(&cni::state_dir(&place.run_dir))?;
    let by_address: HashMap<IpAddr, &EndpointRecord> =
        records.iter().flat_map(|record| record.ips.iter().map(move |ip| (ip.addr(), record))).collect();
    let ipv4 = maps.v4.endpoints.dump()?.into_iter().map(|(address, endpoint)| (IpAddr::from(address), endpoint));
    let ipv6 = maps.v6.endpoints.dump()?.into_iter().map(|(address, endpoint)| (IpAddr::from(address), endpoint));
    let mut views: Vec<_> = ipv4
        .chain(ipv6)
        .map(|(address, endpoint)| {
            let record = by_address.get(&address);
            EndpointView {
                address,
                pod: record.map(|record| format!("{}/{}", record.pod.namespace, record.pod.name)).unwrap_or_default(),
                interface: record.map(|record| record.host_ifname.clone()).unwrap_or_default(),
                ifindex: endpoint.ifindex,
                mac: Mac(endpoint.mac),
                identity: endpoint.identity,
            }
        })
        .collect();
    views.sort_by_key(|view| view.address);
    Ok(views)
}
