//! The CRI log format: `<RFC 3339 time> <stream> <F|P> <text>`, one a line. Pure.

use jiff::Timestamp;

/// One line of a log file; `text` has its newline exactly if the line was whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub time: Timestamp,
    /// As it is written in the file.
    pub time_text: &'a [u8],
    pub text: &'a [u8],
    pub partial: bool,
}

/// Reads a line without its newline; `None` if it is not of the format.
pub(crate) fn parse(line: &[u8]) -> Option<Entry<'_>> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let time_text = fields.next()?;
    let _stream = fields.next()?;
    let tags = fields.next()?;
    let text = fields.next().unwrap_or_default();
    let time = std::str::from_utf8(time_text).ok()?.parse().ok()?;
    let partial = tags.split(|byte| *byte == b':').next() == Some(b"P");
    Some(Entry { time, time_text, text, partial })
}

/// What the client asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    pub since: Option<Timestamp>,
    pub timestamps: bool,
    /// Bytes that may still be sent.
    pub limit: Option<u64>,
}

/// Turns log lines into what is sent; keeps whether the last line is still open.
#[derive(Debug)]
pub(crate) struct Printer {
    selection: Selection,
    mid_line: bool,
}

impl Printer {
    pub(crate) fn new(selection: Selection) -> Self {
        Self { selection, mid_line: false }
    }

    /// Appends what is to be sent of this line; false once the limit is reached.
    pub(crate) fn print(&mut self, line: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(entry) = parse(line) else { return true };
        if self.selection.since.is_some_and(|since| entry.time < since) {
            return true;
        }
        let start = out.len();
        if self.selection.timestamps && !self.mid_line {
            out.extend_from_slice(entry.time_text);
            out.push(b' ');
        }
        out.extend_from_slice(entry.text);
        if !entry.partial {
            out.push(b'\n');
        }
        self.mid_line = entry.partial;
        let Some(limit) = &mut self.selection.limit else { return true };
        let length = u64::try_from(out.len() - start).unwrap_or(u64::MAX);
        if length >= *limit {
            out.truncate(start + usize::try_from(*limit).unwrap_or(usize::MAX));
            *limit = 0;
            return false;
        }
        *limit -= length;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: [&str; 4] = [
        "2026-01-01T00:00:01.5Z stdout F one",
        "2026-01-01T00:00:02Z stderr P tw",
        "2026-01-01T00:00:02.1Z stderr F o",
        "2026-01-01T00:00:03Z stdout F  three ",
    ];

    fn print(selection: Selection) -> (String, bool) {
        let mut printer = Printer::new(selection);
        let mut out = Vec::new();
        let more = LINES.iter().all(|line| printer.print(line.as_bytes(), &mut out));
        (String::from_utf8(out).unwrap(), more)
    }

    #[test]
    fn partial_lines_are_joined() {
        assert_eq!(print(Selection::default()), ("one\ntwo\n three \n".into(), true));
        let timestamps = Selection { timestamps: true, ..Selection::default() };
        let expected = "2026-01-01T00:00:01.5Z one\n2026-01-01T00:00:02Z two\n2026-01-01T00:00:03Z  three \n";
        assert_eq!(print(timestamps), (expected.into(), true));
    }

    #[test]
    fn time_and_size_select() {
        let since = Selection { since: Some("2026-01-01T00:00:02.05Z".parse().unwrap()), ..Selection::default() };
        assert_eq!(print(since).0, "o\n three \n");
        let limit = Selection { limit: Some(6), ..Selection::default() };
        assert_eq!(print(limit), ("one\ntw".into(), false));
        let limit = Selection { limit: Some(5), ..Selection::default() };
        assert_eq!(print(limit), ("one\nt".into(), false));
    }

    #[test]
    fn strange_lines_are_left_out() {
        let mut out = Vec::new();
        let mut printer = Printer::new(Selection::default());
        for line in ["", "garbage", "2026 stdout F x", "2026-01-01T00:00:01Z stdout F"] {
            assert!(printer.print(line.as_bytes(), &mut out));
        }
        assert_eq!(out, b"\n", "an empty line is a line");
    }
}
