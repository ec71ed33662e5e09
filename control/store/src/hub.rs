//! Watchers: the writer hands each its events; one that does not keep up is cut off and resumes from the history.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::model::Event;

/// Events that a watcher may be behind before it is cut off.
const BACKLOG_EVENTS_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(crate) struct Hub {
    /// Watchers of equal interest share one comparison.
    by_prefix: HashMap<Arc<str>, Vec<mpsc::Sender<Arc<Event>>>>,
}

impl Hub {
    pub(crate) fn subscribe(&mut self, prefix: &str, backlog: VecDeque<Arc<Event>>) -> Watch {
        let (sender, events) = mpsc::channel(BACKLOG_EVENTS_MAX);
        self.by_prefix.entry(prefix.into()).or_default().push(sender);
        Watch { backlog, events }
    }

    pub(crate) fn publish(&mut self, events: &[Arc<Event>]) {
        let mut dead = false;
        for (prefix, watchers) in &mut self.by_prefix {
            for event in events.iter().filter(|event| event.key.starts_with(&**prefix)) {
                watchers.retain(|watcher| watcher.try_send(Arc::clone(event)).is_ok());
            }
            dead |= watchers.is_empty();
        }
        if dead {
            self.by_prefix.retain(|_, watchers| !watchers.is_empty());
        }
    }

    /// Forgets watchers that went away without an event on their keys since.
    pub(crate) fn sweep(&mut self) {
        for watchers in self.by_prefix.values_mut() {
            watchers.retain(|watcher| !watcher.is_closed());
        }
        self.by_prefix.retain(|_, watchers| !watchers.is_empty());
    }

    pub(crate) fn clear(&mut self) {
        self.by_prefix.clear();
    }
}

/// A stream of events in revision order.
#[derive(Debug)]
pub struct Watch {
    backlog: VecDeque<Arc<Event>>,
    events: mpsc::Receiver<Arc<Event>>,
}

impl Watch {
    /// The next event; `None` if the watcher was cut off (too slow, or the store closed) and must resume.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        match self.backlog.pop_front() {
            Some(event) => Some(event),
            None => self.events.recv().await,
        }
    }

    /// The next event if it is there already.
    pub fn try_next(&mut self) -> Option<Arc<Event>> {
        self.backlog.pop_front().or_else(|| self.events.try_recv().ok())
    }
}
