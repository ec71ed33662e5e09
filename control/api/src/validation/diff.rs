//! What differs between two objects, as a unified diff of their JSON: the form in which upstream shows it.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};

/// Equal lines shown around a change.
const CONTEXT: usize = 3;
/// Pairs of lines that are compared; beyond this everything between the first and the last change counts as changed.
const PAIRS_MAX: usize = 4_000_000;

/// A line and which of the two texts have it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Line<'a> {
    Both(&'a str),
    Old(&'a str),
    New(&'a str),
}

/// The hunks that turn `old` into `new`.
pub(super) fn unified(old: &Value, new: &Value) -> String {
    let (old, new) = (pretty(old), pretty(new));
    let lines = script(&old.lines().collect::<Vec<_>>(), &new.lines().collect::<Vec<_>>());
    let mut text = String::new();
    let (mut old_at, mut new_at, mut at) = (0, 0, 0);
    for (start, end) in hunks(&lines) {
        // Between hunks there are only lines that both have.
        (old_at, new_at) = (old_at + start - at, new_at + start - at);
        let hunk = &lines[start..end];
        let old_count = hunk.iter().filter(|line| !matches!(line, Line::New(_))).count();
        let new_count = hunk.iter().filter(|line| !matches!(line, Line::Old(_))).count();
        let _ = writeln!(text, "@@ -{} +{} @@", range(old_at, old_count), range(new_at, new_count));
        for line in hunk {
            let (mark, line) = match line {
                Line::Both(line) => (' ', line),
                Line::Old(line) => ('-', line),
                Line::New(line) => ('+', line),
            };
            let _ = writeln!(text, "{mark}{line}");
        }
        (old_at, new_at, at) = (old_at + old_count, new_at + new_count, end);
    }
    text
}

fn pretty(value: &Value) -> String {
    let mut text = Vec::new();
    // Writing a value into memory cannot fail.
    let _ = value.serialize(&mut Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b" ")));
    String::from_utf8(text).unwrap_or_default()
}

/// Where a hunk is, counted from one; the place before it when it is empty.
fn range(start: usize, count: usize) -> String {
    match count {
        0 => format!("{start},0"),
        1 => format!("{}", start + 1),
        _ => format!("{},{count}", start + 1),
    }
}

/// The changes with the lines around them; those that touch are one.
fn hunks(lines: &[Line<'_>]) -> Vec<(usize, usize)> {
    let mut hunks: Vec<(usize, usize)> = Vec::new();
    for (at, _) in lines.iter().enumerate().filter(|(_, line)| !matches!(line, Line::Both(_))) {
        let (start, end) = (at.saturating_sub(CONTEXT), (at + 1 + CONTEXT).min(lines.len()));
        match hunks.last_mut() {
            Some(last) if start <= last.1 => last.1 = end,
            _ => hunks.push((start, end)),
        }
    }
    hunks
}

/// Both texts as one list, with as many lines in common as there are.
fn script<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    let common = |pairs: &mut dyn Iterator<Item = (&&'a str, &&'a str)>| pairs.take_while(|(a, b)| a == b).count();
    let head = common(&mut old.iter().zip(new));
    let tail = common(&mut old[head..].iter().rev().zip(new[head..].iter().rev()));
    let (middle, new_middle) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
    let mut lines: Vec<Line<'a>> = old[..head].iter().map(|line| Line::Both(line)).collect();
    if middle.len().saturating_mul(new_middle.len()) > PAIRS_MAX {
        lines.extend(middle.iter().map(|line| Line::Old(line)));
        lines.extend(new_middle.iter().map(|line| Line::New(line)));
    } else {
        longest_common(middle, new_middle, &mut lines);
    }
    lines.extend(old[old.len() - tail..].iter().map(|line| Line::Both(line)));
    lines
}

fn longest_common<'a>(old: &[&'a str], new: &[&'a str], lines: &mut Vec<Line<'a>>) {
    let width = new.len() + 1;
    // How many lines the rests of both have in common.
    let mut common = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1] + 1
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(Line::Both(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if i < old.len() && (j == new.len() || common[(i + 1) * width + j] >= common[i * width + j + 1]) {
            lines.push(Line::Old(old[i]));
            i += 1;
        } else {
            lines.push(Line::New(new[j]));
            j += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::unified;

    #[test]
    fn only_what_changed_is_shown_with_what_is_around_it() {
        let mut old = json!({"a": 1, "b": 2, "c": 3, "d": 4, "e": {"f": 5}, "g": [1, 2, 3], "h": 7, "i": 8});
        let mut new = old.clone();
        new["d"] = 9.into();
        assert_eq!(
            unified(&old, &new),
            "@@ -2,7 +2,7 @@\n  \"a\": 1,\n  \"b\": 2,\n  \"c\": 3,\n- \"d\": 4,\n+ \"d\": 9,\n  \"e\": {\n   \"f\": 5\n  },\n"
        );
        new["i"] = 0.into();
        assert_eq!(unified(&old, &new).matches("@@ -").count(), 2);
        assert_eq!(unified(&old, &old), "");
        old = json!({});
        assert!(unified(&old, &json!({"a": 1})).starts_with("@@ -1 +1,3 @@\n-{}\n+{\n"));
    }
}
