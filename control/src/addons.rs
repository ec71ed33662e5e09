//! Objects that a bundled cluster has from the start, created once and then left to their owner.

use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::networking::v1::IngressClass;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;

const RETRY: Duration = Duration::from_millis(100);

/// Creates what is missing, waiting for the API server to come up.
pub(crate) async fn install(client: &Client, patience: Duration) -> anyhow::Result<()> {
    let started = tokio::time::Instant::now();
    let class: IngressClass = serde_json::from_value(json!({
        "metadata": {
            "name": "tidegate",
            "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"},
        },
        "spec": {"controller": "tidegate.dev/ingress"},
    }))?;
    let classes: Api<IngressClass> = Api::all(client.clone());
    loop {
        match classes.create(&PostParams::default(), &class).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => return Ok(()),
            Err(error) if started.elapsed() > patience => return Err(error).context("the API server does not answer"),
            Err(error) => {
                tracing::debug!(%error, "API server not ready");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
