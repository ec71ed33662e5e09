//! Values of expressions: those of objects by reference, typed by their schema, and those that are computed.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value as Json};

use super::super::{Additional, List, Schema, Type};
use super::network::Cidr;
use crate::duration;
use crate::quantity::Quantity;

#[derive(Debug, Clone)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Rc<str>),
    Bytes(Arc<[u8]>),
    /// Nanoseconds.
    Duration(i64),
    Timestamp(Timestamp),
    /// A list of the object, and how its items look.
    Array(&'a [Json], Option<&'a Schema>),
    /// An object or map of the object.
    Object(&'a Map<String, Json>, Option<&'a Schema>),
    List(Rc<[Value<'a>]>),
    Map(Rc<[(Value<'a>, Value<'a>)]>),
    Optional(Option<Rc<Value<'a>>>),
    Type(&'static str),
    Ip(IpAddr),
    Cidr(Cidr),
    Quantity(Quantity),
    Url(Rc<url::Parts>),
    Format(&'static str),
}

pub(super) mod url {
    /// The parts of a URL that expressions may ask for.
    #[derive(Debug, PartialEq, Eq)]
    pub(crate) struct Parts {
        pub(crate) scheme: String,
        pub(crate) host: String,
        pub(crate) path: String,
        pub(crate) query: String,
    }

    /// An absolute URL, or an absolute path.
    pub(crate) fn parse(text: &str) -> Option<Parts> {
        if text.chars().any(|c| c.is_control() || c == ' ') {
            return None;
        }
        let (text, query) = text.split_once('?').unwrap_or((text, ""));
        let part = |scheme: &str, host: &str, path: &str| Parts {
            scheme: scheme.into(),
            host: host.into(),
            path: path.into(),
            query: query.into(),
        };
        if text.starts_with('/') && !text.starts_with("//") {
            return Some(part("", "", text));
        }
        let (scheme, rest) = text.split_once(':')?;
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        if !is_scheme {
            return None;
        }
        let Some(rest) = rest.strip_prefix("//") else { return Some(part(scheme, "", rest)) };
        let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        Some(part(scheme, host, path))
    }
}

impl<'a> Value<'a> {
    pub(super) fn text(text: impl Into<Rc<str>>) -> Self {
        Self::String(text.into())
    }

    pub(super) fn list(items: Vec<Self>) -> Self {
        Self::List(items.into())
    }

    /// A value of the object, as its schema has it.
    pub(super) fn of(json: &'a Json, schema: Option<&'a Schema>) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(flag) => Self::Bool(*flag),
            Json::Number(number) => match number.as_i64() {
                Some(whole) if schema.is_none_or(|schema| schema.kind != Some(Type::Number)) => Self::Int(whole),
                _ => Self::Double(number.as_f64().unwrap_or(0.0)),
            },
            Json::String(text) => Self::of_text(text, schema),
            Json::Array(list) => Self::Array(list, schema),
            Json::Object(map) => Self::Object(map, schema),
        }
    }

    fn of_text(text: &'a str, schema: Option<&'a Schema>) -> Self {
        let format = schema.and_then(|schema| schema.rules.as_ref()).map_or("", |rules| rules.format.as_str());
        let typed = match format {
            "duration" => duration::parse(text).map(Self::Duration),
            "date-time" => text.parse().ok().map(Self::Timestamp),
            "date" => format!("{text}T00:00:00Z").parse().ok().map(Self::Timestamp),
            _ => None,
        };
        typed.unwrap_or_else(|| Self::text(text))
    }

    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Array(..) | Self::List(_) => "list",
            Self::Object(..) | Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Ip(_) => "net.IP",
            Self::Cidr(_) => "net.CIDR",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Url(_) => "kubernetes.URL",
            Self::Format(_) => "kubernetes.NamedFormat",
        }
    }

    /// The number of items, entries or characters.
    pub(super) fn size(&self) -> Option<usize> {
        Some(match self {
            Self::String(text) => text.chars().count(),
            Self::Bytes(bytes) => bytes.len(),
            Self::Array(list, _) => list.len(),
            Self::List(list) => list.len(),
            Self::Object(map, _) => map.len(),
            Self::Map(map) => map.len(),
            _ => return None,
        })
    }

    /// The item at a place of a list.
    pub(super) fn item(&self, at: usize) -> Option<Self> {
        match self {
            Self::Array(list, schema) => {
                let items = schema.and_then(|schema| schema.items.as_deref());
                list.get(at).map(|item| Value::of(item, items))
            }
            Self::List(list) => list.get(at).cloned(),
            _ => None,
        }
    }

    /// The key at a place of a map, as loops go over them.
    pub(super) fn key(&self, at: usize) -> Option<Self> {
        match self {
            Self::Object(map, schema) => {
                let key = map.keys().nth(at)?;
                let is_fixed = schema.is_some_and(|schema| schema.properties.contains_key(key));
                Some(Value::text(if is_fixed { super::escape(key) } else { key.clone() }))
            }
            Self::Map(map) => map.get(at).map(|(key, _)| key.clone()),
            _ => None,
        }
    }

    /// A field or entry; `None` where there is none.
    pub(super) fn field(&self, name: &str) -> Option<Self> {
        match self {
            Self::Object(map, schema) => {
                if let Some(schema) = schema
                    && let Some((key, property)) = super::property(schema, name)
                {
                    let found = map.get(key)?;
                    let is_absent = found.is_null() && !property.nullable;
                    return (!is_absent).then(|| Value::of(found, Some(property)));
                }
                let values = schema.and_then(|schema| match &schema.additional {
                    Some(Additional::Of(values)) => Some(&**values),
                    _ => None,
                });
                map.get(name).map(|found| Value::of(found, values))
            }
            Self::Map(map) => map
                .iter()
                .find(|(key, _)| matches!(key, Self::String(key) if **key == *name))
                .map(|(_, value)| value.clone()),
            Self::Optional(Some(inner)) => inner.field(name),
            _ => None,
        }
    }

    /// What an index of any type leads to.
    pub(super) fn at(&self, index: &Self) -> Option<Self> {
        match (self, index) {
            (Self::Optional(Some(inner)), _) => inner.at(index),
            (Self::Array(..) | Self::List(_), index) => {
                let at = index.whole()?;
                self.item(usize::try_from(at).ok()?)
            }
            (_, Self::String(name)) => self.field(name),
            (Self::Map(map), index) => map.iter().find(|(key, _)| key.same(index)).map(|(_, value)| value.clone()),
            _ => None,
        }
    }

    fn whole(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Uint(number) => i64::try_from(*number).ok(),
            Self::Double(number) if number.fract() == 0.0 && number.abs() < 9e15 => Some(*number as i64),
            _ => None,
        }
    }

    fn is_number(&self) -> bool {
        matches!(self, Self::Int(_) | Self::Uint(_) | Self::Double(_))
    }

    /// Sets and keyed lists are the same in any order.
    fn has_order(&self) -> bool {
        !matches!(self, Self::Array(_, Some(schema)) if schema.list != List::Atomic)
    }

    pub(super) fn same(&self, other: &Self) -> bool {
        if self.is_number() && other.is_number() {
            return self.compare(other) == Some(Ordering::Equal);
        }
        match (self, other) {
            (Self::Null, Self::Null) => true,
            // The absence of an optional value is null to those who compare it with that.
            (Self::Optional(None), Self::Null) | (Self::Null, Self::Optional(None)) => true,
            (Self::Bool(one), Self::Bool(other)) => one == other,
            (Self::String(one), Self::String(other)) => one == other,
            (Self::Bytes(one), Self::Bytes(other)) => one == other,
            (Self::Duration(one), Self::Duration(other)) => one == other,
            (Self::Timestamp(one), Self::Timestamp(other)) => one == other,
            (Self::Type(one), Self::Type(other)) => one == other,
            (Self::Ip(one), Self::Ip(other)) => one == other,
            (Self::Cidr(one), Self::Cidr(other)) => one == other,
            (Self::Quantity(one), Self::Quantity(other)) => one.nano() == other.nano(),
            (Self::Url(one), Self::Url(other)) => one == other,
            (Self::Optional(one), Self::Optional(other)) => match (one, other) {
                (None, None) => true,
                (Some(one), Some(other)) => one.same(other),
                _ => false,
            },
            (Self::Array(one, _), Self::Array(other, _)) if self.has_order() => one == other,
            (Self::Object(one, _), Self::Object(other, _)) => one == other,
            (Self::Array(..) | Self::List(_), Self::Array(..) | Self::List(_)) => self.same_items(other),
            (Self::Object(..) | Self::Map(_), Self::Object(..) | Self::Map(_)) => {
                let keys = (0..self.size().unwrap_or(0)).filter_map(|at| self.key(at));
                self.size() == other.size()
                    && keys.into_iter().all(|key| match (self.at(&key), other.at(&key)) {
                        (Some(one), Some(other)) => one.same(&other),
                        _ => false,
                    })
            }
            _ => false,
        }
    }

    fn same_items(&self, other: &Self) -> bool {
        let items = |list: &Self| (0..list.size().unwrap_or(0)).filter_map(|at| list.item(at)).collect::<Vec<_>>();
        let (ours, theirs) = (items(self), items(other));
        if self.has_order() {
            return ours.len() == theirs.len() && ours.iter().zip(&theirs).all(|(one, other)| one.same(other));
        }
        ours.len() == theirs.len() && ours.iter().all(|item| theirs.iter().any(|other| item.same(other)))
    }

    /// The order of two values that have one.
    pub(super) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(one), Self::Int(other)) => Some(one.cmp(other)),
            (Self::Uint(one), Self::Uint(other)) => Some(one.cmp(other)),
            (Self::Int(one), Self::Uint(other)) => Some(i128::from(*one).cmp(&i128::from(*other))),
            (Self::Uint(one), Self::Int(other)) => Some(i128::from(*one).cmp(&i128::from(*other))),
            (Self::Double(one), other) if other.is_number() => one.partial_cmp(&other.double()?),
            (one, Self::Double(other)) if one.is_number() => one.double()?.partial_cmp(other),
            (Self::String(one), Self::String(other)) => Some(one.cmp(other)),
            (Self::Bytes(one), Self::Bytes(other)) => Some(one.cmp(other)),
            (Self::Bool(one), Self::Bool(other)) => Some(one.cmp(other)),
            (Self::Duration(one), Self::Duration(other)) => Some(one.cmp(other)),
            (Self::Timestamp(one), Self::Timestamp(other)) => Some(one.cmp(other)),
            (Self::Quantity(one), Self::Quantity(other)) => Some(one.nano().cmp(&other.nano())),
            _ => None,
        }
    }

    pub(super) fn double(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::Uint(number) => Some(*number as f64),
            Self::Double(number) => Some(*number),
            _ => None,
        }
    }
}
