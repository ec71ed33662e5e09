//! A conversation with one registry about one repository: requests with authentication, redirects and retries.

use std::sync::Mutex;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, LOCATION, RANGE, RETRY_AFTER, USER_AGENT, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::time::timeout;
use url::Url;

use super::challenge::{self, Challenge};
use super::connect::Http;
use super::endpoint::{Endpoint, is_loopback};
use super::error::PullError;
use super::{Credentials, Registries};
use crate::client::lock;
use crate::error::chain;

/// A registry that says nothing for this long is given up.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// A server on loopback that does not even say that it does not speak TLS.
const PROBE_MAX: Duration = Duration::from_secs(5);
const REDIRECTS_MAX: usize = 5;
/// Attempts at one request, with pauses that double.
const ATTEMPTS_MAX: u32 = 4;
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// No registry makes us wait longer than this in one go.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Error texts and tokens are short.
const SMALL_BYTES_MAX: usize = 64 << 10;
const CLIENT: HeaderValue = HeaderValue::from_static(concat!("tidegate/", env!("CARGO_PKG_VERSION")));

pub(super) struct Session {
    http: Http,
    pub(super) endpoint: Endpoint,
    base: Url,
    credentials: Option<Credentials>,
    /// What the registry has accepted so far.
    authorization: Mutex<Option<HeaderValue>>,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Get<'a> {
    /// Below the repository: `manifests/latest`.
    pub(super) path: &'a str,
    pub(super) accept: Option<&'a str>,
    /// First byte that is wanted.
    pub(super) from: u64,
}

impl Session {
    /// # Errors
    /// If the registry cannot be reached.
    pub(super) async fn open(
        registries: &Registries,
        endpoint: Endpoint,
        credentials: Option<Credentials>,
    ) -> Result<Self, PullError> {
        let http = registries.http()?;
        let base = base(&http, &endpoint).await?;
        Ok(Self { http, endpoint, base, credentials, authorization: Mutex::default() })
    }

    /// A successful answer (200 or 206); passing troubles are waited for.
    pub(super) async fn get(&self, get: Get<'_>) -> Result<Response<Incoming>, PullError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (error, wait) = match self.attempt(get).await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            if !error.is_passing() || attempt == ATTEMPTS_MAX {
                return Err(error);
            }
            let pause = wait.unwrap_or(PAUSE_MIN * 2_u32.pow(attempt)).min(PAUSE_MAX);
            tracing::info!(registry = %self.endpoint.registry, %error, ?pause, "asking a registry again");
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&self, get: Get<'_>) -> Result<Response<Incoming>, (PullError, Option<Duration>)> {
        let now = |error| (error, None);
        let url = self.url(get.path).map_err(now)?;
        let known = lock(&self.authorization).clone();
        let mut response = self.follow(url.clone(), get, known.as_ref()).await.map_err(now)?;
        if response.status() == StatusCode::UNAUTHORIZED {
            // A token may have expired, or the first request has none yet.
            let challenge = response.headers().get_all(WWW_AUTHENTICATE);
            let challenge = challenge.iter().find_map(|header| challenge::parse(header.to_str().ok()?));
            if let Some(challenge) = challenge {
                let fresh = self.authenticate(&challenge).await.map_err(now)?;
                if fresh.is_some() && fresh != known {
                    lock(&self.authorization).clone_from(&fresh);
                    response = self.follow(url, get, fresh.as_ref()).await.map_err(now)?;
                }
            }
        }
        if matches!(response.status(), StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            return Ok(response);
        }
        let wait = retry_after(&response);
        Err((self.complaint(response, get.path).await, wait))
    }

    /// Sends, and goes where the registry points; what authenticates us stays with the registry.
    async fn follow(
        &self,
        mut url: Url,
        get: Get<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>, PullError> {
        for _ in 0..=REDIRECTS_MAX {
            let mut request = Request::get(url.as_str()).header(USER_AGENT, CLIENT);
            if let Some(accept) = get.accept {
                request = request.header(ACCEPT, accept);
            }
            if get.from > 0 {
                request = request.header(RANGE, format!("bytes={}-", get.from));
            }
            if let Some(authorization) = authorization.filter(|_| url.origin() == self.base.origin()) {
                request = request.header(AUTHORIZATION, authorization);
            }
            let response = self.send(request).await?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok());
            url = next.ok_or_else(|| self.strange("it redirects to nowhere"))?;
            if !is_private(&url) {
                return Err(self.strange(format!("it redirects to {}, which is neither HTTPS nor local", origin(&url))));
            }
        }
        Err(self.strange("it redirects in circles"))
    }

    async fn send(&self, request: http::request::Builder) -> Result<Response<Incoming>, PullError> {
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| self.strange(error.to_string()))?;
        let registry = || self.endpoint.registry.clone();
        match timeout(PATIENCE, self.http.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(PullError::Unreachable { registry: registry(), detail: chain(&error) }),
            Err(_) => Err(PullError::Stalled { registry: registry(), patience: PATIENCE }),
        }
    }

    /// What to send with requests from now on; `None` if we have nothing to meet the challenge with.
    async fn authenticate(&self, challenge: &Challenge) -> Result<Option<HeaderValue>, PullError> {
        let basic = self.credentials.as_ref().map(basic);
        let Challenge::Bearer { realm, service, scope } = challenge else { return Ok(basic) };
        let mut url = Url::parse(realm).map_err(|_| self.strange(format!("its token realm {realm:?} is no URL")))?;
        if !is_private(&url) {
            return Err(self.strange(format!("its token realm {} is neither HTTPS nor local", origin(&url))));
        }
        let default = format!("repository:{}:pull", self.endpoint.repository);
        url.query_pairs_mut().append_pair("scope", scope.as_deref().unwrap_or(&default));
        if let Some(service) = service {
            url.query_pairs_mut().append_pair("service", service);
        }
        let mut request = Request::get(url.as_str()).header(USER_AGENT, CLIENT);
        if let Some(basic) = basic {
            request = request.header(AUTHORIZATION, basic);
        }
        let response = self.send(request).await?;
        if response.status() != StatusCode::OK {
            return Err(self.complaint(response, "a token").await);
        }
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let answer = self.text(response).await?;
        let token =
            serde_json::from_slice(&answer).ok().and_then(|Token { token, access_token }| token.or(access_token));
        let header = token.and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok());
        let mut header = header.ok_or_else(|| self.strange("it has given no token"))?;
        header.set_sensitive(true);
        Ok(Some(header))
    }

    /// A whole short body.
    pub(super) async fn body(&self, response: Response<Incoming>, max: usize) -> Result<Bytes, PullError> {
        match timeout(PATIENCE, Limited::new(response.into_body(), max).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) => Err(self.strange(format!("its answer cannot be read: {error}"))),
            Err(_) => Err(PullError::Stalled { registry: self.endpoint.registry.clone(), patience: PATIENCE }),
        }
    }

    async fn text(&self, response: Response<Incoming>) -> Result<Bytes, PullError> {
        self.body(response, SMALL_BYTES_MAX).await
    }

    async fn complaint(&self, response: Response<Incoming>, what: &str) -> PullError {
        let status = response.status();
        let text = self.text(response).await.unwrap_or_default();
        let (registry, what, detail) = (self.endpoint.registry.clone(), what.to_owned(), first_error(&text));
        match status {
            StatusCode::NOT_FOUND => PullError::NotFound { image: format!("{}/{}", self.endpoint.repository, what) },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => PullError::Denied { registry, what, status, detail },
            _ => PullError::Status { registry, what, status, detail },
        }
    }

    fn url(&self, path: &str) -> Result<Url, PullError> {
        let path = format!("/v2/{}/{path}", self.endpoint.repository);
        self.base.join(&path).map_err(|error| self.strange(format!("{path}: {error}")))
    }

    pub(super) fn strange(&self, detail: impl Into<String>) -> PullError {
        PullError::Protocol { registry: self.endpoint.registry.clone(), detail: detail.into() }
    }
}

/// HTTPS, except for a registry on this machine's loopback that does not speak it.
async fn base(http: &Http, endpoint: &Endpoint) -> Result<Url, PullError> {
    let url = |scheme: &str| {
        Url::parse(&format!("{scheme}://{}", endpoint.authority)).map_err(|error| PullError::Protocol {
            registry: endpoint.registry.clone(),
            detail: format!("it has no valid address: {error}"),
        })
    };
    let secure = url("https")?;
    if !secure.host_str().is_some_and(is_loopback) {
        return Ok(secure);
    }
    let request = Request::get(format!("{secure}v2/")).body(Empty::new()).ok();
    let request = request.ok_or_else(|| PullError::Protocol {
        registry: endpoint.registry.clone(),
        detail: "it has no valid address".to_owned(),
    })?;
    match timeout(PROBE_MAX, http.request(request)).await {
        Ok(Ok(_)) => Ok(secure),
        _ => url("http"),
    }
}

/// Whether nobody can listen in.
fn is_private(url: &Url) -> bool {
    url.scheme() == "https" || (url.scheme() == "http" && url.host_str().is_some_and(is_loopback))
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

fn basic(Credentials { username, password }: &Credentials) -> HeaderValue {
    let text = format!("Basic {}", STANDARD.encode(format!("{username}:{password}")));
    // Base64 is always fit for a header.
    let mut header = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("Basic"));
    header.set_sensitive(true);
    header
}

fn retry_after(response: &Response<Incoming>) -> Option<Duration> {
    response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

/// `{"errors": [{"code": "...", "message": "..."}]}`, or the text itself if it is short.
fn first_error(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Problem>,
    }
    #[derive(Deserialize)]
    struct Problem {
        code: Option<String>,
        message: Option<String>,
    }
    const LENGTH_MAX: usize = 200;
    if let Ok(Errors { errors }) = serde_json::from_slice(body) {
        let texts = errors.into_iter().next().into_iter().flat_map(|it| [it.code, it.message]).flatten();
        return texts.map(|text| text.chars().take(LENGTH_MAX).collect::<String>()).collect::<Vec<_>>().join(": ");
    }
    let text = String::from_utf8_lossy(body);
    let line = text.trim().lines().next().unwrap_or_default();
    if line.starts_with('<') { String::new() } else { line.chars().take(LENGTH_MAX).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_short() {
        let known = br#"{"errors":[{"code":"DENIED","message":"no","detail":{}},{"code":"X"}]}"#;
        assert_eq!(first_error(known), "DENIED: no");
        assert_eq!(first_error(b"<html>"), "");
        assert_eq!(first_error(b" gone\nfor ever"), "gone");
        assert_eq!(first_error(&[b'x'; 10_000]).len(), 200);
    }

    #[test]
    fn secrets_go_nowhere_in_the_clear() {
        for (url, private) in [
            ("https://a.b/", true),
            ("http://127.0.0.1:5000/", true),
            ("http://a.b/", false),
            ("ftp://localhost/", false),
        ] {
            assert_eq!(is_private(&Url::parse(url).unwrap()), private, "{url}");
        }
    }
}
