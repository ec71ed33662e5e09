//! What a Kubernetes object looks like: one message per type, each field with its JSON, protobuf and merge facts.
//!
//! The built-in messages come from `table.txt` (`cargo xtask codegen`), read once on first use. Messages can also be made at
//! run time and shared by `Arc`, so that custom resources go through the same decoder, patches and field tracking.

mod parse;
pub mod time;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use serde_json::Value;

pub type Text = Cow<'static, str>;

/// The message of a kind, by group, version and kind.
///
/// A few kinds (`DeleteOptions`, `WatchEvent`) belong to every group.
#[must_use]
pub fn kind(group: &str, version: &str, kind: &str) -> Option<&'static Message> {
    let by_name = BUILTIN.kinds.get(kind)?;
    let exact = by_name.iter().find(|(at, _)| match at {
        Home::Of { group: g, version: v } => g == group && v == version,
        Home::Everywhere => true,
    });
    exact.map(|(_, index)| &BUILTIN.messages[*index])
}

/// The message of an object, by its `apiVersion` and `kind`.
#[must_use]
pub fn of_type(api_version: &str, kind: &str) -> Option<&'static Message> {
    let (group, version) = split_api_version(api_version);
    self::kind(group, version, kind)
}

/// A message by its OpenAPI name, such as `io.k8s.api.apps.v1.Deployment`.
#[must_use]
pub fn message(name: &str) -> Option<&'static Message> {
    BUILTIN.names.get(name).map(|index| &BUILTIN.messages[*index])
}

/// Every built-in message, in the order of their names.
#[must_use]
pub fn messages() -> &'static [Message] {
    &BUILTIN.messages
}

/// Splits `apps/v1` into group and version; the core group is empty.
#[must_use]
pub fn split_api_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// A structured type.
#[derive(Debug)]
pub struct Message {
    /// The OpenAPI name.
    pub name: Text,
    /// Where the message is a kind of its own.
    pub kind: Option<Home>,
    /// Changes as a whole: no manager owns a part of it.
    pub atomic: bool,
    /// Fields that no schema names are kept instead of pruned (custom resources only).
    pub keeps_unknown: bool,
    /// What decides of custom resources which fields are known and how objects are pruned.
    pub structural: Option<Arc<crate::custom::Schema>>,
    fields: Vec<Field>,
    wire: Vec<Wire>,
    /// The fields that Go writes even when nobody set them.
    always: Vec<usize>,
}

/// Where a kind lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Home {
    Of { group: Text, version: Text },
    Everywhere,
}

#[derive(Debug)]
pub struct Field {
    pub name: Text,
    pub shape: Shape,
    /// How Go holds it, which decides what a missing or a zero value means.
    pub presence: Presence,
    /// JSON leaves it out while it is empty.
    pub omit_empty: bool,
    pub required: bool,
    /// How apply merges a list or map; `None` is the type's own default.
    pub merging: Option<Merging>,
    pub patch: Patch,
    pub default: Option<Value>,
    /// The Go type as decoding errors print it, where the shape does not tell.
    pub go_type: Option<Text>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Absent and zero are the same; protobuf always carries it.
    Value,
    /// Absent and zero differ.
    Pointer,
}

/// How server-side apply and field tracking see a list or a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merging {
    Atomic,
    Granular,
    Set,
    Map(Vec<Text>),
}

/// How a strategic merge patch treats a field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patch {
    pub merge: bool,
    pub merge_key: Option<Text>,
    pub retain_keys: bool,
    pub replace: bool,
}

#[derive(Debug, Clone)]
pub enum Shape {
    String,
    Int32,
    Int64,
    Bool,
    Double,
    Bytes,
    Quantity,
    IntOrString,
    Time,
    MicroTime,
    /// Any object, carried as JSON text.
    RawExtension,
    FieldsV1,
    /// Any value, carried as JSON text.
    Json,
    /// A JSON schema or something simpler.
    SchemaOr(Alternative),
    Message(Link),
    List {
        item: Box<Shape>,
        /// Protobuf has a message around the list.
        wrapped: bool,
    },
    Map(Box<Shape>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alternative {
    Bool,
    Array,
    Strings,
}

/// A reference to a message: built in, or owned by whoever made it.
#[derive(Debug, Clone)]
pub struct Link(Target);

#[derive(Debug, Clone)]
enum Target {
    Builtin(usize),
    Owned(Arc<Message>),
}

/// One protobuf field: a JSON field, or a message whose fields JSON shows inlined.
#[derive(Debug)]
pub(crate) struct Wire {
    pub tag: u32,
    pub content: WireContent,
}

#[derive(Debug)]
pub(crate) enum WireContent {
    Field(usize),
    Inlined(Vec<Wire>),
}

static BUILTIN: LazyLock<Builtin> = LazyLock::new(|| parse::table(include_str!("table.txt")));

struct Builtin {
    messages: Vec<Message>,
    names: HashMap<Text, usize>,
    kinds: HashMap<&'static str, Vec<(Home, usize)>>,
}

impl Link {
    /// A built-in message by its OpenAPI name.
    #[must_use]
    pub fn builtin(name: &str) -> Option<Self> {
        BUILTIN.names.get(name).map(|index| Self(Target::Builtin(*index)))
    }

    #[must_use]
    pub fn get(&self) -> &Message {
        match &self.0 {
            Target::Builtin(index) => &BUILTIN.messages[*index],
            Target::Owned(message) => message,
        }
    }
}

impl From<Arc<Message>> for Link {
    fn from(message: Arc<Message>) -> Self {
        Self(Target::Owned(message))
    }
}

impl Message {
    /// A message made at run time. It has no protobuf form.
    #[must_use]
    pub fn new(name: impl Into<Text>, fields: Vec<Field>) -> Self {
        Self::with_wire(name.into(), fields, Vec::new())
    }

    fn with_wire(name: Text, mut fields: Vec<Field>, paths: Vec<Vec<u32>>) -> Self {
        let mut order: Vec<usize> = (0..fields.len()).collect();
        order.sort_by(|a, b| fields[*a].name.cmp(&fields[*b].name));
        let mut wire = Vec::new();
        for (rank, index) in order.iter().enumerate() {
            if let Some(path) = paths.get(*index) {
                insert_wire(&mut wire, path, rank);
            }
        }
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        let always = (0..fields.len()).filter(|at| fields[*at].always_written()).collect();
        Self { name, kind: None, atomic: false, keeps_unknown: false, structural: None, fields, wire, always }
    }

    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Field> {
        let index = self.fields.binary_search_by(|field| field.name.as_ref().cmp(name)).ok()?;
        Some(&self.fields[index])
    }

    /// The fields in the order of their names.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    pub(crate) fn always_written(&self) -> impl Iterator<Item = &Field> {
        self.always.iter().map(|at| &self.fields[*at])
    }

    pub(crate) fn wire(&self) -> &[Wire] {
        &self.wire
    }

    /// The last part of the name: `Deployment`.
    #[must_use]
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }

    /// The name as Go prints the type: `v1.Deployment`.
    #[must_use]
    pub fn go_name(&self) -> &str {
        let start = self.name.rmatch_indices('.').nth(1).map_or(0, |(at, _)| at + 1);
        &self.name[start..]
    }
}

/// Keeps the entries sorted by tag, one per tag: the order in which they are written.
fn insert_wire(entries: &mut Vec<Wire>, path: &[u32], field: usize) {
    let Some((tag, rest)) = path.split_first() else { return };
    let at = entries.partition_point(|entry| entry.tag < *tag);
    if rest.is_empty() {
        entries.insert(at, Wire { tag: *tag, content: WireContent::Field(field) });
        return;
    }
    if entries.get(at).is_none_or(|entry| entry.tag != *tag) {
        entries.insert(at, Wire { tag: *tag, content: WireContent::Inlined(Vec::new()) });
    }
    if let WireContent::Inlined(inner) = &mut entries[at].content {
        insert_wire(inner, rest, field);
    }
}

impl Field {
    /// A field that may be absent, of a type made at run time.
    #[must_use]
    pub fn new(name: impl Into<Text>, shape: Shape) -> Self {
        Self {
            name: name.into(),
            shape,
            presence: Presence::Pointer,
            omit_empty: true,
            required: false,
            merging: None,
            patch: Patch::default(),
            default: None,
            go_type: None,
        }
    }

    fn always_written(&self) -> bool {
        self.presence == Presence::Value
            && match self.shape {
                Shape::Message(_) | Shape::Quantity => true,
                Shape::IntOrString => !self.omit_empty,
                _ => self.shape.is_scalar() && !self.omit_empty,
            }
    }
}

impl Shape {
    #[must_use]
    pub fn list(item: Self) -> Self {
        Self::List { item: Box::new(item), wrapped: false }
    }

    #[must_use]
    pub fn map(value: Self) -> Self {
        Self::Map(Box::new(value))
    }

    /// Held by value in Go, a string, number or boolean is zero when absent.
    #[must_use]
    pub fn is_scalar(&self) -> bool {
        matches!(self, Self::String | Self::Int32 | Self::Int64 | Self::Bool | Self::Double)
    }

    /// The Go type as decoding errors print it.
    #[must_use]
    pub fn go_type(&self) -> Text {
        match self {
            Self::String => "string".into(),
            Self::Int32 => "int32".into(),
            Self::Int64 => "int64".into(),
            Self::Bool => "bool".into(),
            Self::Double => "float64".into(),
            Self::Bytes => "[]uint8".into(),
            Self::Quantity => "resource.Quantity".into(),
            Self::IntOrString => "intstr.IntOrString".into(),
            Self::Time => "v1.Time".into(),
            Self::MicroTime => "v1.MicroTime".into(),
            Self::RawExtension => "runtime.RawExtension".into(),
            Self::FieldsV1 => "v1.FieldsV1".into(),
            Self::Json => "v1.JSON".into(),
            Self::SchemaOr(Alternative::Bool) => "v1.JSONSchemaPropsOrBool".into(),
            Self::SchemaOr(Alternative::Array) => "v1.JSONSchemaPropsOrArray".into(),
            Self::SchemaOr(Alternative::Strings) => "v1.JSONSchemaPropsOrStringArray".into(),
            Self::Message(link) => link.get().go_name().to_owned().into(),
            Self::List { item, .. } => format!("[]{}", item.go_type()).into(),
            Self::Map(value) => format!("map[string]{}", value.go_type()).into(),
        }
    }
}

#[cfg(test)]
mod tests;
