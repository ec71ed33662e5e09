//! Counts consecutive outcomes against a probe's thresholds.

/// The result so far and the run of equal outcomes that may change it.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    success_threshold: u32,
    failure_threshold: u32,
    result: Option<bool>,
    last: Option<bool>,
    run: u32,
}

impl Tally {
    pub(crate) fn new(success_threshold: u32, failure_threshold: u32) -> Self {
        Self { success_threshold, failure_threshold, result: None, last: None, run: 0 }
    }

    /// Adds an outcome; returns the result if it is another now.
    pub(crate) fn record(&mut self, success: bool) -> Option<bool> {
        self.run = if self.last == Some(success) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(success);
        let threshold = if success { self.success_threshold } else { self.failure_threshold };
        if self.run < threshold || self.result == Some(success) {
            return None;
        }
        self.result = Some(success);
        self.result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_change_only_at_their_thresholds() {
        let run = |success, failure, outcomes: &[u8]| -> Vec<Option<bool>> {
            let mut tally = Tally::new(success, failure);
            outcomes.iter().map(|outcome| tally.record(*outcome == 1)).collect()
        };
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(run(1, 3, &[1, 0, 0, 1, 0, 0, 0, 0, 1]), [yes, None, None, None, None, None, no, None, yes]);
        assert_eq!(run(2, 1, &[1, 0, 1, 1, 1]), [None, no, None, yes, None]);
        assert_eq!(run(1, 1, &[0, 1, 0]), [no, yes, no]);
    }
}
