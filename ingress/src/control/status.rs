//! The status of Ingresses: what it should show, and writing it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::networking::v1 as networking;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Error};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::metrics::Metrics;
use crate::model::{Address, Ingress, ObjectKey};
use crate::shared::Shared;

const RETRY_DELAY: Duration = Duration::from_secs(2);
const TRIES_MAX: u32 = 10;

/// A status to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StatusWrite {
    pub(crate) ingress: ObjectKey,
    pub(crate) addresses: Vec<Address>,
}

/// The addresses that an Ingress's status should show, if it shows others now.
///
/// Ours shows what we publish. One that was ours shows nothing, if what it shows is still our writing: `written` says
/// that this process wrote it, and the API server's record names `manager`. Any other is none of our business.
pub(crate) fn desired(
    ingress: &Ingress,
    ours: bool,
    written: bool,
    published: &[Address],
    manager: &str,
) -> Option<Vec<Address>> {
    let same = |a: &[Address], b: &[Address]| {
        let sorted = |addresses: &[Address]| {
            let mut sorted = addresses.to_vec();
            sorted.sort();
            sorted
        };
        sorted(a) == sorted(b)
    };
    if published.is_empty() {
        None
    } else if ours {
        (!same(&ingress.status, published)).then(|| published.to_vec())
    } else {
        let recorded = ingress.status_managers.iter().any(|other| **other == *manager);
        let still_ours = (written || recorded) && same(&ingress.status, published);
        still_ours.then(Vec::new)
    }
}

/// Writes statuses one after the other, each until it succeeds, a newer one for the same Ingress comes, or it has
/// failed too often (the next change of the Ingress brings it up again).
pub(crate) async fn write_all(
    client: Client,
    manager: String,
    shared: Arc<Shared>,
    mut writes: mpsc::UnboundedReceiver<StatusWrite>,
) {
    let mut queue: VecDeque<(StatusWrite, u32)> = VecDeque::new();
    loop {
        if queue.is_empty() {
            let Some(write) = writes.recv().await else { return };
            queue.push_back((write, 0));
        }
        while let Ok(newer) = writes.try_recv() {
            queue.retain(|(older, _)| older.ingress != newer.ingress);
            queue.push_back((newer, 0));
        }
        let Some((write, tries)) = queue.pop_front() else { continue };
        let failed = !write_one(&client, &manager, &shared.metrics, &write).await;
        if failed && tries < TRIES_MAX {
            queue.push_back((write, tries + 1));
            tokio::time::sleep(RETRY_DELAY).await;
        }
    }
}

/// Returns whether there is nothing more to do.
async fn write_one(client: &Client, manager: &str, metrics: &Metrics, write: &StatusWrite) -> bool {
    let api: Api<networking::Ingress> = Api::namespaced(client.clone(), &write.ingress.namespace);
    let params = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
    let result = api.patch_status(&write.ingress.name, &params, &Patch::Merge(patch(&write.addresses))).await;
    let (label, done) = match result {
        Ok(_) => ("ok", true),
        Err(Error::Api(status)) if status.code == 404 => ("gone", true),
        Err(error) => {
            tracing::warn!(ingress = %write.ingress, %error, "cannot write status");
            ("error", false)
        }
    };
    metrics.status_writes.with_label_values(&[label]).inc();
    done
}

fn patch(addresses: &[Address]) -> Value {
    let entries: Vec<_> = (addresses.iter())
        .map(|address| match address {
            Address::Ip(ip) => json!({"ip": ip}),
            Address::Hostname(name) => json!({"hostname": name}),
        })
        .collect();
    let entries = if entries.is_empty() { Value::Null } else { Value::Array(entries) };
    json!({"status": {"loadBalancer": {"ingress": entries}}})
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{desired, patch};
    use crate::model::{Address, Ingress, Model};

    #[test]
    fn status_follows_ownership_and_leaves_others_alone() {
        let ip = |text: &str| Address::Ip(text.into());
        let published = [ip("192.0.2.1"), ip("192.0.2.2")];
        let reversed = vec![ip("192.0.2.2"), ip("192.0.2.1")];
        let ingress = |status: Vec<Address>, manager: &str| {
            let mut ingress = Ingress::from_object(Default::default());
            (ingress.status, ingress.status_managers) = (status, vec![manager.into()]);
            ingress
        };
        let other = || vec![ip("198.51.100.1")];
        for (ingress, ours, written, expected) in [
            (ingress(vec![], ""), true, false, Some(published.to_vec())),
            (ingress(other(), ""), true, false, Some(published.to_vec())),
            (ingress(reversed.clone(), ""), true, true, None),
            (ingress(reversed.clone(), ""), false, true, Some(vec![])),
            (ingress(reversed.clone(), "us"), false, false, Some(vec![])),
            (ingress(reversed, "them"), false, false, None),
            (ingress(other(), "us"), false, true, None),
            (ingress(vec![], "us"), false, true, None),
        ] {
            assert_eq!(desired(&ingress, ours, written, &published, "us"), expected, "{ingress:?} {ours} {written}");
            assert_eq!(desired(&ingress, ours, written, &[], "us"), None);
        }
    }

    #[test]
    fn an_empty_status_is_written_as_null_so_that_a_merge_removes_it() {
        assert_eq!(patch(&[]), json!({"status": {"loadBalancer": {"ingress": null}}}));
        let addresses = [Address::Ip("192.0.2.1".into()), Address::Hostname("lb.test".into())];
        let expected = json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "lb.test"}]}}});
        assert_eq!(patch(&addresses), expected);
    }
}
