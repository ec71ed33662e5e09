//! Where an HTTP connection stands, told by its session and its requests, read by its stream.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Notify;

use super::head::BadHead;

/// Shared by a connection's stream, which enforces limits on headers, and those who know when a header begins and ends.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Odd while a header is being received; each header has a number of its own.
    step: AtomicU32,
    refusal: OnceLock<BadHead>,
    cut: Notify,
}

impl Progress {
    /// The next bytes are those of a request header.
    pub(crate) fn head_begins(&self) {
        self.step.fetch_or(1, Ordering::AcqRel);
    }

    /// A whole request header was received.
    pub(crate) fn head_ends(&self) {
        let step = self.step.load(Ordering::Acquire);
        if step % 2 == 1 {
            self.step.store(step.wrapping_add(1), Ordering::Release);
        }
    }

    /// The number of the header that is being received, if one is.
    pub(super) fn head(&self) -> Option<u32> {
        Some(self.step.load(Ordering::Acquire)).filter(|step| step % 2 == 1)
    }

    pub(super) fn refuse(&self, why: BadHead) {
        // There is one refusal, then the connection ends.
        let _ = self.refusal.set(why);
    }

    /// Why the connection was ended by its stream.
    pub(super) fn refusal(&self) -> Option<BadHead> {
        self.refusal.get().copied()
    }

    /// The connection is over.
    pub(super) fn cut(&self) {
        self.cut.notify_one();
    }

    pub(super) async fn until_cut(&self) {
        self.cut.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::Progress;

    #[test]
    fn each_header_has_a_number() {
        let progress = Progress::default();
        assert_eq!(progress.head(), None);
        progress.head_begins();
        progress.head_begins();
        let first = progress.head();
        assert!(first.is_some());
        progress.head_ends();
        progress.head_ends();
        assert_eq!(progress.head(), None);
        progress.head_begins();
        assert!(progress.head().is_some_and(|next| Some(next) != first));
    }
}
