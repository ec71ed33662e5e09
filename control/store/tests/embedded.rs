//! The data directory, expiry, slow watchers, and many writers at once.

#![allow(clippy::unwrap_used, reason = "a failed step fails its test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use control_store::{Embedded, Error, EventKind, Expect, Op, Options, Range, Store};

#[tokio::test]
async fn a_restart_keeps_everything_but_history() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = Embedded::open(dir.path(), Options::default()).unwrap();
        store.txn(vec![Op::create("/a", "1".into())]).await.unwrap();
        store.txn(vec![Op::put("/a", "2".into()), Op::create("/b", "3".into())]).await.unwrap();
        store.txn(vec![Op::delete("/b", Expect::Revision(2))]).await.unwrap();
    }
    let store = Embedded::open(dir.path(), Options::default()).unwrap();
    assert_eq!(store.revision(), 3);
    let entry = store.get("/a").await.unwrap().unwrap();
    assert_eq!((entry.value, entry.created, entry.revision), ("2".into(), 1, 2));
    assert_eq!(store.get("/b").await.unwrap(), None);
    assert!(store.watch("/", 3).await.is_ok());
    let gone = Error::Compacted { requested: 2, compacted: 3 };
    assert_eq!(store.watch("/", 2).await.map(|_| ()), Err(gone));
}

#[tokio::test]
async fn a_directory_has_one_owner_and_one_format() {
    let dir = tempfile::tempdir().unwrap();
    let first = Embedded::open(dir.path(), Options::default()).unwrap();
    let second = Embedded::open(dir.path(), Options::default());
    assert!(matches!(second, Err(Error::InUse { .. })), "{second:?}");
    drop(first);
    drop(Embedded::open(dir.path(), Options::default()).unwrap());
    std::fs::write(dir.path().join("format"), "tidegate-store 7\n").unwrap();
    let before = listing(dir.path());
    let later = Embedded::open(dir.path(), Options::default()).unwrap_err().to_string();
    assert!(
        later.contains(r#"holds a store of format "tidegate-store 7", but this program reads "tidegate-store 1": use"#),
        "{later}"
    );
    std::fs::remove_file(dir.path().join("format")).unwrap();
    let nameless = Embedded::open(dir.path(), Options::default());
    assert!(matches!(nameless, Err(Error::Format { .. })), "{nameless:?}");
    std::fs::write(dir.path().join("format"), "tidegate-store 7\n").unwrap();
    assert_eq!(listing(dir.path()), before);
    std::fs::write(dir.path().join("format"), "tidegate-store 1\n").unwrap();
    std::fs::write(dir.path().join("store.redb"), "something else entirely").unwrap();
    let other = Embedded::open(dir.path(), Options::default());
    assert!(matches!(other, Err(Error::Open { .. })), "{other:?}");
}

/// Every file with its contents.
fn listing(dir: &std::path::Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())).collect()
}

#[tokio::test]
async fn a_key_ends_at_its_time_unless_written_again() {
    let now = Arc::new(AtomicU64::new(100));
    let clock = Arc::clone(&now);
    let options = Options { clock: Arc::new(move || clock.load(Ordering::Relaxed)), ..Options::default() };
    let dir = tempfile::tempdir().unwrap();
    let put = |key: &str, expires| Op::Put { key: key.into(), value: Bytes::new(), expect: Expect::Any, expires };
    {
        let store = Embedded::open(dir.path(), options.clone()).unwrap();
        store.txn(vec![put("/short", Some(110)), put("/renewed", Some(110)), put("/long", Some(500))]).await.unwrap();
        store.txn(vec![put("/renewed", None)]).await.unwrap();
    }
    // Expiry survives a restart.
    let store = Embedded::open(dir.path(), options).unwrap();
    let mut watch = store.watch("/", store.revision()).await.unwrap();
    now.store(110, Ordering::Relaxed);
    let event = tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap().unwrap();
    assert_eq!((event.kind, &*event.key), (EventKind::Delete, "/short"));
    let keys = store.range(Range::prefix("/")).await.unwrap().entries.into_iter().map(|entry| entry.key.to_string());
    assert_eq!(keys.collect::<Vec<_>>(), ["/long", "/renewed"]);
}

#[tokio::test]
async fn a_watcher_that_does_not_keep_up_is_cut_off_and_can_resume() {
    let store = Embedded::in_memory().unwrap();
    let mut slow = store.watch("/", 0).await.unwrap();
    for _ in 0..50 {
        let ops = (0..100).map(|n| Op::put(&format!("/{n}"), "x".into())).collect();
        store.txn(ops).await.unwrap();
    }
    let mut last = 0;
    while let Some(event) = slow.next().await {
        last = event.revision;
    }
    assert!(last < 50, "the watcher got all events");
    // The last revision may have been seen in part.
    let whole = last.saturating_sub(1);
    let mut resumed = store.watch("/", whole).await.unwrap();
    let seen = std::iter::from_fn(|| resumed.try_next()).count();
    assert_eq!(seen as u64, (50 - whole) * 100);
}

#[tokio::test]
async fn history_is_bounded_without_anyone_compacting() {
    let options = Options { history_events_max: 100, ..Options::default() };
    let disk = Arc::new(control_store::MemoryDisk::default());
    let store = Embedded::open_disk(disk, options).unwrap();
    for n in 0..250u64 {
        store.txn(vec![Op::put("/a", n.to_string().into())]).await.unwrap();
    }
    assert!(store.compacted() >= 150, "compacted up to {}", store.compacted());
    assert_eq!(store.get("/a").await.unwrap().unwrap().revision, 250);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compare_and_swap_loses_no_increment() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Embedded::open(dir.path(), Options::default()).unwrap());
    store.txn(vec![Op::create("/n", "0".into())]).await.unwrap();
    let tasks = (0..8).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let mut done = 0;
            while done < 25 {
                let entry = store.get("/n").await.unwrap().unwrap();
                let n: u64 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                match store.txn(vec![Op::update("/n", (n + 1).to_string().into(), entry.revision)]).await {
                    Ok(_) => done += 1,
                    Err(Error::Conflict { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(store.get("/n").await.unwrap().unwrap().value, "200");
}

/// Not a benchmark: it fails only if commits are no longer shared at all. Run with `--nocapture` to see the rate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_share_commits() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Embedded::open(dir.path(), Options::default()).unwrap());
    for writers in [1usize, 16, 64] {
        let each = if writers == 1 { 200 } else { 100 };
        let start = Instant::now();
        let tasks: Vec<_> = (0..writers)
            .map(|writer| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    for n in 0..each {
                        let value = Bytes::from(vec![b'x'; 1500]);
                        store.txn(vec![Op::create(&format!("/{writers}/{writer}/{n}"), value)]).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let rate = (writers * each) as f64 / start.elapsed().as_secs_f64();
        println!("{writers} writers: {rate:.0} durable creates per second");
    }
    assert_eq!(store.range(Range::prefix("/")).await.unwrap().entries.len(), 200 + 1600 + 6400);
}
