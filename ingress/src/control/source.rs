//! One watch of one kind, as a stream of deltas.
//!
//! The first listing is a streaming list where the API server has it. Where it does not (it refuses the parameter, or
//! ignores it and never says that the listing is complete), the watch falls back to list and watch.

use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::change::{Change, Delta};
use crate::model::Model;
use crate::shared::Shared;

/// A streaming list that was accepted and shows nothing new for so long is none.
const STREAMING_PATIENCE: Duration = Duration::from_secs(5);

/// What to watch and where to send it.
pub(crate) struct Source<M: Model> {
    pub(crate) api: Api<M::Object>,
    pub(crate) kind: &'static str,
    pub(crate) field_selector: Option<&'static str>,
    pub(crate) change: fn(Delta<M>) -> Change,
    pub(crate) changes: mpsc::Sender<Change>,
    pub(crate) shared: Arc<Shared>,
}

enum End {
    /// The receiver is gone.
    Closed,
    /// The API server has no streaming lists.
    NoStreaming,
}

impl<M> Source<M>
where
    M: Model,
    M::Object: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// Watches for good.
    pub(crate) async fn run(self) {
        let mut config = watcher::Config::default();
        if let Some(selector) = self.field_selector {
            config = config.fields(selector);
        }
        if let End::NoStreaming = self.follow(config.clone().streaming_lists(), true).await {
            tracing::info!(kind = self.kind, "no streaming lists on this API server, listing instead");
            self.follow(config, false).await;
        }
    }

    async fn follow(&self, config: watcher::Config, streaming: bool) -> End {
        let mut events = pin!(watcher(self.api.clone(), config).default_backoff());
        let mut unproven = streaming;
        let mut started = false;
        loop {
            let next = if unproven && started {
                match timeout(STREAMING_PATIENCE, events.next()).await {
                    Ok(next) => next,
                    Err(_) => return End::NoStreaming,
                }
            } else {
                events.next().await
            };
            let event = match next {
                None => return End::Closed,
                Some(Ok(event)) => event,
                Some(Err(error)) => {
                    if unproven && is_refusal(&error) {
                        return End::NoStreaming;
                    }
                    started = false;
                    self.shared.metrics.watch_errors.with_label_values(&[self.kind]).inc();
                    tracing::warn!(kind = self.kind, error = %chain(&error), "watch failed");
                    continue;
                }
            };
            started = true;
            unproven &= !matches!(event, watcher::Event::InitDone);
            if self.changes.send((self.change)(delta(event))).await.is_err() {
                return End::Closed;
            }
        }
    }
}

fn delta<M: Model>(event: watcher::Event<M::Object>) -> Delta<M> {
    match event {
        watcher::Event::Init => Delta::Restarted,
        watcher::Event::InitApply(object) => Delta::Listed(M::from_object(object)),
        watcher::Event::InitDone => Delta::Synced,
        watcher::Event::Apply(object) => Delta::Applied(M::from_object(object)),
        watcher::Event::Delete(object) => Delta::Deleted(M::key(&object)),
    }
}

/// Whether the API server understood the request and does not want it.
fn is_refusal(error: &watcher::Error) -> bool {
    let code = match error {
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code,
        watcher::Error::WatchError(status) => status.code,
        _ => return false,
    };
    matches!(code, 400 | 404 | 405 | 406 | 415 | 422 | 501)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
