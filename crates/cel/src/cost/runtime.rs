//! What a call costs as it happens.

use super::{CHAR, CHECK, FORMAT_REGEX, LIST, REGEX, is_equality, is_nominal, is_ordering, scaled};
use crate::ast::op;
use crate::library::opaque::Opaque;
use crate::value::{List, Map, Value};

fn size(value: Option<&Value<'_>>) -> u64 {
    value.and_then(Value::size).unwrap_or(1)
}

/// A regular expression against a string.
fn matching(text: u64, pattern: u64) -> u64 {
    scaled(text + 1, CHAR).saturating_mul(scaled(pattern, REGEX))
}

fn allocating(factor: f64, size: u64) -> u64 {
    (size as f64 * factor) as u64 + 1 + LIST
}

/// What is known before the call: all but what depends on the result. `overload` is empty where the checker left several.
pub(crate) fn before(function: &str, overload: &str, args: &[Value<'_>]) -> u64 {
    let (first, second) = (args.first(), args.get(1));
    if is_nominal(function) {
        return 1;
    }
    match function {
        "check" => return CHECK,
        "fieldSelector" | "labelSelector" => {
            let length = size(second);
            // A selector is parsed into requirements, each a structure and a list; the shortest takes two characters.
            return LIST + scaled(length, CHAR) + scaled(scaled(length, 0.5), (super::LIST + super::STRUCT) as f64);
        }
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => return first.map_or(0, traversal),
        "url"
        | "lowerAscii"
        | "upperAscii"
        | "substring"
        | "trim"
        | "jsonpatch.escapeKey"
        | "cidr"
        | "isIP"
        | "isCIDR"
        | "quantity"
        | "isQuantity"
        | "semver"
        | "isSemver" => return scaled(size(first), CHAR),
        "ip" if overload == "cidr_ip" => return 1,
        "ip" => return scaled(size(first), CHAR),
        "replace" | "split" | "ip.isCanonical" => return scaled(size(first), 2.0 * CHAR),
        "join" => return 0,
        "find" | "findAll" => return matching(size(first), size(second)),
        "containsIP" | "containsCIDR" => {
            let mut cost = scaled(size(first) * 2, CHAR);
            if function == "containsCIDR" {
                cost += scaled(size(first), CHAR) + 1;
            }
            if matches!(overload, "cidr_contains_ip_string" | "cidr_contains_cidr_string") {
                cost += scaled(size(second), CHAR);
            }
            return cost;
        }
        "validate" => {
            let pattern = match first {
                Some(Value::Opaque(Opaque::Format(format))) => format.regex_size,
                _ => FORMAT_REGEX as u64,
            };
            return matching(size(second), pattern);
        }
        op::EQUALS if matches!(first, Some(Value::Opaque(_))) => return 1,
        _ => {}
    }
    match overload {
        "list_slice" | "lists_range" | "list_reverse" => 0,
        "list_flatten" => allocating(1.0, size(first)),
        "list_flatten_int" => {
            let depth = match second {
                Some(Value::Int(n)) => *n as f64,
                _ => 1.0,
            };
            allocating(depth, size(first))
        }
        "list_distinct" => compared(first),
        id if id.starts_with("list_") && id.ends_with("_sort") => compared(first),
        id if id.starts_with("list_") && id.ends_with("_sortByAssociatedKeys") => compared(second),
        "list_sets_contains_list" | "list_sets_intersects_list" => 1 + size(first).saturating_mul(size(second)),
        "list_sets_equivalent_list" => 1 + size(first).saturating_mul(size(second)).saturating_mul(2),
        "starts_with_string" | "ends_with_string" | "string_to_bytes" | "bytes_to_string" | "strings_quote"
        | "string_format" => scaled(size(first), CHAR),
        "in_list" => size(second),
        id if is_ordering(id) || is_equality(id) => scaled(size(first).min(size(second)), CHAR),
        "add_string" | "add_bytes" => scaled(size(first) + size(second), CHAR),
        "matches_string" | "matches" => matching(size(first), size(second)),
        "contains_string" => scaled(size(first), CHAR) * scaled(size(second), CHAR),
        _ => 1,
    }
}

/// What is known only from the result.
pub(crate) fn after(function: &str, overload: &str, result: &Value<'_>) -> u64 {
    match (function, overload) {
        ("join", _) => scaled(size(Some(result)), 2.0 * CHAR),
        (_, "list_slice" | "lists_range" | "list_reverse") => allocating(1.0, size(Some(result))),
        _ => 0,
    }
}

/// Comparing the elements of a list with each other.
fn compared(list: Option<&Value<'_>>) -> u64 {
    let Some(Value::List(list)) = list else { return 1 };
    let first = list.get(0).and_then(Result::ok);
    let factor = if matches!(first, Some(Value::String(_) | Value::Bytes(_))) { 2.0 + CHAR } else { 2.0 };
    let length = list.len() as u64;
    allocating(factor, length.saturating_mul(length))
}

/// Walking through a value.
fn traversal(value: &Value<'_>) -> u64 {
    match value {
        Value::String(s) => (s.as_str().len() as f64 * CHAR) as u64,
        Value::Bytes(b) => (b.len() as f64 * CHAR) as u64,
        Value::List(List::Json(items, None)) => items.iter().map(|item| traversal(&Value::json(item))).sum(),
        Value::List(list) => list.iter().flatten().map(|item| traversal(&item)).sum(),
        Value::Map(Map::Json(members, _)) => {
            members.iter().map(|(k, v)| (k.len() as f64 * CHAR) as u64 + traversal(&Value::json(v))).sum()
        }
        Value::Map(Map::Owned(entries) | Map::Object(_, entries)) => {
            entries.iter().map(|(k, v)| traversal(&k.value()) + traversal(v)).sum()
        }
        _ => 1,
    }
}
