//! One endpoint and what is known of its health. The state belongs to the address, not to a Service or a rule: whoever
//! finds it broken finds it for all who use it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// This many failures in a row, and an endpoint gets no requests for a while.
const FAILURES_TO_EJECT: u32 = 5;
const EJECTION_MIN: Duration = Duration::from_secs(10);
/// The while doubles each time up to this; who stays well for as long starts anew.
const EJECTION_MAX: Duration = Duration::from_secs(300);
/// Failed checks in a row until an endpoint counts as down, and good ones until it counts as up again.
const CHECKS_TO_FALL: u32 = 3;
const CHECKS_TO_RISE: u32 = 2;

#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// Failed requests in a row.
    failures: AtomicU32,
    /// False means surely not ejected, so that the usual request takes no lock.
    maybe_ejected: AtomicBool,
    ejection: Mutex<Ejection>,
    /// Whether active checks say that it is down.
    down: AtomicBool,
    checks: Mutex<Checks>,
}

#[derive(Debug, Default)]
struct Ejection {
    until: Option<Instant>,
    /// How many there were, each soon after the last.
    times: u32,
}

#[derive(Debug, Default)]
struct Checks {
    running: bool,
    due: Option<Instant>,
    /// Results in a row that contradict the present state.
    contrary: u32,
}

/// What an endpoint's health is, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Available,
    Ejected { remaining: Duration },
    FailingChecks,
}

impl Endpoint {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            failures: AtomicU32::new(0),
            maybe_ejected: AtomicBool::new(false),
            ejection: Mutex::default(),
            down: AtomicBool::new(false),
            checks: Mutex::default(),
        }
    }

    /// `checked` says whether the asking upstream believes in active checks.
    pub(crate) fn health(&self, checked: bool, now: Instant) -> Health {
        if checked && self.down.load(Ordering::Acquire) {
            return Health::FailingChecks;
        }
        if !self.maybe_ejected.load(Ordering::Acquire) {
            return Health::Available;
        }
        match lock(&self.ejection).until {
            Some(until) if until > now => Health::Ejected { remaining: until - now },
            _ => Health::Available,
        }
    }

    pub(crate) fn is_available(&self, checked: bool, now: Instant) -> bool {
        self.health(checked, now) == Health::Available
    }

    /// It answered a request.
    pub(crate) fn succeeded(&self, now: Instant) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if self.maybe_ejected.load(Ordering::Relaxed) && lock(&self.ejection).until.is_none_or(|until| until <= now) {
            self.maybe_ejected.store(false, Ordering::Release);
        }
    }

    /// It failed a request. Returns for how long it was ejected, if this failure did it. After an ejection one failure is
    /// enough for the next.
    pub(crate) fn failed(&self, now: Instant) -> Option<Duration> {
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 < FAILURES_TO_EJECT {
            return None;
        }
        let mut ejection = lock(&self.ejection);
        if ejection.until.is_some_and(|until| until > now) {
            return None;
        }
        if ejection.until.is_some_and(|until| now - until > EJECTION_MAX) {
            ejection.times = 0;
        }
        let duration = EJECTION_MIN.saturating_mul(1 << ejection.times.min(16)).min(EJECTION_MAX);
        ejection.times += 1;
        ejection.until = Some(now + duration);
        self.failures.store(FAILURES_TO_EJECT - 1, Ordering::Relaxed);
        self.maybe_ejected.store(true, Ordering::Release);
        Some(duration)
    }

    /// Whether a check is to be made now; then the caller makes it and tells the result to [`check_done`](Self::check_done).
    pub(crate) fn begin_check(&self, interval: Duration, now: Instant) -> bool {
        let mut checks = lock(&self.checks);
        let begin = !checks.running && checks.due.is_none_or(|due| due <= now);
        if begin {
            checks.running = true;
            checks.due = Some(now + interval);
        }
        begin
    }

    /// Takes in the result of a check. Returns the new state if it changed: true is up.
    pub(crate) fn check_done(&self, good: bool) -> Option<bool> {
        let mut checks = lock(&self.checks);
        checks.running = false;
        if good != self.down.load(Ordering::Relaxed) {
            checks.contrary = 0;
            return None;
        }
        checks.contrary += 1;
        if checks.contrary < if good { CHECKS_TO_RISE } else { CHECKS_TO_FALL } {
            return None;
        }
        checks.contrary = 0;
        self.down.store(!good, Ordering::Release);
        Some(good)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The values are plain and each write leaves them whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Every endpoint that somebody uses, so that an address has one state however many Services list it.
#[derive(Debug, Default)]
pub(crate) struct EndpointPool {
    known: HashMap<SocketAddr, Weak<Endpoint>>,
    /// Forget unused endpoints when there are more than this.
    sweep_at: usize,
}

impl EndpointPool {
    pub(crate) fn get(&mut self, address: SocketAddr) -> Arc<Endpoint> {
        if let Some(endpoint) = self.known.get(&address).and_then(Weak::upgrade) {
            return endpoint;
        }
        if self.known.len() >= self.sweep_at {
            self.known.retain(|_, endpoint| endpoint.strong_count() > 0);
            self.sweep_at = 64 + 2 * self.known.len();
        }
        let endpoint = Arc::new(Endpoint::new(address));
        self.known.insert(address, Arc::downgrade(&endpoint));
        endpoint
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::{EJECTION_MAX, EJECTION_MIN, Endpoint, EndpointPool, FAILURES_TO_EJECT, Health};

    fn endpoint() -> Endpoint {
        Endpoint::new(SocketAddr::from(([127, 0, 0, 1], 1)))
    }

    fn fail(endpoint: &Endpoint, times: u32, now: Instant) -> Option<Duration> {
        (0..times).filter_map(|_| endpoint.failed(now)).next_back()
    }

    #[test]
    fn failures_in_a_row_eject_and_a_success_between_them_does_not() {
        let (endpoint, now) = (endpoint(), Instant::now());
        assert_eq!(fail(&endpoint, FAILURES_TO_EJECT - 1, now), None);
        endpoint.succeeded(now);
        assert_eq!(fail(&endpoint, FAILURES_TO_EJECT - 1, now), None);
        assert!(endpoint.is_available(false, now));
        assert_eq!(endpoint.failed(now), Some(EJECTION_MIN));
        assert_eq!(endpoint.health(false, now), Health::Ejected { remaining: EJECTION_MIN });
        assert_eq!(fail(&endpoint, 50, now), None, "requests that were on their way make it no longer");
        assert!(endpoint.is_available(false, now + EJECTION_MIN));
    }

    #[test]
    fn ejections_back_off_and_forget() {
        let (endpoint, mut now) = (endpoint(), Instant::now());
        let mut durations = vec![fail(&endpoint, FAILURES_TO_EJECT, now).unwrap()];
        for _ in 0..6 {
            now += *durations.last().unwrap();
            assert!(endpoint.is_available(false, now));
            durations.push(endpoint.failed(now).unwrap());
        }
        let seconds: Vec<_> = durations.iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [10, 20, 40, 80, 160, 300, 300]);
        now += durations[6];
        endpoint.succeeded(now);
        now += EJECTION_MAX + Duration::from_secs(1);
        assert_eq!(fail(&endpoint, FAILURES_TO_EJECT, now), Some(EJECTION_MIN));
    }

    #[test]
    fn checks_need_several_results_in_a_row() {
        let (endpoint, now) = (endpoint(), Instant::now());
        let results = [false, false, true, false, false, false, true, false, true, true];
        let changes: Vec<_> = results.iter().map(|good| endpoint.check_done(*good)).collect();
        let expected = [None, None, None, None, None, Some(false), None, None, None, Some(true)];
        assert_eq!(changes, expected);
        for _ in 0..3 {
            endpoint.check_done(false);
        }
        assert_eq!(endpoint.health(true, now), Health::FailingChecks);
        assert_eq!(endpoint.health(false, now), Health::Available, "for whom checks are not asked for");
    }

    #[test]
    fn a_check_is_due_once_in_an_interval_and_never_twice_at_a_time() {
        let (endpoint, now, interval) = (endpoint(), Instant::now(), Duration::from_secs(5));
        assert!(endpoint.begin_check(interval, now));
        assert!(!endpoint.begin_check(interval, now + interval), "the first still runs");
        endpoint.check_done(true);
        assert!(!endpoint.begin_check(interval, now + interval / 2));
        assert!(endpoint.begin_check(interval, now + interval));
    }

    #[test]
    fn an_address_has_one_state_while_it_is_used() {
        let mut pool = EndpointPool::default();
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let one = pool.get(address(1));
        for port in 2..1000 {
            pool.get(address(port));
        }
        assert!(Arc::ptr_eq(&one, &pool.get(address(1))));
        assert!(pool.known.len() < 200, "unused ones are forgotten");
    }
}
