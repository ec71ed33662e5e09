//! Files of variables that a container's environment takes keys from: `NAME='value'` lines.

use std::collections::BTreeMap;

/// The variables of a file. Values stand in single quotes, where everything means itself, also a line's end; empty lines
/// and those that begin with `#` are passed over.
pub(crate) fn parse(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut variables = BTreeMap::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(variables);
        }
        if rest.starts_with('#') {
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
            continue;
        }
        let line = rest.lines().next().unwrap_or_default();
        let malformed = || format!("couldn't parse env file: {line:?} is not NAME='value'");
        let (name, after) = rest.split_once('=').ok_or_else(malformed)?;
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(malformed());
        }
        let (value, after) =
            after.strip_prefix('\'').and_then(|quoted| quoted.split_once('\'')).ok_or_else(malformed)?;
        let (blank, after) = after.split_once('\n').unwrap_or((after, ""));
        if !blank.trim().is_empty() {
            return Err(malformed());
        }
        variables.insert(name.to_owned(), value.to_owned());
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_values_mean_themselves() {
        let found = parse("# comment\n\nA='one $B \"x\"'\nMANY='a\nb'\nE=''").unwrap();
        let pairs: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(pairs, [("A", "one $B \"x\""), ("E", ""), ("MANY", "a\nb")]);
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in ["A=bare", "A='open", "A='x' y", "no", "A B='x'"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
