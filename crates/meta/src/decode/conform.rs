//! Checks a tree against a schema and brings it into normal form.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::{DecodeError, MAX_ISSUES, go_type};
use crate::schema::{JSON_SCHEMA, Leaf, Schema, Shape, definition};
use crate::{Quantity, time};

/// The way from the root, kept on the stack and written only when something is wrong.
#[derive(Clone, Copy)]
enum Place<'a> {
    Root,
    Member(&'a Place<'a>, &'a str),
    Element(&'a Place<'a>, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Member(Place::Root, name) => f.write_str(name),
            Self::Member(parent, name) => write!(f, "{parent}.{name}"),
            Self::Element(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

impl Place<'_> {
    /// The member names without indices, as Go writes them in type errors.
    fn names(&self) -> String {
        match self {
            Self::Root => String::new(),
            Self::Member(Place::Root, name) => (*name).to_owned(),
            Self::Member(parent, name) => format!("{}.{name}", parent.names()),
            Self::Element(parent, _) => parent.names(),
        }
    }
}

struct Walk<'a> {
    issues: &'a mut Vec<String>,
}

/// Brings a tree into normal form, adding `unknown field "path"` to `issues` for each member that is dropped.
pub(super) fn conform(value: &mut Value, schema: &Schema, issues: &mut Vec<String>) -> Result<(), DecodeError> {
    Walk { issues }.node(value, schema, "", Place::Root)
}

impl Walk<'_> {
    fn node(&mut self, value: &mut Value, schema: &Schema, owner: &str, place: Place<'_>) -> Result<(), DecodeError> {
        match (&schema.shape, value) {
            (Shape::Struct { preserve, .. }, Value::Object(map)) => self.members(map, schema, *preserve, place),
            (Shape::Map { value: inner, .. }, Value::Object(map)) => {
                if let Some(rules) = inner.rules.as_deref().filter(|_| !inner.nullable) {
                    map.retain(|_, value| !value.is_null() || rules.default.is_some());
                }
                for (key, value) in map.iter_mut() {
                    if value.is_null() && !inner.nullable {
                        *value = absent(inner);
                    }
                    self.node(value, inner.get(), owner, Place::Member(&place, key))?;
                }
                Ok(())
            }
            (Shape::List { item, .. }, Value::Array(elements)) => {
                for (index, value) in elements.iter_mut().enumerate() {
                    if value.is_null() && !item.nullable {
                        *value = absent(item);
                    }
                    self.node(value, item.get(), owner, Place::Element(&place, index))?;
                }
                Ok(())
            }
            (Shape::Leaf { leaf, .. }, value) => self.leaf(value, *leaf, schema, owner, place),
            // A custom resource's types are checked by validation, which names every wrong one.
            _ if schema.rules.is_some() => Ok(()),
            (_, found) => Err(mismatch(found, schema, owner, place)),
        }
    }

    fn members(
        &mut self,
        map: &mut Map<String, Value>,
        schema: &Schema,
        preserve: bool,
        place: Place<'_>,
    ) -> Result<(), DecodeError> {
        let owner = schema.name.rsplit('.').next().unwrap_or_default();
        let mut dropped = Vec::new();
        for (name, value) in map.iter_mut() {
            let here = Place::Member(&place, name);
            let Some(field) = schema.field(name) else {
                if !preserve {
                    if self.issues.len() < MAX_ISSUES {
                        self.issues.push(format!("unknown field \"{here}\""));
                    }
                    dropped.push(name.clone());
                }
                continue;
            };
            if value.is_null() {
                if !field.schema().nullable {
                    dropped.push(name.clone());
                }
                continue;
            }
            self.node(value, field.schema(), owner, here)?;
            // A custom resource's members stay as they are written; those of Go's types are dropped when they are zero.
            if schema.rules.is_none() && !field.pointer && !field.always && is_zero(value) {
                dropped.push(name.clone());
            }
        }
        for name in dropped {
            map.remove(&name);
        }
        for field in schema.fields().iter().filter(|f| f.always && !f.pointer) {
            if !map.contains_key(field.name.as_ref()) {
                map.insert(field.name.clone().into_owned(), zero_value(field.schema()));
            }
        }
        Ok(())
    }

    fn leaf(
        &mut self,
        value: &mut Value,
        leaf: Leaf,
        schema: &Schema,
        owner: &str,
        place: Place<'_>,
    ) -> Result<(), DecodeError> {
        let fits = match leaf {
            Leaf::Json | Leaf::RawExtension => true,
            Leaf::FieldsV1 => value.is_object(),
            Leaf::Boolean => value.is_boolean(),
            Leaf::String => value.is_string(),
            Leaf::Double => value.is_number(),
            Leaf::Int64 => value.as_i64().is_some(),
            Leaf::Int32 => value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            Leaf::IntOrString => value.is_string() || value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
            Leaf::Bytes => return canonical_bytes(value, schema, owner, place),
            Leaf::Quantity => {
                let Some(parsed) = Quantity::from_value(value) else {
                    return Err(mismatch(value, schema, owner, place));
                };
                *value = Value::String(parsed.map_err(|e| DecodeError::Value(e.to_string()))?.to_string());
                true
            }
            Leaf::Time | Leaf::MicroTime => return canonical_time(value, leaf, schema, owner, place),
            Leaf::SchemaOrArray | Leaf::SchemaOrBool | Leaf::SchemaOrStringArray => {
                return self.json_schema(value, owner, place);
            }
        };
        if fits || schema.rules.is_some() { Ok(()) } else { Err(mismatch(value, schema, owner, place)) }
    }

    /// A schema inside a CustomResourceDefinition, alone or in a list; other values stand for themselves.
    fn json_schema(&mut self, value: &mut Value, owner: &str, place: Place<'_>) -> Result<(), DecodeError> {
        let Some(props) = definition(JSON_SCHEMA) else { return Ok(()) };
        match value {
            Value::Object(_) => self.node(value, props, owner, place),
            Value::Array(elements) => {
                for (index, element) in elements.iter_mut().enumerate().filter(|(_, e)| e.is_object()) {
                    self.node(element, props, owner, Place::Element(&place, index))?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn canonical_bytes(value: &mut Value, schema: &Schema, owner: &str, place: Place<'_>) -> Result<(), DecodeError> {
    let Value::String(text) = value else { return Err(mismatch(value, schema, owner, place)) };
    if text.contains(['\r', '\n']) {
        text.retain(|c| c != '\r' && c != '\n');
    }
    match STANDARD.decode(text.as_bytes()) {
        Ok(_) => Ok(()),
        Err(base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _)) => {
            Err(DecodeError::Value(format!("illegal base64 data at input byte {at}")))
        }
        Err(_) => Err(DecodeError::Value(format!("illegal base64 data at input byte {}", text.len() & !3))),
    }
}

fn canonical_time(
    value: &mut Value,
    leaf: Leaf,
    schema: &Schema,
    owner: &str,
    place: Place<'_>,
) -> Result<(), DecodeError> {
    if value.is_null() {
        return Ok(());
    }
    let Value::String(text) = value else { return Err(mismatch(value, schema, owner, place)) };
    let Some(parsed) = time::parse(text) else {
        return Err(DecodeError::Value(format!(
            "parsing time {0:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {0:?} as \"2006\"",
            text
        )));
    };
    *text = if leaf == Leaf::MicroTime { time::format_micro(parsed) } else { time::format(parsed) };
    Ok(())
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(m) => m.is_empty(),
    }
}

/// What stands for `null` where it is no value: Go's zero, or a custom resource's default.
fn absent(schema: &Schema) -> Value {
    match &schema.rules {
        Some(rules) => rules.default.clone().unwrap_or_default(),
        None => zero_value(schema),
    }
}

/// What Go writes for a member without `omitempty` that was never set.
pub fn zero_value(schema: &Schema) -> Value {
    match &schema.shape {
        Shape::Struct { .. } => {
            let always = schema.fields().iter().filter(|f| f.always && !f.pointer);
            Value::Object(always.map(|f| (f.name.clone().into_owned(), zero_value(f.schema()))).collect())
        }
        Shape::Map { .. } | Shape::List { .. } => Value::Null,
        Shape::Leaf { leaf, .. } => match leaf {
            Leaf::Boolean => Value::Bool(false),
            Leaf::Double | Leaf::Int32 | Leaf::Int64 | Leaf::IntOrString => Value::from(0),
            Leaf::String => Value::from(""),
            Leaf::Quantity => Value::from("0"),
            _ => Value::Null,
        },
    }
}

fn mismatch(value: &Value, schema: &Schema, owner: &str, place: Place<'_>) -> DecodeError {
    let found = match value {
        Value::Number(n) if matches!(&schema.shape, Shape::Leaf { leaf: Leaf::Int32 | Leaf::Int64, .. }) => {
            format!("number {n}")
        }
        other => go_type(other).to_owned(),
    };
    DecodeError::Type { found, owner: owner.to_owned(), path: place.names(), wanted: go_name(schema) }
}

/// Go's name of a node's type.
fn go_name(schema: &Schema) -> String {
    match &schema.shape {
        Shape::Struct { .. } => {
            let mut parts = schema.name.rsplit('.');
            let (name, version) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            format!("{version}.{name}")
        }
        Shape::Map { value, .. } => format!("map[string]{}", go_name(value.get())),
        Shape::List { item, .. } => format!("[]{}", go_name(item.get())),
        Shape::Leaf { leaf, .. } => match leaf {
            Leaf::Boolean => "bool",
            Leaf::Bytes => "[]uint8",
            Leaf::Double => "float64",
            Leaf::FieldsV1 => "v1.FieldsV1",
            Leaf::Int32 => "int32",
            Leaf::Int64 => "int64",
            Leaf::IntOrString => "intstr.IntOrString",
            Leaf::Quantity => "resource.Quantity",
            Leaf::Time => "v1.Time",
            Leaf::MicroTime => "v1.MicroTime",
            Leaf::String => "string",
            Leaf::Json | Leaf::RawExtension => "runtime.RawExtension",
            Leaf::SchemaOrArray => "v1.JSONSchemaPropsOrArray",
            Leaf::SchemaOrBool => "v1.JSONSchemaPropsOrBool",
            Leaf::SchemaOrStringArray => "v1.JSONSchemaPropsOrStringArray",
        }
        .to_owned(),
    }
}
