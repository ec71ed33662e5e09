//! Limits on a request header while it arrives. Pingora has a timeout for each read only, so that a client could send a
//! byte a minute for good, and reads up to a megabyte.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// The length of what an HTTP/2 client sends first; what follows has the limits of HTTP/2.
const H2_PREFACE_LEN: usize = 24;

#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadLimits {
    pub(crate) timeout: Duration,
    pub(crate) size_max: usize,
}

/// Why a header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHead {
    Slow,
    Large,
}

impl BadHead {
    /// The value of the metric's `reason` label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Slow => "slow_header",
            Self::Large => "header_too_large",
        }
    }

    /// The whole answer.
    pub(super) fn answer(self) -> &'static [u8] {
        match self {
            Self::Slow => {
                b"HTTP/1.1 408 Request Timeout\r\nServer: tidegate\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 20\r\nConnection: close\r\n\r\n408 Request Timeout\n"
            }
            Self::Large => {
                b"HTTP/1.1 431 Request Header Fields Too Large\r\nServer: tidegate\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 36\r\nConnection: close\r\n\r\n431 Request Header Fields Too Large\n"
            }
        }
    }
}

/// Counts and times the header that is being received.
#[derive(Debug)]
pub(super) struct HeadWatch {
    limits: HeadLimits,
    http2: bool,
    number: u32,
    received: usize,
    began: Option<Instant>,
    /// Made when a header takes more than one read, which it seldom does.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl HeadWatch {
    pub(super) fn new(limits: HeadLimits, http2: bool) -> Self {
        Self { limits, http2, number: 0, received: 0, began: None, deadline: None }
    }

    /// How many more bytes of the header with this number may be read now, or why no more.
    pub(super) fn poll_room(&mut self, number: u32, cx: &mut Context<'_>) -> Result<usize, BadHead> {
        if self.number != number {
            *self = Self { number, ..Self::new(self.limits, self.http2) };
        }
        if self.http2 {
            self.start();
        }
        if let Some(began) = self.began {
            let deadline = began + self.limits.timeout;
            let timer = self.deadline.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if timer.as_mut().poll(cx) == Poll::Ready(()) {
                return Err(BadHead::Slow);
            }
        }
        match self.limits.size_max.saturating_sub(self.received) {
            0 => Err(BadHead::Large),
            room => Ok(room),
        }
    }

    /// Returns whether what is limited here has come completely, as far as can be told from the number of bytes.
    pub(super) fn received(&mut self, bytes: usize) -> bool {
        if bytes > 0 {
            self.start();
            self.received += bytes;
        }
        self.http2 && self.received >= H2_PREFACE_LEN
    }

    fn start(&mut self) {
        self.began.get_or_insert_with(Instant::now);
    }
}

#[cfg(test)]
mod tests {
    use super::BadHead;

    #[test]
    fn answers_have_the_length_they_say() {
        for bad in [BadHead::Slow, BadHead::Large] {
            let text = std::str::from_utf8(bad.answer()).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{text}");
        }
    }
}
