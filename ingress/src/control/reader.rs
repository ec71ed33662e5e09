//! Reads of single Secrets.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::sync::{Semaphore, mpsc};

use super::change::Change;
use crate::model::{Model, ObjectKey, TlsSecret};

const AT_ONCE_MAX: usize = 8;
const RETRY_DELAY: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(crate) struct Reader {
    client: Client,
    changes: mpsc::Sender<Change>,
    permits: Arc<Semaphore>,
}

impl Reader {
    pub(crate) fn new(client: Client, changes: mpsc::Sender<Change>) -> Self {
        Self { client, changes, permits: Arc::new(Semaphore::new(AT_ONCE_MAX)) }
    }

    /// Reads a Secret in the background, until the API server gives an answer.
    pub(crate) fn read(&self, key: ObjectKey) {
        let reader = self.clone();
        tokio::spawn(async move {
            let Ok(_permit) = reader.permits.acquire().await else { return };
            let api: Api<Secret> = Api::namespaced(reader.client.clone(), &key.namespace);
            let secret = loop {
                match api.get_opt(&key.name).await {
                    Ok(secret) => break secret.map(TlsSecret::from_object),
                    Err(error) => tracing::warn!(secret = %key, %error, "cannot read secret"),
                }
                tokio::time::sleep(RETRY_DELAY).await;
            };
            // Nobody listens any more only when the gateway ends.
            let _ = reader.changes.send(Change::SecretRead(key, secret)).await;
        });
    }
}
