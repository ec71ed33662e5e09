//! Restart delays: 10 s, doubled per restart up to 5 min, forgotten after a long quiet time.

use jiff::{SignedDuration, Timestamp};

pub(crate) const BACKOFF_MIN: SignedDuration = SignedDuration::from_secs(10);
pub(crate) const BACKOFF_MAX: SignedDuration = SignedDuration::from_secs(300);
/// A container that lived this long since its last restart starts from the shortest delay again.
const RESET_AFTER: SignedDuration = SignedDuration::from_secs(600);

/// The delay of one container; made at its first restart, which is immediate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    delay: SignedDuration,
    updated: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restart {
    Now,
    /// Not before this time; the delay is for the message.
    At(Timestamp, SignedDuration),
}

impl Backoff {
    /// When a container that ended at `finished` may be started again.
    pub(crate) fn check(backoff: Option<&Self>, finished: Timestamp, now: Timestamp) -> Restart {
        let Some(backoff) = backoff else { return Restart::Now };
        let due = finished.saturating_add(backoff.delay).unwrap_or(Timestamp::MAX);
        if backoff.is_expired(finished) || now >= due { Restart::Now } else { Restart::At(due, backoff.delay) }
    }

    /// The delay to apply after a restart now of a container that ended at `finished`.
    pub(crate) fn restarted(backoff: Option<&Self>, finished: Timestamp, now: Timestamp) -> Self {
        let delay = match backoff {
            Some(backoff) if !backoff.is_expired(finished) => (backoff.delay * 2).min(BACKOFF_MAX),
            _ => BACKOFF_MIN,
        };
        Self { delay, updated: now }
    }

    fn is_expired(&self, finished: Timestamp) -> bool {
        finished.duration_since(self.updated) > RESET_AFTER
    }
}

/// Short retries of things that should succeed soon: sandboxes, volumes, container creation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Retry {
    failures: u32,
    not_before: Option<Timestamp>,
}

impl Retry {
    /// Remembers a failure; the next attempt is due after `first`, doubled per failure up to `max`.
    pub(crate) fn failed(&mut self, now: Timestamp, first: SignedDuration, max: SignedDuration) {
        let delay = (first * 2_i32.saturating_pow(self.failures.min(16))).min(max);
        self.failures += 1;
        self.not_before = now.saturating_add(delay).ok();
    }

    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// `None` if due now.
    pub(crate) fn wait(&self, now: Timestamp) -> Option<Timestamp> {
        self.not_before.filter(|at| *at > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    #[test]
    fn the_first_restart_is_immediate_and_delays_double_to_the_limit() {
        assert_eq!(Backoff::check(None, at(0), at(0)), Restart::Now);
        let mut backoff = Backoff::restarted(None, at(0), at(0));
        let mut delays = Vec::new();
        let mut finished = at(1);
        for _ in 0..7 {
            let Restart::At(due, delay) = Backoff::check(Some(&backoff), finished, finished) else {
                panic!("no delay")
            };
            assert_eq!(Backoff::check(Some(&backoff), finished, due), Restart::Now);
            delays.push(delay.as_secs());
            backoff = Backoff::restarted(Some(&backoff), finished, due);
            finished = due.saturating_add(SignedDuration::from_secs(1)).unwrap();
        }
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_quiet_minutes_reset_the_delay() {
        let backoff = Backoff::restarted(Some(&Backoff { delay: BACKOFF_MAX, updated: at(0) }), at(1), at(2));
        assert_eq!(Backoff::check(Some(&backoff), at(603), at(603)), Restart::Now);
        assert_eq!(Backoff::restarted(Some(&backoff), at(603), at(603)).delay, BACKOFF_MIN);
        assert!(matches!(Backoff::check(Some(&backoff), at(602), at(602)), Restart::At(..)));
    }

    #[test]
    fn retries_double_up_to_their_limit() {
        let mut retry = Retry::default();
        assert_eq!(retry.wait(at(0)), None);
        let (first, max) = (SignedDuration::from_secs(1), SignedDuration::from_secs(4));
        for expected in [1, 2, 4, 4] {
            retry.failed(at(0), first, max);
            assert_eq!(retry.wait(at(0)), Some(at(expected)));
        }
        assert_eq!(retry.wait(at(4)), None);
    }
}
