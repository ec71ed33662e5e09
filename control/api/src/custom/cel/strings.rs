//! What can be called on strings.

use std::rc::Rc;

use super::eval::{Budget, Result, no_overload, told};
use super::value::Value;
use crate::custom::Pattern;

fn place(at: Option<usize>) -> Value<'static> {
    Value::Int(at.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1))
}

pub(super) fn method<'a>(text: &Rc<str>, name: &str, args: &[Value<'a>], budget: &mut Budget) -> Result<Value<'a>> {
    budget.spend_text(text.len())?;
    match (name, args) {
        ("contains", [Value::String(part)]) => Ok(Value::Bool(text.contains(&**part))),
        ("startsWith", [Value::String(part)]) => Ok(Value::Bool(text.starts_with(&**part))),
        ("endsWith", [Value::String(part)]) => Ok(Value::Bool(text.ends_with(&**part))),
        ("lowerAscii", []) => Ok(Value::text(text.to_ascii_lowercase())),
        ("upperAscii", []) => Ok(Value::text(text.to_ascii_uppercase())),
        ("trim", []) => Ok(Value::text(text.trim())),
        ("reverse", []) => Ok(Value::text(text.chars().rev().collect::<String>())),
        ("charAt", [Value::Int(at)]) => match usize::try_from(*at) {
            Ok(at) if at == text.chars().count() => Ok(Value::text("")),
            Ok(at) => text
                .chars()
                .nth(at)
                .map_or_else(|| told(format!("index out of range: {at}")), |c| Ok(Value::text(c.to_string()))),
            Err(_) => told(format!("index out of range: {at}")),
        },
        ("indexOf" | "lastIndexOf", [Value::String(part)]) => {
            let at = if name == "indexOf" { text.find(&**part) } else { text.rfind(&**part) };
            Ok(place(at.map(|at| text[..at].chars().count())))
        }
        ("indexOf", [Value::String(part), Value::Int(from)]) => {
            let from = usize::try_from(*from).or_else(|_| told(format!("index out of range: {from}")))?;
            let rest: String = text.chars().skip(from).collect();
            Ok(place(rest.find(&**part).map(|at| from + rest[..at].chars().count())))
        }
        ("replace", [Value::String(from), Value::String(to)]) => {
            budget.spend_text(text.len().saturating_mul(to.len().max(1)))?;
            Ok(Value::text(text.replace(&**from, to)))
        }
        ("replace", [Value::String(from), Value::String(to), Value::Int(count)]) => {
            budget.spend_text(text.len().saturating_mul(to.len().max(1)))?;
            let count = usize::try_from(*count).unwrap_or(usize::MAX);
            Ok(Value::text(text.replacen(&**from, to, count)))
        }
        ("split", [Value::String(by)]) => Ok(split(text, by, -1)),
        ("split", [Value::String(by), Value::Int(count)]) => Ok(split(text, by, *count)),
        ("substring", [Value::Int(from)]) => substring(text, *from, None),
        ("substring", [Value::Int(from), Value::Int(to)]) => substring(text, *from, Some(*to)),
        ("find", [Value::String(pattern)]) => {
            budget.spend_text(text.len().saturating_mul(pattern.len().div_ceil(4)))?;
            let found =
                find(pattern, |regex| regex.find(text).map_or(String::new(), |found| found.as_str().to_owned()))?;
            Ok(Value::text(found))
        }
        ("findAll", [Value::String(pattern)] | [Value::String(pattern), Value::Int(_)]) => {
            budget.spend_text(text.len().saturating_mul(pattern.len().div_ceil(4)))?;
            let max = match args {
                [_, Value::Int(max)] => usize::try_from(*max).unwrap_or(usize::MAX),
                _ => usize::MAX,
            };
            let found = find(pattern, |regex| {
                regex.find_iter(text).take(max).map(|found| Value::text(found.as_str())).collect::<Vec<_>>()
            })?;
            Ok(Value::list(found))
        }
        _ => no_overload(),
    }
}

fn find<T>(pattern: &str, use_it: impl FnOnce(&regex::Regex) -> T) -> Result<T> {
    match Pattern::new(pattern).compiled() {
        Ok(regex) => Ok(use_it(regex)),
        Err(why) => told(format!("Illegal regex: {why}")),
    }
}

/// Go's `strings.SplitN`: an empty separator splits into characters.
fn split<'a>(text: &str, by: &str, count: i64) -> Value<'a> {
    let parts: Vec<String> = match usize::try_from(count) {
        Ok(0) => Vec::new(),
        _ if by.is_empty() => text.chars().map(String::from).collect(),
        Ok(count) => text.splitn(count, by).map(str::to_owned).collect(),
        Err(_) => text.split(by).map(str::to_owned).collect(),
    };
    Value::list(parts.into_iter().map(Value::text).collect())
}

fn substring<'a>(text: &str, from: i64, to: Option<i64>) -> Result<Value<'a>> {
    let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    let to = to.unwrap_or(length);
    if !(0..=length).contains(&from) {
        return told(format!("index out of range: {from}"));
    }
    if !(0..=length).contains(&to) {
        return told(format!("index out of range: {to}"));
    }
    if from > to {
        return told(format!("invalid substring range. start: {from}, end: {to}"));
    }
    let count = |number: i64| usize::try_from(number).unwrap_or(0);
    Ok(Value::text(text.chars().skip(count(from)).take(count(to - from)).collect::<String>()))
}
