//! The paths of the node's API.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use control_runtime::{Container as Instance, ContainerState, Runtime};
use futures::StreamExt;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::List;
use k8s_openapi::api::core::v1::Pod;
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::sync::mpsc;

use super::cri_log::Selection;
use super::logs::{self, Options};
use super::{attach, exec, port_forward};
use crate::pod::files;
use crate::pod::manager::Index;
use crate::spec::pod_ref::PodRef;

pub(super) type Body = BoxBody<Bytes, std::io::Error>;

/// Why a client is sent away.
pub(super) type Refusal = (StatusCode, String);

const CHUNKS: usize = 16;
const TEXT: &str = "text/plain; charset=utf-8";

pub(crate) struct Routes {
    pub index: Arc<Index>,
    pub registry: Registry,
    pub pods_dir: std::path::PathBuf,
    pub runtime: Runtime,
}

impl Routes {
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        match segments.as_slice() {
            ["exec", namespace, pod, container] => {
                return refused(exec::answer(self, request, [namespace, pod, container]));
            }
            ["attach", namespace, pod, container] => {
                return refused(attach::answer(self, request, [namespace, pod, container]));
            }
            ["portForward", namespace, pod] => return refused(port_forward::answer(self, request, [namespace, pod])),
            _ => {}
        }
        if request.method() != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n");
        }
        match segments.as_slice() {
            ["healthz"] => text(StatusCode::OK, "ok"),
            ["pods"] => self.pods(|_| true),
            ["runningpods"] => self.pods(|observed| observed.ready_sandbox().is_some()),
            ["metrics"] => self.metrics(),
            ["containerLogs", namespace, pod, container] => {
                let query = query(request.uri().query().unwrap_or_default());
                self.logs(namespace, pod, container, &query)
            }
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    /// The instance of a container that runs.
    pub(super) fn running(&self, [namespace, pod, container]: [&str; 3]) -> Result<Instance, Refusal> {
        let not_found = |text: String| (StatusCode::NOT_FOUND, text);
        let (_, observed) =
            self.index.find(namespace, pod).ok_or_else(|| not_found(format!("pod \"{pod}\" not found")))?;
        let latest = observed.latest(container).filter(|instance| instance.state == ContainerState::Running);
        latest.cloned().ok_or_else(|| not_found(format!("container not found (\"{container}\")")))
    }

    fn pods(&self, keep: impl Fn(&crate::pod::observed::Observed) -> bool) -> Response<Body> {
        let pods = self.index.pods().into_iter().filter(|(_, observed)| keep(observed));
        let list = List::<Pod> { items: pods.map(|(pod, _)| (*pod).clone()).collect(), ..List::default() };
        match serde_json::to_vec(&list) {
            Ok(body) => whole(StatusCode::OK, "application/json", body),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("cannot write pods: {error}\n")),
        }
    }

    fn metrics(&self) -> Response<Body> {
        let mut body = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut body) {
            Ok(()) => whole(StatusCode::OK, prometheus::TEXT_FORMAT, body),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("cannot encode metrics: {error}\n")),
        }
    }

    fn logs(&self, namespace: &str, name: &str, container: &str, query: &HashMap<String, String>) -> Response<Body> {
        let options = match options(query, crate::clock::now()) {
            Ok(options) => options,
            Err(message) => return text(StatusCode::UNPROCESSABLE_ENTITY, &message),
        };
        let Some((pod, observed)) = self.index.find(namespace, name) else {
            return text(StatusCode::NOT_FOUND, &format!("pod \"{name}\" not found\n"));
        };
        if pod.container(container).is_none() {
            return text(StatusCode::NOT_FOUND, &format!("container \"{container}\" not found in pod \"{name}\"\n"));
        }
        let previous = query.get("previous").is_some_and(|value| truth(value));
        let Some(instance) = instance(observed.of(container), previous) else {
            let message = if previous {
                format!("previous terminated container \"{container}\" in pod \"{name}\" not found")
            } else {
                format!("container \"{container}\" in pod \"{name}\" is waiting to start: {}", waiting(&pod, container))
            };
            return text(StatusCode::BAD_REQUEST, &message);
        };
        let path = if instance.log_path.as_os_str().is_empty() {
            files::log_path(&self.pods_dir.join(pod.uid()), container, instance.attempt)
        } else {
            instance.log_path.clone()
        };
        let (index, uid, id) = (Arc::clone(&self.index), pod.uid().to_owned(), instance.id.clone());
        let (sender, receiver) = mpsc::channel(CHUNKS);
        tokio::spawn(logs::stream(path, options, move || index.is_running(&uid, &id), sender));
        let frames = futures::stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)))
            .map(|chunk| chunk.map(Frame::data));
        response(StatusCode::OK, TEXT, BodyExt::boxed(StreamBody::new(frames)))
    }
}

/// Why a container has no log yet.
fn waiting(pod: &Pod, container: &str) -> String {
    let status = pod.status.as_ref();
    let lists = status.map(|status| [&status.init_container_statuses, &status.container_statuses]);
    let status = lists.into_iter().flatten().flatten().flatten().find(|status| status.name == container);
    let waiting = status.and_then(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone());
    match waiting.as_deref() {
        Some("ErrImagePull" | "ImagePullBackOff") => "trying and failing to pull image".into(),
        Some(reason) => reason.to_owned(),
        None => "ContainerCreating".into(),
    }
}

/// The instance whose log is shown: the newest, or the one before it.
fn instance<'a>(mut instances: impl Iterator<Item = &'a Instance>, previous: bool) -> Option<&'a Instance> {
    let newest = instances.next().filter(|instance| instance.state != ContainerState::Created)?;
    if previous { instances.next() } else { Some(newest) }
}

fn options(query: &HashMap<String, String>, now: Timestamp) -> Result<Options, String> {
    let number = |key: &str| match query.get(key).filter(|value| !value.is_empty()) {
        None => Ok(None),
        Some(value) => value.parse::<u64>().map(Some).map_err(|_| format!("{key}={value} is not a whole number\n")),
    };
    let flag = |key: &str| query.get(key).is_some_and(|value| truth(value));
    let since_seconds = number("sinceSeconds")?.and_then(|seconds| i64::try_from(seconds).ok());
    let since_time = match query.get("sinceTime").filter(|value| !value.is_empty()) {
        None => None,
        Some(value) => Some(value.parse::<Timestamp>().map_err(|_| format!("sinceTime={value} is not a time\n"))?),
    };
    let since = match since_seconds {
        Some(seconds) => now.saturating_sub(SignedDuration::from_secs(seconds)).ok(),
        None => since_time,
    };
    Ok(Options {
        selection: Selection { since, timestamps: flag("timestamps"), limit: number("limitBytes")? },
        tail_lines: number("tailLines")?,
        follow: flag("follow"),
    })
}

pub(super) fn flag(query: &str, name: &str) -> bool {
    form_urlencoded::parse(query.as_bytes()).any(|(key, value)| key == name && truth(&value))
}

fn truth(value: &str) -> bool {
    matches!(value, "" | "1" | "t" | "true" | "True" | "TRUE")
}

fn query(text: &str) -> HashMap<String, String> {
    form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

fn refused(answer: Result<Response<Body>, Refusal>) -> Response<Body> {
    answer.unwrap_or_else(|(status, message)| text(status, &message))
}

fn text(status: StatusCode, message: &str) -> Response<Body> {
    whole(status, TEXT, message.as_bytes().to_vec())
}

pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response
}

fn whole(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Body> {
    response(status, content_type, Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed())
}

fn response(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Options, String> {
        options(&query(text), "2026-01-01T00:01:00Z".parse().unwrap())
    }

    #[test]
    fn options_are_read_from_the_query() {
        let all =
            parsed("follow=true&tailLines=5&timestamps=true&limitBytes=100&sinceTime=2026-01-01T00:00:00%2B00:00")
                .unwrap();
        assert_eq!(
            all,
            Options {
                selection: Selection {
                    since: Some("2026-01-01T00:00:00Z".parse().unwrap()),
                    timestamps: true,
                    limit: Some(100),
                },
                tail_lines: Some(5),
                follow: true,
            }
        );
        let since = parsed("sinceSeconds=60&follow=false").unwrap();
        assert_eq!((since.selection.since.unwrap().to_string(), since.follow), ("2026-01-01T00:00:00Z".into(), false));
        assert!(parsed("tailLines=x").is_err());
        assert!(parsed("sinceTime=yesterday").is_err());
    }
}
