//! Durations as Go prints them (`10s`, `1m20s`), since messages with them are read by people and scripts.

use jiff::SignedDuration;

/// Whole seconds in Go's form.
pub(crate) fn go(duration: SignedDuration) -> String {
    let total = duration.as_secs();
    let (hours, minutes, seconds) = (total / 3_600, total / 60 % 60, total % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_go() {
        for (seconds, text) in [(0, "0s"), (10, "10s"), (80, "1m20s"), (300, "5m0s"), (3_661, "1h1m1s")] {
            assert_eq!(go(SignedDuration::from_secs(seconds)), text);
        }
    }
}
