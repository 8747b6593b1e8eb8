//! Constructors of table rows that work in constants.

use std::borrow::Cow;

use super::{Field, Fields, Leaf, ListType, Ref, Schema, Shape};

pub(super) const REQUIRED: u8 = 1;
pub(super) const POINTER: u8 = 2;
pub(super) const ALWAYS: u8 = 4;

const fn optional(text: &'static str) -> Option<Cow<'static, str>> {
    if text.is_empty() { None } else { Some(Cow::Borrowed(text)) }
}

const fn schema(name: &'static str, shape: Shape) -> Schema {
    Schema { name: Cow::Borrowed(name), shape, nullable: false, rules: None }
}

/// A leaf; `values` is the comma-separated list of an enumeration, empty when any value goes.
pub(super) const fn leaf(leaf: Leaf, values: &'static str) -> Schema {
    schema("", Shape::Leaf { leaf, values: Cow::Borrowed(values) })
}

/// A struct with the fields `start..end` of the table.
pub(super) const fn record(name: &'static str, start: u16, end: u16, atomic: bool) -> Schema {
    schema(name, Shape::Struct { fields: Fields::Table { start, end }, atomic, preserve: false })
}

/// A list of elements at a position of the table.
pub(super) const fn list(item: u16, list_type: ListType, keys: &'static str, message: bool) -> Schema {
    schema("", Shape::List { item: Ref::Table(item), list_type, keys: Cow::Borrowed(keys), message })
}

/// A map to values at a position of the table.
pub(super) const fn map(value: u16, atomic: bool) -> Schema {
    schema("", Shape::Map { value: Ref::Table(value), atomic })
}

/// A field.
#[allow(clippy::too_many_arguments)]
pub(super) const fn f(
    name: &'static str,
    schema: u16,
    flags: u8,
    number: u8,
    via: u32,
    default: &'static str,
    merge_key: &'static str,
    strategy: &'static str,
) -> Field {
    Field {
        name: Cow::Borrowed(name),
        schema: Ref::Table(schema),
        required: flags & REQUIRED != 0,
        pointer: flags & POINTER != 0,
        always: flags & ALWAYS != 0,
        default: optional(default),
        merge_key: Cow::Borrowed(merge_key),
        strategy: Cow::Borrowed(strategy),
        number,
        via,
    }
}
