//! Whether a rule makes sense before it runs: its syntax, and the names, functions and fields that it uses.

use super::functions::GLOBAL;
use super::parse::{Expr, parse};
use super::property;
use crate::custom::{Additional, Schema, Type};

/// Functions that are called on a value.
const METHODS: [&str; 65] = [
    "add",
    "asApproximateFloat",
    "asInteger",
    "charAt",
    "compareTo",
    "contains",
    "containsCIDR",
    "containsIP",
    "endsWith",
    "family",
    "find",
    "findAll",
    "first",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getEscapedPath",
    "getFullYear",
    "getHost",
    "getHostname",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getPort",
    "getScheme",
    "getSeconds",
    "hasValue",
    "indexOf",
    "ip",
    "isGlobalUnicast",
    "isGreaterThan",
    "isInteger",
    "isLessThan",
    "isLinkLocalMulticast",
    "isLinkLocalUnicast",
    "isLoopback",
    "isSorted",
    "isUnspecified",
    "join",
    "last",
    "lastIndexOf",
    "lowerAscii",
    "masked",
    "matches",
    "max",
    "min",
    "or",
    "orValue",
    "prefixLength",
    "replace",
    "reverse",
    "sign",
    "size",
    "split",
    "startsWith",
    "sub",
    "substring",
    "sum",
    "trim",
    "upperAscii",
    "validate",
    "value",
    "isCanonical",
];
const FORMATS: [&str; 11] = [
    "byte",
    "date",
    "datetime",
    "dns1035Label",
    "dns1123Label",
    "dns1123Subdomain",
    "labelValue",
    "named",
    "qualifiedName",
    "uri",
    "uuid",
];
const TYPES: [&str; 9] = ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "uint"];

/// What is known of a value before there is one.
#[derive(Clone, Copy)]
enum Known<'a> {
    As(&'a Schema),
    Nothing,
}

/// Looks at a rule or a message of a schema.
///
/// # Errors
/// What is wrong, as upstream words it where that is simple.
pub(crate) fn check(text: &str, schema: &Schema, wants_bool: bool) -> Result<(), String> {
    let expr = parse(text.trim())?;
    let wrong = |why: String| format!("compilation failed: ERROR: <input>:1:1: {why}");
    let is_other = match &expr {
        Expr::String(_) => wants_bool,
        Expr::Bool(_) | Expr::Has { .. } | Expr::Not(_) | Expr::And(..) | Expr::Or(..) => !wants_bool,
        Expr::Int(_) | Expr::Uint(_) | Expr::Double(_) | Expr::Bytes(_) | Expr::List(_) | Expr::Map(_) | Expr::Null => {
            true
        }
        _ => false,
    };
    if is_other {
        let wanted = if wants_bool {
            "cel expression must evaluate to a bool"
        } else {
            "messageExpression must evaluate to a string"
        };
        return Err(wanted.into());
    }
    let mut checker =
        Checker { scope: vec![("self", Known::As(schema)), ("oldSelf", Known::As(schema))], root: schema };
    checker.known(&expr).map(drop).map_err(wrong)
}

/// Whether an expression uses a name.
pub(super) fn mentions(expr: &Expr, name: &str) -> bool {
    if matches!(expr, Expr::Ident(found) if found == name) {
        return true;
    }
    let mut found = false;
    each(expr, &mut |inner| found = found || mentions(inner, name));
    found
}

fn each<'e>(expr: &'e Expr, visit: &mut dyn FnMut(&'e Expr)) {
    match expr {
        Expr::Select { on, .. } | Expr::Has { on, .. } | Expr::Matches { on, .. } => visit(on),
        Expr::Index { on, at, .. } => {
            visit(on);
            visit(at);
        }
        Expr::Call { on, args, .. } => {
            on.iter().for_each(|on| visit(on));
            args.iter().for_each(visit);
        }
        Expr::List(items) => items.iter().for_each(visit),
        Expr::Map(entries) => entries.iter().for_each(|(key, value)| {
            visit(key);
            visit(value);
        }),
        Expr::Not(inner) | Expr::Negative(inner) => visit(inner),
        Expr::And(left, right) | Expr::Or(left, right) | Expr::Binary(_, left, right) => {
            visit(left);
            visit(right);
        }
        Expr::If(parts) => parts.iter().for_each(visit),
        Expr::Loop { on, bodies, .. } => {
            visit(on);
            bodies.iter().for_each(visit);
        }
        _ => {}
    }
}

struct Checker<'a, 'e> {
    scope: Vec<(&'e str, Known<'a>)>,
    root: &'a Schema,
}

impl<'a, 'e> Checker<'a, 'e> {
    fn known(&mut self, expr: &'e Expr) -> Result<Known<'a>, String> {
        match expr {
            Expr::Ident(name) => match self.scope.iter().rev().find(|(known, _)| known == name) {
                Some((_, known)) => Ok(*known),
                None if TYPES.contains(&name.as_str()) => Ok(Known::Nothing),
                None => Err(undeclared(name)),
            },
            Expr::Select { on, field, .. } | Expr::Has { on, field } => {
                let on = self.known(on)?;
                let found = self.field(on, field)?;
                Ok(if matches!(expr, Expr::Has { .. }) { Known::Nothing } else { found })
            }
            Expr::Index { on, at, .. } => {
                self.known(at)?;
                Ok(match self.known(on)? {
                    Known::As(schema) => element(schema),
                    Known::Nothing => Known::Nothing,
                })
            }
            Expr::If(parts) => {
                let [condition, yes, no] = &**parts;
                self.known(condition)?;
                let yes = self.known(yes)?;
                self.known(no)?;
                Ok(yes)
            }
            Expr::Loop { on, names, bodies, .. } => {
                let items = match self.known(on)? {
                    Known::As(schema) if schema.items.is_some() && names.len() == 1 => element(schema),
                    _ => Known::Nothing,
                };
                let depth = self.scope.len();
                self.scope.extend(names.iter().map(|name| (name.as_str(), items)));
                let known: Result<Vec<_>, _> = bodies.iter().map(|body| self.known(body)).collect();
                self.scope.truncate(depth);
                known.map(|_| Known::Nothing)
            }
            Expr::Call { on, name, args } => {
                self.function(on.as_deref(), name)?;
                args.iter().try_for_each(|argument| self.known(argument).map(drop))?;
                Ok(Known::Nothing)
            }
            other => {
                let mut inner = Vec::new();
                each(other, &mut |expr| inner.push(expr));
                inner.into_iter().try_for_each(|expr| self.known(expr).map(drop))?;
                Ok(Known::Nothing)
            }
        }
    }

    fn function(&mut self, on: Option<&'e Expr>, name: &str) -> Result<(), String> {
        let library = match on {
            Some(Expr::Ident(library)) if !self.scope.iter().any(|(known, _)| known == library) => {
                Some(library.as_str())
            }
            _ => None,
        };
        let is_known = match (on, library) {
            (None, _) => GLOBAL.contains(&name),
            (_, Some("format")) => FORMATS.contains(&name),
            (_, Some(library)) => GLOBAL.contains(&format!("{library}.{name}").as_str()),
            (Some(on), None) => {
                self.known(on)?;
                METHODS.contains(&name)
            }
        };
        if is_known { Ok(()) } else { Err(undeclared(name)) }
    }

    fn field(&self, on: Known<'a>, field: &str) -> Result<Known<'a>, String> {
        let Known::As(schema) = on else { return Ok(Known::Nothing) };
        if let Some((_, property)) = property(schema, field) {
            return Ok(Known::As(property));
        }
        let is_root = std::ptr::eq(schema, self.root) || schema.embedded;
        match (&schema.additional, schema.kind) {
            (Some(Additional::Of(values)), _) => Ok(Known::As(values)),
            (None, Some(Type::Object)) if is_root && matches!(field, "apiVersion" | "kind" | "metadata") => {
                Ok(Known::Nothing)
            }
            (None, Some(Type::Object)) if !schema.properties.is_empty() && !schema.preserves => {
                Err(format!("undefined field '{field}'"))
            }
            (_, Some(Type::Object) | None) => Ok(Known::Nothing),
            (_, Some(kind)) => Err(format!("type '{}' does not support field selection", kind.name())),
        }
    }
}

fn undeclared(name: &str) -> String {
    format!("undeclared reference to '{name}' (in container '')")
}

fn element(schema: &Schema) -> Known<'_> {
    match (&schema.items, &schema.additional) {
        (Some(items), _) => Known::As(items),
        (_, Some(Additional::Of(values))) => Known::As(values),
        _ => Known::Nothing,
    }
}
