//! Field selectors (`status.phase!=Failed,spec.nodeName=n`): only the fields a kind declares can be named.

use serde_json::Value;

use super::SelectorError;
use crate::meta;
use crate::registry::Resource;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    /// The field as it is stored, which may differ from the label in the request.
    field: String,
    equal: bool,
    value: String,
    /// Of a custom resource, whose fields mean nothing special.
    is_custom: bool,
}

/// All terms must hold; the default selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

impl FieldSelector {
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// Reads the form used in URLs and checks every label against what the resource offers.
    ///
    /// # Errors
    /// If the text is malformed or names a field that cannot be selected by.
    pub fn parse(resource: &Resource, text: &str) -> Result<Self, SelectorError> {
        let mut terms = Vec::new();
        for part in split_unescaped(text) {
            if part.is_empty() {
                continue;
            }
            let (label, equal, value) = split_term(part)
                .ok_or_else(|| SelectorError(format!("invalid selector: '{text}'; can't understand '{part}'")))?;
            let field = stored_field(resource, label)?;
            terms.push(Term { field, equal, value: unescape(value)?, is_custom: resource.custom.is_some() });
        }
        Ok(Self { terms })
    }

    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether the stored form of an object is selected.
    #[must_use]
    pub fn matches(&self, object: &Value) -> bool {
        self.terms.iter().all(|term| (term.find(object) == term.value) == term.equal)
    }

    /// The one name that is asked for, if `metadata.name=…` is a term.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.exact("metadata.name")
    }

    /// The value that a field must equal, if a term says so.
    #[must_use]
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.equal && term.field == field).map(|term| term.value.as_str())
    }
}

fn stored_field(resource: &Resource, label: &str) -> Result<String, SelectorError> {
    if label == "metadata.name" || (label == "metadata.namespace" && resource.namespaced) {
        return Ok(label.to_owned());
    }
    if let Some(custom) = &resource.custom {
        let is_offered = custom.selectable.iter().any(|field| field == label);
        let unsupported = || SelectorError(format!("field label not supported: {label}"));
        return is_offered.then(|| label.to_owned()).ok_or_else(unsupported);
    }
    let labels = resource.hooks.field_labels;
    if let Some((_, stored)) = labels.iter().find(|(offered, _)| *offered == label) {
        return Ok((*stored).to_owned());
    }
    if !labels.is_empty() {
        return Err(SelectorError(format!("field label not supported: {label}")));
    }
    // A kind without fields of its own is answered by upstream's default converter.
    if label == "metadata.namespace" {
        return Ok(label.to_owned());
    }
    Err(SelectorError(format!(
        "\"{label}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
    )))
}

impl Term {
    fn find(&self, object: &Value) -> String {
        match self.field.as_str() {
            "metadata.name" => meta::name(object).to_owned(),
            "metadata.namespace" => meta::namespace(object).to_owned(),
            field if self.is_custom => match field.split('.').fold(object, |value, key| &value[key]) {
                Value::String(text) => text.clone(),
                value @ (Value::Bool(_) | Value::Number(_)) => value.to_string(),
                _ => String::new(),
            },
            field => field_value(object, field),
        }
    }
}

fn field_value(object: &Value, field: &str) -> String {
    // Events carry their source in one of two places.
    if field == "source" {
        let component = object["source"]["component"].as_str().filter(|component| !component.is_empty());
        return component.or(object["reportingComponent"].as_str()).unwrap_or("").to_owned();
    }
    let value = field.split('.').fold(object, |value, key| &value[key]);
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        _ if BOOLEANS.contains(&field) => "false".to_owned(),
        _ => String::new(),
    }
}

const BOOLEANS: [&str; 2] = ["spec.unschedulable", "spec.hostNetwork"];

fn split_unescaped(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn split_term(part: &str) -> Option<(&str, bool, &str)> {
    for (at, _) in part.char_indices() {
        let rest = &part[at..];
        for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = rest.strip_prefix(operator) {
                return Some((&part[..at], equal, value));
            }
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut result = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => result.push(escaped),
                other => {
                    let sequence: String = ['\\'].into_iter().chain(other).collect();
                    return Err(SelectorError(format!("invalid field selector: invalid escape sequence: {sequence}")));
                }
            },
            ',' | '=' => {
                let code = c as u32;
                return Err(SelectorError(format!("invalid field selector: unescaped character in value: {code}")));
            }
            _ => result.push(c),
        }
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::registry::Registry;

    fn parse(plural: &str, text: &str) -> Result<FieldSelector, SelectorError> {
        let registry = Registry::builtin();
        let group = if plural == "deployments" { "apps" } else { "" };
        FieldSelector::parse(registry.get(group, "v1", plural).expect(plural), text)
    }

    #[test]
    fn fields_of_pods_are_selected_by() {
        let pod = json!({"metadata": {"name": "a", "namespace": "n"},
            "spec": {"nodeName": "x"}, "status": {"phase": "Running"}});
        let cases = [
            ("", true),
            ("metadata.name=a", true),
            ("metadata.namespace!=n", false),
            ("spec.nodeName=x,status.phase!=Failed,status.phase!=Succeeded", true),
            ("spec.nodeName==y", false),
            ("spec.hostNetwork=false", true),
            ("status.podIP=", true),
        ];
        for (text, expected) in cases {
            assert_eq!(parse("pods", text).expect(text).matches(&pod), expected, "{text}");
        }
        assert_eq!(parse("pods", "metadata.name=a").expect("name").name(), Some("a"));
        assert_eq!(parse("pods", "metadata.name!=a").expect("name").name(), None);
    }

    #[test]
    fn other_fields_are_refused() {
        assert_eq!(parse("pods", "spec.foo=1").expect_err("pod").0, "field label not supported: spec.foo");
        assert_eq!(
            parse("deployments", "spec.foo=1").expect_err("deployment").0,
            "\"spec.foo\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
        );
        assert_eq!(
            parse("pods", "nonsense").expect_err("nonsense").0,
            "invalid selector: 'nonsense'; can't understand 'nonsense'"
        );
    }

    #[test]
    fn values_are_unescaped() {
        let selector = parse("pods", r"metadata.name=a\,b\=c").expect("escaped");
        assert_eq!(selector.name(), Some("a,b=c"));
        assert!(parse("pods", r"metadata.name=a\b").is_err());
        assert!(parse("pods", "metadata.name=a=b").is_err());
    }
}
