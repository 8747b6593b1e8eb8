//! JSON to messages.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::wire::{put_bytes, put_double, put_number};
use crate::schema::{JSON_SCHEMA, Leaf, Schema, Shape, definition};
use crate::time;

pub(super) fn envelope(out: &mut Vec<u8>, api_version: &str, kind: &str, raw: &[u8]) {
    let mut meta = Vec::new();
    put_bytes(&mut meta, 1, api_version.as_bytes());
    put_bytes(&mut meta, 2, kind.as_bytes());
    put_bytes(out, 1, &meta);
    put_bytes(out, 2, raw);
    put_bytes(out, 3, b"");
    put_bytes(out, 4, b"");
}

pub(super) fn watch_event(event_type: &str, object: &[u8]) -> Vec<u8> {
    let (mut raw, mut out) = (Vec::with_capacity(object.len() + 8), Vec::with_capacity(object.len() + 24));
    put_bytes(&mut raw, 1, object);
    put_bytes(&mut out, 1, event_type.as_bytes());
    put_bytes(&mut out, 2, &raw);
    out
}

/// A struct's message; fields stand in order of their numbers, inlined messages in their place.
pub(super) fn message(value: &Value, schema: &Schema) -> Vec<u8> {
    let mut rows: Vec<(u32, u32, &Value, &Schema)> = Vec::new();
    for (name, value) in value.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
        if let Some(field) = schema.field(name).filter(|f| f.number != 0) {
            rows.push((field.via, u32::from(field.number), value, field.schema()));
        }
    }
    nested(rows)
}

/// Writes rows whose remaining way (`via`) says in which inlined message they stand.
fn nested(rows: Vec<(u32, u32, &Value, &Schema)>) -> Vec<u8> {
    let mut parts: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    let mut inner: BTreeMap<u32, Vec<(u32, u32, &Value, &Schema)>> = BTreeMap::new();
    for (via, number, value, schema) in rows {
        if via == 0 {
            put(parts.entry(number).or_default(), number, value, schema);
        } else {
            inner.entry(via & 0xff).or_default().push((via >> 8, number, value, schema));
        }
    }
    for (number, rows) in inner {
        let message = nested(rows);
        put_bytes(parts.entry(number).or_default(), number, &message);
    }
    parts.into_values().flatten().collect()
}

fn put(out: &mut Vec<u8>, number: u32, value: &Value, schema: &Schema) {
    match (&schema.shape, value) {
        (Shape::List { item, message: false, .. }, Value::Array(elements)) => {
            elements.iter().for_each(|element| put(out, number, element, item.get()));
        }
        (Shape::List { item, .. }, Value::Array(elements)) => {
            let mut list = Vec::new();
            elements.iter().for_each(|element| put(&mut list, 1, element, item.get()));
            put_bytes(out, number, &list);
        }
        (Shape::Map { value: inner, .. }, Value::Object(map)) => {
            for (key, value) in map {
                let mut entry = Vec::new();
                put_bytes(&mut entry, 1, key.as_bytes());
                put(&mut entry, 2, value, inner.get());
                put_bytes(out, number, &entry);
            }
        }
        (Shape::Struct { .. }, value) => put_bytes(out, number, &message(value, schema)),
        (Shape::Leaf { leaf, .. }, value) => put_leaf(out, number, value, *leaf),
        _ => {}
    }
}

fn put_leaf(out: &mut Vec<u8>, number: u32, value: &Value, leaf: Leaf) {
    let integer = value.as_i64().unwrap_or_default() as u64;
    let text = value.as_str().unwrap_or_default();
    match leaf {
        Leaf::String => put_bytes(out, number, text.as_bytes()),
        Leaf::Boolean => put_number(out, number, u64::from(value.as_bool().unwrap_or_default())),
        Leaf::Int32 | Leaf::Int64 => put_number(out, number, integer),
        Leaf::Double => put_double(out, number, value.as_f64().unwrap_or_default()),
        Leaf::Bytes => put_bytes(out, number, &STANDARD.decode(text).unwrap_or_default()),
        Leaf::Quantity => {
            let mut message = Vec::new();
            let plain = if value.is_string() { text.to_owned() } else { value.to_string() };
            put_bytes(&mut message, 1, plain.as_bytes());
            put_bytes(out, number, &message);
        }
        Leaf::IntOrString => {
            let mut message = Vec::new();
            put_number(&mut message, 1, u64::from(value.is_string()));
            put_number(&mut message, 2, integer);
            put_bytes(&mut message, 3, text.as_bytes());
            put_bytes(out, number, &message);
        }
        Leaf::Time | Leaf::MicroTime => {
            let mut message = Vec::new();
            if let Some(time) = time::parse(text) {
                // A negative fraction belongs to times before 1970, whose seconds then count down.
                let (seconds, nanos) = (time.as_second(), time.subsec_nanosecond());
                let (seconds, nanos) = if nanos < 0 { (seconds - 1, nanos + 1_000_000_000) } else { (seconds, nanos) };
                let nanos = if leaf == Leaf::Time { 0 } else { nanos };
                put_number(&mut message, 1, seconds as u64);
                put_number(&mut message, 2, nanos as u64);
            }
            put_bytes(out, number, &message);
        }
        Leaf::FieldsV1 | Leaf::Json | Leaf::RawExtension => {
            let mut message = Vec::new();
            put_bytes(&mut message, 1, value.to_string().as_bytes());
            put_bytes(out, number, &message);
        }
        Leaf::SchemaOrArray | Leaf::SchemaOrBool | Leaf::SchemaOrStringArray => {
            put_bytes(out, number, &json_schema(value, leaf));
        }
    }
}

fn json_schema(value: &Value, leaf: Leaf) -> Vec<u8> {
    let schema_field = if leaf == Leaf::SchemaOrBool { 2 } else { 1 };
    let props = |value: &Value| definition(JSON_SCHEMA).map(|d| message(value, d)).unwrap_or_default();
    let mut out = Vec::new();
    match value {
        Value::Bool(allowed) => put_number(&mut out, 1, u64::from(*allowed)),
        Value::Object(_) => {
            if leaf == Leaf::SchemaOrBool {
                put_number(&mut out, 1, 1);
            }
            put_bytes(&mut out, schema_field, &props(value));
        }
        Value::Array(elements) => {
            for element in elements {
                match element {
                    Value::String(text) => put_bytes(&mut out, 2, text.as_bytes()),
                    other => put_bytes(&mut out, 2, &props(other)),
                }
            }
        }
        _ => {}
    }
    out
}
