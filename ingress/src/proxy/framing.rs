//! Requests whose framing two parties could read differently are refused before anything acts on them.
//!
//! Pingora's parser already refuses differing lengths, odd transfer codings, several `Host` fields and an authority that
//! is not the `Host`. It passes a list of lengths (`6, 6`) on, which the next reader may take for none; it resolves a
//! request with both Content-Length and Transfer-Encoding by dropping the former, so that only the raw header still shows
//! it; it lets a request without `Host` pass; and it takes a line feed alone for the end of a line, which RFC 9112 §2.2
//! permits and smugglers use: a reader that does not sees fewer fields.

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, Version};
use memchr::memchr_iter;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadFraming {
    LengthAndEncoding,
    /// A length that is not one number (RFC 9112 §6.3 allows to refuse a list of equal ones).
    Length,
    NoHost,
    BareLineFeed,
}

impl BadFraming {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::LengthAndEncoding => "length_and_encoding",
            Self::Length => "length",
            Self::NoHost => "no_host",
            Self::BareLineFeed => "bare_line_feed",
        }
    }
}

/// Judges an HTTP/1 request by its parsed and its raw header.
pub(super) fn check(version: Version, headers: &HeaderMap, raw: &[u8]) -> Result<(), BadFraming> {
    if memchr_iter(b'\n', raw).any(|at| at == 0 || raw[at - 1] != b'\r') {
        return Err(BadFraming::BareLineFeed);
    }
    if version == Version::HTTP_11 && !headers.contains_key(HOST) {
        return Err(BadFraming::NoHost);
    }
    if headers.contains_key(TRANSFER_ENCODING) && has_field(raw, b"content-length") {
        return Err(BadFraming::LengthAndEncoding);
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let is_number = |bytes: &[u8]| !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit);
    if !lengths.next().is_none_or(|length| is_number(length.as_bytes())) || lengths.next().is_some() {
        return Err(BadFraming::Length);
    }
    Ok(())
}

fn has_field(raw: &[u8], name: &[u8]) -> bool {
    raw.split(|byte| *byte == b'\n').skip(1).any(|line| {
        line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
            && line[name.len()..].iter().find(|byte| !matches!(byte, b' ' | b'\t')) == Some(&b':')
    })
}

#[cfg(test)]
mod tests {
    use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
    use http::{HeaderMap, HeaderName, HeaderValue, Version};

    use super::{BadFraming, check};

    fn judge(version: Version, raw: &str) -> Result<(), BadFraming> {
        let mut headers = HeaderMap::new();
        for line in raw.split("\r\n").skip(1).filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').unwrap();
            headers.append(
                HeaderName::try_from(name.trim()).unwrap(),
                HeaderValue::try_from(value.trim().to_owned()).unwrap(),
            );
        }
        // As the parser does.
        if headers.contains_key(TRANSFER_ENCODING) {
            headers.remove(CONTENT_LENGTH);
        }
        check(version, &headers, raw.as_bytes())
    }

    #[test]
    fn length_and_encoding_together_are_refused_although_the_parser_dropped_the_length() {
        let both = "POST / HTTP/1.1\r\nHost: a\r\ncontent-LENGTH: 6\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(judge(Version::HTTP_11, both), Err(BadFraming::LengthAndEncoding));
        let one = "POST / HTTP/1.1\r\nHost: a\r\nX-Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(judge(Version::HTTP_11, one), Ok(()));
        let in_value = "POST / HTTP/1.1\r\nHost: a\r\nX: content-length: 6\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(judge(Version::HTTP_11, in_value), Ok(()));
        let length = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n";
        assert_eq!(judge(Version::HTTP_11, length), Ok(()));
    }

    #[test]
    fn a_length_is_one_number() {
        for (length, expected) in [
            ("39, 39", Err(BadFraming::Length)),
            ("39,39", Err(BadFraming::Length)),
            ("+39", Err(BadFraming::Length)),
            ("", Err(BadFraming::Length)),
            ("39", Ok(())),
        ] {
            let raw = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
            assert_eq!(judge(Version::HTTP_11, &raw), expected, "{length:?}");
        }
    }

    #[test]
    fn a_line_ends_with_both_characters() {
        for raw in
            ["GET / HTTP/1.1\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\n"]
        {
            let mut headers = HeaderMap::new();
            headers.insert("host", HeaderValue::from_static("a"));
            assert_eq!(check(Version::HTTP_11, &headers, raw.as_bytes()), Err(BadFraming::BareLineFeed), "{raw:?}");
        }
    }

    #[test]
    fn only_http_1_0_may_lack_a_host() {
        assert_eq!(judge(Version::HTTP_11, "GET / HTTP/1.1\r\n\r\n"), Err(BadFraming::NoHost));
        assert_eq!(judge(Version::HTTP_10, "GET / HTTP/1.0\r\n\r\n"), Ok(()));
    }
}
