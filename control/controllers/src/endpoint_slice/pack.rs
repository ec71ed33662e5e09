//! Spreads endpoints over slices so that as few slices as possible change.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;

use crate::meta;
use crate::trigger_time;

pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) create: Vec<EndpointSlice>,
    pub(crate) update: Vec<EndpointSlice>,
    pub(crate) delete: Vec<String>,
}

/// Slices are separate for each address family and each set of resolved ports.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Group {
    pub(crate) family: String,
    pub(crate) ports: Vec<Port>,
}

/// A resolved port: name, protocol, number, application protocol.
pub(crate) type Port = (String, String, Option<i32>, Option<String>);

/// The endpoints of each group by their address; a group without any has one empty slice.
pub(crate) type Wanted = BTreeMap<Group, BTreeMap<String, Endpoint>>;

/// What makes slices with this metadata, and at most `limit` endpoints each, of those that exist.
pub(crate) fn pack(metadata: &ObjectMeta, wanted: Wanted, existing: &[Arc<EndpointSlice>], limit: usize) -> Changes {
    let mut changes = Changes::default();
    let mut unused: Vec<&Arc<EndpointSlice>> = existing.iter().filter(|slice| !meta::is_deleting(&***slice)).collect();
    for (group, endpoints) in wanted {
        let (same, rest): (Vec<_>, Vec<_>) = unused.into_iter().partition(|slice| group_of(slice) == group);
        unused = rest;
        fill(metadata, &group, endpoints, &same, limit, &mut changes);
    }
    changes.delete.extend(unused.iter().map(|slice| slice.name_any()));
    changes
}

/// Keeps endpoints in the slices that hold them, puts new ones where there is room, drops slices that end up empty.
fn fill(
    metadata: &ObjectMeta,
    group: &Group,
    mut endpoints: BTreeMap<String, Endpoint>,
    same: &[&Arc<EndpointSlice>],
    limit: usize,
    changes: &mut Changes,
) {
    let is_placeholder = endpoints.is_empty();
    let mut kept: Vec<(&EndpointSlice, Vec<Endpoint>)> = Vec::new();
    for slice in same {
        let held = slice.endpoints.iter().flatten();
        let kept_here: Vec<Endpoint> = held.filter_map(|old| endpoints.remove(&old.addresses.concat())).collect();
        kept.push((slice, kept_here));
    }
    let mut fresh = endpoints.into_values();
    for (_, list) in &mut kept {
        let room = limit.saturating_sub(list.len());
        list.extend(fresh.by_ref().take(room));
    }
    let mut has_one = false;
    for (slice, list) in kept {
        if list.is_empty() && (!is_placeholder || has_one) {
            changes.delete.push(slice.name_any());
            continue;
        }
        has_one = true;
        let new = slice_of(metadata, group, list);
        if slice.endpoints.clone().unwrap_or_default() != new.endpoints.clone().unwrap_or_default()
            || !says_the_same(&slice.metadata, metadata)
        {
            let mut updated = slice.clone();
            updated.endpoints = new.endpoints;
            updated.metadata.labels = new.metadata.labels;
            if metadata.annotations.is_some() {
                updated.metadata.annotations = new.metadata.annotations;
            }
            changes.update.push(updated);
        }
    }
    let rest: Vec<Endpoint> = fresh.collect();
    changes.create.extend(rest.chunks(limit).map(|chunk| slice_of(metadata, group, chunk.to_vec())));
    if is_placeholder && !has_one {
        changes.create.push(slice_of(metadata, group, vec![]));
    }
}

/// Labels, and annotations where they are wanted at all; the time of the last change says nothing by itself.
fn says_the_same(old: &ObjectMeta, new: &ObjectMeta) -> bool {
    let notes = |meta: &ObjectMeta| {
        let mut notes = meta.annotations.clone().unwrap_or_default();
        notes.remove(trigger_time::ANNOTATION);
        notes
    };
    old.labels == new.labels && (new.annotations.is_none() || notes(old) == notes(new))
}

fn slice_of(metadata: &ObjectMeta, group: &Group, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let ports = group.ports.iter().map(|(name, protocol, port, application)| EndpointPort {
        name: Some(name.clone()),
        protocol: Some(protocol.clone()),
        port: *port,
        app_protocol: application.clone(),
    });
    EndpointSlice {
        metadata: metadata.clone(),
        address_type: group.family.clone(),
        endpoints: Some(endpoints),
        ports: Some(ports.collect()),
    }
}

fn group_of(slice: &EndpointSlice) -> Group {
    let ports = slice.ports.iter().flatten().map(|port| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
        (port.name.clone().unwrap_or_default(), protocol, port.port, port.app_protocol.clone())
    });
    Group { family: slice.address_type.clone(), ports: ports.collect() }
}
