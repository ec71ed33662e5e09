//! `metav1.Time` and `metav1.MicroTime`: parsing and printing as Go does.

use jiff::Timestamp;

/// Seconds, in UTC: `2008-01-01T01:01:01Z`.
#[must_use]
pub fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Microseconds, in UTC: `2008-01-01T01:01:01.000002Z`.
#[must_use]
pub fn micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Reads RFC 3339, fractions included.
///
/// # Errors
/// The text of Go's parse error, as clients get to see it.
pub fn parse(text: &str) -> Result<Timestamp, String> {
    let shaped = text.len() >= 20 && text.as_bytes()[10] == b'T' && text.as_bytes()[13] == b':';
    if shaped && let Ok(time) = text.parse() {
        return Ok(time);
    }
    Err(format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_utc_without_a_fraction() {
        let time = parse("2008-01-01T03:01:01.5+02:00").unwrap();
        assert_eq!(seconds(time), "2008-01-01T01:01:01Z");
        assert_eq!(micros(time), "2008-01-01T01:01:01.500000Z");
    }

    #[test]
    fn refuses_what_go_refuses() {
        for text in ["", "yesterday", "2008-01-01", "2008-01-01 01:01:01Z", "2008-13-01T01:01:01Z"] {
            assert!(parse(text).unwrap_err().starts_with("parsing time "), "{text}");
        }
    }
}
