//! The node's lease: renewed every ten seconds, so that its silence is noticed within forty.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::sleep;

const NAMESPACE: &str = "kube-node-lease";
const DURATION_S: i32 = 40;
const RENEW: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(1);

/// Renews for ever.
pub(crate) async fn run(client: Client, node: Node) {
    let leases: Api<Lease> = Api::namespaced(client, NAMESPACE);
    let mut held = None;
    loop {
        match renew(&leases, &node, held.take()).await {
            Ok(lease) => {
                held = Some(lease);
                sleep(RENEW).await;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot renew the node's lease");
                sleep(RETRY).await;
            }
        }
    }
}

/// Writes over what we hold; without it (at first, or after a conflict) what is there is read anew.
async fn renew(leases: &Api<Lease>, node: &Node, held: Option<Lease>) -> kube::Result<Lease> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let found = match held {
        Some(held) => Some(held),
        None => leases.get_opt(name).await?,
    };
    let now = crate::clock::now();
    match found {
        Some(found) => leases.replace(name, &PostParams::default(), &renewed(found, name, now)).await,
        None => leases.create(&PostParams::default(), &renewed(fresh(node), name, now)).await,
    }
}

fn fresh(node: &Node) -> Lease {
    let owner = OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    };
    Lease {
        metadata: ObjectMeta {
            name: node.metadata.name.clone(),
            namespace: Some(NAMESPACE.into()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: None,
    }
}

fn renewed(mut lease: Lease, holder: &str, now: Timestamp) -> Lease {
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    spec.holder_identity = Some(holder.into());
    spec.lease_duration_seconds = Some(DURATION_S);
    spec.renew_time = Some(MicroTime(now));
    lease
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_belongs_to_its_node() {
        let node: Node = serde_json::from_value(serde_json::json!({"metadata": {"name": "n1", "uid": "u"}})).unwrap();
        let lease = renewed(fresh(&node), "n1", Timestamp::UNIX_EPOCH);
        let spec = lease.spec.unwrap();
        assert_eq!((spec.holder_identity.as_deref(), spec.lease_duration_seconds), (Some("n1"), Some(40)));
        assert_eq!(lease.metadata.owner_references.unwrap()[0].uid, "u");
    }
}
