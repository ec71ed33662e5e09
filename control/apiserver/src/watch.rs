//! WATCH: events as they become durable, each rendered once for all watchers that want it plain.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use control_api::registry::Resource;
use control_api::status::Status;
use control_api::table::{self, IncludeObject, TableOptions};
use control_store::{Entry, Error, Event, EventKind, Range, Watch};
use http::StatusCode;
use prometheus::IntGauge;
use rand::Rng;
use serde_json::{Value, json};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::form;
use crate::handler::Context;
use crate::negotiate::{self, Encoding, Form, Offer};
use crate::object;
use crate::read::too_large;
use crate::reply::{self, Reply};
use crate::selection::Selection;
use crate::state::{Server, store_failure};

const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// Without a wish of the client, a watch ends after between once and twice this time.
const TIMEOUT_MIN: Duration = Duration::from_secs(1800);
/// Events that are ready are sent together up to this size.
const FRAME_BYTES: usize = 64 << 10;

pub(crate) async fn watch(context: &Context, resource: &Arc<Resource>) -> Reply {
    let info = &context.info;
    let wanted = negotiate::accept(&context.headers, Offer::ObjectsTablesMetadata)?;
    if wanted.encoding != Encoding::Json {
        return Err(Status::not_acceptable(&["application/json", "application/json;stream=watch"]));
    }
    let selection = Selection::parse(resource, info)?;
    let options = Options::parse(context)?;
    let prefix = resource.prefix(&info.namespace);
    let (initial, watch, revision) = match start(context, &prefix, &options).await {
        // A request that is in order gets its refusal as an event, as from upstream: clients list anew only then.
        Err(status) if status.reason == "Expired" => {
            let event = json!({"type": "ERROR", "object": status.to_json()});
            return Ok(reply::json(StatusCode::OK, &event));
        }
        result => result?,
    };
    let include = form::include_object(context)?;
    let gauge = context.server.metrics.watches.with_label_values(&["watch", &resource.group, &resource.plural]);
    gauge.inc();
    let timeout = options.timeout.unwrap_or_else(|| TIMEOUT_MIN + TIMEOUT_MIN.mul_f64(rand::rng().random()));
    // Whatever a client asks for must be a time that there is.
    let timeout = timeout.min(context.server.limits.watch);
    let mut bookmarks = tokio::time::interval_at(Instant::now() + BOOKMARK_INTERVAL, BOOKMARK_INTERVAL);
    bookmarks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stream = Stream {
        view: View {
            resource: Arc::clone(resource),
            form: wanted.form,
            include,
            columns_due: AtomicBool::new(true),
            selection,
        },
        initial: initial.into(),
        end_of_initial: (options.send_initial == Some(true) && options.bookmarks).then_some(revision),
        watch,
        store: Arc::clone(&context.server.store),
        bookmarks: options.bookmarks.then_some(bookmarks),
        deadline: Instant::now() + timeout,
        shutdown: context.server.shutdown.clone(),
        served: resource.custom.is_some().then(|| Served::new(context, resource)),
        sent: context.server.metrics.watch_events.clone(),
        _gauge: Gauge(gauge),
        ended: false,
    };
    let frames = futures::stream::unfold(stream, |mut stream| async move {
        stream.next_frame().await.map(|frame| (Ok::<Bytes, std::io::Error>(frame), stream))
    });
    let content_type = "application/json";
    Ok(reply::with_type(StatusCode::OK, content_type, reply::stream(frames)))
}

struct Options {
    /// `None` for "any": unset and 0.
    from: Option<u64>,
    send_initial: Option<bool>,
    bookmarks: bool,
    timeout: Option<Duration>,
}

impl Options {
    fn parse(context: &Context) -> Result<Self, Status> {
        let query = &context.info.query;
        let invalid = |field: &str, why: &str| {
            let cause = control_api::status::Cause {
                reason: "FieldValueForbidden".into(),
                message: format!("Forbidden: {why}"),
                field: field.into(),
            };
            Status::invalid("meta.k8s.io", "ListOptions", "", vec![cause])
        };
        let send_initial = query.has("sendInitialEvents").then(|| query.flag("sendInitialEvents"));
        match (send_initial, query.get("resourceVersionMatch")) {
            (Some(_), Some("NotOlderThan")) | (None, None) => {}
            (Some(_), _) => {
                let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                return Err(invalid("resourceVersionMatch", why));
            }
            (None, Some(_)) => {
                let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                return Err(invalid("resourceVersionMatch", why));
            }
        }
        Ok(Self {
            from: query.number("resourceVersion")?.filter(|version| *version > 0),
            send_initial,
            bookmarks: query.flag("allowWatchBookmarks"),
            timeout: query.number("timeoutSeconds")?.filter(|seconds| *seconds > 0).map(Duration::from_secs),
        })
    }
}

/// The objects to begin with, the events after them, and the revision between.
async fn start(context: &Context, prefix: &str, options: &Options) -> Result<(Vec<Entry>, Watch, u64), Status> {
    let store = &context.server.store;
    let wants_state = options.send_initial.unwrap_or(options.from.is_none());
    if wants_state {
        if let Some(from) = options.from {
            crate::read::check_not_future(context, Some(from))?;
        }
        let page = store.range(Range::prefix(prefix)).await.map_err(store_failure)?;
        let watch = store.watch(prefix, page.revision).await.map_err(|error| watch_failure(error, page.revision))?;
        return Ok((page.entries, watch, page.revision));
    }
    let from = options.from.unwrap_or_else(|| store.revision());
    let watch = store.watch(prefix, from).await.map_err(|error| watch_failure(error, from))?;
    Ok((Vec::new(), watch, from))
}

fn watch_failure(error: Error, from: u64) -> Status {
    match error {
        Error::Compacted { compacted, .. } => {
            Status::expired(format!("too old resource version: {from} ({compacted})"))
        }
        Error::Future { requested, current } => too_large(requested, current),
        error => store_failure(error),
    }
}

/// Counts an open watch for as long as its stream lives.
struct Gauge(IntGauge);

impl Drop for Gauge {
    fn drop(&mut self) {
        self.0.dec();
    }
}

struct Stream {
    view: View,
    initial: VecDeque<Entry>,
    /// The revision to announce once the initial objects are out.
    end_of_initial: Option<u64>,
    watch: Watch,
    store: Arc<dyn control_store::Store>,
    bookmarks: Option<Interval>,
    deadline: Instant,
    shutdown: CancellationToken,
    /// Set for a resource that may be taken away.
    served: Option<Served>,
    sent: prometheus::IntCounter,
    _gauge: Gauge,
    ended: bool,
}

impl Stream {
    /// `None` at the end of the watch.
    async fn next_frame(&mut self) -> Option<Bytes> {
        let mut frame = BytesMut::new();
        self.add_initial(&mut frame);
        while frame.is_empty() {
            if self.ended {
                return None;
            }
            tokio::select! {
                event = self.watch.next() => match event {
                    Some(event) => self.add(&mut frame, &event),
                    None => return None,
                },
                () = tick(self.bookmarks.as_mut()) => self.add_bookmark(&mut frame),
                () = tokio::time::sleep_until(self.deadline) => {
                    self.ended = true;
                    if self.bookmarks.is_some() {
                        self.add_bookmark(&mut frame);
                    }
                }
                () = no_longer(self.served.as_mut()) => {
                    self.ended = true;
                    // The last events are those of its own objects' deletion.
                    while let Some(event) = self.watch.try_next() {
                        self.add(&mut frame, &event);
                    }
                }
                () = self.shutdown.cancelled() => return None,
            }
        }
        while frame.len() < FRAME_BYTES && self.initial.is_empty() && !self.ended {
            let Some(event) = self.watch.try_next() else { break };
            self.add(&mut frame, &event);
        }
        Some(frame.freeze())
    }

    fn add_initial(&mut self, frame: &mut BytesMut) {
        while frame.len() < FRAME_BYTES {
            let Some(entry) = self.initial.pop_front() else { break };
            if self.view.selection.matches_stored(&entry.key, &entry.value) {
                self.view.put(frame, "ADDED", &entry.value, entry.revision);
                self.sent.inc();
            }
        }
        if self.initial.is_empty()
            && let Some(revision) = self.end_of_initial.take()
        {
            self.view.put_bookmark(frame, revision, true);
        }
    }

    fn add(&mut self, frame: &mut BytesMut, event: &Event) {
        let before = frame.len();
        self.view.put_event(frame, event);
        if frame.len() > before {
            self.sent.inc();
        }
    }

    /// Says how far this watch is. Everything up to the revision read first has been handed to the watcher.
    fn add_bookmark(&mut self, frame: &mut BytesMut) {
        let revision = self.store.revision();
        while let Some(event) = self.watch.try_next() {
            self.add(frame, &event);
        }
        self.view.put_bookmark(frame, revision, false);
    }
}

/// A custom resource in the form in which a watch began with it.
struct Served {
    server: Arc<Server>,
    resource: Arc<Resource>,
    changes: tokio::sync::watch::Receiver<()>,
}

impl Served {
    fn new(context: &Context, resource: &Arc<Resource>) -> Self {
        let server = Arc::clone(&context.server);
        let changes = server.registry_changes.subscribe();
        Self { server, resource: Arc::clone(resource), changes }
    }
}

/// Once the resource is served no more, or in another form: its clients have to begin anew.
async fn no_longer(served: Option<&mut Served>) {
    match served {
        Some(served) => while served.server.still_serves(&served.resource) && served.changes.changed().await.is_ok() {},
        None => std::future::pending().await,
    }
}

async fn tick(interval: Option<&mut Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

/// How one watcher sees events.
struct View {
    resource: Arc<Resource>,
    form: Form,
    include: IncludeObject,
    /// The columns of a table go with its first event only.
    columns_due: AtomicBool,
    selection: Selection,
}

/// What is derived from an event once for all watchers.
#[derive(Default)]
struct Shared {
    line: OnceLock<Bytes>,
    object: OnceLock<Value>,
    previous: OnceLock<Value>,
}

impl Shared {
    fn of(event: &Event) -> Option<&Self> {
        event.memo.get_or_init(|| Box::<Self>::default()).downcast_ref()
    }

    fn object<'a>(&'a self, event: &Event) -> &'a Value {
        self.object.get_or_init(|| serde_json::from_slice(&event.value).unwrap_or_default())
    }

    fn previous<'a>(&'a self, event: &Event) -> &'a Value {
        let parse = || event.previous.as_ref().and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default();
        self.previous.get_or_init(parse)
    }
}

impl View {
    fn put_event(&self, frame: &mut BytesMut, event: &Event) {
        if !self.selection.may_match_key(&event.key) {
            return;
        }
        let Some(shared) = Shared::of(event) else { return };
        let matches = |object: &Value| self.selection.matches(object);
        let everything = self.selection.is_everything();
        let now = everything || matches(shared.object(event));
        let before = match event.kind {
            EventKind::Create => false,
            EventKind::Update => everything || matches(shared.previous(event)),
            // The value of a deletion is the last one.
            EventKind::Delete => now,
        };
        let now = now && event.kind != EventKind::Delete;
        match (before, now) {
            (false, false) => {}
            (true, true) => self.put_natural(frame, "MODIFIED", event, shared),
            (false, true) if event.kind == EventKind::Create => self.put_natural(frame, "ADDED", event, shared),
            (false, true) => self.put(frame, "ADDED", &event.value, event.revision),
            (true, false) if event.kind == EventKind::Delete => self.put_natural(frame, "DELETED", event, shared),
            (true, false) => {
                // It still exists but left the selection: the last state that was in it, at the new revision.
                let last = event.previous.as_ref().unwrap_or(&event.value);
                self.put(frame, "DELETED", last, event.revision);
            }
        }
    }

    /// The line that most watchers want, rendered once.
    fn put_natural(&self, frame: &mut BytesMut, kind: &str, event: &Event, shared: &Shared) {
        if self.form != Form::Object || !self.resource.is_served_as_stored() {
            return self.put(frame, kind, &event.value, event.revision);
        }
        let line = shared.line.get_or_init(|| {
            let mut line = BytesMut::with_capacity(event.value.len() + 96);
            put_plain(&mut line, kind, &event.value, event.revision);
            line.freeze()
        });
        frame.extend_from_slice(line);
    }

    fn put(&self, frame: &mut BytesMut, kind: &str, stored: &[u8], revision: u64) {
        if self.form == Form::Object && self.resource.is_served_as_stored() {
            return put_plain(frame, kind, stored, revision);
        }
        let Some(mut object) = object::decode(stored, revision) else { return };
        self.resource.from_stored(&mut object);
        put_value(frame, kind, &self.shape(object));
    }

    fn put_bookmark(&self, frame: &mut BytesMut, revision: u64, initial_events_end: bool) {
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if initial_events_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.form {
            Form::Object => json!({
                "kind": self.resource.kind, "apiVersion": self.resource.api_version(), "metadata": metadata,
            }),
            Form::Metadata => table::partial(&json!({"metadata": metadata}), "v1"),
            Form::Table(version) => {
                let row = json!({"cells": [], "object": table::partial(&json!({"metadata": metadata}), version)});
                json!({
                    "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"),
                    "metadata": {"resourceVersion": revision.to_string()}, "columnDefinitions": null, "rows": [row],
                })
            }
        };
        put_value(frame, "BOOKMARK", &object);
    }

    fn shape(&self, object: Value) -> Value {
        match self.form {
            Form::Object => object,
            Form::Metadata => table::partial(&object, "v1"),
            Form::Table(version) => {
                let with_columns = self.columns_due.swap(false, Ordering::Relaxed);
                let options =
                    TableOptions { version, include: self.include, with_columns, now: jiff::Timestamp::now() };
                table::table_of_one(&self.resource, &object, options)
            }
        }
    }
}

fn put_plain(out: &mut BytesMut, kind: &str, stored: &[u8], revision: u64) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    object::splice_into(out, stored, revision);
    out.extend_from_slice(b"}\n");
}

fn put_value(out: &mut BytesMut, kind: &str, object: &Value) {
    out.extend_from_slice(format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n").as_bytes());
}
