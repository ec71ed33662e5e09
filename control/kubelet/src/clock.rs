//! The time of day. In tests it follows tokio's clock, so that paused time moves everything alike.

use jiff::Timestamp;

#[cfg(not(test))]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
pub(crate) fn now() -> Timestamp {
    use std::sync::LazyLock;

    static START: LazyLock<(Timestamp, std::time::Instant)> =
        LazyLock::new(|| (Timestamp::now(), std::time::Instant::now()));
    let (time, instant) = *START;
    time + tokio::time::Instant::now().into_std().saturating_duration_since(instant)
}
