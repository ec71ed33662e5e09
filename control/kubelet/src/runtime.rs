//! What the kubelet needs of a container runtime, as a trait, so that pod logic is tested without one.

use std::time::Duration;

use async_trait::async_trait;
use control_runtime::{
    Container, ContainerSpec, Credentials, ExecOutput, ImageRecord, PullError, Reference, Resources, Runtime,
    RuntimeError, RuntimeEvent, Sandbox, SandboxSpec,
};
use tokio::sync::broadcast;

pub(crate) type Result<T> = std::result::Result<T, RuntimeError>;

#[async_trait]
pub(crate) trait PodRuntime: Send + Sync + 'static {
    async fn images(&self) -> Result<Vec<ImageRecord>>;
    async fn resolve_image(&self, reference: &str) -> Option<ImageRecord>;
    /// Fetches an image from its registry, as far as it is not here.
    async fn pull_image(
        &self,
        image: &Reference,
        credentials: &[Credentials],
    ) -> std::result::Result<ImageRecord, PullError>;
    async fn sandboxes(&self) -> Vec<Sandbox>;
    /// Containers of one sandbox, dead ones too.
    async fn containers(&self, sandbox: &str) -> Vec<Container>;
    async fn run_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox>;
    /// Ends every process of the sandbox; its records stay.
    async fn stop_sandbox(&self, id: &str) -> Result<()>;
    async fn remove_sandbox(&self, id: &str) -> Result<()>;
    async fn create_container(&self, sandbox: &str, spec: ContainerSpec) -> Result<String>;
    async fn start_container(&self, id: &str) -> Result<()>;
    /// SIGTERM, then SIGKILL after the grace; returns when the container has ended.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()>;
    /// Gives a running container other limits.
    async fn limit_container(&self, id: &str, resources: Resources) -> Result<()>;
    async fn remove_container(&self, id: &str) -> Result<()>;
    async fn exec(&self, id: &str, command: Vec<String>, timeout: Duration, output_max: usize) -> Result<ExecOutput>;
    fn events(&self) -> broadcast::Receiver<RuntimeEvent>;
}

#[async_trait]
impl PodRuntime for Runtime {
    async fn images(&self) -> Result<Vec<ImageRecord>> {
        Ok(Runtime::images(self).list().await?)
    }

    async fn resolve_image(&self, reference: &str) -> Option<ImageRecord> {
        Runtime::images(self).resolve(reference).await
    }

    async fn pull_image(
        &self,
        image: &Reference,
        credentials: &[Credentials],
    ) -> std::result::Result<ImageRecord, PullError> {
        Runtime::pull_image(self, image, credentials).await
    }

    async fn sandboxes(&self) -> Vec<Sandbox> {
        self.list_sandboxes().await
    }

    async fn containers(&self, sandbox: &str) -> Vec<Container> {
        self.list_containers(Some(sandbox)).await
    }

    async fn run_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox> {
        Runtime::run_sandbox(self, spec).await
    }

    async fn stop_sandbox(&self, id: &str) -> Result<()> {
        Runtime::stop_sandbox(self, id).await
    }

    async fn remove_sandbox(&self, id: &str) -> Result<()> {
        Runtime::remove_sandbox(self, id).await
    }

    async fn create_container(&self, sandbox: &str, spec: ContainerSpec) -> Result<String> {
        Runtime::create_container(self, sandbox, spec).await
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        Runtime::start_container(self, id).await
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        Runtime::stop_container(self, id, grace).await
    }

    async fn limit_container(&self, id: &str, resources: Resources) -> Result<()> {
        Runtime::limit_container(self, id, resources).await
    }

    async fn remove_container(&self, id: &str) -> Result<()> {
        Runtime::remove_container(self, id).await
    }

    async fn exec(&self, id: &str, command: Vec<String>, timeout: Duration, output_max: usize) -> Result<ExecOutput> {
        self.exec_sync(id, command, timeout, output_max).await
    }

    fn events(&self) -> broadcast::Receiver<RuntimeEvent> {
        Runtime::events(self)
    }
}
