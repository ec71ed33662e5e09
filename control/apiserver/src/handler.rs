//! From a request to its answer: audit id, panics, identity, permission, limits, routing, metrics.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use control_api::registry::{Resource, Verb};
use control_api::status::Status;
use futures::FutureExt;
use http::header::{CACHE_CONTROL, HeaderName, HeaderValue, WARNING};
use http::{HeaderMap, Method, Request, Response};
use hyper::body::Incoming;
use parking_lot::Mutex;

use crate::authn::{self, User};
use crate::authz::Attributes;
use crate::reply::{self, Body, Reply};
use crate::request::RequestInfo;
use crate::state::Server;
use crate::{
    body, delete, discovery, eviction, health, log, negotiate, read, reviews, stream, subresource, watch, write,
};

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
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
        reply::failure(&Status::internal("the request handler panicked"))
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
    let context = match identify(server, certificate, info, &request).await {
        Ok(context) => context,
        Err(status) => return reply::failure(&status),
    };
    let _permit = match (context.info.is_long_running(), server.in_flight.try_acquire()) {
        (true, _) => None,
        (false, Ok(permit)) => Some(permit),
        (false, Err(_)) => {
            let text = "too many requests, please try again later";
            return reply::failure(&Status::too_many_requests(text, 1));
        }
    };
    let method = request.method().clone();
    let mut response = match route(&context, &method, request).await {
        Ok(response) => response,
        Err(status) => reply::failure(&status),
    };
    for text in context.warnings.lock().drain(..) {
        let text: String = text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
        let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
    response
}

/// Authenticates and authorises.
async fn identify(
    server: &Arc<Server>,
    certificate: Option<Arc<User>>,
    info: RequestInfo,
    request: &Request<Incoming>,
) -> Result<Context, Status> {
    let headers = request.headers();
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
    Ok(Context { server: Arc::clone(server), user, info, headers: headers.clone(), warnings: Mutex::default() })
}

fn is_at_or_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

async fn route(context: &Context, method: &Method, request: Request<Incoming>) -> Reply {
    let info = &context.info;
    if !info.is_resource {
        return other_path(context, method);
    }
    let resource = context.server.resource(&info.group, &info.version, &info.resource);
    let resource = resource.ok_or_else(Status::no_such_path)?;
    check_scope(&resource, info)?;
    if let Some(custom) = &resource.custom {
        if let Some(warning) = &custom.deprecation {
            context.warn(warning.clone());
        }
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

async fn subresource_request(context: &Context, resource: &Arc<Resource>, request: Request<Incoming>) -> Reply {
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
