//! Label selectors, in the form of URLs (`a=b,c in (d,e),!f`) and of objects (`matchLabels`, `matchExpressions`).

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Map, Value};

use super::SelectorError;
use crate::names;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    pub values: BTreeSet<String>,
}

/// All requirements must hold; the default selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    /// Selects nothing at all: what an absent selector of an object means.
    nothing: bool,
}

impl LabelSelector {
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Selects what carries all these labels, as a Service's `spec.selector`.
    #[must_use]
    pub fn from_map(labels: &Map<String, Value>) -> Self {
        let requirements = labels
            .iter()
            .map(|(key, value)| Requirement {
                key: key.clone(),
                operator: Operator::In,
                values: [value.as_str().unwrap_or("").to_owned()].into(),
            })
            .collect();
        Self { requirements, nothing: false }
    }

    /// Reads a `LabelSelector` object: null selects nothing, an empty one everything.
    ///
    /// # Errors
    /// If an operator is unknown.
    pub fn from_object(selector: &Value) -> Result<Self, SelectorError> {
        let Some(selector) = selector.as_object() else { return Ok(Self::nothing()) };
        let mut result = selector.get("matchLabels").and_then(Value::as_object).map(Self::from_map).unwrap_or_default();
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let operator = match expression["operator"].as_str().unwrap_or("") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(SelectorError(format!("\"{other}\" is not a valid label selector operator"))),
            };
            let values = expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str);
            result.requirements.push(Requirement {
                key: expression["key"].as_str().unwrap_or("").to_owned(),
                operator,
                values: values.map(str::to_owned).collect(),
            });
        }
        result.requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(result)
    }

    /// Reads the form used in URLs.
    ///
    /// # Errors
    /// If the text is malformed, or a key or value is not a valid label.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser { tokens: scan(text), position: 0 };
        let mut requirements = parser.requirements()?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether these labels are selected; no labels are the same as an empty map.
    #[must_use]
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        !self.nothing
            && self.requirements.iter().all(|requirement| {
                requirement.holds(labels.and_then(|labels| labels.get(&requirement.key)).and_then(Value::as_str))
            })
    }
}

impl Requirement {
    fn holds(&self, value: Option<&str>) -> bool {
        let number = |text: &str| text.parse::<i64>().ok();
        let compare = |holds: fn(&i64, &i64) -> bool| {
            value
                .and_then(number)
                .zip(self.values.first().map(String::as_str).and_then(number))
                .is_some_and(|(value, bound)| holds(&value, &bound))
        };
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => compare(i64::gt),
            Operator::LessThan => compare(i64::lt),
        }
    }
}

/// The canonical text, as `status.selector` of a Scale shows it.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, operator, values } = self;
        let list = || values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        match (operator, values.len()) {
            (Operator::Exists, _) => f.write_str(key),
            (Operator::DoesNotExist, _) => write!(f, "!{key}"),
            (Operator::In, 1) => write!(f, "{key}={}", list()),
            (Operator::In, _) => write!(f, "{key} in ({})", list()),
            (Operator::NotIn, 1) => write!(f, "{key}!={}", list()),
            (Operator::NotIn, _) => write!(f, "{key} notin ({})", list()),
            (Operator::GreaterThan, _) => write!(f, "{key}>{}", list()),
            (Operator::LessThan, _) => write!(f, "{key}<{}", list()),
        }
    }
}

/// `in` and `notin` are operators between a key and its values and plain words elsewhere.
#[derive(Debug, Clone, PartialEq)]
enum Token<'a> {
    Word(&'a str),
    Symbol(&'a str),
    Unknown(&'a str),
    End,
}

const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", ",", "(", ")", ">", "<"];

fn scan(text: &str) -> Vec<Token<'_>> {
    let special = |c: char| "=!(),><".contains(c);
    let space = |c: char| " \t\r\n".contains(c);
    let mut rest = text.trim_start_matches(space);
    let mut tokens = Vec::new();
    while !rest.is_empty() {
        let (token, length) = if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            (Token::Symbol(&rest[..symbol.len()]), symbol.len())
        } else {
            let length = rest.find(|c| special(c) || space(c)).unwrap_or(rest.len());
            // Only a special character without a meaning of its own leaves an empty word.
            if length == 0 { (Token::Unknown(&rest[..1]), 1) } else { (Token::Word(&rest[..length]), length) }
        };
        tokens.push(token);
        rest = rest[length..].trim_start_matches(space);
    }
    tokens.push(Token::End);
    tokens
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    position: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> &Token<'a> {
        self.tokens.get(self.position).unwrap_or(&Token::End)
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek().clone();
        self.position += 1;
        token
    }

    fn requirements(&mut self) -> Result<Vec<Requirement>, SelectorError> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                Token::Word(_) | Token::Symbol("!") => {}
                Token::End => return Ok(requirements),
                other => return Err(found(other, ", expected: !, identifier, or 'end of string'")),
            }
            let requirement =
                self.requirement().map_err(|error| SelectorError(format!("unable to parse requirement: {error}")))?;
            requirements.push(requirement);
            match self.next() {
                Token::End => return Ok(requirements),
                Token::Symbol(",") => {
                    if !matches!(self.peek(), Token::Word(_) | Token::Symbol("!")) {
                        return Err(found(self.peek(), ", expected: identifier after ','"));
                    }
                }
                other => return Err(found(&other, ", expected: ',' or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let negated = *self.peek() == Token::Symbol("!");
        if negated {
            self.next();
        }
        let key = match self.next() {
            Token::Word(word) => word,
            other => return Err(found(&other, ", expected: identifier")),
        };
        complain("<nil>", key, &names::qualified_name(key))?;
        let require = |operator, values| Requirement { key: key.to_owned(), operator, values };
        if negated {
            return Ok(require(Operator::DoesNotExist, BTreeSet::new()));
        }
        if matches!(self.peek(), Token::End | Token::Symbol(",")) {
            return Ok(require(Operator::Exists, BTreeSet::new()));
        }
        let (operator, values) = match self.next() {
            Token::Word("in") => (Operator::In, self.set()?),
            Token::Word("notin") => (Operator::NotIn, self.set()?),
            Token::Symbol("=" | "==") => (Operator::In, self.exact()?),
            Token::Symbol("!=") => (Operator::NotIn, self.exact()?),
            Token::Symbol(">") => (Operator::GreaterThan, self.number()?),
            Token::Symbol("<") => (Operator::LessThan, self.number()?),
            other => return Err(found(&other, ", expected: in, notin, =, ==, !=, gt, lt")),
        };
        for (index, value) in values.iter().enumerate() {
            complain(&format!("values[{index}][{key}]"), value, &names::label_value(value))?;
        }
        Ok(require(operator, values))
    }

    fn exact(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        match self.peek() {
            Token::End | Token::Symbol(",") => Ok([String::new()].into()),
            Token::Word(word) => {
                let value = (*word).to_owned();
                self.next();
                Ok([value].into())
            }
            other => Err(found(other, ", expected: identifier")),
        }
    }

    fn number(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        let values = self.exact()?;
        for value in &values {
            if value.parse::<i64>().is_err() {
                let why = "for 'Gt', 'Lt' operators, the value must be an integer".to_owned();
                complain("values[0]", value, &[why])?;
            }
        }
        Ok(values)
    }

    /// `(a,b)`; an empty place is the empty value.
    fn set(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        match self.next() {
            Token::Symbol("(") => {}
            other => return Err(found(&other, " expected: '('")),
        }
        let mut values = BTreeSet::new();
        loop {
            let value = match self.peek() {
                Token::Word(word) => {
                    let value = (*word).to_owned();
                    self.next();
                    value
                }
                Token::Symbol("," | ")") => String::new(),
                other if values.is_empty() => return Err(found(other, ", expected: ',', ')' or identifier")),
                other => return Err(found(other, ", expected: ',', or identifier")),
            };
            values.insert(value);
            match self.next() {
                Token::Symbol(")") => return Ok(values),
                Token::Symbol(",") => {}
                other => return Err(found(&other, ", expected: ',' or ')'")),
            }
        }
    }
}

fn found(token: &Token<'_>, expected: &str) -> SelectorError {
    let text = match token {
        Token::Word(text) | Token::Symbol(text) => text,
        Token::Unknown(text) => {
            return SelectorError(format!("found 'error expected: keyword found '{text}''{expected}"));
        }
        Token::End => "",
    };
    SelectorError(format!("found '{text}'{expected}"))
}

fn complain(path: &str, value: &str, complaints: &[String]) -> Result<(), SelectorError> {
    if complaints.is_empty() {
        return Ok(());
    }
    Err(SelectorError(format!("{path}: Invalid value: {value:?}: {}", complaints.join("; "))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(selector: &str, labels: Value) -> bool {
        LabelSelector::parse(selector).expect(selector).matches(labels.as_object())
    }

    #[test]
    fn every_operator_selects() {
        let cases = [
            ("", json!({}), true),
            ("a=b", json!({"a": "b"}), true),
            ("a==b", json!({"a": "c"}), false),
            ("a = b", json!({"a": "b"}), true),
            ("a!=b", json!({"a": "c"}), true),
            ("a!=b", json!({}), true),
            ("a in (b, c)", json!({"a": "c"}), true),
            ("a in (b,c)", json!({}), false),
            ("a notin (b,c)", json!({}), true),
            ("a notin (b,c)", json!({"a": "b"}), false),
            ("a", json!({"a": ""}), true),
            ("!a", json!({"a": ""}), false),
            ("!a,b=c", json!({"b": "c"}), true),
            ("a=", json!({"a": ""}), true),
            ("a=,b", json!({"a": "", "b": "x"}), true),
            ("in in (in)", json!({"in": "in"}), true),
            ("a in ()", json!({"a": ""}), true),
            ("a in (,b)", json!({"a": ""}), true),
            ("a>3", json!({"a": "4"}), true),
            ("a<3", json!({"a": "4"}), false),
            ("a>3", json!({"a": "x"}), false),
            ("example.com/a=b", json!({"example.com/a": "b"}), true),
        ];
        for (selector, labels, expected) in cases {
            assert_eq!(matches(selector, labels.clone()), expected, "{selector} on {labels}");
        }
    }

    #[test]
    fn malformed_selectors_are_refused_with_upstream_texts() {
        let cases = [
            ("a=b,", "found '', expected: identifier after ','"),
            (",a", "found ',', expected: !, identifier, or 'end of string'"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("a in (=", "unable to parse requirement: found '=', expected: ',', ')' or identifier"),
            ("a in (b,=", "unable to parse requirement: found '=', expected: ',', or identifier"),
            ("!", "unable to parse requirement: found '', expected: identifier"),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ];
        for (selector, expected) in cases {
            assert_eq!(LabelSelector::parse(selector).expect_err(selector).0, expected, "{selector}");
        }
        let error = LabelSelector::parse("a>b").expect_err("no number").0;
        assert_eq!(
            error,
            "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer"
        );
        let error = LabelSelector::parse("a=b&c").expect_err("bad value").0;
        assert!(
            error.starts_with("unable to parse requirement: values[0][a]: Invalid value: \"b&c\": a valid label"),
            "{error}"
        );
    }

    #[test]
    fn objects_are_read_and_shown_canonically() {
        let selector = LabelSelector::from_object(&json!({
            "matchLabels": {"b": "2"},
            "matchExpressions": [
                {"key": "a", "operator": "In", "values": ["y", "x"]},
                {"key": "c", "operator": "Exists"},
                {"key": "d", "operator": "DoesNotExist"},
                {"key": "e", "operator": "NotIn", "values": ["p", "q"]},
            ],
        }))
        .expect("selector");
        assert_eq!(selector.to_string(), "a in (x,y),b=2,c,!d,e notin (p,q)");
        assert_eq!(LabelSelector::parse(&selector.to_string()).expect("round trip"), selector);
        assert!(!LabelSelector::from_object(&Value::Null).expect("null").matches(None));
        assert!(LabelSelector::from_object(&json!({})).expect("empty").matches(None));
        assert!(LabelSelector::from_object(&json!({"matchExpressions": [{"key": "a", "operator": "x"}]})).is_err());
    }
}
