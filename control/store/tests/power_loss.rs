//! Power loss and failing disks: what was acknowledged survives, and what is found is a state that once was.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use control_store::{Disk, Embedded, Error, Expect, Op, Options, Range, Store};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

const SECTOR: usize = 512;
const SEEDS: u64 = 50;

/// A disk that keeps unsynced writes apart, and can lose power at any operation.
#[derive(Debug)]
struct FaultyDisk(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    /// What reads see.
    seen: Vec<u8>,
    /// What a power loss cannot take away.
    durable: Vec<u8>,
    unsynced: Vec<Unsynced>,
    /// Writes and syncs until the power goes.
    operations_left: u64,
    /// Syncs until one fails, once.
    syncs_left: u64,
}

#[derive(Debug, Clone)]
enum Unsynced {
    Sector { offset: usize, data: Vec<u8> },
    Length(usize),
}

impl FaultyDisk {
    fn new(image: Vec<u8>, operations_left: u64, syncs_left: u64) -> Arc<Self> {
        let inner = Inner { seen: image.clone(), durable: image, unsynced: vec![], operations_left, syncs_left };
        Arc::new(Self(Mutex::new(inner)))
    }

    /// What the platter may hold after a power loss: some unsynced sectors, in any order.
    fn after_power_loss(&self, random: &mut StdRng) -> Vec<u8> {
        let inner = self.0.lock();
        let mut image = inner.durable.clone();
        let mut unsynced = inner.unsynced.clone();
        unsynced.shuffle(random);
        let keep = random.random_range(0..=unsynced.len());
        for write in &unsynced[..keep] {
            match write {
                Unsynced::Length(length) => image.resize(*length, 0),
                Unsynced::Sector { offset, data } => {
                    if image.len() < offset + data.len() {
                        image.resize(offset + data.len(), 0);
                    }
                    image[*offset..offset + data.len()].copy_from_slice(data);
                }
            }
        }
        image
    }
}

impl Inner {
    fn step(&mut self) -> io::Result<()> {
        self.operations_left = self.operations_left.checked_sub(1).ok_or_else(|| io::Error::other("no power"))?;
        Ok(())
    }
}

impl Disk for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.0.lock();
        let from = offset as usize;
        let part = inner.seen.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(part);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.0.lock();
        inner.step()?;
        let from = offset as usize;
        let part = inner.seen.get_mut(from..from + data.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        part.copy_from_slice(data);
        // Sectors are cut at multiples of their size on the disk, not in the write.
        let mut at = 0;
        while at < data.len() {
            let end = (at + SECTOR - (from + at) % SECTOR).min(data.len());
            inner.unsynced.push(Unsynced::Sector { offset: from + at, data: data[at..end].to_vec() });
            at = end;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.0.lock();
        inner.step()?;
        inner.seen.resize(len as usize, 0);
        inner.unsynced.push(Unsynced::Length(len as usize));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.0.lock();
        inner.step()?;
        match inner.syncs_left.checked_sub(1) {
            Some(left) => inner.syncs_left = left,
            None => {
                // The kernel has dropped the pages and says so once; the next sync would "succeed".
                inner.unsynced.clear();
                inner.syncs_left = u64::MAX;
                return Err(io::Error::other("sync failed"));
            }
        }
        inner.durable = inner.seen.clone();
        inner.unsynced.clear();
        Ok(())
    }
}

type State = BTreeMap<String, Bytes>;

/// Runs until the disk gives up. Returns the last acknowledged revision and every state that was asked for.
async fn run(
    store: &Embedded,
    mut states: Vec<State>,
    base: u64,
    random: &mut StdRng,
) -> (u64, Vec<State>, Option<Error>) {
    let mut acknowledged = base;
    for _ in 0..200 {
        // Several at once share a commit; each makes one revision, in the order sent.
        let mut answers = Vec::new();
        for _ in 0..random.random_range(1..6) {
            let mut next = states.last().unwrap().clone();
            let key = format!("/k/{}", random.random_range(0..20));
            let op = if next.contains_key(&key) && random.random_bool(0.3) {
                next.remove(&key);
                Op::delete(&key, Expect::Any)
            } else {
                let value = Bytes::from(vec![random.random::<u8>(); random.random_range(0..3000)]);
                next.insert(key.clone(), value.clone());
                Op::put(&key, value)
            };
            states.push(next);
            answers.push(store.txn(vec![op]));
        }
        for answer in futures::future::join_all(answers).await {
            match answer {
                Ok(revision) => acknowledged = acknowledged.max(revision),
                Err(error) => return (acknowledged, states, Some(error)),
            }
        }
    }
    (acknowledged, states, None)
}

async fn contents(store: &Embedded) -> State {
    let page = store.range(Range::prefix("/")).await.unwrap();
    page.entries.into_iter().map(|entry| (entry.key.to_string(), entry.value)).collect()
}

/// Crashes several times in a row on the same data, as a flaky machine would.
async fn survive(seed: u64) {
    let random = &mut StdRng::seed_from_u64(seed);
    let mut image = Vec::new();
    let mut states = vec![State::new()];
    let mut acknowledged = 0;
    for round in 0..4 {
        let failing_sync = random.random_bool(0.3);
        let operations = random.random_range(1..600);
        let syncs = if failing_sync { random.random_range(0..40) } else { u64::MAX };
        let disk = FaultyDisk::new(image, operations, syncs);
        match Embedded::open_disk(disk.clone(), Options::default()) {
            Ok(store) => {
                let found = store.revision();
                assert!(found >= acknowledged, "seed {seed} round {round}: revision {found} after {acknowledged}");
                assert_eq!(
                    contents(&store).await,
                    states[found as usize],
                    "seed {seed} round {round} revision {found}"
                );
                states.truncate(found as usize + 1);
                let (last, asked, error) = run(&store, states, found, random).await;
                (acknowledged, states) = (last, asked);
                if let Some(error) = error {
                    assert!(matches!(error, Error::Failed(_)), "seed {seed}: {error}");
                    assert_eq!(store.failed().await, error);
                    // Nothing is retried, not even when the disk would work again.
                    assert_eq!(store.txn(vec![Op::put("/late", Bytes::new())]).await, Err(error));
                    assert_eq!(contents(&store).await, states[store.revision() as usize]);
                }
            }
            Err(error) => assert!(operations < 100 || failing_sync, "seed {seed} round {round}: {error}"),
        }
        image = disk.after_power_loss(random);
    }
    let disk = FaultyDisk::new(image, u64::MAX, u64::MAX);
    let store = Embedded::open_disk(disk, Options::default()).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let found = store.revision();
    assert!(found >= acknowledged, "seed {seed}: revision {found} after {acknowledged} was acknowledged");
    assert_eq!(contents(&store).await, states[found as usize], "seed {seed} revision {found}");
}

#[test]
fn acknowledged_writes_survive_power_loss() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for seed in 0..SEEDS {
        runtime.block_on(survive(seed));
    }
}
