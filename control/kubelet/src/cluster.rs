//! What pod workers ask of the API server, as a trait, and its implementation with the node's own client.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Secret, Service, ServiceAccount};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::reflector::Store;
use kube::{Api, Client};
use serde_json::Value;

#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ClusterError {
    /// The object is not there (any more), or is another of the same name.
    #[error("{0}")]
    Gone(String),
    #[error("{0}")]
    Failed(String),
}

pub(crate) type Result<T> = std::result::Result<T, ClusterError>;

#[async_trait]
pub(crate) trait Cluster: Send + Sync + 'static {
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<ConfigMap>>;
    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>>;
    /// Every Service of the cluster, once they have been read at least once.
    async fn services(&self) -> Result<Vec<Arc<Service>>>;
    async fn token(&self, namespace: &str, service_account: &str, spec: TokenRequestSpec) -> Result<TokenRequest>;
    /// Patches a pod's status; the patch names the uid, so that a namesake is left alone.
    async fn patch_pod_status(&self, namespace: &str, name: &str, patch: &Value) -> Result<Pod>;
    /// Removes a pod whose containers have ended.
    async fn delete_pod(&self, namespace: &str, name: &str, uid: &str) -> Result<()>;
    async fn create_event(&self, event: &Event) -> Result<()>;
    async fn patch_event(&self, namespace: &str, name: &str, patch: &Value) -> Result<()>;
}

/// The API server behind a kubeconfig.
pub(crate) struct ApiCluster {
    pub client: Client,
    pub services: Store<Service>,
}

impl ApiCluster {
    fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), namespace)
    }
}

#[async_trait]
impl Cluster for ApiCluster {
    async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<ConfigMap>> {
        Ok(self.api::<ConfigMap>(namespace).get_opt(name).await?)
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>> {
        Ok(self.api::<Secret>(namespace).get_opt(name).await?)
    }

    async fn services(&self) -> Result<Vec<Arc<Service>>> {
        let never = |_| ClusterError::Failed("services have not been read: their watch has ended".into());
        self.services.wait_until_ready().await.map_err(never)?;
        Ok(self.services.state())
    }

    async fn token(&self, namespace: &str, service_account: &str, spec: TokenRequestSpec) -> Result<TokenRequest> {
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let accounts = self.api::<ServiceAccount>(namespace);
        Ok(accounts.create_subresource("token", service_account, &PostParams::default(), &request).await?)
    }

    async fn patch_pod_status(&self, namespace: &str, name: &str, patch: &Value) -> Result<Pod> {
        let pods = self.api::<Pod>(namespace);
        Ok(pods.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await?)
    }

    async fn delete_pod(&self, namespace: &str, name: &str, uid: &str) -> Result<()> {
        let preconditions = Preconditions { uid: Some(uid.into()), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default().grace_period(0) };
        self.api::<Pod>(namespace).delete(name, &params).await?;
        Ok(())
    }

    async fn create_event(&self, event: &Event) -> Result<()> {
        let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
        self.api::<Event>(namespace).create(&PostParams::default(), event).await?;
        Ok(())
    }

    async fn patch_event(&self, namespace: &str, name: &str, patch: &Value) -> Result<()> {
        self.api::<Event>(namespace).patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }
}

impl From<kube::Error> for ClusterError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.is_not_found() || status.is_conflict() => Self::Gone(status.message),
            kube::Error::Api(status) => Self::Failed(status.message),
            other => Self::Failed(chain(&other)),
        }
    }
}

/// The whole chain of an error in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
