//! The single writer: collects what waits, decides each transaction in order, syncs once, then publishes.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::embedded::{Options, Shared};
use crate::index::Index;
use crate::model::{Entry, Error, Event, EventKind, Expect, Op, Result};
use crate::room::Room;

/// Bounds one commit, so that the first waiter does not wait for all.
const BATCH_REQUESTS_MAX: usize = 1024;
const BATCH_BYTES_MAX: usize = 8 << 20;
/// How often expired keys are looked for, and watchers that left are forgotten.
const TICK: Duration = Duration::from_secs(1);

pub(crate) enum Request {
    Txn { ops: Vec<Op>, reply: oneshot::Sender<Result<u64>> },
    Compact { revision: u64, reply: oneshot::Sender<Result<()>> },
    Stop,
}

pub(crate) struct Writer {
    pub(crate) room: Room,
    pub(crate) shared: Arc<Shared>,
    pub(crate) requests: Receiver<Request>,
    pub(crate) options: Options,
    pub(crate) expiries: Expiries,
}

/// Which keys end when.
#[derive(Debug, Default)]
pub(crate) struct Expiries {
    by_key: HashMap<Arc<str>, u64>,
    by_time: BTreeSet<(u64, Arc<str>)>,
}

impl Expiries {
    /// Replaces what is known of a key; 0 for no expiry.
    pub(crate) fn set(&mut self, key: &Arc<str>, expires: u64) {
        if let Some(before) = self.by_key.remove(key) {
            self.by_time.remove(&(before, key.clone()));
        }
        if expires > 0 {
            self.by_key.insert(key.clone(), expires);
            self.by_time.insert((expires, key.clone()));
        }
    }

    fn due(&self, now: u64) -> Vec<Arc<str>> {
        let due = self.by_time.iter().take_while(|(at, _)| *at <= now);
        due.take(BATCH_REQUESTS_MAX).map(|(_, key)| key.clone()).collect()
    }
}

/// What one commit will make durable.
#[derive(Default)]
struct Batch {
    revision: u64,
    events: Vec<Arc<Event>>,
    /// The newest staged version of each key touched; `None` after a deletion.
    staged: HashMap<Arc<str>, Option<Entry>>,
    replies: Vec<(oneshot::Sender<Result<u64>>, Result<u64>)>,
}

impl Writer {
    pub(crate) fn run(mut self) {
        loop {
            let first = match self.requests.recv_timeout(TICK) {
                Ok(request) => request,
                Err(RecvTimeoutError::Timeout) => {
                    self.shared.state.write().hub.sweep();
                    match self.expire() {
                        Ok(()) => continue,
                        Err(error) => return self.fail(error),
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
            };
            match self.serve(first) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => return self.fail(error),
            }
        }
        self.shared.state.write().hub.clear();
    }

    /// Serves this request and those that wait behind it. Returns whether to go on.
    fn serve(&mut self, first: Request) -> Result<bool> {
        self.room.look()?;
        let mut batch = Batch { revision: self.revision(), ..Batch::default() };
        let mut go_on = true;
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(request) = next {
            match request {
                Request::Txn { ops, reply } => {
                    bytes += ops.iter().map(Op::weight).sum::<usize>();
                    let result = if self.room.admits(&ops) {
                        batch.decide(ops, &self.shared.state.read().index, self.options.value_bytes_max)
                    } else {
                        Err(Error::Full)
                    };
                    batch.replies.push((reply, result));
                }
                Request::Compact { revision, reply } => {
                    let mut state = self.shared.state.write();
                    state.index.compact(revision);
                    self.shared.publish_revisions(&state.index);
                    // A caller that went away needs no answer.
                    let _ = reply.send(Ok(()));
                }
                Request::Stop => {
                    go_on = false;
                    break;
                }
            }
            let full = batch.replies.len() >= BATCH_REQUESTS_MAX || bytes >= BATCH_BYTES_MAX;
            next = if full { None } else { self.requests.try_recv().ok() };
        }
        self.commit(batch)?;
        Ok(go_on)
    }

    fn commit(&mut self, batch: Batch) -> Result<()> {
        if !batch.events.is_empty()
            && let Err(error) = self.room.commit(&batch.events, batch.revision, self.revision())
        {
            for (reply, _) in batch.replies {
                let _ = reply.send(Err(error.clone()));
            }
            return if error == Error::Full { Ok(()) } else { Err(error) };
        }
        {
            let mut state = self.shared.state.write();
            state.index.apply(&batch.events);
            let over = state.index.history_len() > self.options.history_events_max
                || state.index.history_bytes() > self.options.history_bytes_max;
            if over {
                let middle = state.index.history_middle();
                state.index.compact(middle);
            }
            state.hub.publish(&batch.events);
            self.shared.publish_revisions(&state.index);
        }
        for event in &batch.events {
            self.expiries.set(&event.key, event.expires);
        }
        for (reply, result) in batch.replies {
            let _ = reply.send(result);
        }
        Ok(())
    }

    fn revision(&self) -> u64 {
        self.shared.state.read().index.revision()
    }

    /// Deletes the keys whose time has come.
    fn expire(&mut self) -> Result<()> {
        let due = self.expiries.due((self.options.clock)());
        if due.is_empty() {
            return Ok(());
        }
        let mut batch = Batch { revision: self.revision(), ..Batch::default() };
        let ops = due.into_iter().map(|key| Op::Delete { key, expect: Expect::Any }).collect();
        // Deleting without an expectation cannot conflict.
        let _ = batch.decide(ops, &self.shared.state.read().index, usize::MAX);
        self.commit(batch)
    }

    /// After a failed commit the disk's state is unknown: nothing is retried, every caller is told.
    fn fail(self, error: Error) {
        tracing::error!(%error, "store failed");
        self.shared.failed.send_replace(Some(error.clone()));
        self.shared.state.write().hub.clear();
        while let Ok(request) = self.requests.recv() {
            match request {
                Request::Txn { reply, .. } => drop(reply.send(Err(error.clone()))),
                Request::Compact { reply, .. } => drop(reply.send(Err(error.clone()))),
                Request::Stop => return,
            }
        }
    }
}

impl Batch {
    /// Decides one transaction against what is stored and what this batch has staged before it.
    fn decide(&mut self, ops: Vec<Op>, index: &Index, value_bytes_max: usize) -> Result<u64> {
        for op in &ops {
            let current = self.current(op.key(), index);
            let holds = match (op.expect(), &current) {
                (Expect::Any, _) | (Expect::Absent, None) => true,
                (Expect::Revision(wanted), Some(entry)) => entry.revision == wanted,
                (Expect::Absent, Some(_)) | (Expect::Revision(_), None) => false,
            };
            if !holds {
                return Err(Error::Conflict { key: op.key().clone(), current: current.map(Box::new) });
            }
            if let Op::Put { key, value, .. } = op
                && value.len() > value_bytes_max
            {
                return Err(Error::TooLarge { key: key.clone(), size: value.len(), max: value_bytes_max });
            }
        }
        let revision = self.revision + 1;
        let before = self.events.len();
        for op in ops {
            self.stage(op, revision, index);
        }
        if self.events.len() > before {
            self.revision = revision;
        }
        Ok(self.revision)
    }

    fn current(&self, key: &Arc<str>, index: &Index) -> Option<Entry> {
        self.staged.get(key).map_or_else(|| index.get(key), Clone::clone)
    }

    fn stage(&mut self, op: Op, revision: u64, index: &Index) {
        let current = self.current(op.key(), index);
        let previous = current.as_ref().map(|entry| entry.value.clone());
        let created = current.as_ref().map_or(revision, |entry| entry.created);
        let (kind, key, value, expires) = match op {
            Op::Check { .. } => return,
            Op::Put { key, value, expires, .. } => {
                let kind = if current.is_some() { EventKind::Update } else { EventKind::Create };
                let entry = Entry { key: key.clone(), value: value.clone(), created, revision };
                self.staged.insert(key.clone(), Some(entry));
                (kind, key, value, expires.unwrap_or(0))
            }
            Op::Delete { key, .. } => {
                let Some(previous) = previous.clone() else { return };
                self.staged.insert(key.clone(), None);
                (EventKind::Delete, key, previous, 0)
            }
        };
        let memo = std::sync::OnceLock::new();
        self.events.push(Arc::new(Event { kind, key, value, previous, created, revision, expires, memo }));
    }
}
