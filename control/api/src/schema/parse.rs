//! Reads the fact table. One line each:
//!
//! ```text
//! p ALIAS PACKAGE                      the messages that follow belong to PACKAGE
//! m ALIAS.NAME [atomic] [kind=GROUP/VERSION | kind=*]
//! FIELD TAGS SHAPE [FLAG ...]          a field of the message above
//! ```
//!
//! TAGS is `-` (not on the wire) or protobuf tags joined by dots: all but the last belong to messages that JSON inlines.
//! SHAPE is a scalar or special type, `@MESSAGE`, `[]SHAPE`, `<>SHAPE` (a list that protobuf wraps in a message) or
//! `{}SHAPE`. FLAGS: `*` scalar behind a pointer, `&` message by value, `!` written even when empty, `r` required, `set`,
//! `atomic`, `granular`, `map=KEYS`, `merge[=KEY]`, `retain`, `replace`, `default=JSON`, `go=TYPE`.

use std::collections::HashMap;

use super::{Alternative, Builtin, Field, Home, Link, Merging, Message, Patch, Presence, Shape, Target, Text};

/// The table is part of the program: a line that does not parse is left out, and the tests notice.
pub(super) fn table(text: &'static str) -> Builtin {
    let index = index(text);
    let mut builder = Builder { index: &index, package: "", messages: Vec::with_capacity(index.len()), open: None };
    for line in text.lines() {
        builder.line(line);
    }
    builder.close();
    let messages = builder.messages;
    let names = messages.iter().enumerate().map(|(at, message)| (message.name.clone(), at)).collect();
    let mut kinds: HashMap<&'static str, Vec<(Home, usize)>> = HashMap::new();
    for (at, name) in index_names(text).enumerate() {
        if let Some(home) = messages.get(at).and_then(|message| message.kind.clone()) {
            kinds.entry(last_part(name)).or_default().push((home, at));
        }
    }
    Builtin { messages, names, kinds }
}

struct Builder<'a> {
    index: &'a HashMap<&'static str, usize>,
    package: &'static str,
    messages: Vec<Message>,
    open: Option<Open>,
}

/// The message whose fields are being read.
struct Open {
    name: Text,
    kind: Option<Home>,
    atomic: bool,
    fields: Vec<Field>,
    paths: Vec<Vec<u32>>,
}

impl Builder<'_> {
    fn line(&mut self, line: &'static str) {
        let mut words = line.split(' ');
        match (words.next(), words.next()) {
            (Some("#") | None, _) => {}
            (Some("p"), Some(_)) => self.package = words.next().unwrap_or_default(),
            (Some("m"), Some(name)) => {
                self.close();
                let mut open = Open {
                    name: format!("{}.{}", self.package, last_part(name)).into(),
                    kind: None,
                    atomic: false,
                    fields: Vec::new(),
                    paths: Vec::new(),
                };
                words.for_each(|word| open.flag(word));
                self.open = Some(open);
            }
            (Some(field), Some(tags)) => {
                let shape = words.next().and_then(|word| shape(word, self.index));
                if let (Some(open), Some(shape)) = (&mut self.open, shape) {
                    open.paths.push(tags.split('.').filter_map(|tag| tag.parse().ok()).collect());
                    open.fields.push(read_field(field, shape, words));
                }
            }
            _ => {}
        }
    }

    fn close(&mut self) {
        if let Some(open) = self.open.take() {
            let mut message = Message::with_wire(open.name, open.fields, open.paths);
            message.kind = open.kind;
            message.atomic = open.atomic;
            self.messages.push(message);
        }
    }
}

impl Open {
    fn flag(&mut self, word: &'static str) {
        match word.split_once('=') {
            None => self.atomic = word == "atomic",
            Some((_, "*")) => self.kind = Some(Home::Everywhere),
            Some((_, home)) => {
                let (group, version) = home.split_once('/').unwrap_or(("", home));
                self.kind = Some(Home::Of { group: group.into(), version: version.into() });
            }
        }
    }
}

fn read_field(name: &'static str, shape: Shape, flags: std::str::Split<'static, char>) -> Field {
    let presence = if shape.is_scalar() { Presence::Value } else { Presence::Pointer };
    let mut field = Field { presence, ..Field::new(name, shape) };
    for flag in flags {
        let (flag, value) = flag.split_once('=').map_or((flag, None), |(flag, value)| (flag, Some(value)));
        match flag {
            "*" => field.presence = Presence::Pointer,
            "&" => field.presence = Presence::Value,
            "!" => field.omit_empty = false,
            "r" => field.required = true,
            "set" => field.merging = Some(Merging::Set),
            "atomic" => field.merging = Some(Merging::Atomic),
            "granular" => field.merging = Some(Merging::Granular),
            "map" => field.merging = value.map(|keys| Merging::Map(keys.split(',').map(Text::Borrowed).collect())),
            "merge" => field.patch = Patch { merge: true, merge_key: value.map(Text::Borrowed), ..field.patch },
            "retain" => field.patch.retain_keys = true,
            "replace" => field.patch.replace = true,
            "default" => field.default = value.and_then(|value| serde_json::from_str(value).ok()),
            "go" => field.go_type = value.map(Text::Borrowed),
            _ => {}
        }
    }
    field
}

fn shape(word: &str, index: &HashMap<&'static str, usize>) -> Option<Shape> {
    if let Some(name) = word.strip_prefix('@') {
        return index.get(name).map(|at| Shape::Message(Link(Target::Builtin(*at))));
    }
    for (prefix, wrapped) in [("[]", false), ("<>", true)] {
        if let Some(item) = word.strip_prefix(prefix) {
            return Some(Shape::List { item: Box::new(shape(item, index)?), wrapped });
        }
    }
    if let Some(value) = word.strip_prefix("{}") {
        return Some(Shape::map(shape(value, index)?));
    }
    Some(match word {
        "string" => Shape::String,
        "int32" => Shape::Int32,
        "int64" => Shape::Int64,
        "bool" => Shape::Bool,
        "double" => Shape::Double,
        "bytes" => Shape::Bytes,
        "Quantity" => Shape::Quantity,
        "IntOrString" => Shape::IntOrString,
        "Time" => Shape::Time,
        "MicroTime" => Shape::MicroTime,
        "RawExtension" => Shape::RawExtension,
        "FieldsV1" => Shape::FieldsV1,
        "JSON" => Shape::Json,
        "SchemaOrBool" => Shape::SchemaOr(Alternative::Bool),
        "SchemaOrArray" => Shape::SchemaOr(Alternative::Array),
        "SchemaOrStrings" => Shape::SchemaOr(Alternative::Strings),
        _ => return None,
    })
}

/// Messages refer to one another, so their places are known before any is read.
fn index(text: &'static str) -> HashMap<&'static str, usize> {
    index_names(text).enumerate().map(|(at, name)| (name, at)).collect()
}

fn index_names(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines().filter_map(|line| line.strip_prefix("m ")).map(|rest| rest.split(' ').next().unwrap_or_default())
}

fn last_part(name: &'static str) -> &'static str {
    name.rsplit('.').next().unwrap_or(name)
}
