//! Objects that a bundled cluster has from the start: created where they are missing, then left to their owner; only what
//! says where a part of this node listens is brought up to date.

use std::fmt::Debug;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::IngressClass;
use kube::api::PostParams;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::layout::{DNS_PORT, DNS_SERVICE_IP};

const RETRY: Duration = Duration::from_millis(100);
const DNS_SERVICE: &str = "kube-dns";
const DNS_NAMESPACE: &str = "kube-system";

/// Creates what is missing, waiting for the API server to come up.
pub(crate) async fn install(client: &Client, node_ips: &[IpAddr], patience: Duration) -> anyhow::Result<()> {
    let started = tokio::time::Instant::now();
    loop {
        match install_once(client, node_ips).await {
            Ok(()) => return Ok(()),
            Err(error) if is_final(&error) || started.elapsed() > patience => {
                return Err(error).context("the cluster's own objects cannot be installed");
            }
            Err(error) => {
                tracing::debug!(error = format!("{error:#}"), "API server not ready");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn install_once(client: &Client, node_ips: &[IpAddr]) -> anyhow::Result<()> {
    create(&Api::all(client.clone()), &ingress_class()?).await?;
    create(&Api::namespaced(client.clone(), DNS_NAMESPACE), &dns_service()?).await?;

    let slices = Api::<EndpointSlice>::namespaced(client.clone(), DNS_NAMESPACE);
    let mut wanted = dns_slice(node_ips)?;
    if create(&slices, &wanted).await? {
        return Ok(());
    }
    let found = slices.get(DNS_SERVICE).await?;
    if (&found.endpoints, &found.ports) != (&wanted.endpoints, &wanted.ports) {
        wanted.metadata.resource_version = found.resource_version();
        slices.replace(DNS_SERVICE, &PostParams::default(), &wanted).await?;
    }
    Ok(())
}

/// An API server that is still starting refuses connections or answers 403 or 503; one that calls an object invalid will
/// always do so.
fn is_final(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 422)
}

/// Whether the object is new; one that is there already is no error. It is looked for first: a Service's fixed address is
/// found to be taken before its name is.
async fn create<K>(api: &Api<K>, object: &K) -> anyhow::Result<bool>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
{
    if api.get_opt(&object.name_any()).await?.is_some() {
        return Ok(false);
    }
    match api.create(&PostParams::default(), object).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn ingress_class() -> serde_json::Result<IngressClass> {
    serde_json::from_value(json!({
        "metadata": {
            "name": "tidegate",
            "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"},
        },
        "spec": {"controller": "tidegate.dev/ingress"},
    }))
}

/// The name and labels by which tools look for the cluster's DNS.
fn dns_service() -> serde_json::Result<Service> {
    serde_json::from_value(json!({
        "metadata": {
            "name": DNS_SERVICE,
            "labels": {
                "k8s-app": DNS_SERVICE,
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "Tidegate-DNS",
            },
        },
        "spec": {
            "clusterIP": DNS_SERVICE_IP,
            "ports": [
                {"name": "dns", "port": DNS_PORT, "protocol": "UDP"},
                {"name": "dns-tcp", "port": DNS_PORT, "protocol": "TCP"},
            ],
        },
    }))
}

/// No pod serves the names, so the slice is ours to write: the node's own address, where the DNS part listens.
fn dns_slice(node_ips: &[IpAddr]) -> serde_json::Result<EndpointSlice> {
    let own = node_ips.iter().filter(|ip| ip.is_ipv4());
    let conditions = json!({"ready": true, "serving": true, "terminating": false});
    let endpoints: Vec<_> = own.map(|ip| json!({"addresses": [ip], "conditions": conditions})).collect();
    serde_json::from_value(json!({
        "metadata": {
            "name": DNS_SERVICE,
            "labels": {
                "kubernetes.io/service-name": DNS_SERVICE,
                "endpointslice.kubernetes.io/managed-by": "tidegate-up",
            },
        },
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [
            {"name": "dns", "port": DNS_PORT, "protocol": "UDP"},
            {"name": "dns-tcp", "port": DNS_PORT, "protocol": "TCP"},
        ],
    }))
}
