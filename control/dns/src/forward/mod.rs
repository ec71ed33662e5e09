//! Names that are not the cluster's: the cache, then the upstream servers.
//!
//! - `cache`: bounded, by question
//! - `exchange`: one question to one server
//! - `upstreams`: which servers, in which order
//! - `resolv_conf`: servers out of a file

mod cache;
mod exchange;
mod resolv_conf;
mod upstreams;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use crate::metrics::Metrics;
use cache::Cache;
pub(crate) use upstreams::{Upstreams, follow_file};

/// Questions that may be under way at once.
const UNDER_WAY_MAX: usize = 1000;

/// All that makes two questions the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    /// Compares without case.
    pub(crate) name: Name,
    pub(crate) kind: RecordType,
    pub(crate) dnssec_ok: bool,
    pub(crate) checking_disabled: bool,
}

/// What an upstream server said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lookup {
    pub(crate) code: ResponseCode,
    pub(crate) authentic_data: bool,
    pub(crate) answers: Vec<Record>,
    pub(crate) authorities: Vec<Record>,
    pub(crate) additionals: Vec<Record>,
}

impl Lookup {
    fn failed(code: ResponseCode) -> Self {
        Self { code, ..Self::default() }
    }

    fn from_message(message: Message) -> Self {
        Self {
            code: message.metadata.response_code,
            authentic_data: message.metadata.authentic_data,
            answers: message.answers,
            authorities: message.authorities,
            additionals: message.additionals,
        }
    }

    fn records_mut(&mut self) -> impl Iterator<Item = &mut Record> {
        self.answers.iter_mut().chain(&mut self.authorities).chain(&mut self.additionals)
    }
}

type Result = watch::Receiver<Option<Arc<Lookup>>>;

pub(crate) struct Forwarder {
    upstreams: Arc<Upstreams>,
    cache: Mutex<Cache>,
    /// Questions under way: who asks the same waits for the same answer.
    under_way: Mutex<HashMap<Question, Result>>,
    permits: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

impl Forwarder {
    pub(crate) fn new(upstreams: Arc<Upstreams>, cache_entries: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            upstreams,
            cache: Mutex::new(Cache::new(cache_entries)),
            under_way: Mutex::default(),
            permits: Arc::new(Semaphore::new(UNDER_WAY_MAX)),
            metrics,
        }
    }

    /// Whether there is anybody to ask.
    pub(crate) fn is_available(&self) -> bool {
        !self.upstreams.is_empty()
    }

    /// The answer if it is known, with what is left of its times to live.
    pub(crate) fn cached(&self, question: &Question) -> Option<Lookup> {
        let found = self.cache.lock().get(question, Instant::now());
        match &found {
            Some(lookup) => self.metrics.cache_hit(lookup.code),
            None => self.metrics.cache_misses.inc(),
        }
        found
    }

    /// Asks the upstream servers.
    pub(crate) async fn ask(self: &Arc<Self>, question: Question) -> Arc<Lookup> {
        let Some(mut result) = self.start(question) else {
            self.metrics.forward_rejects.inc();
            return Arc::new(Lookup::failed(ResponseCode::Refused));
        };
        match result.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(lookup)) => Arc::clone(lookup),
            _ => Arc::new(Lookup::failed(ResponseCode::ServFail)),
        }
    }

    /// Joins a question under way or sends it, unless too many are. It is on its way whether or not anybody waits.
    fn start(self: &Arc<Self>, question: Question) -> Option<Result> {
        let mut under_way = self.under_way.lock();
        if let Some(result) = under_way.get(&question) {
            return Some(result.clone());
        }
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        let (sender, receiver) = watch::channel(None);
        under_way.insert(question.clone(), receiver.clone());
        let forwarder = Arc::clone(self);
        tokio::spawn(async move {
            let lookup = forwarder.look_up(&question).await;
            let entries = {
                let mut cache = forwarder.cache.lock();
                cache.insert(question.clone(), &lookup, Instant::now());
                cache.len()
            };
            forwarder.metrics.cache_entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
            forwarder.under_way.lock().remove(&question);
            sender.send_replace(Some(Arc::new(lookup)));
            drop(permit);
        });
        Some(receiver)
    }

    async fn look_up(&self, question: &Question) -> Lookup {
        let mut said = None;
        for upstream in self.upstreams.in_order() {
            self.metrics.forward_requests.inc();
            match exchange::ask(upstream.address, question).await {
                Ok(message) if !is_failure(message.metadata.response_code) => {
                    upstream.answered();
                    return Lookup::from_message(message);
                }
                // It works, but not for this name; another may.
                Ok(message) => said = Some(Lookup::from_message(message)),
                Err(error) => {
                    tracing::debug!(server = %upstream.address, name = %question.name, %error, "no answer from upstream");
                    self.metrics.forward_failures.inc();
                    upstream.failed();
                }
            }
        }
        said.unwrap_or_else(|| Lookup::failed(ResponseCode::ServFail))
    }
}

fn is_failure(code: ResponseCode) -> bool {
    !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
}
