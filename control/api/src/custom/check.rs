//! Values against their schema, with upstream's verdicts and texts (its validator is go-openapi's).
//!
//! Alternatives (`anyOf`, `oneOf`) report the one that came closest: the one with the most checks passed.

use std::collections::HashMap;

use serde_json::{Map, Number, Value};

use super::number::{print, whole};
use super::{Additional, List, Rules, Schema, Type, format};
use crate::validation::{Errors, Path};

/// Complains about every value that breaks a rule. `base` is where the value stands in its object; what is as it was in
/// `old` is not looked at.
pub(crate) fn check(schema: &Schema, value: &Value, old: Option<&Value>, base: &str, errors: &mut Errors) {
    for fault in validate(schema, "", value, old).faults {
        fault.report(base, errors);
    }
}

/// What a check found, and how many of its steps passed.
#[derive(Default)]
struct Outcome {
    faults: Vec<Fault>,
    passed: usize,
}

/// One broken rule.
struct Fault {
    /// Below the value that is checked; `None` for faults of no single field.
    path: Option<String>,
    kind: FaultKind,
}

enum FaultKind {
    Required,
    NotAllowed { value: Value, allowed: Vec<Value> },
    TooLong(u64),
    TooMany { actual: usize, max: u64 },
    Type { found: Value, text: String },
    Other { found: Value, text: String },
}

impl Fault {
    fn new(path: &str, kind: FaultKind) -> Self {
        Self { path: Some(path.to_owned()), kind }
    }

    fn other(path: &str, found: impl Into<Value>, text: &str) -> Self {
        Self::new(path, FaultKind::Other { found: found.into(), text: format!("{path} in body {text}") })
    }

    fn general(text: String) -> Self {
        Self { path: None, kind: FaultKind::Other { found: "".into(), text } }
    }

    /// Go prints the path of no field as `<nil>`.
    fn report(self, base: &str, errors: &mut Errors) {
        let below = self.path.as_deref().unwrap_or_default().trim_start_matches('.');
        let path = match (base, below) {
            ("", "") => Path::new("<nil>"),
            (base, "") => Path::new(base),
            (base, below) => Path::new(base).at(below),
        };
        match self.kind {
            FaultKind::Required => errors.required(&path, ""),
            FaultKind::NotAllowed { value, allowed } => {
                let allowed: Vec<String> = allowed
                    .iter()
                    .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
                    .collect();
                let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
                errors.not_supported(&path, value, &allowed);
            }
            FaultKind::TooLong(max) => errors.too_long(&path, usize::try_from(max).unwrap_or(usize::MAX)),
            FaultKind::TooMany { actual, max } => {
                errors.too_many(&path, actual, usize::try_from(max).unwrap_or(usize::MAX));
            }
            FaultKind::Type { found, text } => errors.wrong_type(&path, found, &text),
            FaultKind::Other { found, text } => errors.invalid(&path, found, &text),
        }
    }
}

impl Outcome {
    fn of(fault: Option<Fault>) -> Self {
        Self { faults: fault.into_iter().collect(), passed: 0 }
    }

    fn merge(&mut self, other: Self) {
        self.faults.extend(other.faults);
        self.passed += other.passed;
    }

    fn is_valid(&self) -> bool {
        self.faults.is_empty()
    }
}

fn validate(schema: &Schema, path: &str, value: &Value, old: Option<&Value>) -> Outcome {
    if old == Some(value) {
        return Outcome { passed: 1, ..Outcome::default() };
    }
    let mut outcome = Outcome::default();
    match type_fault(schema, path, value) {
        Some(fault) => outcome.faults.push(fault),
        None => outcome.passed += 1,
    }
    let none = Rules::default();
    let rules = schema.rules.as_deref().unwrap_or(&none);
    if !value.is_null() {
        outcome.merge(alternatives(rules, path, value, old));
        outcome.merge(match value {
            Value::String(text) => Outcome::of(string_fault(rules, path, text)),
            Value::Number(number) => numbers(schema, rules, path, number),
            Value::Array(list) => items(schema, rules, path, list, old),
            Value::Object(object) => properties(schema, rules, path, object, old),
            Value::Bool(_) | Value::Null => Outcome::default(),
        });
        outcome.passed += 1;
    }
    if !rules.allowed.is_empty() && !rules.allowed.iter().any(|allowed| same(allowed, value)) {
        let kind = FaultKind::NotAllowed { value: value.clone(), allowed: rules.allowed.clone() };
        outcome.faults.push(Fault::new(path, kind));
    }
    outcome
}

fn same(allowed: &Value, value: &Value) -> bool {
    match (allowed, value) {
        (Value::Number(allowed), Value::Number(value)) => allowed.as_f64() == value.as_f64(),
        _ => allowed == value,
    }
}

/// The type of a value, and the format that its Go type implies.
fn type_of(value: &Value) -> (Option<Type>, &'static str) {
    match value {
        Value::Null => (None, ""),
        Value::Bool(_) => (Some(Type::Boolean), ""),
        Value::Number(number) if number.is_i64() => (Some(Type::Integer), "int64"),
        Value::Number(_) => (Some(Type::Number), "float64"),
        Value::String(_) => (Some(Type::String), ""),
        Value::Array(_) => (Some(Type::Array), ""),
        Value::Object(_) => (Some(Type::Object), ""),
    }
}

fn type_fault(schema: &Schema, path: &str, value: &Value) -> Option<Fault> {
    let types = schema.types();
    let format = schema.rules.as_ref().map_or("", |rules| rules.format.as_str());
    let fault = |wanted: &str, found: &str| {
        let text = format!("{path} in body must be of type {wanted}: {found:?}");
        Some(Fault::new(path, FaultKind::Type { found: found.into(), text }))
    };
    let names = || types.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(",");
    let (found, implied) = type_of(value);
    let Some(found) = found else {
        return if types.is_empty() || schema.nullable { None } else { fault(&names(), "null") };
    };
    if types.is_empty() && format.is_empty() {
        return None;
    }
    let is_whole = matches!(value, Value::Number(number) if whole(number).is_some());
    let fits = types.contains(&found)
        || (found == Type::Number && is_whole && types.contains(&Type::Integer))
        || (found == Type::Integer && types.contains(&Type::Number));
    let has_text = matches!(found, Type::String | Type::Array);
    if !has_text && !format.is_empty() && !fits && format != implied {
        return fault(format, implied);
    }
    let is_numeric = types.iter().any(|kind| matches!(kind, Type::Integer | Type::Number));
    if (has_text && !format.is_empty() && !is_numeric) || fits {
        return None;
    }
    fault(&names(), found.name())
}

fn alternatives(rules: &Rules, path: &str, value: &Value, old: Option<&Value>) -> Outcome {
    let mut outcome = Outcome::default();
    if !rules.any_of.is_empty() {
        let (valid, chosen) = choose(&rules.any_of, path, value, old);
        if valid == 0 {
            let text = format!("{path:?} must validate at least one schema (anyOf)");
            outcome.faults.push(Fault::general(text));
        }
        outcome.merge(chosen);
    }
    if !rules.one_of.is_empty() {
        let (valid, chosen) = choose(&rules.one_of, path, value, old);
        if valid != 1 {
            let found = match valid {
                0 => "Found none valid".to_owned(),
                count => format!("Found {count} valid alternatives"),
            };
            let text = format!("{path:?} must validate one and only one schema (oneOf). {found}");
            outcome.faults.push(Fault::general(text));
        }
        if valid < 2 {
            outcome.merge(chosen);
        }
    }
    let results: Vec<Outcome> = rules.all_of.iter().map(|schema| validate(schema, path, value, old)).collect();
    let valid = results.iter().filter(|result| result.is_valid()).count();
    let all = results.len();
    results.into_iter().for_each(|result| outcome.merge(result));
    if valid < all {
        let none = if valid == 0 { ". None validated" } else { "" };
        outcome.faults.push(Fault::general(format!("{path:?} must validate all the schemas (allOf){none}")));
    }
    if rules.not.as_ref().is_some_and(|schema| validate(schema, path, value, old).is_valid()) {
        outcome.faults.push(Fault::general(format!("{path:?} must not validate the schema (not)")));
    }
    outcome.passed += 1;
    outcome
}

/// How many alternatives hold, and the first that does or else the one that came closest.
fn choose(schemas: &[Schema], path: &str, value: &Value, old: Option<&Value>) -> (usize, Outcome) {
    let mut valid = 0;
    let mut chosen: Option<Outcome> = None;
    for schema in schemas {
        let result = validate(schema, path, value, old);
        let better = match &chosen {
            None => true,
            Some(chosen) if result.is_valid() => !chosen.is_valid(),
            Some(chosen) => !chosen.is_valid() && result.passed > chosen.passed,
        };
        valid += usize::from(result.is_valid());
        if better {
            chosen = Some(result);
        }
    }
    (valid, chosen.unwrap_or_default())
}

fn string_fault(rules: &Rules, path: &str, text: &str) -> Option<Fault> {
    let length = text.chars().count() as u64;
    if let Some(max) = rules.max_length.filter(|max| length > *max) {
        return Some(Fault::new(path, FaultKind::TooLong(max)));
    }
    if let Some(min) = rules.min_length.filter(|min| length < *min) {
        return Some(Fault::other(path, text, &format!("should be at least {min} chars long")));
    }
    if let Some(pattern) = &rules.pattern {
        let wanted = &pattern.text;
        match pattern.matches(text) {
            Ok(true) => {}
            Ok(false) => return Some(Fault::other(path, text, &format!("should match '{wanted}'"))),
            Err(error) => {
                let wanted = format!("should match '{wanted}, but pattern is invalid: {error}'");
                return Some(Fault::other(path, text, &wanted));
            }
        }
    }
    if !format::holds(&rules.format, text) {
        let text_of = format!("{path} in body must be of type {}: {text:?}", rules.format);
        return Some(Fault::new(path, FaultKind::Type { found: text.into(), text: text_of }));
    }
    None
}

fn numbers(schema: &Schema, rules: &Rules, path: &str, number: &Number) -> Outcome {
    let mut outcome = Outcome { passed: 1, ..Outcome::default() };
    let Some(value) = number.as_f64() else { return outcome };
    let mut fault = |text: String| outcome.faults.push(Fault::other(path, number.clone(), &text));
    if let Some(max) = rules.maximum {
        match rules.exclusive_maximum {
            true if value >= max => fault(format!("should be less than {}", print(max))),
            false if value > max => fault(format!("should be less than or equal to {}", print(max))),
            _ => {}
        }
    }
    if let Some(min) = rules.minimum {
        match rules.exclusive_minimum {
            true if value <= min => fault(format!("should be greater than {}", print(min))),
            false if value < min => fault(format!("should be greater than or equal to {}", print(min))),
            _ => {}
        }
    }
    if let Some(factor) = rules.multiple_of.filter(|factor| *factor > 0.0) {
        let times = if factor < 1.0 { 1.0 / factor * value } else { value / factor };
        if times.fract() != 0.0 {
            fault(format!("should be a multiple of {}", print(factor)));
        }
    }
    let is_in_range = match (schema.kind, rules.format.as_str()) {
        (Some(Type::Integer), "int32") => whole(number).is_some_and(|value| i32::try_from(value).is_ok()),
        (Some(Type::Number), "float") => value.abs() <= f64::from(f32::MAX),
        _ => true,
    };
    if !is_in_range {
        let kind = schema.kind.map_or("", Type::name);
        let text = format!("Checked value must be of type {kind} with format {} in {path}", rules.format);
        outcome.faults.insert(0, Fault::general(text));
    }
    outcome
}

fn items(schema: &Schema, rules: &Rules, path: &str, list: &[Value], old: Option<&Value>) -> Outcome {
    let mut outcome = Outcome { passed: 1, ..Outcome::default() };
    if let Some(items) = &schema.items {
        let counterparts = Counterparts::of(&schema.list, old);
        for (at, item) in list.iter().enumerate() {
            let before = counterparts.get(item);
            outcome.merge(validate(items, &format!("{path}[{at}]"), item, before));
        }
    }
    let count = list.len() as u64;
    if let Some(min) = rules.min_items.filter(|min| count < *min) {
        outcome.faults.push(Fault::other(path, count, &format!("should have at least {min} items")));
    }
    if let Some(max) = rules.max_items.filter(|max| count > *max) {
        outcome.faults.push(Fault::new(path, FaultKind::TooMany { actual: list.len(), max }));
    }
    outcome
}

fn properties(schema: &Schema, rules: &Rules, path: &str, object: &Map<String, Value>, old: Option<&Value>) -> Outcome {
    let mut outcome = Outcome::default();
    let count = object.len() as u64;
    if let Some(min) = rules.min_properties.filter(|min| count < *min) {
        outcome.faults.push(Fault::other(path, count, &format!("should have at least {min} properties")));
    }
    if let Some(max) = rules.max_properties.filter(|max| count > *max) {
        outcome.faults.push(Fault::new(path, FaultKind::TooMany { actual: object.len(), max }));
    }
    for (name, value) in object {
        let old = old.and_then(|old| old.get(name));
        match (schema.properties.get(name), &schema.additional) {
            (Some(property), _) => {
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                outcome.merge(validate(property, &below, value, old));
            }
            (None, Some(Additional::Of(values))) => {
                outcome.merge(validate(values, &format!("{path}.{name}"), value, old));
            }
            (None, Some(Additional::Refused)) => {
                let text = format!("{path}.{name} in body is a forbidden property");
                let kind = FaultKind::Other { found: name.as_str().into(), text };
                outcome.faults.push(Fault::new(path, kind));
            }
            (None, _) => {}
        }
    }
    let missing = rules.required.iter().filter(|name| !object.contains_key(*name));
    outcome.faults.extend(missing.map(|name| Fault::new(&format!("{path}.{name}"), FaultKind::Required)));
    outcome
}

/// The items of an old list, by what tells them apart: looking for each in the whole list would take its square.
pub(super) struct Counterparts<'a> {
    list: &'a List,
    by_key: HashMap<String, &'a Value>,
}

impl<'a> Counterparts<'a> {
    pub(super) fn of(list: &'a List, old: Option<&'a Value>) -> Self {
        let items = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let keyed = items.iter().rev().filter_map(|item| Some((key(list, item)?, item)));
        Self { list, by_key: keyed.collect() }
    }

    /// The item that is the same one: by its keys, or by its value.
    pub(super) fn get(&self, item: &Value) -> Option<&'a Value> {
        if self.by_key.is_empty() {
            return None;
        }
        self.by_key.get(&key(self.list, item)?).copied()
    }
}

fn key(list: &List, item: &Value) -> Option<String> {
    match list {
        List::Map(keys) => {
            Some(keys.iter().map(|key| item.get(key).map_or_else(String::new, Value::to_string) + "\0").collect())
        }
        List::Set => Some(item.to_string()),
        List::Atomic => None,
    }
}
