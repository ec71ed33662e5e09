//! The addresses of external names, looked up by the system's resolver again and again.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, timeout};

use super::change::Change;

/// The resolver does not tell how long an answer holds.
const REFRESH: Duration = Duration::from_secs(15);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Looks names up and sends what it finds as changes.
#[derive(Debug)]
pub(super) struct Names {
    wanted: Arc<Mutex<HashSet<Box<str>>>>,
    changes: mpsc::Sender<Change>,
}

impl Names {
    pub(super) fn new(changes: mpsc::Sender<Change>) -> Self {
        let wanted = Arc::default();
        tokio::spawn(refresh(Arc::clone(&wanted), changes.clone()));
        Self { wanted, changes }
    }

    /// Makes these the names to know; new ones are looked up at once.
    pub(super) fn set(&self, names: HashSet<Box<str>>) {
        let former = std::mem::replace(&mut *self.wanted.lock().unwrap_or_else(PoisonError::into_inner), names.clone());
        for name in names.difference(&former) {
            tokio::spawn(look_up(name.clone(), self.changes.clone()));
        }
    }
}

async fn refresh(wanted: Arc<Mutex<HashSet<Box<str>>>>, changes: mpsc::Sender<Change>) {
    let mut ticks = tokio::time::interval(REFRESH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !changes.is_closed() {
        ticks.tick().await;
        let names = wanted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut lookups: JoinSet<()> = names.into_iter().map(|name| look_up(name, changes.clone())).collect();
        while lookups.join_next().await.is_some() {}
    }
}

/// A name that cannot be looked up now keeps the addresses it had.
async fn look_up(name: Box<str>, changes: mpsc::Sender<Change>) {
    let lookup = async { Ok(tokio::net::lookup_host((&*name, 0)).await?.map(|address| address.ip()).collect()) };
    let found: Result<std::io::Result<Vec<IpAddr>>, _> = timeout(LOOKUP_TIMEOUT, lookup).await;
    match found {
        Ok(Ok(mut addresses)) => {
            addresses.sort_unstable();
            addresses.dedup();
            // If the loop has ended, nobody needs to know.
            let _ = changes.send(Change::Resolved(name, addresses)).await;
        }
        Ok(Err(error)) => tracing::warn!(name = &*name, %error, "external name cannot be looked up"),
        Err(_) => tracing::warn!(name = &*name, "external name is not looked up in time"),
    }
}
