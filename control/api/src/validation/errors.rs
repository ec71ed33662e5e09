//! Collecting what is wrong with an object: field paths and causes, worded as upstream words them.

use serde_json::Value;

use crate::names;
use crate::quantity::Quantity;
use crate::status::Cause;

pub(crate) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
pub(crate) const IMMUTABLE: &str = "field is immutable";

/// The path of a field, such as `spec.containers[0].name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    #[must_use]
    pub fn new(root: &str) -> Self {
        Self(root.to_owned())
    }

    /// A field below; dots in the name make a deeper path.
    #[must_use]
    pub fn at(&self, field: &str) -> Self {
        if self.0.is_empty() { Self(field.to_owned()) } else { Self(format!("{}.{field}", self.0)) }
    }

    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The causes found so far.
#[derive(Debug, Default)]
pub struct Errors {
    causes: Vec<Cause>,
}

impl Errors {
    #[must_use]
    pub fn into_causes(self) -> Vec<Cause> {
        self.causes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.causes.is_empty()
    }

    pub(crate) fn count(&self) -> usize {
        self.causes.len()
    }

    /// Whether there is a cause of one of these reasons.
    pub(crate) fn has_reason(&self, reasons: &[&str]) -> bool {
        self.causes.iter().any(|cause| reasons.contains(&cause.reason.as_str()))
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.causes.extend(other.causes);
    }

    /// Orders the causes by their texts.
    pub(crate) fn sort(&mut self) {
        self.causes.sort_by(|a, b| (&a.field, &a.message).cmp(&(&b.field, &b.message)));
    }

    fn push(&mut self, reason: &str, path: &Path, message: String) {
        self.causes.push(Cause { reason: reason.into(), message, field: path.0.clone() });
    }

    /// A value that must be there is not.
    pub fn required(&mut self, path: &Path, detail: &str) {
        self.push("FieldValueRequired", path, with_detail("Required value", detail));
    }

    pub fn invalid(&mut self, path: &Path, value: impl Into<Value>, detail: &str) {
        let message = with_detail(&format!("Invalid value: {}", value.into()), detail);
        self.push("FieldValueInvalid", path, message);
    }

    /// A value of another type than its schema wants.
    pub fn wrong_type(&mut self, path: &Path, value: impl Into<Value>, detail: &str) {
        let message = with_detail(&format!("Invalid value: {}", value.into()), detail);
        self.push("FieldValueTypeInvalid", path, message);
    }

    pub fn forbidden(&mut self, path: &Path, detail: &str) {
        self.push("FieldValueForbidden", path, with_detail("Forbidden", detail));
    }

    pub fn not_supported(&mut self, path: &Path, value: impl Into<Value>, supported: &[&str]) {
        let supported: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        let message = format!("Unsupported value: {}: supported values: {}", value.into(), supported.join(", "));
        self.push("FieldValueNotSupported", path, message);
    }

    pub fn duplicate(&mut self, path: &Path, value: impl Into<Value>) {
        self.push("FieldValueDuplicate", path, format!("Duplicate value: {}", value.into()));
    }

    pub fn not_found(&mut self, path: &Path, value: impl Into<Value>) {
        self.push("FieldValueNotFound", path, format!("Not found: {}", value.into()));
    }

    pub fn too_long(&mut self, path: &Path, bytes_max: usize) {
        self.push(
            "FieldValueTooLong",
            path,
            format!("Too long: may not be more than {bytes_max} {}", plural(bytes_max, "byte")),
        );
    }

    pub fn too_many(&mut self, path: &Path, actual: usize, max: usize) {
        self.push(
            "FieldValueTooMany",
            path,
            format!("Too many: {actual}: must have at most {max} {}", plural(max, "item")),
        );
    }

    /// One "invalid" per complaint about a value.
    pub fn complaints(&mut self, path: &Path, value: &str, complaints: impl IntoIterator<Item = String>) {
        for complaint in complaints {
            self.invalid(path, value, &complaint);
        }
    }

    /// A string that must be one of a few.
    pub fn one_of(&mut self, path: &Path, value: &Value, supported: &[&str]) {
        if !value.as_str().is_some_and(|value| supported.contains(&value)) {
            self.not_supported(path, value.as_str().unwrap_or(""), supported);
        }
    }

    /// A string that must be there and be one of a few.
    pub fn required_one_of(&mut self, path: &Path, value: &Value, supported: &[&str]) {
        if value.as_str().unwrap_or("").is_empty() {
            self.required(path, "");
        } else {
            self.one_of(path, value, supported);
        }
    }

    /// A number that may be absent but not negative.
    pub fn not_negative(&mut self, path: &Path, value: &Value) {
        if let Some(number) = value.as_i64().filter(|number| *number < 0) {
            self.invalid(path, number, NOT_NEGATIVE);
        }
    }

    /// A port as a number or as a name.
    pub fn port(&mut self, path: &Path, port: &Value) {
        match port {
            Value::String(name) => self.complaints(path, name, names::port_name(name)),
            _ => self.port_number(path, port),
        }
    }

    pub fn port_number(&mut self, path: &Path, port: &Value) {
        let number = port.as_i64().unwrap_or(0);
        for complaint in names::port_number(number) {
            self.invalid(path, number, &complaint);
        }
    }

    /// Reads a quantity and complains if it is none.
    pub fn quantity(&mut self, path: &Path, value: &Value) -> Option<Quantity> {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match Quantity::parse(&text) {
            Ok(quantity) => Some(quantity),
            Err(error) => {
                self.invalid(path, text, &error.to_string());
                None
            }
        }
    }

    /// A value that an update may not change.
    pub fn immutable(&mut self, path: &Path, old: &Value, new: &Value) {
        if !crate::value::same(old, new) {
            self.invalid(path, new.clone(), IMMUTABLE);
        }
    }
}

fn plural(count: usize, unit: &str) -> String {
    if count == 1 { unit.to_owned() } else { format!("{unit}s") }
}

fn with_detail(message: &str, detail: &str) -> String {
    if detail.is_empty() { message.to_owned() } else { format!("{message}: {detail}") }
}

#[cfg(test)]
pub(crate) fn texts(check: impl FnOnce(&mut Errors)) -> Vec<String> {
    let mut errors = Errors::default();
    check(&mut errors);
    errors.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_worded_as_upstream() {
        let path = Path::new("spec").at("ports").index(0).at("name");
        let found = texts(|errors| {
            errors.required(&path, "");
            errors.invalid(&path, 70_000, "must be between 1 and 65535, inclusive");
            errors.not_supported(&path.key("a"), "x", &["A", "B"]);
            errors.too_long(&path, 10);
            errors.duplicate(&path, "x");
        });
        assert_eq!(
            found,
            [
                "spec.ports[0].name: Required value",
                "spec.ports[0].name: Invalid value: 70000: must be between 1 and 65535, inclusive",
                "spec.ports[0].name[a]: Unsupported value: \"x\": supported values: \"A\", \"B\"",
                "spec.ports[0].name: Too long: may not be more than 10 bytes",
                "spec.ports[0].name: Duplicate value: \"x\"",
            ]
        );
    }
}
