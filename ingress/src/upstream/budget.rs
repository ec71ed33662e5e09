//! A retry budget: retries may add a fifth to the requests of an upstream, and a few more when it has little traffic. When
//! everything fails, retries must not multiply the load.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// In thousandths of a retry.
const RETRY: i64 = 1000;
/// What a request pays in.
const SHARE: i64 = RETRY / 5;
/// What a second pays in.
const PER_SECOND: i64 = 10 * RETRY;
const FULL: i64 = 100 * RETRY;

#[derive(Debug)]
pub(crate) struct RetryBudget {
    balance: AtomicI64,
    filled: Mutex<Instant>,
}

impl RetryBudget {
    pub(crate) fn new(now: Instant) -> Self {
        Self { balance: AtomicI64::new(FULL), filled: Mutex::new(now) }
    }

    /// A request came. While the budget is full, as usual, this writes nothing.
    pub(crate) fn deposit(&self) {
        if self.balance.load(Ordering::Relaxed) < FULL {
            self.balance.fetch_add(SHARE, Ordering::Relaxed);
        }
    }

    /// Whether one more retry is within the budget.
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        self.fill(now);
        self.balance
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |balance| (balance >= RETRY).then(|| balance - RETRY))
            .is_ok()
    }

    fn fill(&self, now: Instant) {
        let mut filled = self.filled.lock().unwrap_or_else(PoisonError::into_inner);
        let millis = i64::try_from(now.saturating_duration_since(*filled).as_millis()).unwrap_or(i64::MAX);
        let room = (FULL - self.balance.load(Ordering::Relaxed)).max(0);
        self.balance.fetch_add(millis.saturating_mul(PER_SECOND / 1000).min(room), Ordering::Relaxed);
        *filled = now.max(*filled);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::RetryBudget;

    fn spend(budget: &RetryBudget, now: Instant) -> usize {
        (0..10_000).take_while(|_| budget.withdraw(now)).count()
    }

    #[test]
    fn retries_are_a_share_of_requests_and_a_trickle() {
        let now = Instant::now();
        let budget = RetryBudget::new(now);
        assert_eq!(spend(&budget, now), 100, "a reserve for bursts");
        (0..1000).for_each(|_| budget.deposit());
        assert_eq!(spend(&budget, now), 100, "it never holds more");
        (0..50).for_each(|_| budget.deposit());
        assert_eq!(spend(&budget, now), 10, "a fifth");
        assert_eq!(spend(&budget, now + Duration::from_secs(2)), 20, "ten a second");
        assert_eq!(spend(&budget, now + Duration::from_secs(3600)), 100);
    }
}
