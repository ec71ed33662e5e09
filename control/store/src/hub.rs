//! Watchers: the writer hands each its events; one that does not keep up is cut off and resumes from the history.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::model::Event;

/// Events that a watcher may be behind before it is cut off, and what they may hold in memory: a few thousand large
/// objects would fill it.
const BACKLOG_EVENTS_MAX: usize = 4096;
const BACKLOG_BYTES_MAX: usize = 32 << 20;

#[derive(Debug, Default)]
pub(crate) struct Hub {
    /// Watchers of equal interest share one comparison.
    by_prefix: HashMap<Arc<str>, Vec<Sender>>,
}

impl Hub {
    pub(crate) fn subscribe(&mut self, prefix: &str, backlog: VecDeque<Arc<Event>>) -> Watch {
        let queue = Arc::new(Queue::default());
        self.by_prefix.entry(prefix.into()).or_default().push(Sender(Arc::clone(&queue)));
        Watch { backlog, queue }
    }

    pub(crate) fn publish(&mut self, events: &[Arc<Event>]) {
        let mut dead = false;
        for (prefix, watchers) in &mut self.by_prefix {
            for event in events.iter().filter(|event| event.key.starts_with(&**prefix)) {
                watchers.retain(|watcher| watcher.send(event));
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
            watchers.retain(|watcher| !watcher.is_alone());
        }
        self.by_prefix.retain(|_, watchers| !watchers.is_empty());
    }

    pub(crate) fn clear(&mut self) {
        self.by_prefix.clear();
    }
}

/// What one watcher has yet to take.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// Nothing more will come.
    ended: bool,
}

/// The hub's end of a queue.
#[derive(Debug)]
struct Sender(Arc<Queue>);

impl Sender {
    fn is_alone(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// False if the watcher has gone or is too far behind. Then nothing of what it missed is kept for it.
    fn send(&self, event: &Arc<Event>) -> bool {
        if self.is_alone() {
            return false;
        }
        let mut waiting = self.0.waiting.lock();
        let bytes = waiting.bytes + weight(event);
        let is_behind = waiting.events.len() >= BACKLOG_EVENTS_MAX || bytes > BACKLOG_BYTES_MAX;
        if is_behind && !waiting.events.is_empty() {
            *waiting = Waiting::default();
            return false;
        }
        waiting.bytes = bytes;
        waiting.events.push_back(Arc::clone(event));
        drop(waiting);
        self.0.arrived.notify_one();
        true
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.0.waiting.lock().ended = true;
        self.0.arrived.notify_one();
    }
}

fn weight(event: &Event) -> usize {
    event.key.len() + event.value.len() + event.previous.as_ref().map_or(0, |previous| previous.len())
}

/// A stream of events in revision order.
#[derive(Debug)]
pub struct Watch {
    backlog: VecDeque<Arc<Event>>,
    queue: Arc<Queue>,
}

impl Watch {
    /// The next event; `None` if the watcher was cut off (too slow, or the store closed) and must resume.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            if let Some(event) = self.try_next() {
                return Some(event);
            }
            if self.queue.waiting.lock().ended {
                // What came just before the end is still to be given.
                return self.try_next();
            }
            self.queue.arrived.notified().await;
        }
    }

    /// The next event if it is there already.
    pub fn try_next(&mut self) -> Option<Arc<Event>> {
        if let Some(event) = self.backlog.pop_front() {
            return Some(event);
        }
        let mut waiting = self.queue.waiting.lock();
        let event = waiting.events.pop_front()?;
        waiting.bytes -= weight(&event);
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use super::*;
    use crate::model::EventKind;

    fn event(revision: u64, size: usize) -> Arc<Event> {
        Arc::new(Event {
            kind: EventKind::Create,
            key: "/a/b".into(),
            value: vec![0; size].into(),
            previous: None,
            created: revision,
            revision,
            expires: 0,
            memo: OnceLock::new(),
        })
    }

    #[tokio::test]
    async fn a_watcher_is_cut_off_by_bytes_as_well_as_by_events_and_pins_nothing_then() {
        for (count, size) in [(5, 8 << 20), (5000, 10)] {
            let mut hub = Hub::default();
            let mut watch = hub.subscribe("/a/", VecDeque::new());
            let events: Vec<_> = (1..=count).map(|revision| event(revision, size)).collect();
            hub.publish(&events);
            assert!(hub.by_prefix.is_empty(), "{count} events of {size} bytes");
            assert!(events.iter().all(|event| Arc::strong_count(event) == 1));
            assert!(watch.next().await.is_none());
        }
    }

    #[tokio::test]
    async fn one_that_keeps_up_gets_everything_whatever_its_size() {
        let mut hub = Hub::default();
        let mut watch = hub.subscribe("/a/", VecDeque::new());
        for revision in 1..=100 {
            hub.publish(&[event(revision, 4 << 20)]);
            assert_eq!(watch.next().await.map(|event| event.revision), Some(revision));
        }
        hub.publish(&[event(101, BACKLOG_BYTES_MAX + 1)]);
        hub.clear();
        assert_eq!(watch.next().await.map(|event| event.revision), Some(101));
        assert!(watch.next().await.is_none());
    }

    #[test]
    fn those_that_left_are_forgotten() {
        let mut hub = Hub::default();
        drop(hub.subscribe("/a/", VecDeque::new()));
        hub.sweep();
        assert!(hub.by_prefix.is_empty());
    }
}
