//! The clock of one probe: first delay, period, attempts per tick, and when to end.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::tally::Tally;
use super::{Kind, Outcome, Timing};

/// Attempts per tick if the question itself could not be asked.
const ATTEMPTS: u32 = 3;
/// A container is usually ready long before its first period has passed: a readiness probe that fails at once is asked
/// again in growing steps within that first period. These early questions count for success only.
const EARLY_STEP: Duration = Duration::from_millis(50);

/// The instance that a probe belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instance {
    pub container: String,
    pub container_id: String,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    /// One question failed: for an event.
    Failed(Instance, Outcome),
    /// The result is another now.
    Result(Instance, bool),
}

/// Something that can be asked.
pub(crate) trait Ask: Send + Sync {
    fn ask(&self) -> impl Future<Output = Outcome> + Send;
}

/// Asks until the result can change no more: startup ends with any result, liveness with failure.
pub(crate) async fn run(
    instance: Instance,
    timing: Timing,
    first: Instant,
    ask: impl Ask,
    reports: mpsc::Sender<Report>,
) {
    let mut tally = Tally::new(timing.success_threshold, timing.failure_threshold);
    let mut tick = first;
    loop {
        sleep_until(tick).await;
        let mut outcome = attempt(&ask).await;
        if instance.kind == Kind::Readiness && tick == first && matches!(outcome, Outcome::Failure(_)) {
            outcome = early(&ask, outcome, first + timing.period).await;
        }
        let change = match &outcome {
            Outcome::Success => tally.record(true),
            Outcome::Failure(_) => tally.record(false),
            Outcome::Error(_) => None,
        };
        if outcome != Outcome::Success && reports.send(Report::Failed(instance.clone(), outcome)).await.is_err() {
            return;
        }
        if let Some(result) = change {
            let over = instance.kind == Kind::Startup || instance.kind == Kind::Liveness && !result;
            if reports.send(Report::Result(instance.clone(), result)).await.is_err() || over {
                return;
            }
        }
        tick = (tick + timing.period).max(Instant::now());
    }
}

async fn attempt(ask: &impl Ask) -> Outcome {
    let mut outcome = ask.ask().await;
    for _ in 1..ATTEMPTS {
        if !matches!(outcome, Outcome::Error(_)) {
            break;
        }
        outcome = ask.ask().await;
    }
    outcome
}

/// Asks again until success or the end of the first period; the first failure stands otherwise.
async fn early(ask: &impl Ask, failure: Outcome, end: Instant) -> Outcome {
    let mut step = EARLY_STEP;
    loop {
        let next = Instant::now() + step;
        if next >= end {
            return failure;
        }
        sleep_until(next).await;
        if ask.ask().await == Outcome::Success {
            return Outcome::Success;
        }
        step *= 2;
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    /// Answers from a script, then the last answer for ever; notes when it was asked.
    struct Script {
        answers: Mutex<Vec<Outcome>>,
        asked: std::sync::Arc<Mutex<Vec<u64>>>,
        start: Instant,
    }

    impl Ask for Script {
        async fn ask(&self) -> Outcome {
            self.asked.lock().push(u64::try_from(self.start.elapsed().as_millis()).unwrap());
            let mut answers = self.answers.lock();
            if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() }
        }
    }

    fn fail() -> Outcome {
        Outcome::Failure("no".into())
    }

    fn instance(kind: Kind) -> Instance {
        Instance { container: "c".into(), container_id: "id".into(), kind }
    }

    /// Runs for a while of paused time; returns the results with their times, and when questions were asked.
    async fn play(kind: Kind, timing: Timing, answers: Vec<Outcome>, seconds: u64) -> (Vec<(u64, bool)>, Vec<u64>) {
        let start = Instant::now();
        let asked = std::sync::Arc::new(Mutex::new(Vec::new()));
        let script = Script { answers: Mutex::new(answers), asked: asked.clone(), start };
        let (sender, mut reports) = mpsc::channel(64);
        let task = tokio::spawn(run(instance(kind), timing, start + timing.initial_delay, script, sender));
        let mut results = Vec::new();
        let end = start + Duration::from_secs(seconds);
        while let Ok(Some(report)) = tokio::time::timeout_at(end, reports.recv()).await {
            if let Report::Result(_, result) = report {
                results.push((start.elapsed().as_secs(), result));
            }
        }
        task.abort();
        let asked = asked.lock().clone();
        (results, asked)
    }

    fn timing(initial: u64, period: u64, success: u32, failure: u32) -> Timing {
        Timing {
            initial_delay: Duration::from_secs(initial),
            period: Duration::from_secs(period),
            timeout: Duration::from_secs(1),
            success_threshold: success,
            failure_threshold: failure,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn liveness_fails_after_its_threshold_and_then_holds() {
        let (results, asked) = play(Kind::Liveness, timing(5, 10, 1, 3), vec![Outcome::Success, fail()], 120).await;
        assert_eq!(results, [(5, true), (35, false)]);
        assert_eq!(asked, [5_000, 15_000, 25_000, 35_000], "no question after the verdict");
    }

    #[tokio::test(start_paused = true)]
    async fn startup_ends_with_its_first_success() {
        let (results, asked) =
            play(Kind::Startup, timing(0, 2, 1, 5), vec![fail(), fail(), Outcome::Success], 60).await;
        assert_eq!(results, [(4, true)]);
        assert_eq!(asked, [0, 2_000, 4_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_goes_up_and_down() {
        let answers = vec![Outcome::Success, fail(), fail(), fail(), Outcome::Success];
        let (results, _) = play(Kind::Readiness, timing(0, 10, 1, 3), answers, 60).await;
        assert_eq!(results, [(0, true), (30, false), (40, true)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_that_becomes_ready_soon_is_seen_soon() {
        let (results, asked) =
            play(Kind::Readiness, timing(0, 10, 1, 3), vec![fail(), fail(), Outcome::Success], 15).await;
        assert_eq!(results, [(0, true)]);
        assert_eq!(asked, [0, 50, 150, 10_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn early_questions_do_not_hasten_failure() {
        let (results, _) = play(Kind::Readiness, timing(0, 10, 1, 3), vec![fail()], 60).await;
        assert_eq!(results, [(20, false)], "at the third tick");
    }

    #[tokio::test(start_paused = true)]
    async fn errors_are_tried_three_times_and_count_for_nothing() {
        let error = Outcome::Error("cannot ask".into());
        let (results, asked) = play(Kind::Liveness, timing(0, 10, 1, 1), vec![error], 15).await;
        assert_eq!(results, []);
        assert_eq!(asked.len(), 6);
    }
}
