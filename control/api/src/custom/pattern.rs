//! Regular expressions as Go understands them, compiled on first use.

use std::sync::OnceLock;

use regex::Regex;

#[derive(Debug)]
pub struct Pattern {
    pub(super) text: String,
    compiled: OnceLock<Result<Regex, String>>,
}

impl Pattern {
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), compiled: OnceLock::new() }
    }

    /// Whether some part of the text matches.
    ///
    /// # Errors
    /// What is wrong with the expression.
    pub(crate) fn matches(&self, text: &str) -> Result<bool, &str> {
        self.compiled().map(|regex| regex.is_match(text))
    }

    /// # Errors
    /// What is wrong with the expression.
    pub(crate) fn compiled(&self) -> Result<&Regex, &str> {
        let compile = || Regex::new(&translate(&self.text)).map_err(|error| last_line(&error));
        self.compiled.get_or_init(compile).as_ref().map_err(String::as_str)
    }
}

fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// Go's classes know ASCII only, and what its brackets hold are single characters: no sets within sets.
fn translate(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let mut class: Option<usize> = None;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match (c, class) {
            ('\\', _) => {
                let Some((_, escaped)) = chars.next() else {
                    out.push(c);
                    break;
                };
                match perl_class(escaped) {
                    Some((set, false)) if class.is_some() => out.push_str(set),
                    Some((set, negated)) => out.push_str(&format!("[{}{set}]", if negated { "^" } else { "" })),
                    None => out.extend([c, escaped]),
                }
            }
            ('[', None) => {
                out.push(c);
                class = Some(at);
                if let Some((_, '^')) = chars.peek() {
                    out.push('^');
                    chars.next();
                }
                // A bracket that closes nothing stands for itself.
                if let Some((_, ']')) = chars.peek() {
                    out.push_str("\\]");
                    chars.next();
                }
            }
            ('[', Some(_)) => match (chars.peek(), text[at..].find(":]")) {
                (Some((_, ':')), Some(end)) => {
                    out.push_str(&text[at..at + end + 2]);
                    while chars.peek().is_some_and(|(next, _)| *next < at + end + 2) {
                        chars.next();
                    }
                }
                _ => out.push_str("\\["),
            },
            (']', Some(_)) => {
                out.push(c);
                class = None;
            }
            ('&' | '~', Some(_)) => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    out
}

fn perl_class(escaped: char) -> Option<(&'static str, bool)> {
    let set = match escaped.to_ascii_lowercase() {
        'd' => "0-9",
        'w' => "0-9A-Za-z_",
        's' => "\\t\\n\\x0c\\r ",
        _ => return None,
    };
    Some((set, escaped.is_ascii_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).matches(text).expect(pattern)
    }

    #[test]
    fn classes_are_those_of_go() {
        assert!(matches(r"^\d+$", "12") && !matches(r"^\d+$", "१२"));
        assert!(matches(r"^[\d\-.]+$", "1-2.3") && matches(r"^[^\D]$", "1"));
        assert!(matches(r"^\S$", "é") && !matches(r"^\w$", "é"));
        assert!(matches(r"^[[a]$", "[") && matches(r"^[&&a]$", "&") && matches("^[]a]+$", "]a"));
        assert!(matches(r"^[[:alpha:]_]+$", "a_b") && matches(r"^[~x]$", "~"));
        assert!(matches("^[A-Za-z0-9!#$%&'*+\\-.^_\\x60|~]+$", "x-y&z~"));
    }

    #[test]
    fn an_invalid_expression_says_what_is_wrong() {
        assert_eq!(Pattern::new("a(").matches("a"), Err("unclosed group"));
    }
}
