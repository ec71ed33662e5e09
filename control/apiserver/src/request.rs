//! What a request asks for, read from its method, path and query alone.

use std::collections::HashMap;
use std::num::IntErrorKind;
use std::time::Duration;

use control_api::duration;
use control_api::status::Status;
use http::Method;

/// The query of a request; the last of repeated parameters counts, as it does upstream for options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query(HashMap<String, String>);

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        Self(form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    /// An absent and an empty parameter are the same.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Go's `strconv.ParseBool`, with a bare parameter as true.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| matches!(value.as_str(), "" | "1" | "t" | "T" | "true" | "TRUE" | "True"))
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Status> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let number = text.parse();
        number.map(Some).map_err(|_| Status::bad_request(format!("invalid value for query parameter {name}: {text:?}")))
    }

    /// A number that may be negative.
    pub(crate) fn signed(&self, name: &str) -> Result<Option<i64>, Status> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let why = |error: std::num::ParseIntError| match error.kind() {
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        let number = text.parse().map_err(why);
        number.map(Some).map_err(|why| Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: {why}")))
    }
}

/// Subresources whose requests may last.
const LONG_RUNNING: [&str; 4] = ["attach", "exec", "log", "portforward"];

/// The resource part of a request, or a path outside the resources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RequestInfo {
    /// As RBAC spells it; of paths outside the resources, the lower-case method.
    pub(crate) verb: &'static str,
    pub(crate) path: String,
    pub(crate) is_resource: bool,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) name: String,
    pub(crate) query: Query,
}

impl RequestInfo {
    pub(crate) fn parse(method: &Method, path: &str, query: Option<&str>) -> Self {
        let query = Query::parse(query);
        let mut info = Self { path: path.to_owned(), query, verb: method_verb(method), ..Self::default() };
        let segments: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(percent_decode).collect();
        let mut rest = match segments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => {
                info.version = (*version).to_owned();
                rest.to_vec()
            }
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                (info.group, info.version) = ((*group).to_owned(), (*version).to_owned());
                rest.to_vec()
            }
            _ => return info,
        };
        info.is_resource = true;
        // The old spelling of watches.
        let old_watch = rest[0] == "watch" && rest.len() > 1;
        if old_watch {
            rest.remove(0);
        }
        info.take_segments(&rest);
        info.verb = info.resource_verb(method, old_watch);
        info
    }

    fn take_segments(&mut self, rest: &[&str]) {
        let rest = match rest {
            ["namespaces", name] => {
                self.namespace = (*name).to_owned();
                rest
            }
            ["namespaces", name, sub, ..] if matches!(*sub, "status" | "finalize") => {
                self.namespace = (*name).to_owned();
                rest
            }
            ["namespaces", namespace, rest @ ..] => {
                self.namespace = (*namespace).to_owned();
                rest
            }
            _ => rest,
        };
        let part = |at: usize| rest.get(at).copied().unwrap_or_default().to_owned();
        self.resource = part(0);
        self.name = part(1);
        self.subresource = rest.get(2..).map(|sub| sub.join("/")).unwrap_or_default();
    }

    fn resource_verb(&mut self, method: &Method, old_watch: bool) -> &'static str {
        match (method, self.name.is_empty()) {
            (&Method::GET | &Method::HEAD, false) if !old_watch => "get",
            (&Method::GET | &Method::HEAD, _) => {
                if old_watch || self.query.flag("watch") {
                    "watch"
                } else {
                    "list"
                }
            }
            (&Method::POST, _) => "create",
            (&Method::PUT, _) => "update",
            (&Method::PATCH, _) => "patch",
            (&Method::DELETE, true) => "deletecollection",
            (&Method::DELETE, false) => "delete",
            _ => method_verb(method),
        }
    }

    /// Requests that may stay open for long do not count against the limit of requests in flight.
    pub(crate) fn is_long_running(&self) -> bool {
        self.verb == "watch" || (self.is_resource && LONG_RUNNING.contains(&self.subresource.as_str()))
    }

    /// How long the client waits for the answer; no longer than `max`.
    pub(crate) fn timeout(&self, max: Duration) -> Result<Duration, Status> {
        let Some(text) = self.query.get("timeout") else { return Ok(max) };
        let wrong = || {
            Status::bad_request(format!(
                "invalid timeout specified in the request URL - time: invalid duration {text:?}"
            ))
        };
        let nanoseconds = duration::parse(text).ok_or_else(wrong)?;
        let asked = Duration::from_nanos(u64::try_from(nanoseconds).map_err(|_| wrong())?);
        Ok(if asked.is_zero() { max } else { asked.min(max) })
    }

    /// Whether all writes of this request are only tried.
    pub(crate) fn dry_run(&self) -> Result<bool, Status> {
        match self.query.get("dryRun") {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(Status::bad_request(format!(
                "Invalid value: [\"{other}\"]: dryRun: Unsupported value: \"{other}\": supported values: \"All\""
            ))),
        }
    }
}

fn method_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "other",
    }
}

fn percent_decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::RequestInfo;
    use http::Method;

    fn parse(method: Method, target: &str) -> [String; 6] {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let info = RequestInfo::parse(&method, path, query);
        [info.verb.into(), info.group, info.namespace, info.resource, info.name, info.subresource]
    }

    #[test]
    fn paths_name_verb_group_namespace_resource_name_and_subresource() {
        let cases = [
            (Method::GET, "/api/v1/pods", ["list", "", "", "pods", "", ""]),
            (Method::GET, "/api/v1/pods?watch=true", ["watch", "", "", "pods", "", ""]),
            (Method::GET, "/api/v1/watch/pods", ["watch", "", "", "pods", "", ""]),
            (Method::GET, "/api/v1/namespaces/a/pods/b", ["get", "", "a", "pods", "b", ""]),
            (Method::GET, "/api/v1/namespaces/a/pods/b/log", ["get", "", "a", "pods", "b", "log"]),
            (Method::POST, "/api/v1/namespaces", ["create", "", "", "namespaces", "", ""]),
            (Method::GET, "/api/v1/namespaces/a", ["get", "", "a", "namespaces", "a", ""]),
            (Method::PUT, "/api/v1/namespaces/a/finalize", ["update", "", "a", "namespaces", "a", "finalize"]),
            (
                Method::PATCH,
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                ["patch", "apps", "a", "deployments", "d", "scale"],
            ),
            (
                Method::DELETE,
                "/apis/apps/v1/namespaces/a/deployments",
                ["deletecollection", "apps", "a", "deployments", "", ""],
            ),
            (Method::DELETE, "/api/v1/nodes/n", ["delete", "", "", "nodes", "n", ""]),
            (Method::GET, "/api/v1/namespaces/a/configmaps/x%3Ay", ["get", "", "a", "configmaps", "x:y", ""]),
            (Method::GET, "/apis/apps/v1", ["get", "", "", "", "", ""]),
            (Method::GET, "/healthz", ["get", "", "", "", "", ""]),
        ];
        for (method, target, expected) in cases {
            assert_eq!(parse(method, target), expected, "{target}");
        }
    }
}
