//! Protobuf to JSON values, guided by the schema.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::raw::{BYTES, Fields, RawError, RawField, varint};
use super::{Decoded, MAGIC, ReadError};
use crate::schema::{self, Alternative, Message, Shape, Wire, WireContent};

/// Levels of nested messages; the API's own types need fewer than 30.
pub(super) const DEPTH_MAX: usize = 128;

/// Reads the envelope and the object in it.
pub(super) fn object(body: &[u8]) -> Result<Decoded, ReadError> {
    let body = body.strip_prefix(MAGIC).ok_or(ReadError::Prefix)?;
    let mut reader = Reader::default();
    let (mut type_meta, mut content): (&[u8], &[u8]) = (&[], &[]);
    for field in Fields(body) {
        let field = reader.checked(field)?;
        match field.tag {
            1 => type_meta = field.bytes,
            2 => content = field.bytes,
            _ => {}
        }
    }
    let (mut api_version, mut kind) = (String::new(), String::new());
    for field in Fields(type_meta) {
        let field = reader.checked(field)?;
        match field.tag {
            1 => api_version = reader.text(field)?,
            2 => kind = reader.text(field)?,
            _ => {}
        }
    }
    let Some(message) = schema::of_type(&api_version, &kind) else {
        return Err(ReadError::Kind { api_version, kind });
    };
    let mut object = Map::new();
    reader.message(content, message, message.wire(), &mut object)?;
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    Ok(Decoded { value: super::normal(message, Value::Object(object)), unknown: reader.unknown })
}

#[derive(Default)]
struct Reader {
    path: Vec<Step>,
    depth: usize,
    unknown: Vec<String>,
}

enum Step {
    Field(&'static str),
    Index(usize),
    Key(String),
}

impl Reader {
    fn message(
        &mut self,
        bytes: &[u8],
        message: &'static Message,
        wire: &'static [Wire],
        out: &mut Map<String, Value>,
    ) -> Result<(), ReadError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(ReadError::Depth);
        }
        for raw in Fields(bytes) {
            let raw = self.checked(raw)?;
            match wire.binary_search_by_key(&raw.tag, |entry| entry.tag).map(|at| &wire[at].content) {
                Ok(WireContent::Inlined(inner)) => self.message(self.delimited(raw)?, message, inner, out)?,
                Ok(WireContent::Field(index)) => self.field(raw, &message.fields()[*index], out)?,
                Err(_) => {
                    let tag = format!("#{}", raw.tag);
                    self.unknown.push(match self.path() {
                        path if path.is_empty() => tag,
                        path => format!("{path}.{tag}"),
                    });
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn field(
        &mut self,
        raw: RawField<'_>,
        field: &'static schema::Field,
        out: &mut Map<String, Value>,
    ) -> Result<(), ReadError> {
        self.path.push(Step::Field(field.name.as_ref()));
        match &field.shape {
            Shape::List { item, wrapped: false } => {
                let entry = out.entry(field.name.as_ref()).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(list) = entry {
                    self.item(raw, item, list)?;
                }
            }
            Shape::Map(shape) => {
                let entry = out.entry(field.name.as_ref()).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(map) = entry {
                    let (key, value) = self.entry(self.delimited(raw)?, shape)?;
                    map.insert(key, value);
                }
            }
            // A message that comes in parts is merged, as protobuf has it.
            Shape::Message(link) => {
                let bytes = self.delimited(raw)?;
                let entry = out.entry(field.name.as_ref()).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(inner) = entry {
                    self.message(bytes, builtin(link), builtin(link).wire(), inner)?;
                }
            }
            shape => {
                let value = self.value(raw, shape)?;
                out.insert(field.name.as_ref().to_owned(), value);
            }
        }
        self.path.pop();
        Ok(())
    }

    fn item(&mut self, raw: RawField<'_>, shape: &'static Shape, list: &mut Vec<Value>) -> Result<(), ReadError> {
        let packed = matches!(shape, Shape::Int32 | Shape::Int64 | Shape::Bool) && raw.wire_type == BYTES;
        if packed {
            let mut rest = raw.bytes;
            while !rest.is_empty() {
                let (number, after) = varint(rest).map_err(|error| self.error(error))?;
                list.push(self.value(RawField { wire_type: 0, number, bytes: &[], ..raw }, shape)?);
                rest = after;
            }
            return Ok(());
        }
        self.path.push(Step::Index(list.len()));
        list.push(self.value(raw, shape)?);
        self.path.pop();
        Ok(())
    }

    fn entry(&mut self, bytes: &[u8], shape: &'static Shape) -> Result<(String, Value), ReadError> {
        let mut key = String::new();
        let mut content = None;
        for raw in Fields(bytes) {
            let raw = self.checked(raw)?;
            match raw.tag {
                1 => key = self.text(raw)?,
                2 => content = Some(raw),
                _ => {}
            }
        }
        self.path.push(Step::Key(key.clone()));
        let empty = RawField { tag: 2, wire_type: shape_wire_type(shape), number: 0, bytes: &[] };
        let value = self.value(content.unwrap_or(empty), shape)?;
        self.path.pop();
        Ok((key, value))
    }

    fn value(&mut self, raw: RawField<'_>, shape: &'static Shape) -> Result<Value, ReadError> {
        Ok(match shape {
            Shape::String => self.text(raw)?.into(),
            Shape::Int32 => (self.number(raw)? as i32).into(),
            Shape::Int64 => (self.number(raw)? as i64).into(),
            Shape::Bool => (self.number(raw)? != 0).into(),
            Shape::Double => double(f64::from_bits(raw.number)),
            Shape::Bytes => STANDARD.encode(self.delimited(raw)?).into(),
            Shape::Message(link) => {
                let mut inner = Map::new();
                self.message(self.delimited(raw)?, builtin(link), builtin(link).wire(), &mut inner)?;
                inner.into()
            }
            Shape::List { item, .. } => {
                let mut list = Vec::new();
                for inner in Fields(self.delimited(raw)?) {
                    let inner = self.checked(inner)?;
                    self.item(inner, item, &mut list)?;
                }
                list.into()
            }
            // Maps stand in fields only, never in lists or maps.
            Shape::Map(_) => Value::Null,
            special => self.special(self.delimited(raw)?, special)?,
        })
    }

    fn special(&mut self, bytes: &[u8], shape: &Shape) -> Result<Value, ReadError> {
        let mut parts: [Option<RawField<'_>>; 4] = [None; 4];
        let mut repeated = Vec::new();
        for raw in Fields(bytes) {
            let raw = self.checked(raw)?;
            if let Some(part) = parts.get_mut(raw.tag as usize) {
                *part = Some(raw);
            }
            if raw.tag == 2 {
                repeated.push(raw);
            }
        }
        let number = |tag: usize| parts[tag].map_or(0, |raw| raw.number);
        match shape {
            Shape::Quantity => parts[1].map_or(Ok("0".into()), |raw| self.text(raw).map(Value::from)),
            Shape::IntOrString if number(1) == 0 => Ok((number(2) as i32).into()),
            Shape::IntOrString => parts[3].map_or(Ok("".into()), |raw| self.text(raw).map(Value::from)),
            Shape::Time | Shape::MicroTime if bytes.is_empty() => Ok(Value::Null),
            Shape::Time | Shape::MicroTime => self.time(number(1) as i64, number(2) as i32, shape),
            Shape::SchemaOr(alternative) => self.schema_or(*alternative, parts, &repeated),
            _ => self.json(parts[1].map_or(&[][..], |raw| raw.bytes)),
        }
    }

    fn time(&self, seconds: i64, nanos: i32, shape: &Shape) -> Result<Value, ReadError> {
        let time = Timestamp::new(seconds, nanos).map_err(|_| ReadError::Time(self.path()))?;
        Ok(match shape {
            Shape::MicroTime => schema::time::micros(time).into(),
            _ => schema::time::seconds(time).into(),
        })
    }

    fn schema_or(
        &mut self,
        alternative: Alternative,
        parts: [Option<RawField<'_>>; 4],
        repeated: &[RawField<'_>],
    ) -> Result<Value, ReadError> {
        let schema = match alternative {
            Alternative::Bool => parts[2],
            Alternative::Array | Alternative::Strings => parts[1],
        };
        match (schema, alternative) {
            (Some(raw), _) => self.json_schema(raw),
            (None, Alternative::Bool) => Ok(parts[1].is_some_and(|raw| raw.number != 0).into()),
            (None, Alternative::Array) => repeated.iter().map(|raw| self.json_schema(*raw)).collect(),
            (None, Alternative::Strings) => repeated.iter().map(|raw| self.text(*raw).map(Value::from)).collect(),
        }
    }

    fn json_schema(&mut self, raw: RawField<'_>) -> Result<Value, ReadError> {
        let mut inner = Map::new();
        if let Some(message) = schema::message(super::write::JSON_SCHEMA) {
            self.message(self.delimited(raw)?, message, message.wire(), &mut inner)?;
        }
        Ok(inner.into())
    }

    /// Raw content is JSON; an object that was encoded before it was embedded is protobuf once more.
    fn json(&mut self, bytes: &[u8]) -> Result<Value, ReadError> {
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        if super::is_protobuf(bytes) {
            let decoded = object(bytes)?;
            let path = self.path();
            self.unknown.extend(decoded.unknown.iter().map(|inner| format!("{path}.{inner}")));
            return Ok(decoded.value);
        }
        serde_json::from_slice(bytes).map_err(|source| ReadError::Json { path: self.path(), source })
    }

    fn text(&self, raw: RawField<'_>) -> Result<String, ReadError> {
        let bytes = self.delimited(raw)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| ReadError::Utf8(self.path()))
    }

    fn number(&self, raw: RawField<'_>) -> Result<u64, ReadError> {
        if raw.wire_type == BYTES { Err(self.wire_type(raw)) } else { Ok(raw.number) }
    }

    fn delimited<'a>(&self, raw: RawField<'a>) -> Result<&'a [u8], ReadError> {
        if raw.wire_type == BYTES { Ok(raw.bytes) } else { Err(self.wire_type(raw)) }
    }

    fn wire_type(&self, raw: RawField<'_>) -> ReadError {
        ReadError::WireType { path: self.path(), wire_type: raw.wire_type }
    }

    fn checked<'a>(&self, raw: Result<RawField<'a>, RawError>) -> Result<RawField<'a>, ReadError> {
        raw.map_err(|error| self.error(error))
    }

    fn error(&self, error: RawError) -> ReadError {
        match error {
            RawError::Truncated => ReadError::Truncated(self.path()),
            RawError::Varint => ReadError::Varint(self.path()),
            RawError::WireType(wire_type) => ReadError::WireType { path: self.path(), wire_type },
        }
    }

    fn path(&self) -> String {
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Field(name) if path.is_empty() => path.push_str(name),
                Step::Field(name) => path.extend([".", name]),
                Step::Index(index) => path.push_str(&format!("[{index}]")),
                Step::Key(key) => path.push_str(&format!(".{key}")),
            }
        }
        path
    }
}

/// Built-in messages refer to built-in messages only.
fn builtin(link: &'static schema::Link) -> &'static Message {
    link.get()
}

fn shape_wire_type(shape: &Shape) -> u8 {
    if matches!(shape, Shape::Int32 | Shape::Int64 | Shape::Bool) { 0 } else { BYTES }
}

/// Whole numbers stay whole, as Go prints them.
fn double(value: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT { (value as i64).into() } else { value.into() }
}
