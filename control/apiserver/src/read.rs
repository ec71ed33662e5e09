//! GET of one object and of lists. What is stored goes out as it is whenever the client takes plain JSON.

use std::collections::VecDeque;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use control_api::registry::Resource;
use control_api::status::Status;
use control_store::{Entry, Error, Page, Range};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::form;
use crate::handler::Context;
use crate::negotiate::{self, Encoding, Form, Offer, Wanted};
use crate::object;
use crate::reply::{self, Reply};
use crate::selection::Selection;
use crate::state::store_failure;

/// Lists up to this size are answered in one piece, larger ones in pieces of about this size.
const CHUNK_BYTES: usize = 128 << 10;

const PLAIN: Wanted = Wanted { encoding: Encoding::Json, form: Form::Object };

pub(crate) async fn get(context: &Context, resource: &Resource) -> Reply {
    let info = &context.info;
    let wanted = negotiate::accept(&context.headers, Offer::ObjectsTablesMetadata)?;
    check_not_future(context, info.query.number("resourceVersion")?)?;
    let key = resource.key(&info.namespace, &info.name);
    let entry = context.server.store.get(&key).await.map_err(store_failure)?;
    let entry = entry.ok_or_else(|| Status::not_found(&resource.group, &resource.plural, &info.name))?;
    if wanted == PLAIN && resource.is_served_as_stored() {
        let body = reply::full(object::splice(&entry.value, entry.revision));
        return Ok(reply::with_type(StatusCode::OK, "application/json", body));
    }
    let object = form::parse(resource, &key, &entry.value, entry.revision)?;
    form::one(context, resource, object, wanted, StatusCode::OK)
}

pub(crate) async fn list(context: &Context, resource: &Resource) -> Reply {
    let info = &context.info;
    let wanted = negotiate::accept(&context.headers, Offer::ObjectsTablesMetadata)?;
    let selection = Selection::parse(resource, info)?;
    let prefix = resource.prefix(&info.namespace);
    let plan = Plan::new(context, &prefix)?;
    let listed = match plan.run(context, &prefix, &selection).await {
        Ok(listed) => listed,
        Err(refused) => return refused.answer(),
    };
    if wanted == PLAIN && resource.is_served_as_stored() {
        return Ok(plain(resource, listed));
    }
    let objects: Result<Vec<Value>, Status> =
        listed.entries.iter().map(|entry| form::parse(resource, &entry.key, &entry.value, entry.revision)).collect();
    let metadata = listed.metadata();
    let mut objects = objects?;
    if wanted.form == Form::Object {
        // Items of a list of their kind name neither kind nor version.
        for object in objects.iter_mut().filter_map(Value::as_object_mut) {
            object.remove("kind");
            object.remove("apiVersion");
        }
    }
    form::many(context, resource, objects, metadata, wanted)
}

/// The objects of a list, and what its metadata says.
struct Listed {
    entries: Vec<Entry>,
    revision: u64,
    next: Option<String>,
    remaining: Option<u64>,
}

impl Listed {
    fn metadata(&self) -> Map<String, Value> {
        let mut metadata = Map::new();
        metadata.insert("resourceVersion".into(), self.revision.to_string().into());
        if let Some(next) = &self.next {
            metadata.insert("continue".into(), next.as_str().into());
        }
        if let Some(remaining) = self.remaining {
            metadata.insert("remainingItemCount".into(), remaining.into());
        }
        metadata
    }
}

/// A list that cannot be given; where it expired between pages, with a token to go on from.
struct Refused {
    status: Status,
    next: Option<String>,
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self { status, next: None }
    }
}

impl Refused {
    fn answer(self) -> Reply {
        let Some(next) = self.next else { return Err(self.status) };
        let mut body = self.status.to_json();
        body["metadata"] = serde_json::json!({"continue": next});
        Ok(reply::json(StatusCode::GONE, &body))
    }
}

/// Where a client's next page begins; upstream's own format, base64 around JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Continue {
    v: String,
    /// -1 for "whatever is newest": the snapshot of the first page is gone.
    rv: i64,
    /// Relative to the prefix of the list.
    start: String,
}

impl Continue {
    fn encode(rv: i64, start: &str) -> String {
        let token = Self { v: "meta.k8s.io/v1".into(), rv, start: start.into() };
        STANDARD.encode(serde_json::to_vec(&token).unwrap_or_default())
    }

    fn decode(text: &str) -> Result<Self, Status> {
        let bad = || Status::bad_request("continue key is not valid: it was not made by this server");
        let bytes = STANDARD.decode(text).or_else(|_| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text));
        let token: Self = serde_json::from_slice(&bytes.map_err(|_| bad())?).map_err(|_| bad())?;
        if token.v != "meta.k8s.io/v1" || token.rv == 0 || token.start.contains("..") {
            return Err(bad());
        }
        Ok(token)
    }
}

/// Which revision and which part of the keys a list reads.
struct Plan {
    revision: Option<u64>,
    start: String,
    limit: usize,
}

impl Plan {
    fn new(context: &Context, prefix: &str) -> Result<Self, Status> {
        let query = &context.info.query;
        let limit = query.signed("limit")?.unwrap_or(0);
        // Upstream takes a negative limit for none.
        let limit = usize::try_from(limit.max(0)).unwrap_or(usize::MAX);
        let version = query.number("resourceVersion")?;
        let matching = query.get("resourceVersionMatch");
        if query.has("sendInitialEvents") {
            return Err(list_options_invalid(
                "sendInitialEvents",
                "Forbidden: sendInitialEvents is forbidden for list",
            ));
        }
        if let Some(token) = query.get("continue") {
            if version.is_some_and(|version| version > 0) {
                return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
            }
            if matching.is_some() {
                let why = "Forbidden: resourceVersionMatch is forbidden when continue is provided";
                return Err(list_options_invalid("resourceVersionMatch", why));
            }
            let token = Continue::decode(token)?;
            return Ok(Self {
                revision: u64::try_from(token.rv).ok(),
                start: format!("{prefix}{}", token.start),
                limit,
            });
        }
        check_not_future(context, version)?;
        let exact = match (matching, version) {
            (None, _) => limit > 0 && version.is_some_and(|version| version > 0),
            (Some(_), None) => {
                let why = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided";
                return Err(list_options_invalid("resourceVersionMatch", why));
            }
            (Some("Exact"), Some(0)) => {
                let why = "Forbidden: resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"";
                return Err(list_options_invalid("resourceVersionMatch", why));
            }
            (Some("Exact"), _) => true,
            (Some("NotOlderThan"), _) => false,
            (Some(other), _) => {
                let why = format!("Unsupported value: \"{other}\": supported values: \"Exact\", \"NotOlderThan\"");
                return Err(list_options_invalid("resourceVersionMatch", &why));
            }
        };
        Ok(Self { revision: version.filter(|_| exact), start: prefix.to_owned(), limit })
    }

    async fn run(&self, context: &Context, prefix: &str, selection: &Selection) -> Result<Listed, Refused> {
        let everything = selection.is_everything();
        let range = Range {
            start: self.start.clone(),
            revision: self.revision,
            limit: if everything { self.limit } else { 0 },
            count: everything && self.limit > 0,
            ..Range::prefix(prefix)
        };
        let mut page = match context.server.store.range(range).await {
            Ok(page) => page,
            Err(Error::Compacted { .. }) => return Err(self.expired(prefix)),
            Err(Error::Future { requested, current }) => return Err(too_large(requested, current).into()),
            Err(error) => return Err(store_failure(error).into()),
        };
        if !everything {
            self.select(&mut page, selection);
        }
        let next = (page.remaining > 0).then(|| page.entries.last()).flatten().map(|last| {
            let start = format!("{}\0", &last.key[prefix.len()..]);
            Continue::encode(i64::try_from(page.revision).unwrap_or(i64::MAX), &start)
        });
        let remaining = next.as_ref().filter(|_| everything).map(|_| page.remaining);
        Ok(Listed { entries: page.entries, revision: page.revision, next, remaining })
    }

    fn select(&self, page: &mut Page, selection: &Selection) {
        page.entries.retain(|entry| selection.matches_stored(&entry.key, &entry.value));
        if self.limit > 0 && page.entries.len() > self.limit {
            page.remaining = (page.entries.len() - self.limit) as u64;
            page.entries.truncate(self.limit);
        }
    }

    /// The snapshot is gone; the client may go on from the same key in a newer one.
    fn expired(&self, prefix: &str) -> Refused {
        let start = self.start.strip_prefix(prefix).unwrap_or_default();
        if start.is_empty() {
            return Status::expired("The resourceVersion for the provided list is too old.").into();
        }
        let status = Status::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list \
             without the continue parameter, or use the continue token in this response to retrieve the remainder of \
             the results. Continuing with the provided token results in an inconsistent list - objects that were \
             created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
        );
        Refused { status, next: Some(Continue::encode(-1, start)) }
    }
}

fn list_options_invalid(field: &str, why: &str) -> Status {
    let (reason, _) = why.split_once(':').unwrap_or((why, ""));
    let reason = match reason {
        "Forbidden" => "FieldValueForbidden",
        _ => "FieldValueNotSupported",
    };
    let cause = control_api::status::Cause { reason: reason.into(), message: why.into(), field: field.into() };
    Status::invalid("meta.k8s.io", "ListOptions", "", vec![cause])
}

/// # Errors
/// 504 if the client has seen a revision that this server has not.
pub(crate) fn check_not_future(context: &Context, version: Option<u64>) -> Result<(), Status> {
    let current = context.server.store.revision();
    match version {
        Some(version) if version > current => Err(too_large(version, current)),
        _ => Ok(()),
    }
}

pub(crate) fn too_large(requested: u64, current: u64) -> Status {
    Status::timeout(format!("Too large resource version: {requested}, current: {current}"), 1).with_cause(
        "ResourceVersionTooLarge",
        "Too large resource version",
        "",
    )
}

/// Joins the stored bytes without parsing them.
fn plain(resource: &Resource, listed: Listed) -> http::Response<reply::Body> {
    let mut head = BytesMut::from(
        format!(
            "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
            resource.list_kind,
            resource.api_version(),
            Value::Object(listed.metadata()),
        )
        .as_str(),
    );
    let size: usize = listed.entries.iter().map(|entry| entry.value.len()).sum();
    let mut entries = VecDeque::from(listed.entries);
    if size <= CHUNK_BYTES {
        fill(&mut head, &mut entries, usize::MAX, true);
        return reply::with_type(StatusCode::OK, "application/json", reply::full(head.freeze()));
    }
    let chunks = futures::stream::unfold((Some(head), entries), |(head, mut entries)| async move {
        let first = head.is_some();
        let mut chunk = head.unwrap_or_default();
        if !first && entries.is_empty() {
            return None;
        }
        fill(&mut chunk, &mut entries, CHUNK_BYTES, first);
        Some((Ok::<Bytes, std::io::Error>(chunk.freeze()), (None, entries)))
    });
    reply::with_type(StatusCode::OK, "application/json", reply::stream(chunks))
}

/// Adds items up to a size; closes the list after the last.
fn fill(out: &mut BytesMut, entries: &mut VecDeque<Entry>, size: usize, mut first: bool) {
    while out.len() < size {
        let Some(entry) = entries.pop_front() else { break };
        if !std::mem::take(&mut first) {
            out.extend_from_slice(b",");
        }
        object::splice_item_into(out, &entry.value, entry.revision);
    }
    if entries.is_empty() {
        out.extend_from_slice(b"]}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::Continue;

    #[test]
    fn continue_tokens_are_upstreams() {
        let text = Continue::encode(17, "default/a\0");
        let token = Continue::decode(&text).unwrap();
        assert_eq!((token.rv, token.start.as_str()), (17, "default/a\0"));
        // {"v":"meta.k8s.io/v1","rv":5,"start":"x\u0000"}
        let upstream = "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NSwic3RhcnQiOiJ4XHUwMDAwIn0";
        assert_eq!(Continue::decode(upstream).unwrap().rv, 5);
        assert!(Continue::decode("bogus").is_err());
    }
}
