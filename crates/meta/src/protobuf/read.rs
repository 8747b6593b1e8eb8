//! Messages to JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::wire::{Fields, Wire, varint};
use super::{Envelope, MAGIC, MAX_DEPTH, ProtobufError};
use crate::gvk::GroupVersion;
use crate::schema::{Field, JSON_SCHEMA, Leaf, Schema, Shape, definition, lookup};
use crate::time;

type Tree = Map<String, Value>;

pub(super) fn envelope(bytes: &[u8]) -> Result<Envelope<'_>, ProtobufError> {
    let mut out = Envelope::default();
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => {
                let mut meta = Fields::new(value.bytes(number)?);
                while let Some((number, value)) = meta.next()? {
                    match number {
                        1 => out.api_version = value.text(number)?,
                        2 => out.kind = value.text(number)?,
                        _ => {}
                    }
                }
            }
            2 => out.raw = value.bytes(number)?,
            3 if !value.bytes(number)?.is_empty() => return Err(ProtobufError::Encoding),
            _ => {}
        }
    }
    Ok(out)
}

/// The members of a struct's message.
pub(super) fn message(bytes: &[u8], schema: &Schema) -> Result<Tree, ProtobufError> {
    let mut out = Tree::new();
    members(bytes, schema, Nest { via: 0, levels: 0 }, &mut out, 0)?;
    Ok(out)
}

/// Which inlined message is being read: the numbers on the way, as in [`Field::via`].
#[derive(Clone, Copy)]
struct Nest {
    via: u32,
    levels: u32,
}

impl Nest {
    fn into(self, number: u32) -> Self {
        Self { via: self.via | (number << (8 * self.levels)), levels: self.levels + 1 }
    }

    /// Whether a field lies in this message or one nested in it.
    fn holds(self, field: &Field) -> bool {
        let mask = if self.levels >= 4 { u32::MAX } else { (1 << (8 * self.levels)) - 1 };
        field.via & mask == self.via
    }
}

fn members(bytes: &[u8], schema: &Schema, nest: Nest, out: &mut Tree, depth: u32) -> Result<(), ProtobufError> {
    if depth > MAX_DEPTH {
        return Err(ProtobufError::TooDeep);
    }
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next()? {
        let found = schema.fields().iter().find(|f| f.via == nest.via && u32::from(f.number) == number && number != 0);
        if let Some(field) = found {
            let slot = out.entry(field.name.as_ref()).or_insert(Value::Null);
            node(slot, field.schema(), number, value, depth + 1)?;
        } else if number < 256 && nest.levels < 3 {
            let inner = nest.into(number);
            if schema.fields().iter().any(|f| f.via != nest.via && inner.holds(f)) {
                members(value.bytes(number)?, schema, inner, out, depth + 1)?;
            }
        }
    }
    Ok(())
}

/// Adds one occurrence of a field to its member: lists and maps grow, everything else is replaced.
fn node(slot: &mut Value, schema: &Schema, number: u32, value: Wire<'_>, depth: u32) -> Result<(), ProtobufError> {
    match &schema.shape {
        Shape::List { item, message: false, .. } => {
            if !slot.is_array() {
                *slot = Value::Array(Vec::new());
            }
            let Value::Array(elements) = slot else { return Ok(()) };
            let numbers = matches!(item.get().shape, Shape::Leaf { leaf: Leaf::Int32 | Leaf::Int64, .. });
            if let (true, Wire::Bytes(mut packed)) = (numbers, value) {
                while !packed.is_empty() {
                    elements.push(Value::from(varint(&mut packed)? as i64));
                }
                return Ok(());
            }
            elements.push(single(item.get(), number, value, depth)?);
        }
        Shape::Map { value: inner, .. } => {
            let (mut key, mut held) = (String::new(), Value::Null);
            let mut entry = Fields::new(value.bytes(number)?);
            while let Some((number, value)) = entry.next()? {
                match number {
                    1 => key = value.text(number)?.to_owned(),
                    2 => held = single(inner.get(), number, value, depth)?,
                    _ => {}
                }
            }
            crate::path::as_object_slot(slot).insert(key, held);
        }
        _ => *slot = single(schema, number, value, depth)?,
    }
    Ok(())
}

fn single(schema: &Schema, number: u32, value: Wire<'_>, depth: u32) -> Result<Value, ProtobufError> {
    if depth > MAX_DEPTH {
        return Err(ProtobufError::TooDeep);
    }
    match &schema.shape {
        Shape::Struct { .. } => {
            let mut out = Tree::new();
            members(value.bytes(number)?, schema, Nest { via: 0, levels: 0 }, &mut out, depth + 1)?;
            Ok(Value::Object(out))
        }
        // A list that is a message of its own.
        Shape::List { item, .. } => {
            let mut elements = Vec::new();
            let mut fields = Fields::new(value.bytes(number)?);
            while let Some((number, value)) = fields.next()? {
                if number == 1 {
                    elements.push(single(item.get(), number, value, depth + 1)?);
                }
            }
            Ok(Value::Array(elements))
        }
        Shape::Map { .. } => {
            let mut slot = Value::Null;
            node(&mut slot, schema, number, value, depth + 1)?;
            Ok(slot)
        }
        Shape::Leaf { leaf, .. } => self::leaf(*leaf, number, value, depth),
    }
}

fn leaf(leaf: Leaf, number: u32, value: Wire<'_>, depth: u32) -> Result<Value, ProtobufError> {
    Ok(match leaf {
        Leaf::String => Value::from(value.text(number)?),
        Leaf::Boolean => Value::from(value.varint(number)? != 0),
        Leaf::Int32 => Value::from(value.varint(number)? as i32),
        Leaf::Int64 => Value::from(value.varint(number)? as i64),
        Leaf::Double => Value::from(f64::from_bits(value.fixed64(number)?)),
        Leaf::Bytes => Value::from(STANDARD.encode(value.bytes(number)?)),
        Leaf::Quantity => {
            let text = first(value.bytes(number)?, 1)?.map(|v| v.text(1)).transpose()?;
            Value::from(text.filter(|t| !t.is_empty()).unwrap_or("0"))
        }
        Leaf::IntOrString => {
            let bytes = value.bytes(number)?;
            let is_text = first(bytes, 1)?.map(|v| v.varint(1)).transpose()?.unwrap_or(0) == 1;
            if is_text {
                Value::from(first(bytes, 3)?.map(|v| v.text(3)).transpose()?.unwrap_or_default())
            } else {
                Value::from(first(bytes, 2)?.map(|v| v.varint(2)).transpose()?.unwrap_or(0) as i32)
            }
        }
        Leaf::Time | Leaf::MicroTime => instant(value.bytes(number)?, leaf, number)?,
        Leaf::FieldsV1 | Leaf::Json | Leaf::RawExtension => match first(value.bytes(number)?, 1)? {
            Some(raw) => embedded(raw.bytes(1)?, number, depth)?,
            None => Value::Null,
        },
        Leaf::SchemaOrArray | Leaf::SchemaOrBool | Leaf::SchemaOrStringArray => {
            json_schema(value.bytes(number)?, leaf, depth)?
        }
    })
}

/// The last value of a field in a small message.
fn first(bytes: &[u8], wanted: u32) -> Result<Option<Wire<'_>>, ProtobufError> {
    let (mut fields, mut found) = (Fields::new(bytes), None);
    while let Some((number, value)) = fields.next()? {
        if number == wanted {
            found = Some(value);
        }
    }
    Ok(found)
}

fn instant(bytes: &[u8], leaf: Leaf, field: u32) -> Result<Value, ProtobufError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let seconds = first(bytes, 1)?.map(|v| v.varint(1)).transpose()?.unwrap_or(0) as i64;
    let nanos = first(bytes, 2)?.map(|v| v.varint(2)).transpose()?.unwrap_or(0) as i32;
    let time = Timestamp::new(seconds, nanos).map_err(|_| ProtobufError::Time(field))?;
    Ok(Value::from(if leaf == Leaf::MicroTime { time::format_micro(time) } else { time::format(time) }))
}

/// JSON inside a message, or another object with its envelope.
fn embedded(raw: &[u8], field: u32, depth: u32) -> Result<Value, ProtobufError> {
    if raw.is_empty() {
        return Ok(Value::Null);
    }
    let Some(inner) = raw.strip_prefix(MAGIC) else {
        return serde_json::from_slice(raw).map_err(|_| ProtobufError::Json(field));
    };
    let inner = envelope(inner)?;
    let gvk = GroupVersion::parse(inner.api_version).unwrap_or_default().kind(inner.kind);
    let schema = lookup(&gvk).ok_or(ProtobufError::Json(field))?;
    let mut out = Tree::new();
    members(inner.raw, schema, Nest { via: 0, levels: 0 }, &mut out, depth + 1)?;
    out.insert("apiVersion".into(), inner.api_version.into());
    out.insert("kind".into(), inner.kind.into());
    Ok(Value::Object(out))
}

/// The unions of a CustomResourceDefinition's schema: a schema, or a boolean, schemas or strings.
fn json_schema(bytes: &[u8], leaf: Leaf, depth: u32) -> Result<Value, ProtobufError> {
    let schema_field = if leaf == Leaf::SchemaOrBool { 2 } else { 1 };
    let (mut schema, mut others, mut allowed) = (None, Vec::new(), false);
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next()? {
        let props = |value: Wire<'_>| match definition(JSON_SCHEMA) {
            Some(definition) => single(definition, number, value, depth + 1),
            None => Ok(Value::Null),
        };
        match (leaf, number) {
            (_, number) if number == schema_field => schema = Some(props(value)?),
            (Leaf::SchemaOrBool, 1) => allowed = value.varint(number)? != 0,
            (Leaf::SchemaOrArray, 2) => others.push(props(value)?),
            (Leaf::SchemaOrStringArray, 2) => others.push(Value::from(value.text(number)?)),
            _ => {}
        }
    }
    Ok(match schema {
        Some(schema) => schema,
        None if leaf == Leaf::SchemaOrBool => Value::from(allowed),
        None => Value::Array(others),
    })
}
