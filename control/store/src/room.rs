//! The engine on a disk that may fill up: refuses writes then, goes back to what was there before, and asks again.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::{Engine, Failure};
use crate::model::{Error, Event, EventKind, Op, Result};
use crate::spare::Spare;

#[derive(Debug)]
pub(crate) struct Room {
    engine: Engine,
    spare: Spare,
    /// When the disk was last asked, while it is full.
    full: Option<Instant>,
    /// How long until it is asked again.
    retry: Duration,
}

impl Room {
    pub(crate) fn new(engine: Engine, spare: Spare, retry: Duration) -> Result<Self> {
        let full = if spare.take().map_err(failed)? { None } else { Some(Instant::now()) };
        if full.is_some() {
            tracing::warn!("the disk is full: writes are refused until it has space");
        }
        Ok(Self { engine, spare, full, retry })
    }

    /// A full disk still takes deletions: they need no more than was kept for bad times, and give back more.
    pub(crate) fn admits(&self, ops: &[Op]) -> bool {
        self.full.is_none() || !ops.iter().any(|op| matches!(op, Op::Put { .. }))
    }

    /// Looks again at a disk that was full.
    pub(crate) fn look(&mut self) -> Result<()> {
        if self.full.is_none_or(|since| since.elapsed() < self.retry) {
            return Ok(());
        }
        self.full = if self.spare.has_plenty().map_err(failed)? { None } else { Some(Instant::now()) };
        if self.full.is_none() {
            tracing::info!("the disk has space again: writes are taken");
        }
        Ok(())
    }

    /// # Errors
    /// [`Error::Full`] if nothing was written, [`Error::Failed`] if nothing may be written any more.
    pub(crate) fn commit(&mut self, events: &[Arc<Event>], revision: u64, before: u64) -> Result<()> {
        match self.engine.commit(events, revision) {
            Err(Failure::Full) => {}
            result => return Ok(result?),
        }
        if self.full.is_none() {
            tracing::warn!("the disk is full: writes are refused until it has space");
        }
        self.full = Some(Instant::now());
        self.spare.give_back().map_err(failed)?;
        let mut found = self.engine.reopen().map_err(failed)?;
        // Deletions get the room that was kept for bad times: they give back more.
        if found == before && events.iter().all(|event| event.kind == EventKind::Delete) {
            found = match self.engine.commit(events, revision) {
                Ok(()) => revision,
                Err(Failure::Full) => self.engine.reopen().map_err(failed)?,
                Err(broken) => return Err(broken.into()),
            };
        }
        self.spare.take().map_err(failed)?;
        // What found no room may have been the engine's tidying after the commit.
        if found == revision {
            return Ok(());
        }
        if found != before {
            return Err(failed(format!("the full disk holds revision {found}, neither {before} nor {revision}")));
        }
        Err(Error::Full)
    }
}

fn failed(why: impl Display) -> Error {
    Error::Failed(why.to_string().into())
}
