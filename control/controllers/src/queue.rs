//! The one runner of all controllers: keys come in from many sides, each is worked on once at a time, failures come again
//! later and later.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

const BACKOFF_MIN: Duration = Duration::from_millis(5);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
const WORKERS_MAX: usize = 8;

/// Which object to look at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object.
    pub(crate) fn of<K: kube::Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

/// Where keys are put in.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    sender: mpsc::UnboundedSender<Key>,
}

impl Queue {
    /// Asks for a look at the object, soon.
    pub(crate) fn add(&self, key: Key) {
        // The receiver ends only with the process.
        let _ = self.sender.send(key);
    }
}

/// What a reconcile function says when it succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing to do until something changes.
    Await,
    /// Look again after this time, whatever happens.
    After(Duration),
}

/// Starts a controller's worker and returns its queue.
pub(crate) fn start<F, R>(name: &'static str, tasks: &mut JoinSet<anyhow::Result<()>>, reconcile: F) -> Queue
where
    F: Fn(Key) -> R + Send + 'static,
    R: Future<Output = anyhow::Result<Next>> + Send + 'static,
{
    let (sender, receiver) = mpsc::unbounded_channel();
    tasks.spawn(async move { work(name, receiver, reconcile).await });
    Queue { sender }
}

/// The keys of one controller: each either waits for its time, or runs, or both (then it runs again).
#[derive(Default)]
struct Schedule {
    due: BTreeMap<Key, Instant>,
    running: BTreeSet<Key>,
    failures: HashMap<Key, u32>,
}

impl Schedule {
    /// The earlier of two times wins.
    fn at(&mut self, key: Key, time: Instant) {
        let due = self.due.entry(key).or_insert(time);
        *due = (*due).min(time);
    }

    fn earliest(&self) -> Option<Instant> {
        self.due.iter().filter(|(key, _)| !self.running.contains(*key)).map(|(_, time)| *time).min()
    }

    /// Takes a key whose time has come and that does not run already.
    fn take(&mut self, now: Instant) -> Option<Key> {
        if self.running.len() >= WORKERS_MAX {
            return None;
        }
        let is_free = |(key, time): &(&Key, &Instant)| **time <= now && !self.running.contains(*key);
        let key = self.due.iter().filter(is_free).min_by_key(|(_, time)| **time).map(|(key, _)| key.clone())?;
        self.due.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }

    fn done(&mut self, key: Key, result: &anyhow::Result<Next>, now: Instant) {
        self.running.remove(&key);
        match result {
            Ok(Next::Await) => {
                self.failures.remove(&key);
            }
            Ok(Next::After(delay)) => {
                self.failures.remove(&key);
                self.at(key, now + *delay);
            }
            Err(_) => {
                let failures = self.failures.entry(key.clone()).or_default();
                let delay = BACKOFF_MIN.saturating_mul(1 << (*failures).min(20)).min(BACKOFF_MAX);
                *failures += 1;
                self.at(key, now + delay);
            }
        }
    }
}

async fn work<F, R>(name: &'static str, mut keys: mpsc::UnboundedReceiver<Key>, reconcile: F) -> anyhow::Result<()>
where
    F: Fn(Key) -> R + Send + 'static,
    R: Future<Output = anyhow::Result<Next>> + Send + 'static,
{
    let mut schedule = Schedule::default();
    let mut running = JoinSet::new();
    loop {
        while let Some(key) = schedule.take(Instant::now()) {
            let work = reconcile(key.clone());
            running.spawn(async move { (key, work.await) });
        }
        let wake = if running.len() < WORKERS_MAX { schedule.earliest() } else { None };
        tokio::select! {
            key = keys.recv() => match key {
                Some(key) => schedule.at(key, Instant::now()),
                None => return Ok(()),
            },
            Some(ended) = running.join_next() => {
                let (key, result) = ended.map_err(|error| anyhow::anyhow!("{name}: a reconcile panicked: {error}"))?;
                if let Err(error) = &result {
                    log_failure(name, &key, error);
                }
                schedule.done(key, &result, Instant::now());
            }
            () = async { tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)).await }, if wake.is_some() => {}
        }
    }
}

/// A conflict only says that the view was old; it is retried like any failure but is not worth a line.
fn log_failure(name: &str, key: &Key, error: &anyhow::Error) {
    let is_conflict = matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 409);
    if is_conflict {
        tracing::debug!(controller = name, ?key, "conflict; trying again");
    } else {
        tracing::warn!(controller = name, ?key, error = format!("{error:#}"), "reconcile failed");
    }
}

#[cfg(test)]
mod tests {
    use super::{Key, Next, Schedule, start};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;
    use tokio::time::Instant;

    #[test]
    fn a_running_key_is_not_run_twice_but_again() {
        let (mut schedule, now) = (Schedule::default(), Instant::now());
        let key = Key::new("a", "b");
        schedule.at(key.clone(), now);
        assert_eq!(schedule.take(now), Some(key.clone()));
        schedule.at(key.clone(), now);
        assert_eq!(schedule.take(now), None);
        schedule.done(key.clone(), &Ok(Next::Await), now);
        assert_eq!(schedule.take(now), Some(key));
    }

    #[tokio::test]
    async fn failures_come_again_until_they_succeed() {
        let calls = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&calls);
        let mut tasks = tokio::task::JoinSet::new();
        let queue = start("test", &mut tasks, move |_| {
            let call = counted.fetch_add(1, Ordering::SeqCst);
            async move { if call < 3 { anyhow::bail!("not yet") } else { Ok(Next::Await) } }
        });
        queue.add(Key::new("", "x"));
        while calls.load(Ordering::SeqCst) < 4 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
