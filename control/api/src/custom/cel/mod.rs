//! Rules of a schema that are written in CEL (`x-kubernetes-validations`): read once, evaluated on every write.
//!
//! The interpreter is ours. What exists as a crate evaluates without a limit of cost, which a server that takes rules and
//! objects from its users cannot do without, and knows neither Kubernetes' functions nor values that a schema types. It
//! knows the language, its string and optional extensions, and Kubernetes' own functions; what does not compile is refused
//! with its definition, as far as names, fields and syntax tell: types are looked at only when a rule runs.

mod compile;
mod eval;
mod functions;
mod lex;
mod network;
mod parse;
mod strings;
mod value;

use serde_json::Value as Json;

use self::eval::{Budget, Failure, Scope, eval};
use self::parse::Expr;
use self::value::Value;
use super::check::Counterparts;
use super::{Additional, List, Schema, Type};
use crate::validation::{Errors, Path};
use crate::value::{items, text};

pub(crate) use compile::check;

/// What a rule, and all rules of one object together, may cost; as upstream.
const RULE_COST_MAX: u64 = 1_000_000;
const OBJECT_COST_MAX: u64 = 10_000_000;
/// Upstream's words for what keeps rules from being looked at.
const BLOCKED: &str = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
const BLOCKING: [&str; 5] =
    ["FieldValueNotSupported", "FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid"];
/// Words of the language; as names of fields they are spelled `__word__`.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// One rule, compiled.
#[derive(Debug)]
pub struct Rule {
    expr: Expr,
    text: String,
    message: String,
    message_expr: Option<Expr>,
    reason: String,
    field_path: String,
    uses_old: bool,
    optional_old: bool,
}

impl Rule {
    /// The rules of a schema in its JSON form. What does not compile is left out: it could not have been created.
    pub(super) fn parse_all(json: &Json) -> Vec<Self> {
        items(&json["x-kubernetes-validations"]).iter().filter_map(Self::parse).collect()
    }

    fn parse(json: &Json) -> Option<Self> {
        let rule = text(&json["rule"]).trim();
        let expr = parse::parse(rule).ok()?;
        let message_expr = json["messageExpression"].as_str().and_then(|text| parse::parse(text).ok());
        Some(Self {
            uses_old: compile::mentions(&expr, "oldSelf"),
            expr,
            text: rule.to_owned(),
            message: text(&json["message"]).trim().to_owned(),
            message_expr,
            reason: text(&json["reason"]).to_owned(),
            field_path: text(&json["fieldPath"]).to_owned(),
            optional_old: json["optionalOldSelf"] == true,
        })
    }

    /// How a rule is named where it could not be evaluated.
    fn name(&self) -> &str {
        if self.message.is_empty() { &self.text } else { &self.message }
    }

    /// What to say where it does not hold.
    fn complaint<'a>(&'a self, scope: &mut Scope<'a, 'a>, budget: &mut Budget) -> String {
        if let Some(expr) = &self.message_expr
            && let Ok(Value::String(text)) = eval(expr, scope, budget)
            && !text.trim().is_empty()
            && !text.contains(['\n', '\r'])
        {
            return text.trim().to_owned();
        }
        if self.message.is_empty() { format!("failed rule: {}", self.text) } else { self.message.clone() }
    }
}

/// Checks every rule of a schema against an object that otherwise fits it. A rule about a change runs where there was
/// something before; the others run where something changed.
pub(crate) fn validate(schema: &Schema, object: &Json, old: Option<&Json>, errors: &mut Errors) {
    if !schema.has_cel {
        return;
    }
    if errors.has_reason(&BLOCKING) {
        return errors.invalid(&Path::new("<nil>"), Json::Null, BLOCKED);
    }
    let mut walk = Walk { left: OBJECT_COST_MAX, errors };
    // The error that ended it has been reported.
    let _ = walk.value(schema, object, old, &Path::new(""));
}

struct Walk<'e> {
    left: u64,
    errors: &'e mut Errors,
}

/// All that may be spent has been.
struct Spent;

impl Walk<'_> {
    fn value(&mut self, schema: &Schema, value: &Json, old: Option<&Json>, path: &Path) -> Result<(), Spent> {
        if !schema.has_cel || value.is_null() {
            return Ok(());
        }
        self.rules(schema, value, old, path)?;
        match value {
            Json::Object(object) => {
                for (name, value) in object {
                    let old = old.and_then(|old| old.get(name));
                    match (schema.properties.get(name), &schema.additional) {
                        (Some(property), _) => self.value(property, value, old, &path.at(name))?,
                        (None, Some(Additional::Of(values))) => self.value(values, value, old, &path.key(name))?,
                        _ => {}
                    }
                }
            }
            Json::Array(list) => {
                let Some(items) = &schema.items else { return Ok(()) };
                // Members of a set are what they are: they have no past.
                let old = old.filter(|_| matches!(schema.list, List::Map(_)));
                let counterparts = Counterparts::of(&schema.list, old);
                for (at, item) in list.iter().enumerate() {
                    self.value(items, item, counterparts.get(item), &path.index(at))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn rules(&mut self, schema: &Schema, value: &Json, old: Option<&Json>, path: &Path) -> Result<(), Spent> {
        let is_unchanged = old == Some(value);
        for rule in &schema.cel {
            let mut scope: Scope<'_, '_> = vec![("self", Value::of(value, Some(schema)))];
            match (rule.uses_old, old) {
                (false, _) if is_unchanged => continue,
                (false, _) => {}
                (true, None) if !rule.optional_old => continue,
                (true, old) => {
                    let old = old.map(|old| Value::of(old, Some(schema)));
                    let old = match (rule.optional_old, old) {
                        (false, Some(old)) => old,
                        (_, old) => Value::Optional(old.map(std::rc::Rc::new)),
                    };
                    scope.push(("oldSelf", old));
                }
            }
            self.rule(rule, schema, &mut scope, path)?;
        }
        Ok(())
    }

    fn rule<'a>(
        &mut self,
        rule: &'a Rule,
        schema: &Schema,
        scope: &mut Scope<'a, 'a>,
        path: &Path,
    ) -> Result<(), Spent> {
        let mut budget = Budget { rule: RULE_COST_MAX, total: self.left };
        let result = eval(&rule.expr, scope, &mut budget);
        self.left = budget.total;
        let kind = schema.kind.map_or("", Type::name);
        let here = if path.as_str().is_empty() { Path::new("<nil>") } else { path.clone() };
        match result {
            Ok(Value::Bool(true)) => {}
            Ok(Value::Bool(false)) => {
                let detail = rule.complaint(scope, &mut budget);
                let field = match rule.field_path.trim_start_matches('.') {
                    "" => here,
                    below => path.at(below),
                };
                match rule.reason.as_str() {
                    "FieldValueForbidden" => self.errors.forbidden(&field, &detail),
                    "FieldValueRequired" => self.errors.required(&field, &detail),
                    "FieldValueDuplicate" => self.errors.duplicate(&field, kind),
                    _ => self.errors.invalid(&field, kind, &detail),
                }
            }
            Ok(_) => self.errors.invalid(&here, kind, &format!("rule is not a bool: {}", rule.name())),
            Err(Failure::Told(why)) if why.starts_with("no such overload") => {
                let detail = format!(
                    "'{why}': call arguments did not match a supported operator, function or macro signature for rule: {}",
                    rule.name()
                );
                self.errors.invalid(&here, kind, &detail);
            }
            Err(Failure::Told(why)) => {
                self.errors.invalid(&here, kind, &format!("{why} evaluating rule: {}", rule.name()));
            }
            Err(failure @ Failure::RuleCost) => {
                let detail = format!(
                    "'{}': no further validation rules will be run due to call cost exceeds limit for rule: {}",
                    functions::words(&failure),
                    rule.name()
                );
                self.errors.invalid(&here, kind, &detail);
                return Err(Spent);
            }
            Err(failure @ Failure::TotalCost) => {
                let detail = format!("{}, no further validation rules will be run", functions::words(&failure));
                self.errors.invalid(&here, kind, &detail);
                return Err(Spent);
            }
        }
        Ok(())
    }
}

/// The property that an expression means by a name, and how the object spells it.
fn property<'a>(schema: &'a Schema, name: &str) -> Option<(&'a str, &'a Schema)> {
    if !name.contains("__") {
        let (key, property) = schema.properties.get_key_value(name)?;
        return (!RESERVED.contains(&name)).then_some((key.as_str(), property));
    }
    schema.properties.iter().find(|(key, _)| escape(key) == name).map(|(key, property)| (key.as_str(), property))
}

/// How expressions spell the name of a property.
fn escape(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    let name = name.replace("__", "__underscores__");
    name.replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__")
}

#[cfg(test)]
mod tests;
