//! From a request to its answer: audit id, panics, identity, permission, limits, routing, metrics.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use control_api::names;
use control_api::registry::{Resource, Verb};
use control_api::status::Status;
use futures::FutureExt;
use http::header::{CACHE_CONTROL, HeaderName, HeaderValue, WARNING};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use crate::authn::{self, User};
use crate::authz::Attributes;
use crate::body::Received;
use crate::limits::{WARNING_LENGTH_MAX, WARNINGS_LENGTH_MAX, WARNINGS_MAX};
use crate::reply::{self, Body, Reply};
use crate::request::RequestInfo;
use crate::state::Server;
use crate::{
    body, delete, discovery, eviction, health, log, negotiate, read, reviews, stream, subresource, watch, write,
};

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// Upstream's own words, and like there no Status: whatever panicked may be what makes one.
const PANICKED: &str = "This request caused apiserver to panic. Look in the logs for details.\n";
/// Paths that nobody needs an identity for.
const PUBLIC_PATHS: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];

/// One authorised request.
pub(crate) struct Context {
    pub(crate) server: Arc<Server>,
    pub(crate) user: Arc<User>,
    pub(crate) info: RequestInfo,
    pub(crate) headers: HeaderMap,
    /// Become `Warning` headers.
    pub(crate) warnings: Mutex<Vec<String>>,
    /// Held for a long-running request until it ends.
    pub(crate) place: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Context {
    pub(crate) fn warn(&self, text: impl Into<String>) {
        self.warnings.lock().push(text.into());
    }

    /// Who the fields written by this request belong to.
    pub(crate) fn field_manager(&self) -> String {
        if let Some(manager) = self.info.query.get("fieldManager") {
            return manager.to_owned();
        }
        let agent =
            self.headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let manager: String = agent.split('/').next().unwrap_or_default().chars().take(128).collect();
        if manager.is_empty() { "unknown".into() } else { manager }
    }
}

pub(crate) async fn handle(
    server: Arc<Server>,
    certificate: Option<Arc<User>>,
    request: Request<Incoming>,
) -> Response<Body> {
    let started = Instant::now();
    let audit_id = audit_id(request.headers());
    let info = RequestInfo::parse(request.method(), request.uri().path(), request.uri().query());
    let gzip = !info.is_long_running() && negotiate::accepts_gzip(request.headers());
    let labels = server.metrics.labels(&info);
    let answer = AssertUnwindSafe(answer(&server, certificate, info, request)).catch_unwind().await;
    let mut response = answer.unwrap_or_else(|_| {
        tracing::error!(audit_id, "request handler panicked");
        reply::text(StatusCode::INTERNAL_SERVER_ERROR, PANICKED)
    });
    if gzip {
        response = reply::gzip(response).await;
    }
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&audit_id) {
        headers.insert(AUDIT_ID, value);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    server.metrics.observe(labels, response.status(), started.elapsed());
    response
}

/// The client's own, if it sent one.
fn audit_id(headers: &HeaderMap) -> String {
    let sent = headers.get(AUDIT_ID).and_then(|value| value.to_str().ok()).filter(|id| (1..=128).contains(&id.len()));
    sent.map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

async fn answer(
    server: &Arc<Server>,
    certificate: Option<Arc<User>>,
    info: RequestInfo,
    request: Request<Incoming>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let context = match identify(server, certificate, info, &parts.headers).await {
        Ok(context) => context,
        Err(status) => {
            body::discard(&parts.headers, body);
            return reply::failure(&status);
        }
    };
    if context.info.is_long_running() {
        body::discard(&parts.headers, body);
        return long_running(&context, Request::from_parts(parts, Bytes::new())).await;
    }
    let answered = async {
        let timeout = context.info.timeout(server.limits.request)?;
        let deadline = tokio::time::Instant::now() + timeout;
        let received = if matches!(parts.method, Method::GET | Method::HEAD) {
            body::discard(&parts.headers, body);
            Received::default()
        } else {
            body::receive(server, &parts.headers, body).await?
        };
        // Only now: who is slow to send must not keep others from being served.
        let _permit = server.in_flight.try_acquire().map_err(|_| too_many())?;
        let answer = answer_in_full(&context, Request::from_parts(parts, received.bytes.clone()));
        let too_late = |_| Status::timeout_of("request did not complete within the allotted timeout");
        tokio::time::timeout_at(deadline, answer).await.map_err(too_late)
    };
    answered.await.unwrap_or_else(|status| reply::failure(&status))
}

/// Watches, logs and streams have a limit of their own, which they count against until they end.
async fn long_running(context: &Context, request: Request<Bytes>) -> Response<Body> {
    let Ok(place) = Arc::clone(&context.server.long_running).try_acquire_owned() else {
        return reply::failure(&too_many());
    };
    *context.place.lock() = Some(place);
    let response = answer_in_full(context, request).await;
    // A stream between client and kubelet has taken it along.
    match context.place.lock().take() {
        Some(place) => reply::holding(response, place),
        None => response,
    }
}

fn too_many() -> Status {
    Status::too_many_requests("too many requests, please try again later", 1)
}

async fn answer_in_full(context: &Context, request: Request<Bytes>) -> Response<Body> {
    let method = request.method().clone();
    let mut response = match route(context, &method, request).await {
        Ok(response) => response,
        Err(status) => reply::failure(&status),
    };
    for text in warnings(&context.warnings.lock()) {
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
    response
}

/// What fits into headers: all as they are, or else as many as go, each cut short.
fn warnings(all: &[String]) -> Vec<String> {
    let printable = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    let fits = all.iter().map(|text| text.chars().count()).sum::<usize>() <= WARNINGS_LENGTH_MAX;
    let length_max = if fits { usize::MAX } else { WARNING_LENGTH_MAX };
    let mut left = WARNINGS_LENGTH_MAX;
    let mut taken = Vec::new();
    for text in all.iter().take(WARNINGS_MAX) {
        let text: String = text.chars().take(length_max).map(printable).collect();
        match left.checked_sub(text.len()) {
            Some(rest) => left = rest,
            None => break,
        }
        taken.push(text);
    }
    taken
}

/// Authenticates and authorises.
async fn identify(
    server: &Arc<Server>,
    certificate: Option<Arc<User>>,
    info: RequestInfo,
    headers: &HeaderMap,
) -> Result<Context, Status> {
    let mut user = authn::authenticate(server, certificate, headers).await?;
    if let Some(other) = authn::impersonate::impersonated(server, &user, headers).await? {
        user = Arc::new(other);
    }
    let is_public = !info.is_resource && PUBLIC_PATHS.iter().any(|path| is_at_or_below(&info.path, path));
    if user.is_anonymous() && !is_public {
        return Err(Status::unauthorized());
    }
    if !is_public {
        server.authorizer.require(&user, &Attributes::of(&info)).await?;
    }
    Ok(Context {
        server: Arc::clone(server),
        user,
        info,
        headers: headers.clone(),
        warnings: Mutex::default(),
        place: Mutex::default(),
    })
}

fn is_at_or_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

async fn route(context: &Context, method: &Method, request: Request<Bytes>) -> Reply {
    let info = &context.info;
    if !info.is_resource {
        return other_path(context, method);
    }
    let resource = context.server.resource(&info.group, &info.version, &info.resource);
    let resource = resource.ok_or_else(Status::no_such_path)?;
    check_scope(&resource, info)?;
    if let Some(warning) = &resource.deprecation {
        context.warn(warning.clone());
    }
    if let Some(custom) = &resource.custom {
        if custom.needs_webhook {
            return Err(Status::internal(format!(
                "conversion webhook for {}, Kind={} failed: this server calls no conversion webhooks, only {} is served",
                resource.api_version(),
                resource.kind,
                custom.stored_as
            )));
        }
        body::check_media_type(context, request.headers())?;
    }
    if !info.subresource.is_empty() {
        return subresource_request(context, &resource, request).await;
    }
    let body = request.into_body();
    if resource.is_virtual {
        return reviews::answer(context, &resource, body).await;
    }
    let verb = resource.verbs.iter().find(|verb| verb.as_str() == info.verb).ok_or_else(Status::method_not_allowed)?;
    match verb {
        Verb::Get => read::get(context, &resource).await,
        Verb::List => read::list(context, &resource).await,
        Verb::Watch => watch::watch(context, &resource).await,
        Verb::Create => write::create(context, &resource, body).await,
        Verb::Update => write::update(context, &resource, body).await,
        Verb::Patch => write::patch(context, &resource, body).await,
        Verb::Delete => delete::one(context, &resource, body).await,
        Verb::DeleteCollection => delete::collection(context, &resource, body).await,
    }
}

/// Whether the path has a namespace and a name where the resource and the verb need them.
fn check_scope(resource: &Resource, info: &RequestInfo) -> Result<(), Status> {
    for (what, segment) in [("Name", &info.name), ("Namespace", &info.namespace)] {
        let complaints = names::path_segment(segment, false);
        if !complaints.is_empty() {
            let complaints = complaints.join(";");
            return Err(Status::bad_request(format!("{what} parameter invalid: {segment:?}: {complaints}")));
        }
    }
    let is_namespaces = resource.group.is_empty() && resource.plural == "namespaces";
    if !resource.namespaced && !info.namespace.is_empty() && !is_namespaces {
        return Err(Status::no_such_path());
    }
    let needs_one = !matches!(info.verb, "list" | "watch");
    if resource.namespaced && info.namespace.is_empty() && needs_one {
        return Err(Status::method_not_allowed());
    }
    if info.verb == "create" && !info.name.is_empty() && info.subresource.is_empty() {
        return Err(Status::method_not_allowed());
    }
    Ok(())
}

async fn subresource_request(context: &Context, resource: &Arc<Resource>, request: Request<Bytes>) -> Reply {
    let info = &context.info;
    let missing = || match &resource.custom {
        Some(_) => Status::not_found(&resource.group, &resource.plural, &info.name),
        None => Status::no_such_path(),
    };
    let sub = resource.subresource(&info.subresource).ok_or_else(missing)?;
    if !sub.verbs.iter().any(|verb| verb.as_str() == info.verb) {
        return Err(Status::method_not_allowed());
    }
    if stream::SUBRESOURCES.contains(&sub.name.as_str()) {
        return stream::connect(context, resource, request).await;
    }
    let body = request.into_body();
    match (sub.name.as_str(), info.verb) {
        ("log", _) => log::get(context, resource).await,
        ("status" | "ephemeralcontainers" | "resize", "get") => read::get(context, resource).await,
        ("status" | "finalize" | "ephemeralcontainers" | "resize", "update") => {
            write::update(context, resource, body).await
        }
        ("status" | "ephemeralcontainers" | "resize", "patch") => write::patch(context, resource, body).await,
        ("scale", "get") => subresource::scale_get(context, resource).await,
        ("scale", "update") => subresource::scale_update(context, resource, body).await,
        ("scale", "patch") => subresource::scale_patch(context, resource, body).await,
        ("eviction", _) => eviction::evict(context, resource, body).await,
        ("binding", _) => subresource::bind(context, resource, body).await,
        ("token", _) => subresource::token(context, resource, body).await,
        _ => Err(Status::no_such_path()),
    }
}

fn other_path(context: &Context, method: &Method) -> Reply {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(Status::method_not_allowed());
    }
    let path = context.info.path.as_str();
    if let Some(answer) = health::answer(context, path) {
        return answer;
    }
    discovery::answer(context, path)
}

#[cfg(test)]
mod tests {
    use super::{WARNINGS_LENGTH_MAX, warnings};

    #[test]
    fn warnings_fit_into_headers() {
        let few = ["a".repeat(1000), "unknown field \"spec.\u{fc}\"".to_owned()];
        assert_eq!(warnings(&few), [few[0].clone(), "unknown field \"spec.?\"".to_owned()]);
        let many = vec!["x".repeat(1000); 1000];
        let taken = warnings(&many);
        assert_eq!(taken.len(), 16);
        assert!(taken.iter().all(|text| text.len() == 256));
        assert!(taken.iter().map(String::len).sum::<usize>() <= WARNINGS_LENGTH_MAX);
    }
}
