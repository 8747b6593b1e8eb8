//! Strategic merge patch: maps merge, lists merge by key where the schema says so, and directives steer it.
//!
//! | directive | effect |
//! |---|---|
//! | `$patch: replace` in a map or list | what stands beside it replaces the original |
//! | `$patch: delete` in a map; in an element with its key | empties the map; removes the element |
//! | `$retainKeys: [..]` | members of the original that are not listed are removed |
//! | `$setElementOrder/<list>: [..]` | the order of the merged list |
//! | `$deleteFromPrimitiveList/<list>: [..]` | these values are removed |

use serde_json::{Map, Value};

use super::PatchError;
use crate::schema::{Field, Schema};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

type Tree = Map<String, Value>;

/// How a list of a struct merges; `None` in place of a schema means that nothing is known and lists replace each other.
struct ListRules<'a> {
    item: Option<&'a Schema>,
    merge: bool,
    key: &'a str,
}

impl<'a> ListRules<'a> {
    fn of(schema: Option<&'a Schema>, member: &str) -> Self {
        let field: Option<&Field> = schema.and_then(|s| s.field(member));
        Self {
            item: field.and_then(|f| f.schema().item()),
            merge: field.is_some_and(|f| f.has_strategy("merge")),
            key: field.map_or("", |f| f.merge_key.as_ref()),
        }
    }
}

/// Merges a patch into an original map.
pub(super) fn merge_map(mut original: Tree, mut patch: Tree, schema: Option<&Schema>) -> Result<Tree, PatchError> {
    match patch.remove(PATCH) {
        None => {}
        Some(Value::String(directive)) if directive == "replace" => return Ok(patch),
        Some(Value::String(directive)) if directive == "delete" => return Ok(Tree::new()),
        Some(other) => return Err(PatchError::Directive(other, Value::Object(patch))),
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, schema)?;
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix(DELETE_FROM) {
            let Value::Array(unwanted) = value else { return Err(PatchError::PrimitiveList) };
            if let Some(Value::Array(present)) = original.get_mut(list) {
                present.retain(|element| !unwanted.contains(element));
            }
            continue;
        }
        let merged = match (original.remove(&key), value) {
            (_, Value::Null) => continue,
            (Some(Value::Object(old)), Value::Object(new)) => {
                let field = schema.and_then(|s| s.field(&key));
                if field.is_some_and(|f| f.has_strategy("replace")) {
                    Value::Object(new)
                } else {
                    Value::Object(merge_map(old, new, schema.and_then(|s| s.member(&key)))?)
                }
            }
            (Some(Value::Array(old)), Value::Array(new)) => {
                Value::Array(merge_list(old, new, &ListRules::of(schema, &key))?)
            }
            (_, new) => clean(new),
        };
        original.insert(key, merged);
    }
    Ok(original)
}

fn retain_keys(original: &mut Tree, patch: &mut Tree) -> Result<(), PatchError> {
    let Some(listed) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(listed) = listed else { return Err(PatchError::RetainKeysFormat) };
    let keeps = |key: &str| listed.iter().any(|k| k.as_str() == Some(key));
    let bare = |key: &str| key.strip_prefix(SET_ORDER).or(key.strip_prefix(DELETE_FROM)).unwrap_or(key).to_owned();
    if patch.iter().any(|(key, value)| !value.is_null() && !keeps(&bare(key))) {
        return Err(PatchError::RetainKeys);
    }
    original.retain(|key, _| keeps(key));
    Ok(())
}

/// Merges the lists that come with an order, and takes them and the orders out of the patch.
fn merge_ordered_lists(original: &mut Tree, patch: &mut Tree, schema: Option<&Schema>) -> Result<(), PatchError> {
    let ordered: Vec<String> = patch.keys().filter_map(|k| k.strip_prefix(SET_ORDER).map(str::to_owned)).collect();
    for list in ordered {
        let Some(Value::Array(order)) = patch.remove(&format!("{SET_ORDER}{list}")) else {
            return Err(PatchError::ElementOrderFormat);
        };
        let rules = ListRules::of(schema, &list);
        let changes = match patch.get(&list) {
            Some(Value::Array(_)) => match patch.remove(&list) {
                Some(Value::Array(changes)) => Some(changes),
                _ => None,
            },
            _ => None,
        };
        if let Some(changes) = &changes {
            check_order(changes, &order, rules.key)?;
        }
        let old = match original.get_mut(&list) {
            Some(Value::Array(old)) => Some(std::mem::take(old)),
            _ => None,
        };
        let server_order = old.clone().unwrap_or_default();
        let merged = match (old, changes) {
            (None, None) => continue,
            (Some(old), None) => old,
            (None, Some(changes)) => match clean(Value::Array(changes)) {
                Value::Array(fresh) => fresh,
                _ => Vec::new(),
            },
            (Some(old), Some(changes)) => merge_list(old, changes, &rules)?,
        };
        original.insert(list, Value::Array(in_order(merged, &order, &server_order, rules.key)));
    }
    Ok(())
}

/// Every element of the patch must stand in the order, at the same relative place.
fn check_order(changes: &[Value], order: &[Value], key: &str) -> Result<(), PatchError> {
    let wrong = || PatchError::ElementOrder { patch: changes.to_vec().into(), order: order.to_vec().into() };
    let mut rest = order.iter();
    for change in changes.iter().filter(|c| c.get(PATCH).is_none()) {
        if !rest.any(|element| same(element, change, key)) {
            return Err(wrong());
        }
    }
    Ok(())
}

fn merge_list(mut original: Vec<Value>, patch: Vec<Value>, rules: &ListRules<'_>) -> Result<Vec<Value>, PatchError> {
    if !rules.merge {
        return Ok(patch);
    }
    let server_order;
    let mut changes = Vec::with_capacity(patch.len());
    if rules.key.is_empty() {
        if original.iter().chain(&patch).any(Value::is_object) {
            return Err(PatchError::MixedList);
        }
        server_order = original.clone();
        for value in patch {
            if !original.contains(&value) {
                original.push(value.clone());
            }
            changes.push(value);
        }
    } else {
        let mut replace = false;
        for value in patch {
            let Value::Object(mut element) = value else { return Err(PatchError::MixedList) };
            match element.get(PATCH).cloned() {
                None => changes.push(Value::Object(element)),
                Some(Value::String(d)) if d == "replace" => replace = true,
                Some(Value::String(d)) if d == "delete" => {
                    let wanted = key_of(&element, rules.key)?;
                    original.retain(|old| old.get(rules.key) != Some(&wanted));
                }
                Some(Value::String(d)) if d == "merge" => return Err(PatchError::MergeInList),
                Some(other) => {
                    element.remove(PATCH);
                    return Err(PatchError::Directive(other, Value::Object(element)));
                }
            }
        }
        if replace {
            return Ok(changes);
        }
        server_order = original.clone();
        for change in &changes {
            let Value::Object(element) = change else { continue };
            let wanted = key_of(element, rules.key)?;
            let found = original.iter_mut().find(|old| old.get(rules.key) == Some(&wanted));
            match found {
                Some(slot) => {
                    let old = match slot.take() {
                        Value::Object(old) => old,
                        _ => Tree::new(),
                    };
                    *slot = Value::Object(merge_map(old, element.clone(), rules.item)?);
                }
                None => original.push(clean(change.clone())),
            }
        }
    }
    Ok(in_order(original, &changes, &server_order, rules.key))
}

fn key_of(element: &Tree, key: &str) -> Result<Value, PatchError> {
    element
        .get(key)
        .cloned()
        .ok_or_else(|| PatchError::NoMergeKey { element: Value::Object(element.clone()), key: key.to_owned() })
}

/// Whether two elements are the same one: by key, or by value where there is no key.
fn same(a: &Value, b: &Value, key: &str) -> bool {
    if key.is_empty() { a == b } else { a.get(key).is_some() && a.get(key) == b.get(key) }
}

/// Puts the elements named in `order` in that order, and the others, in the server's order, between them as they stood before.
fn in_order(merged: Vec<Value>, order: &[Value], server_order: &[Value], key: &str) -> Vec<Value> {
    let index = |list: &[Value], element: &Value| list.iter().position(|other| same(other, element, key));
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|element| index(order, element).is_some());
    named.sort_by_key(|element| index(order, element));
    others.sort_by_key(|element| index(server_order, element));
    let mut out = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for element in named {
        let place = index(server_order, &element);
        while let Some(other) = others.peek() {
            let before = index(server_order, other).zip(place).is_some_and(|(other, own)| other < own);
            if !before {
                break;
            }
            out.extend(others.next());
        }
        out.push(element);
    }
    out.extend(others);
    out
}

/// What is new in the object: without directives, nulls and elements to be deleted.
fn clean(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let directive = |key: &str| {
                key == PATCH || key == RETAIN_KEYS || key.starts_with(SET_ORDER) || key.starts_with(DELETE_FROM)
            };
            let kept = map.into_iter().filter(|(key, value)| !value.is_null() && !directive(key));
            Value::Object(kept.map(|(key, value)| (key, clean(value))).collect())
        }
        Value::Array(elements) => {
            let special = |e: &Value| matches!(e.get(PATCH).and_then(Value::as_str), Some("delete" | "replace"));
            Value::Array(elements.into_iter().filter(|e| !special(e)).map(clean).collect())
        }
        other => other,
    }
}
