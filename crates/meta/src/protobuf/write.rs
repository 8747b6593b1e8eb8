//! JSON to messages, written as it is read: from text or from a tree, with nothing in between.
//!
//! JSON has a struct's members in order of their names, the wire in order of their numbers, so each struct is put in order
//! when it is complete; lengths, which stand before what they tell of, are put in then too.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use serde_json::value::RawValue;

use super::wire::{put_bytes, put_double, put_number, put_tag, put_varint};
use crate::schema::{Field, JSON_SCHEMA, Leaf, Schema, Shape, definition};
use crate::time;

/// What stands in an envelope before the object's message, whose length is told.
pub(super) fn envelope_head(out: &mut Vec<u8>, api_version: &str, kind: &str, length: usize) {
    let mut meta = Vec::new();
    put_bytes(&mut meta, 1, api_version.as_bytes());
    put_bytes(&mut meta, 2, kind.as_bytes());
    put_bytes(out, 1, &meta);
    put_tag(out, 2);
    put_varint(out, length as u64);
}

/// What stands in an envelope behind the object's message.
pub(super) fn envelope_tail(out: &mut Vec<u8>) {
    put_bytes(out, 3, b"");
    put_bytes(out, 4, b"");
}

pub(super) fn envelope(out: &mut Vec<u8>, api_version: &str, kind: &str, raw: &[u8]) {
    envelope_head(out, api_version, kind, raw.len());
    out.extend_from_slice(raw);
    envelope_tail(out);
}

pub(super) fn watch_event(event_type: &str, object: &[u8]) -> Vec<u8> {
    let (mut raw, mut out) = (Vec::with_capacity(object.len() + 8), Vec::with_capacity(object.len() + 24));
    put_bytes(&mut raw, 1, object);
    put_bytes(&mut out, 1, event_type.as_bytes());
    put_bytes(&mut out, 2, &raw);
    out
}

/// What is written, and what is needed to put it in order.
#[derive(Default)]
pub(super) struct Sink {
    pub(super) out: Vec<u8>,
    /// Members of the structs that are being read, the innermost one's last.
    rows: Vec<Row>,
    /// A struct's message while it is put in order.
    spare: Vec<u8>,
}

/// A member that was written.
#[derive(Clone, Copy)]
struct Row {
    /// Numbers on the way to it and its own, a byte each from the highest: rows in this order stand in the wire's.
    order: u64,
    /// As [`Field::via`].
    via: u32,
    start: usize,
    end: usize,
}

impl Row {
    fn of(field: &Field, start: usize, end: usize) -> Self {
        let (mut order, mut shift, mut via) = (0, u64::BITS, field.via);
        while via != 0 {
            shift -= 8;
            order |= u64::from(via & 0xff) << shift;
            via >>= 8;
        }
        order |= u64::from(field.number) << (shift - 8);
        Row { order, via: field.via, start, end }
    }
}

impl Sink {
    /// Writes a value as this field of the message so far.
    pub(super) fn field<'de, D: Deserializer<'de>>(
        &mut self,
        number: u32,
        schema: &Schema,
        value: D,
    ) -> Result<(), D::Error> {
        Put { sink: self, number, schema, place: Place::Element }.deserialize(value).map(drop)
    }

    /// Writes the members of a struct into the message so far; nothing for what is none.
    pub(super) fn message<'de, D: Deserializer<'de>>(&mut self, schema: &Schema, value: D) -> Result<(), D::Error> {
        value.deserialize_any(Root { sink: self, schema })
    }

    /// Begins a field that is a message; gives its start, for [`Sink::close`].
    fn open(&mut self, number: u32) -> usize {
        put_tag(&mut self.out, number);
        self.out.len()
    }

    /// Ends a message: puts its length before it.
    fn close(&mut self, start: usize) {
        close(&mut self.out, start);
    }

    fn text(&mut self, number: u32, text: &str) {
        put_bytes(&mut self.out, number, text.as_bytes());
    }

    fn members<'de, A: MapAccess<'de>>(&mut self, schema: &Schema, mut map: A) -> Result<(), A::Error> {
        let (first, start) = (self.rows.len(), self.out.len());
        while let Some(field) = map.next_key_seed(Name(schema))? {
            let Some(field) = field.filter(|field| field.number != 0) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let at = self.out.len();
            let number = u32::from(field.number);
            if map.next_value_seed(Put { sink: self, number, schema: field.schema(), place: Place::Member })? {
                self.rows.push(Row::of(field, at, self.out.len()));
            }
        }
        self.arrange(first, start);
        Ok(())
    }

    /// Brings the members of a struct, which are the rows from `first` on, into the order of the wire.
    fn arrange(&mut self, first: usize, start: usize) {
        let Sink { out, rows, spare } = self;
        let members = rows.get_mut(first..).unwrap_or_default();
        if !members.is_sorted_by_key(|row| row.order) || members.iter().any(|row| row.via != 0) {
            members.sort_by_key(|row| row.order);
            spare.clear();
            spare.extend_from_slice(out.get(start..).unwrap_or_default());
            out.truncate(start);
            nest(out, members, 0, spare, start);
        }
        rows.truncate(first);
    }
}

fn close(out: &mut Vec<u8>, start: usize) {
    let end = out.len();
    put_varint(out, (end - start) as u64);
    let prefix = out.len() - end;
    if let Some(message) = out.get_mut(start..) {
        message.rotate_right(prefix);
    }
}

/// Copies rows from what was written from `start` on; those that lie in an inlined message of this level go into that.
fn nest(out: &mut Vec<u8>, rows: &[Row], level: u32, written: &[u8], start: usize) {
    let within = |row: &Row| row.via.checked_shr(8 * level).unwrap_or_default() & 0xff;
    let mut rest = rows;
    while let Some(row) = rest.first() {
        let number = within(row);
        if number == 0 {
            out.extend_from_slice(written.get(row.start - start..row.end - start).unwrap_or_default());
            rest = rest.get(1..).unwrap_or_default();
            continue;
        }
        let count = rest.iter().take_while(|other| within(other) == number).count();
        let (inner, behind) = rest.split_at(count);
        put_tag(out, number);
        let message = out.len();
        nest(out, inner, level + 1, written, start);
        close(out, message);
        rest = behind;
    }
}

/// A member's name: the field of a struct.
struct Name<'s>(&'s Schema);

impl<'de, 's> DeserializeSeed<'de> for Name<'s> {
    type Value = Option<&'s Field>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'s> Visitor<'_> for Name<'s> {
    type Value = Option<&'s Field>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.field(name))
    }
}

/// A value, written as a field.
struct Put<'a> {
    sink: &'a mut Sink,
    number: u32,
    schema: &'a Schema,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Of a struct: `null` means that there is nothing.
    Member,
    /// Of a list or map: `null` is the zero of its type.
    Element,
    /// Of a list of schemas or strings in a CustomResourceDefinition.
    Alternative,
}

/// A value without parts.
#[derive(Clone, Copy)]
enum Scalar<'a> {
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(&'a str),
    /// Of another type than any leaf has.
    Misfit,
}

impl<'de> DeserializeSeed<'de> for Put<'_> {
    /// Whether there was a value.
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        let raw =
            matches!(self.schema.shape, Shape::Leaf { leaf: Leaf::FieldsV1 | Leaf::Json | Leaf::RawExtension, .. });
        if !raw {
            return deserializer.deserialize_any(self);
        }
        let value = <Box<RawValue>>::deserialize(deserializer)?;
        if self.place == Place::Member && value.get() == "null" {
            return Ok(false);
        }
        let start = self.sink.open(self.number);
        self.sink.text(1, value.get());
        self.sink.close(start);
        Ok(true)
    }
}

impl<'de> Visitor<'de> for Put<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        if self.place == Place::Member {
            return Ok(false);
        }
        Ok(self.scalar(Scalar::Misfit))
    }

    fn visit_bool<E>(self, value: bool) -> Result<bool, E> {
        Ok(self.scalar(Scalar::Boolean(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<bool, E> {
        Ok(self.scalar(Scalar::Integer(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<bool, E> {
        Ok(self.scalar(i64::try_from(value).map_or(Scalar::Float(value as f64), Scalar::Integer)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<bool, E> {
        Ok(self.scalar(Scalar::Float(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<bool, E> {
        Ok(self.scalar(Scalar::Text(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<bool, A::Error> {
        let (number, schema) = (self.number, self.schema);
        match &schema.shape {
            Shape::List { item, message: false, .. } => {
                let item = item.get();
                while elements
                    .next_element_seed(Put { sink: self.sink, number, schema: item, place: Place::Element })?
                    .is_some()
                {}
            }
            Shape::List { item, .. } => {
                let start = self.sink.open(number);
                let item = item.get();
                while elements
                    .next_element_seed(Put { sink: self.sink, number: 1, schema: item, place: Place::Element })?
                    .is_some()
                {}
                self.sink.close(start);
            }
            Shape::Leaf { leaf: Leaf::SchemaOrArray | Leaf::SchemaOrBool | Leaf::SchemaOrStringArray, .. } => {
                let start = self.sink.open(number);
                let item = json_schema()?;
                while elements
                    .next_element_seed(Put { sink: self.sink, number: 2, schema: item, place: Place::Alternative })?
                    .is_some()
                {}
                self.sink.close(start);
            }
            _ => {
                while elements.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(self.scalar(Scalar::Misfit));
            }
        }
        Ok(true)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<bool, A::Error> {
        let (number, schema) = (self.number, self.schema);
        match &schema.shape {
            Shape::Struct { .. } => {
                let start = self.sink.open(number);
                self.sink.members(schema, members)?;
                self.sink.close(start);
            }
            Shape::Map { value, .. } => loop {
                let (before, start) = (self.sink.out.len(), self.sink.open(number));
                if members.next_key_seed(Key(self.sink))?.is_none() {
                    self.sink.out.truncate(before);
                    break;
                }
                let value = value.get();
                members.next_value_seed(Put { sink: self.sink, number: 2, schema: value, place: Place::Element })?;
                self.sink.close(start);
            },
            Shape::Leaf {
                leaf: leaf @ (Leaf::SchemaOrArray | Leaf::SchemaOrBool | Leaf::SchemaOrStringArray), ..
            } => {
                let start = self.sink.open(number);
                if *leaf == Leaf::SchemaOrBool {
                    put_number(&mut self.sink.out, 1, 1);
                }
                let inner = self.sink.open(if *leaf == Leaf::SchemaOrBool { 2 } else { 1 });
                self.sink.members(json_schema()?, members)?;
                self.sink.close(inner);
                self.sink.close(start);
            }
            _ => {
                while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                return Ok(self.scalar(Scalar::Misfit));
            }
        }
        Ok(true)
    }
}

/// The type of the schemas in CustomResourceDefinitions.
fn json_schema<E: Error>() -> Result<&'static Schema, E> {
    definition(JSON_SCHEMA).ok_or_else(|| E::custom("the table has no type of schemas"))
}

impl Put<'_> {
    fn scalar(self, value: Scalar<'_>) -> bool {
        match (&self.schema.shape, value) {
            (Shape::Leaf { leaf, .. }, value) => self.sink.leaf(self.number, *leaf, value),
            (_, Scalar::Text(text)) if self.place == Place::Alternative => self.sink.text(self.number, text),
            // A struct that is none has no members; lists and maps that are none have no elements.
            (Shape::Struct { .. }, _) => self.sink.text(self.number, ""),
            (Shape::List { .. } | Shape::Map { .. }, _) => {}
        }
        true
    }
}

impl Sink {
    fn leaf(&mut self, number: u32, leaf: Leaf, value: Scalar<'_>) {
        let out = &mut self.out;
        let integer = if let Scalar::Integer(integer) = value { integer as u64 } else { 0 };
        let text = if let Scalar::Text(text) = value { text } else { "" };
        match leaf {
            Leaf::String => put_bytes(out, number, text.as_bytes()),
            Leaf::Boolean => put_number(out, number, u64::from(matches!(value, Scalar::Boolean(true)))),
            Leaf::Int32 | Leaf::Int64 => put_number(out, number, integer),
            Leaf::Double => {
                let float = match value {
                    Scalar::Integer(integer) => integer as f64,
                    Scalar::Float(float) => float,
                    Scalar::Boolean(_) | Scalar::Text(_) | Scalar::Misfit => 0.0,
                };
                put_double(out, number, float);
            }
            Leaf::Bytes => put_bytes(out, number, &STANDARD.decode(text).unwrap_or_default()),
            Leaf::Quantity => {
                let start = self.open(number);
                match value {
                    Scalar::Integer(integer) => self.text(1, &integer.to_string()),
                    Scalar::Float(float) => {
                        let plain = Number::from_f64(float).map(|number| number.to_string());
                        self.text(1, &plain.unwrap_or_default());
                    }
                    Scalar::Boolean(_) | Scalar::Text(_) | Scalar::Misfit => self.text(1, text),
                }
                self.close(start);
            }
            Leaf::IntOrString => {
                let start = self.open(number);
                put_number(&mut self.out, 1, u64::from(matches!(value, Scalar::Text(_))));
                put_number(&mut self.out, 2, integer);
                self.text(3, text);
                self.close(start);
            }
            Leaf::Time | Leaf::MicroTime => {
                let start = self.open(number);
                if let Some(time) = time::parse(text) {
                    // A negative fraction belongs to times before 1970, whose seconds then count down.
                    let (seconds, nanos) = (time.as_second(), time.subsec_nanosecond());
                    let (seconds, nanos) =
                        if nanos < 0 { (seconds - 1, nanos + 1_000_000_000) } else { (seconds, nanos) };
                    let nanos = if leaf == Leaf::Time { 0 } else { nanos };
                    put_number(&mut self.out, 1, seconds as u64);
                    put_number(&mut self.out, 2, nanos as u64);
                }
                self.close(start);
            }
            Leaf::SchemaOrArray | Leaf::SchemaOrBool | Leaf::SchemaOrStringArray => {
                let start = self.open(number);
                if let Scalar::Boolean(allowed) = value {
                    put_number(&mut self.out, 1, u64::from(allowed));
                }
                self.close(start);
            }
            // Written before anything is known of what they hold.
            Leaf::FieldsV1 | Leaf::Json | Leaf::RawExtension => {}
        }
    }
}

/// A map's key, written as the first field of its entry.
struct Key<'a>(&'a mut Sink);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<(), E> {
        self.0.text(1, key);
        Ok(())
    }
}

/// The object whose members are a message; what is no object has none.
struct Root<'a> {
    sink: &'a mut Sink,
    schema: &'a Schema,
}

impl<'de> Visitor<'de> for Root<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<(), A::Error> {
        self.sink.members(self.schema, members)
    }
}
