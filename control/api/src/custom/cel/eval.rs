//! Evaluating expressions, within a budget.

use std::net::IpAddr;
use std::rc::Rc;

use super::functions;
use super::parse::{Expr, Loop};
use super::value::Value;

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// In the words of upstream's interpreter.
    Told(String),
    /// One rule, or all of an object together, cost too much.
    RuleCost,
    TotalCost,
}

pub(super) type Result<T> = std::result::Result<T, Failure>;

pub(super) fn told<T>(why: impl Into<String>) -> Result<T> {
    Err(Failure::Told(why.into()))
}

pub(super) fn no_overload<T>() -> Result<T> {
    told("no such overload")
}

/// What may still be spent: about one for each step and each ten bytes looked at, as upstream counts.
#[derive(Debug)]
pub(super) struct Budget {
    pub(super) rule: u64,
    pub(super) total: u64,
}

impl Budget {
    pub(super) fn spend(&mut self, cost: u64) -> Result<()> {
        self.rule = self.rule.checked_sub(cost).ok_or(Failure::RuleCost)?;
        self.total = self.total.checked_sub(cost).ok_or(Failure::TotalCost)?;
        Ok(())
    }

    pub(super) fn spend_text(&mut self, bytes: usize) -> Result<()> {
        self.spend(bytes as u64 / 10)
    }
}

/// Names and their values, innermost last.
pub(super) type Scope<'s, 'a> = Vec<(&'s str, Value<'a>)>;

pub(super) fn eval<'a, 's>(expr: &'s Expr, scope: &mut Scope<'s, 'a>, budget: &mut Budget) -> Result<Value<'a>> {
    budget.spend(1)?;
    Ok(match expr {
        Expr::Null => Value::Null,
        Expr::Bool(flag) => Value::Bool(*flag),
        Expr::Int(number) => Value::Int(*number),
        Expr::Uint(number) => Value::Uint(*number),
        Expr::Double(number) => Value::Double(*number),
        Expr::String(text) => Value::text(&**text),
        Expr::Bytes(bytes) => Value::Bytes(bytes.clone()),
        Expr::Ident(name) => return ident(name, scope),
        Expr::Select { on, field, optional } => return select(eval(on, scope, budget)?, field, *optional),
        Expr::Has { on, field } => Value::Bool(match eval(on, scope, budget)? {
            Value::Optional(None) => false,
            on => on.field(field).is_some(),
        }),
        Expr::Index { on, at, optional } => {
            let on = eval(on, scope, budget)?;
            let at = eval(at, scope, budget)?;
            return index(&on, &at, *optional);
        }
        Expr::Matches { on, pattern } => {
            let Value::String(text) = eval(on, scope, budget)? else { return no_overload() };
            budget.spend_text(text.len().saturating_mul(pattern.text.len().div_ceil(4)))?;
            Value::Bool(pattern.matches(&text).or_else(told)?)
        }
        Expr::List(items) => {
            Value::list(items.iter().map(|item| eval(item, scope, budget)).collect::<Result<Vec<_>>>()?)
        }
        Expr::Map(entries) => {
            let entry = |(key, value): &'s (Expr, Expr), scope: &mut Scope<'s, 'a>, budget: &mut Budget| {
                Ok((eval(key, scope, budget)?, eval(value, scope, budget)?))
            };
            let entries = entries.iter().map(|each| entry(each, scope, budget)).collect::<Result<Vec<_>>>()?;
            Value::Map(entries.into())
        }
        Expr::Not(inner) => match eval(inner, scope, budget)? {
            Value::Bool(flag) => Value::Bool(!flag),
            _ => return no_overload(),
        },
        Expr::Negative(inner) => match eval(inner, scope, budget)? {
            Value::Int(number) => Value::Int(number.checked_neg().ok_or_else(|| Failure::Told(OVERFLOW.into()))?),
            Value::Double(number) => Value::Double(-number),
            Value::Duration(number) => Value::Duration(number.saturating_neg()),
            _ => return no_overload(),
        },
        Expr::And(left, right) => return both([left, right], false, scope, budget),
        Expr::Or(left, right) => return both([left, right], true, scope, budget),
        Expr::If(parts) => {
            let [condition, yes, no] = &**parts;
            return match eval(condition, scope, budget)? {
                Value::Bool(true) => eval(yes, scope, budget),
                Value::Bool(false) => eval(no, scope, budget),
                _ => no_overload(),
            };
        }
        Expr::Binary(sign, left, right) => {
            let (left, right) = (eval(left, scope, budget)?, eval(right, scope, budget)?);
            return functions::binary(sign, &left, &right, budget);
        }
        Expr::Loop { kind, on, names, bodies } => {
            let on = eval(on, scope, budget)?;
            return repeat(*kind, &on, names, bodies, scope, budget);
        }
        Expr::Call { on, name, args } => {
            // `format.dns1123Label()` names a format, unless something in scope has that name.
            if let Some(Expr::Ident(library)) = on.as_deref()
                && args.is_empty()
                && library == "format"
                && !scope.iter().any(|(known, _)| known == library)
            {
                return functions::format(name);
            }
            let library = match on.as_deref() {
                Some(Expr::Ident(library))
                    if matches!(library.as_str(), "optional" | "sets" | "strings" | "format" | "cidr" | "ip")
                        && !scope.iter().any(|(known, _)| known == library) =>
                {
                    Some(library.as_str())
                }
                _ => None,
            };
            let args_of = |scope: &mut Scope<'s, 'a>, budget: &mut Budget| {
                args.iter().map(|argument| eval(argument, scope, budget)).collect::<Result<Vec<_>>>()
            };
            if let Some(library) = library {
                return functions::call(&format!("{library}.{name}"), &args_of(scope, budget)?, budget);
            }
            return match on {
                None => functions::call(name, &args_of(scope, budget)?, budget),
                Some(on) => {
                    let on = eval(on, scope, budget)?;
                    let args = args_of(scope, budget)?;
                    functions::method(&on, name, &args, budget)
                }
            };
        }
    })
}

pub(super) const OVERFLOW: &str = "integer overflow";

fn ident<'a>(name: &str, scope: &Scope<'_, 'a>) -> Result<Value<'a>> {
    if let Some((_, value)) = scope.iter().rev().find(|(known, _)| *known == name) {
        return Ok(value.clone());
    }
    const TYPES: [&str; 8] = ["bool", "int", "uint", "double", "string", "bytes", "list", "map"];
    match TYPES.iter().find(|kind| **kind == name) {
        Some(kind) => Ok(Value::Type(kind)),
        None if name == "null_type" => Ok(Value::Type("null_type")),
        None => told(format!("no such attribute(s): {name}")),
    }
}

fn select<'a>(on: Value<'a>, field: &str, optional: bool) -> Result<Value<'a>> {
    let found = on.field(field);
    if optional || matches!(on, Value::Optional(_)) {
        return Ok(Value::Optional(found.map(flatten)));
    }
    match on {
        Value::Object(..) | Value::Map(_) => found.map_or_else(|| told(format!("no such key: {field}")), Ok),
        _ => no_overload(),
    }
}

fn flatten(value: Value<'_>) -> Rc<Value<'_>> {
    match value {
        Value::Optional(Some(inner)) => inner,
        value => Rc::new(value),
    }
}

fn index<'a>(on: &Value<'a>, at: &Value<'a>, optional: bool) -> Result<Value<'a>> {
    let found = on.at(at);
    if optional || matches!(on, Value::Optional(_)) {
        return Ok(Value::Optional(found.map(flatten)));
    }
    found.map_or_else(
        || match (on, at) {
            (Value::Array(..) | Value::List(_), Value::Int(at)) => told(format!("index out of bounds: {at}")),
            (Value::Object(..) | Value::Map(_), Value::String(key)) => told(format!("no such key: {key}")),
            (Value::Object(..) | Value::Map(_), _) => told("no such key"),
            _ => no_overload(),
        },
        Ok,
    )
}

/// `&&` and `||`: one side may decide although the other has no value.
fn both<'a, 's>(
    sides: [&'s Expr; 2],
    decides: bool,
    scope: &mut Scope<'s, 'a>,
    budget: &mut Budget,
) -> Result<Value<'a>> {
    let mut failed = None;
    for side in sides {
        match eval(side, scope, budget) {
            Ok(Value::Bool(flag)) if flag == decides => return Ok(Value::Bool(decides)),
            Ok(Value::Bool(_)) => {}
            Ok(_) => failed = failed.or(Some(Failure::Told("no such overload".into()))),
            Err(cost @ (Failure::RuleCost | Failure::TotalCost)) => return Err(cost),
            Err(failure) => failed = failed.or(Some(failure)),
        }
    }
    failed.map_or(Ok(Value::Bool(!decides)), Err)
}

/// The values of the variables of one round.
fn rounds<'a>(on: &Value<'a>, two: bool) -> Result<Vec<(Value<'a>, Option<Value<'a>>)>> {
    let count = on.size().unwrap_or(0);
    let place = |at: usize| Value::Int(i64::try_from(at).unwrap_or(i64::MAX));
    match on {
        Value::Array(..) | Value::List(_) => Ok((0..count)
            .filter_map(|at| on.item(at).map(|item| if two { (place(at), Some(item)) } else { (item, None) }))
            .collect()),
        Value::Object(..) | Value::Map(_) => Ok((0..count)
            .filter_map(|at| {
                let key = on.key(at)?;
                let value = if two { on.at(&key) } else { None };
                Some((key, value))
            })
            .collect()),
        _ => no_overload(),
    }
}

fn repeat<'a, 's>(
    kind: Loop,
    on: &Value<'a>,
    names: &'s [String],
    bodies: &'s [Expr],
    scope: &mut Scope<'s, 'a>,
    budget: &mut Budget,
) -> Result<Value<'a>> {
    if matches!(kind, Loop::OptMap | Loop::OptFlatMap) {
        return opt_map(kind, on, names, bodies, scope, budget);
    }
    let (mut count, mut failed, mut collected) = (0, None, Vec::new());
    budget.spend(on.size().unwrap_or(0) as u64)?;
    for (first, second) in rounds(on, names.len() == 2)? {
        let depth = scope.len();
        scope.push((&names[0], first.clone()));
        if let (Some(name), Some(second)) = (names.get(1), second) {
            scope.push((name, second));
        }
        let values: Result<Vec<Value<'a>>> = match (kind, bodies) {
            (Loop::Map, [condition, body]) => match eval(condition, scope, budget) {
                Ok(Value::Bool(true)) => eval(body, scope, budget).map(|value| vec![value]),
                Ok(Value::Bool(false)) => Ok(Vec::new()),
                Ok(_) => no_overload(),
                Err(failure) => Err(failure),
            },
            (_, bodies) => bodies.iter().map(|body| eval(body, scope, budget)).collect(),
        };
        scope.truncate(depth);
        match (kind, values) {
            (_, Err(cost @ (Failure::RuleCost | Failure::TotalCost))) => return Err(cost),
            (Loop::All | Loop::Exists, Err(failure)) => failed = failed.or(Some(failure)),
            (_, Err(failure)) => return Err(failure),
            (Loop::Map, Ok(values)) => collected.extend(values),
            (_, Ok(values)) => match (kind, values.first()) {
                (Loop::All, Some(Value::Bool(false))) => return Ok(Value::Bool(false)),
                (Loop::Exists, Some(Value::Bool(true))) => return Ok(Value::Bool(true)),
                (Loop::ExistsOne, Some(Value::Bool(true))) => count += 1,
                (Loop::Filter, Some(Value::Bool(true))) => collected.push(first),
                (_, Some(Value::Bool(_))) => {}
                _ => failed = failed.or(Some(Failure::Told("no such overload".into()))),
            },
        }
    }
    if let Some(failure) = failed {
        return Err(failure);
    }
    Ok(match kind {
        Loop::All => Value::Bool(true),
        Loop::Exists => Value::Bool(false),
        Loop::ExistsOne => Value::Bool(count == 1),
        _ => Value::list(collected),
    })
}

fn opt_map<'a, 's>(
    kind: Loop,
    on: &Value<'a>,
    names: &'s [String],
    bodies: &'s [Expr],
    scope: &mut Scope<'s, 'a>,
    budget: &mut Budget,
) -> Result<Value<'a>> {
    let Value::Optional(inner) = on else { return no_overload() };
    let (Some(inner), [body]) = (inner, bodies) else { return Ok(Value::Optional(None)) };
    scope.push((&names[0], (**inner).clone()));
    let value = eval(body, scope, budget);
    scope.pop();
    let value = value?;
    Ok(if kind == Loop::OptFlatMap { value } else { Value::Optional(Some(Rc::new(value))) })
}

pub(super) fn is_canonical(text: &str, address: IpAddr) -> bool {
    address.to_string() == text
}
