//! `FieldsV1`: field sets as JSON.
//!
//! `f:NAME` is a field, `k:{…}` a list item by its keys, `v:…` a set item by its value, `i:N` a list index; `.` says that the
//! element itself belongs to the set and not only what is inside.

use serde_json::{Map, Value};

use super::set::{Element, FieldSet};

impl FieldSet {
    /// The set as `fieldsV1`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let entries = self.elements().map(|(element, member, inner)| {
            let mut content = inner.to_json();
            if let (true, false, Value::Object(content)) = (member, inner.is_empty(), &mut content) {
                content.insert(".".into(), Value::Object(Map::new()));
            }
            (element.to_text(), content)
        });
        Value::Object(entries.collect())
    }

    /// Reads `fieldsV1`; `None` when it is malformed.
    #[must_use]
    pub fn from_json(value: &Value) -> Option<Self> {
        let mut set = Self::new();
        for (text, content) in value.as_object()? {
            if text == "." {
                continue;
            }
            let inner = Self::from_json(content)?;
            let member = inner.is_empty() || content.get(".").is_some();
            set.add(Element::from_text(text)?, member, inner);
        }
        Some(set)
    }
}

impl Element {
    fn to_text(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(keys) => format!("k:{keys}"),
            Self::Value(value) => format!("v:{value}"),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    fn from_text(text: &str) -> Option<Self> {
        let (kind, content) = text.split_at_checked(2)?;
        match kind {
            "f:" => Some(Self::field(content)),
            "k:" => {
                let keys: Map<String, Value> = serde_json::from_str(content).ok()?;
                Some(Self::key(&keys.iter().map(|(name, value)| (name.as_str(), value)).collect()))
            }
            "v:" => serde_json::from_str(content).ok().map(|value: Value| Self::value(&value)),
            "i:" => content.parse().ok().map(Self::Index),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_and_writes_what_upstream_writes() {
        let fields = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}, "f:finalizers": {".": {}, "v:\"a\"": {}}},
            "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}, "f:replicas": {}},
        });
        let set = FieldSet::from_json(&fields).unwrap();
        assert_eq!(set.to_json(), fields);
        assert!(set.has(&[Element::field("metadata"), Element::field("labels")]));
        assert!(!set.has(&[Element::field("spec")]));
    }

    #[test]
    fn refuses_what_is_malformed() {
        for fields in
            [json!([]), json!({"f:a": 1}), json!({"x:a": {}}), json!({"f": {}}), json!({"k:1": {}}), json!({"v:": {}})]
        {
            assert_eq!(FieldSet::from_json(&fields), None, "{fields}");
        }
    }
}
