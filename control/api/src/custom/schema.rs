//! A structural schema as a value: the shape of objects, and the rules for their values.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::{Pattern, Rule};

/// What one value looks like. Parsed from a `JSONSchemaProps`; see [`Schema::parse`].
#[derive(Debug, Default)]
pub struct Schema {
    pub kind: Option<Type>,
    pub int_or_string: bool,
    pub nullable: bool,
    /// An object with type and metadata of its own.
    pub embedded: bool,
    /// Fields that the schema does not name are kept.
    pub preserves: bool,
    pub default: Option<Value>,
    pub properties: BTreeMap<String, Schema>,
    pub additional: Option<Additional>,
    pub items: Option<Box<Schema>>,
    pub list: List,
    /// A map that changes as a whole.
    pub atomic: bool,
    pub rules: Option<Box<Rules>>,
    pub cel: Vec<Rule>,
    /// Whether there are such rules here or anywhere below.
    pub has_cel: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Array,
    Boolean,
    Integer,
    Number,
    Object,
    String,
}

/// What fields may have that no property names.
#[derive(Debug)]
pub enum Additional {
    Refused,
    Any,
    Of(Box<Schema>),
}

/// How the items of a list are told apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum List {
    #[default]
    Atomic,
    Set,
    Map(Vec<String>),
}

/// Limits of a value.
#[derive(Debug, Default)]
pub struct Rules {
    /// Only formats that are known and fit the type.
    pub format: String,
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub multiple_of: Option<f64>,
    pub max_length: Option<u64>,
    pub min_length: Option<u64>,
    pub pattern: Option<Arc<Pattern>>,
    pub max_items: Option<u64>,
    pub min_items: Option<u64>,
    pub max_properties: Option<u64>,
    pub min_properties: Option<u64>,
    pub required: Vec<String>,
    pub allowed: Vec<Value>,
    pub all_of: Vec<Schema>,
    pub any_of: Vec<Schema>,
    pub one_of: Vec<Schema>,
    pub not: Option<Schema>,
}

impl Type {
    pub(crate) const NAMES: [&'static str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "array" => Self::Array,
            "boolean" => Self::Boolean,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "object" => Self::Object,
            "string" => Self::String,
            _ => return None,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Array => "array",
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Object => "object",
            Self::String => "string",
        }
    }
}

impl Schema {
    /// The schema of a field, named or not; none where nothing is known about it.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(match &self.additional {
            Some(Additional::Of(schema)) => Some(schema),
            _ => None,
        })
    }

    /// The types that a value may have; none means any.
    pub(crate) fn types(&self) -> Vec<Type> {
        if self.int_or_string { vec![Type::Integer, Type::String] } else { self.kind.into_iter().collect() }
    }
}
