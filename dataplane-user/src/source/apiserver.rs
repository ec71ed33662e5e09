//! Watches a Kubernetes API server, any of them.
//!
//! Streaming lists are asked for first; a server that refuses them, or never ends the first list, is listed the old
//! way. Errors are retried for ever, with growing pauses: what the kernel holds goes on serving meanwhile.

use std::fmt::Debug;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, Error, Event, watcher};
use kube::{Api, Client, Config, Resource};
use serde::de::DeserializeOwned;

use super::{Change, Delta, convert};

/// The pause after a first error; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A streaming list that says nothing for this long is taken for one that never ends.
const STREAMING_SILENCE_MAX: Duration = Duration::from_secs(5);

/// Takes every change; answers whether anyone still listens.
pub type Sink = Arc<dyn Fn(Change) -> bool + Send + Sync>;

/// A client from a kubeconfig file or, without one, from the pod's service account.
///
/// # Errors
/// If the file or the service account cannot be read.
pub async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    // Another part of the process may have chosen it already; that one is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut config = match kubeconfig {
        Some(path) => {
            Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await?
        }
        None => Config::incluster()?,
    };
    config.connect_timeout = Some(Duration::from_secs(5));
    Ok(Client::try_from(config)?)
}

/// Watches Services, EndpointSlices and this node until the sink is closed.
pub async fn watch(client: Client, node: String, sink: Sink) {
    let here = node.clone();
    let services = follow(
        Api::<Service>::all(client.clone()),
        watcher::Config::default(),
        convert::service_name,
        convert::service,
        |delta| sink(Change::Services(delta)),
    );
    let slices = follow(
        Api::<EndpointSlice>::all(client.clone()),
        watcher::Config::default(),
        convert::slice_name,
        move |slice| convert::slice(slice, &here),
        |delta| sink(Change::Slices(delta)),
    );
    let name = Arc::<str>::from(node.as_str());
    let nodes = follow(
        Api::<Node>::all(client),
        watcher::Config::default().fields(&format!("metadata.name={node}")),
        |node| convert::node(node).map(|(name, _)| name),
        // A server that ignores the selector sends every node.
        move |node| convert::node(node).filter(|(found, _)| *found == name).map(|(_, spec)| spec),
        |delta| sink(Change::Node(delta)),
    );
    tokio::join!(services, slices, nodes);
}

/// Why a watch ended.
enum End {
    Closed,
    NoStreamingLists,
}

async fn follow<O, K, V>(
    api: Api<O>,
    config: watcher::Config,
    name: impl Fn(&O) -> Option<K>,
    convert: impl Fn(&O) -> Option<V>,
    emit: impl Fn(Delta<K, V>) -> bool,
) where
    O: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let kind = O::kind(&());
    let streaming = watcher(api.clone(), config.clone().streaming_lists());
    match follow_stream(&kind, streaming, true, &name, &convert, &emit).await {
        End::Closed => return,
        End::NoStreamingLists => tracing::info!(%kind, "the API server has no streaming lists"),
    }
    follow_stream(&kind, watcher(api, config), false, &name, &convert, &emit).await;
}

async fn follow_stream<O, K, V>(
    kind: &str,
    stream: impl Stream<Item = Result<Event<O>, Error>> + Send,
    streaming: bool,
    name: &impl Fn(&O) -> Option<K>,
    convert: &impl Fn(&O) -> Option<V>,
    emit: &impl Fn(Delta<K, V>) -> bool,
) -> End {
    let mut stream = pin!(stream);
    let mut pause = PAUSE_MIN;
    let mut listed: Option<Vec<(K, V)>> = None;
    let mut synced = false;
    let pair = |object: &O| Some((name(object)?, convert(object)?));
    loop {
        let next = if streaming && listed.is_some() {
            match tokio::time::timeout(STREAMING_SILENCE_MAX, stream.next()).await {
                Ok(next) => next,
                Err(_) => return End::NoStreamingLists,
            }
        } else {
            stream.next().await
        };
        let open = match next {
            None => return End::Closed,
            Some(Ok(Event::Init)) => {
                listed = Some(Vec::new());
                true
            }
            Some(Ok(Event::InitApply(object))) => {
                listed.get_or_insert_default().extend(pair(&object));
                true
            }
            Some(Ok(Event::InitDone)) => {
                synced = true;
                emit(Delta::Replace(listed.take().unwrap_or_default()))
            }
            Some(Ok(Event::Apply(object))) => match (name(&object), convert(&object)) {
                (Some(key), Some(value)) => emit(Delta::Put(key, value)),
                // It may have been ours before.
                (Some(key), None) => emit(Delta::Remove(key)),
                (None, _) => true,
            },
            Some(Ok(Event::Delete(object))) => name(&object).is_none_or(|key| emit(Delta::Remove(key))),
            Some(Err(error)) if streaming && !synced && refuses_streaming(&error) => return End::NoStreamingLists,
            Some(Err(error)) => {
                tracing::warn!(kind, error = %chain(&error), "watch interrupted");
                // Half to whole, so that a cluster's agents do not come back at once.
                tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
                pause = (pause * 2).min(PAUSE_MAX);
                continue;
            }
        };
        pause = PAUSE_MIN;
        if !open {
            return End::Closed;
        }
    }
}

/// Does the server call the request itself wrong?
fn refuses_streaming(error: &Error) -> bool {
    let code = match error {
        Error::WatchStartFailed(kube::Error::Api(status)) | Error::WatchFailed(kube::Error::Api(status)) => status.code,
        Error::WatchError(status) => status.code,
        _ => return false,
    };
    matches!(code, 400 | 405 | 406 | 415 | 422 | 501)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let message = error.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        source = error.source();
    }
    text
}
