//! The three patches that change a part of an object: JSON patch, merge patch and strategic merge patch.
//!
//! Each takes the object as it is stored and gives the object as the client wants it. What comes out may not fit its type
//! any more: [`finish`] checks that as the API server does.

mod json;
mod merge;
mod order;
pub(crate) mod print;
mod strategic;

use serde_json::Value;

pub use json::{OPERATIONS_MAX, json, unknown_fields};
pub use merge::merge;
pub use strategic::strategic;

use crate::prune::prune;
use crate::schema::Message;
use crate::status::{Cause, Status};
use crate::strict;

/// A patched object that fits its type, in its normal form.
#[derive(Debug, Clone, PartialEq)]
pub struct Patched {
    pub value: Value,
    /// Fields that the type does not know: warnings, an error or nothing, as `fieldValidation` says.
    pub strict: Vec<String>,
    shown: String,
}

/// Checks what a patch made of an object.
///
/// `patch` is the patch itself for strategic merge patches, which upstream quotes instead of the result.
///
/// # Errors
/// 422 when a value does not fit its field.
pub fn finish(message: &Message, mut value: Value, patch: Option<&Value>) -> Result<Patched, Status> {
    let findings = strict::check(message, &value);
    let shown = || patch.map_or_else(|| value.to_string(), print::plain);
    if let Some(error) = findings.type_error {
        return Err(invalid(&shown(), &error));
    }
    let shown = if findings.strict.is_empty() { String::new() } else { shown() };
    prune(message, &mut value);
    Ok(Patched { value, strict: findings.strict, shown })
}

impl Patched {
    /// The refusal that `fieldValidation=Strict` asks for. `more` are the patch's own repeated fields.
    #[must_use]
    pub fn strict_status(&self, more: &[String]) -> Option<Status> {
        let all: Vec<String> = more.iter().chain(&self.strict).cloned().collect();
        let shown = if self.shown.is_empty() { self.value.to_string() } else { self.shown.clone() };
        strict::strict_error(&all).map(|error| invalid(&shown, &error))
    }
}

/// `patch: Invalid value: "…": why`
fn invalid(shown: &str, why: &str) -> Status {
    let message = format!("Invalid value: {}: {why}", print::quoted(shown));
    Status::invalid("", "", "", vec![Cause { reason: "FieldValueInvalid".into(), message, field: "patch".into() }])
}

/// The patch asks for something that cannot be done to this object.
fn unprocessable() -> Status {
    Status::new(422, "Invalid", "the server rejected our request due to an error in our request")
}

#[cfg(test)]
mod tests;
