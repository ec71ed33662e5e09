//! Limits on a request header while it arrives. Pingora has a timeout for each read only, so that a client could send a
//! byte a minute for good; it reads up to a megabyte; and it answers a header with too many fields as if it were malformed.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use memchr::memchr_iter;
use tokio::time::{Instant, Sleep, sleep_until};

/// The length of what an HTTP/2 client sends first; what follows has the limits of HTTP/2.
const H2_PREFACE_LEN: usize = 24;
/// Pingora's parser takes no more fields.
const FIELDS_MAX: usize = 256;
/// What a request line has besides its target, generously: a method, a version.
const LINE_REST_MAX: usize = 64;

#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadLimits {
    pub(crate) timeout: Duration,
    pub(crate) size_max: usize,
    pub(crate) target_size_max: usize,
}

/// Why a header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHead {
    /// Not a byte of a first request came: likely a connection made just in case.
    Silent,
    Slow,
    Large,
    LongTarget,
    ManyFields,
}

impl BadHead {
    /// The value of the metric's `reason` label.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Silent => "no_request",
            Self::Slow => "slow_header",
            Self::Large => "header_too_large",
            Self::LongTarget => "uri_too_long",
            Self::ManyFields => "too_many_headers",
        }
    }

    /// The whole answer.
    pub(super) fn answer(self) -> String {
        let status = match self {
            // A client that asked nothing might take an answer for that of its next request.
            Self::Silent => return String::new(),
            Self::Slow => "408 Request Timeout",
            Self::Large | Self::ManyFields => "431 Request Header Fields Too Large",
            Self::LongTarget => "414 URI Too Long",
        };
        let length = status.len() + 1;
        format!(
            "HTTP/1.1 {status}\r\nServer: tidegate\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{status}\n"
        )
    }
}

/// Counts and times the header that is being received.
#[derive(Debug)]
pub(super) struct HeadWatch {
    limits: HeadLimits,
    http2: bool,
    number: u32,
    received: usize,
    lines: Lines,
    began: Option<Instant>,
    /// Made when a header takes more than one read, which it seldom does.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl HeadWatch {
    pub(super) fn new(limits: HeadLimits, http2: bool) -> Self {
        Self { limits, http2, number: 0, received: 0, lines: Lines::default(), began: None, deadline: None }
    }

    /// How many more bytes of the header with this number may be read now, or why no more.
    pub(super) fn poll_room(&mut self, number: u32, cx: &mut Context<'_>) -> Result<usize, BadHead> {
        if self.number != number {
            let is_first = self.number == 0;
            *self = Self { number, ..Self::new(self.limits, self.http2) };
            // Between requests a connection may rest; before the first one it only takes up room.
            if is_first {
                self.start();
            }
        }
        if let Some(began) = self.began {
            let deadline = began + self.limits.timeout;
            let timer = self.deadline.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if timer.as_mut().poll(cx) == Poll::Ready(()) {
                return Err(if self.received == 0 { BadHead::Silent } else { BadHead::Slow });
            }
        }
        match self.limits.size_max.saturating_sub(self.received) {
            0 => Err(BadHead::Large),
            room => Ok(room),
        }
    }

    /// Takes in what was read. Returns whether what is limited here has come completely, as far as can be told.
    pub(super) fn received(&mut self, bytes: &[u8]) -> Result<bool, BadHead> {
        if bytes.is_empty() {
            return Ok(false);
        }
        self.start();
        self.received += bytes.len();
        if self.http2 {
            return Ok(self.received >= H2_PREFACE_LEN);
        }
        self.lines.take(bytes);
        if self.lines.first_len > self.limits.target_size_max + LINE_REST_MAX {
            return Err(BadHead::LongTarget);
        }
        // The first line is the request line.
        if self.lines.count > FIELDS_MAX + 1 { Err(BadHead::ManyFields) } else { Ok(false) }
    }

    fn start(&mut self) {
        self.began.get_or_insert_with(Instant::now);
    }
}

/// The lines of a header that arrives in pieces; what follows it is not looked at.
#[derive(Debug, Default)]
struct Lines {
    /// Complete lines.
    count: usize,
    /// How much of the first line has come.
    first_len: usize,
    /// How much of the present line has come, its end apart.
    present_len: usize,
    ended: bool,
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) {
        let mut start = 0;
        for end in memchr_iter(b'\n', bytes) {
            if self.ended {
                return;
            }
            self.extend(&bytes[start..end]);
            // Empty lines before the request line are skipped by the parser.
            if self.present_len > 0 {
                self.count += 1;
            } else if self.count > 0 {
                self.ended = true;
            }
            self.present_len = 0;
            start = end + 1;
        }
        if !self.ended {
            self.extend(&bytes[start..]);
        }
    }

    fn extend(&mut self, part: &[u8]) {
        // A carriage return at the end of a piece belongs to the line's end.
        self.present_len += part.strip_suffix(b"\r").unwrap_or(part).len();
        if self.count == 0 {
            self.first_len = self.present_len;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{BadHead, FIELDS_MAX, HeadLimits, HeadWatch};

    #[test]
    fn answers_have_the_length_they_say() {
        for bad in [BadHead::Slow, BadHead::Large, BadHead::LongTarget, BadHead::ManyFields] {
            let text = bad.answer();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{text}");
        }
        assert!(BadHead::Silent.answer().is_empty());
    }

    fn judge(header: &str, piece: usize) -> Result<bool, BadHead> {
        let limits = HeadLimits { timeout: Duration::from_secs(1), size_max: 1 << 20, target_size_max: 100 };
        let mut watch = HeadWatch::new(limits, false);
        header.as_bytes().chunks(piece).try_fold(false, |_, piece| watch.received(piece))
    }

    #[test]
    fn lines_are_counted_however_they_arrive_and_only_up_to_the_end() {
        let fields = |count: usize| "a: b\r\n".repeat(count);
        let body = "\r\n".to_owned() + &"x\n".repeat(1000);
        for piece in [1, 2, 3, 7, 100_000] {
            let fits = format!("\r\nGET / HTTP/1.1\r\n{}{body}", fields(FIELDS_MAX));
            assert_eq!(judge(&fits, piece), Ok(false), "{piece}");
            let many = format!("GET / HTTP/1.1\r\n{}{body}", fields(FIELDS_MAX + 1));
            assert_eq!(judge(&many, piece), Err(BadHead::ManyFields), "{piece}");
            let long = format!("GET /{} HTTP/1.1\r\n", "x".repeat(200));
            assert_eq!(judge(&long, piece), Err(BadHead::LongTarget), "{piece}");
        }
    }
}
