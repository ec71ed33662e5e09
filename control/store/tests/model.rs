//! The store against an oracle: random transactions, reads at every revision, watches from every revision, compaction.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use control_store::{Embedded, Error, Event, EventKind, Expect, Op, Range, Store};
use proptest::prelude::*;

/// Every state that ever was, by revision, as plain maps: key → (value, revision).
type Snapshot = BTreeMap<String, (Bytes, u64)>;

#[derive(Debug, Default)]
struct Oracle {
    states: Vec<Snapshot>,
    events: Vec<(u64, String, EventKind, Bytes, Option<Bytes>)>,
}

impl Oracle {
    fn new() -> Self {
        Self { states: vec![Snapshot::new()], events: vec![] }
    }

    fn revision(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    fn now(&self) -> &Snapshot {
        self.states.last().unwrap()
    }

    /// `None` if an expectation fails.
    fn apply(&mut self, ops: &[Op]) -> Option<u64> {
        let mut next = self.now().clone();
        let revision = self.revision() + 1;
        let holds = |key: &str, expect: &Expect| match (expect, next.get(key)) {
            (Expect::Any, _) | (Expect::Absent, None) => true,
            (Expect::Revision(wanted), Some((_, revision))) => wanted == revision,
            _ => false,
        };
        for op in ops {
            let (Op::Put { key, expect, .. } | Op::Delete { key, expect } | Op::Check { key, expect }) = op;
            if !holds(key, expect) {
                return None;
            }
        }
        let before = self.events.len();
        for op in ops {
            match op {
                Op::Put { key, value, .. } => {
                    let previous = next.insert(key.to_string(), (value.clone(), revision)).map(|(value, _)| value);
                    let kind = if previous.is_some() { EventKind::Update } else { EventKind::Create };
                    self.events.push((revision, key.to_string(), kind, value.clone(), previous));
                }
                Op::Delete { key, .. } => {
                    if let Some((value, _)) = next.remove(&**key) {
                        self.events.push((revision, key.to_string(), EventKind::Delete, value.clone(), Some(value)));
                    }
                }
                Op::Check { .. } => {}
            }
        }
        if self.events.len() == before {
            return Some(self.revision());
        }
        self.states.push(next);
        Some(revision)
    }
}

fn key() -> impl Strategy<Value = Arc<str>> {
    (0..3u8, 0..4u8).prop_map(|(folder, name)| format!("/{folder}/{name}").into())
}

/// Half of the expectations name a small revision: some hit, some miss.
fn expect() -> impl Strategy<Value = Expect> {
    prop_oneof![Just(Expect::Any), Just(Expect::Absent), (1..30u64).prop_map(Expect::Revision)]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (key(), any::<u8>(), expect())
            .prop_map(|(key, byte, expect)| Op::Put { key, value: vec![byte; 3].into(), expect, expires: None }),
        2 => (key(), expect()).prop_map(|(key, expect)| Op::Delete { key, expect }),
        1 => (key(), expect()).prop_map(|(key, expect)| Op::Check { key, expect }),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    Txn(Vec<Op>),
    Compact(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => proptest::collection::vec(op(), 1..4).prop_map(Step::Txn),
        1 => (0..40u64).prop_map(Step::Compact),
    ]
}

fn plain(event: &Event) -> (u64, String, EventKind, Bytes, Option<Bytes>) {
    (event.revision, event.key.to_string(), event.kind, event.value.clone(), event.previous.clone())
}

async fn check_reads(store: &Embedded, oracle: &Oracle, compacted: u64) {
    for (revision, state) in oracle.states.iter().enumerate() {
        let revision = revision as u64;
        for prefix in ["/", "/1/", "/2/3"] {
            let range = Range { revision: Some(revision), count: true, ..Range::prefix(prefix) };
            let limited = Range { limit: 2, ..range.clone() };
            if revision < compacted {
                let gone = Error::Compacted { requested: revision, compacted };
                assert_eq!(store.range(range).await, Err(gone.clone()));
                assert_eq!(store.watch(prefix, revision).await.map(|_| ()), Err(gone));
                continue;
            }
            let expected: Vec<_> = state.iter().filter(|(key, _)| key.starts_with(prefix)).collect();
            let page = store.range(range).await.unwrap();
            let found: Vec<_> =
                page.entries.iter().map(|e| (e.key.to_string(), (e.value.clone(), e.revision))).collect();
            assert_eq!(found.iter().map(|(k, v)| (k, v)).collect::<Vec<_>>(), expected);
            let page = store.range(limited).await.unwrap();
            assert_eq!(page.entries.len(), expected.len().min(2));
            assert_eq!(page.remaining, expected.len().saturating_sub(2) as u64);
            let mut watch = store.watch(prefix, revision).await.unwrap();
            let seen: Vec<_> = std::iter::from_fn(|| watch.try_next()).map(|event| plain(&event)).collect();
            let wanted: Vec<_> =
                oracle.events.iter().filter(|e| e.0 > revision && e.1.starts_with(prefix)).cloned().collect();
            assert_eq!(seen, wanted);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_oracle(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = Embedded::in_memory().unwrap();
            let mut oracle = Oracle::new();
            let mut live = store.watch("/1/", 0).await.unwrap();
            let mut compacted = 0;
            for step in steps {
                match step {
                    Step::Txn(ops) => match (store.txn(ops.clone()).await, oracle.apply(&ops)) {
                        (Ok(revision), expected) => assert_eq!(Some(revision), expected),
                        (Err(Error::Conflict { key, current }), None) => {
                            let current = current.map(|entry| (entry.value, entry.revision));
                            assert_eq!(current, oracle.now().get(&*key).cloned());
                        }
                        (other, expected) => panic!("{other:?} but the oracle says {expected:?}"),
                    },
                    Step::Compact(revision) => {
                        store.compact(revision).await.unwrap();
                        compacted = compacted.max(revision.min(oracle.revision()));
                    }
                }
                assert_eq!(store.revision(), oracle.revision());
            }
            assert_eq!(store.compacted(), compacted);
            check_reads(&store, &oracle, compacted).await;
            let future = Error::Future { requested: 1000, current: oracle.revision() };
            assert_eq!(store.watch("/", 1000).await.map(|_| ()), Err(future));
            // A watch that was there all along has seen everything, compacted or not.
            let seen: Vec<_> = std::iter::from_fn(|| live.try_next()).map(|event| plain(&event)).collect();
            let wanted: Vec<_> = oracle.events.iter().filter(|event| event.1.starts_with("/1/")).cloned().collect();
            assert_eq!(seen, wanted);
        });
    }
}
