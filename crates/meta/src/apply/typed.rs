//! Comparing, merging and cutting trees by their schema: which parts are leaves, and how elements of lists are told apart.

use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::set::{Element, FieldSet};
use super::{ApplyError, Resets};
use crate::Quantity;
use crate::schema::{Leaf, ListType, Schema, Shape};

/// How a value takes part. Without a schema objects are granular and lists are leaves.
#[derive(Clone, Copy)]
enum Atom<'a> {
    Leaf,
    /// A JSON object; for a struct the schema names its members.
    Map(Option<&'a Schema>),
    /// A list whose elements are told apart.
    List(&'a Schema),
}

fn atom<'a>(schema: Option<&'a Schema>, value: &Value) -> Atom<'a> {
    match (schema.map(|s| (&s.shape, s)), value) {
        (None, Value::Object(_)) => Atom::Map(None),
        (Some((Shape::Struct { atomic: false, .. } | Shape::Map { atomic: false, .. }, schema)), Value::Object(_)) => {
            Atom::Map(Some(schema))
        }
        // What a custom resource leaves open is granular, what a built-in type leaves open is a leaf.
        (Some((Shape::Leaf { leaf: Leaf::Json, .. }, schema)), Value::Object(_)) if schema.rules.is_some() => {
            Atom::Map(None)
        }
        (Some((Shape::List { list_type: ListType::Set | ListType::Map, .. }, schema)), Value::Array(_)) => {
            Atom::List(schema)
        }
        _ => Atom::Leaf,
    }
}

/// A member's schema and whether the struct names it.
pub(super) fn member<'a>(schema: Option<&'a Schema>, name: &str) -> (Option<&'a Schema>, bool) {
    match schema.map(|s| &s.shape) {
        Some(Shape::Struct { .. }) => match schema.and_then(|s| s.field(name)) {
            Some(field) => (Some(field.schema()), true),
            None => (None, false),
        },
        Some(Shape::Map { value, .. }) => (Some(value.get()), false),
        _ => (None, false),
    }
}

/// What tells an element of a list apart. Absent keys count with their defaults.
pub(super) fn element_of(list: &Schema, value: &Value) -> Result<Element, ApplyError> {
    let Shape::List { list_type: ListType::Map, item, .. } = &list.shape else {
        return Ok(Element::Value(value.to_string()));
    };
    let mut keys = Map::new();
    for key in list.list_keys() {
        let default = || {
            let field = item.get().field(key)?;
            let owned = field.schema().rules.as_ref().and_then(|r| r.default.clone());
            owned.or_else(|| field.default.as_deref().and_then(|json| serde_json::from_str(json).ok()))
        };
        if let Some(value) = value.get(key).filter(|v| !v.is_null()).cloned().or_else(default) {
            keys.insert(key.to_owned(), value);
        }
    }
    if keys.is_empty() {
        return Err(ApplyError::NoKeys(list.list_keys().map(str::to_owned).collect()));
    }
    Ok(Element::Key(Value::Object(keys).to_string()))
}

fn elements<'v>(list: &Schema, value: Option<&'v Value>) -> Result<Vec<(Element, &'v Value)>, ApplyError> {
    let elements = value.and_then(Value::as_array).into_iter().flatten();
    elements.map(|value| element_of(list, value).map(|element| (element, value))).collect()
}

/// The set of all leaves of a tree.
///
/// # Errors
/// When a struct has a member that its schema does not know, or an element lacks its keys.
pub(super) fn to_set(value: &Value, schema: Option<&Schema>, path: &str) -> Result<FieldSet, ApplyError> {
    let mut set = FieldSet::default();
    match atom(schema, value) {
        Atom::Leaf => {}
        Atom::Map(schema) => {
            for (name, value) in value.as_object().into_iter().flatten() {
                let (below, named) = member(schema, name);
                let place = format!("{path}.{name}");
                if !named && is_closed(schema) {
                    return Err(ApplyError::Undeclared(place));
                }
                let element = Element::Field(name.clone());
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                if matches!(atom(below, value), Atom::Leaf) || empty || !named {
                    set.insert_member(element.clone());
                }
                set.insert_child(element, to_set(value, below, &place)?);
            }
        }
        Atom::List(list) => {
            for (element, value) in elements(list, Some(value))? {
                let place = format!("{path}{element}");
                set.insert_child(element.clone(), to_set(value, list.item(), &place)?);
                set.insert_member(element);
            }
        }
    }
    Ok(set)
}

/// Whether members that are not named are a mistake.
pub(super) fn is_closed(schema: Option<&Schema>) -> bool {
    matches!(schema.map(|s| &s.shape), Some(Shape::Struct { preserve: false, .. }))
}

/// How one tree differs from another.
#[derive(Default)]
pub(super) struct Comparison {
    pub(super) added: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) removed: FieldSet,
}

impl Comparison {
    /// Compares two trees; elements that a list holds twice count once.
    pub(super) fn of(old: &Value, new: &Value, schema: &Schema) -> Result<Self, ApplyError> {
        let mut out = Self::default();
        out.node(Some(old), Some(new), Some(schema), &mut Vec::new())?;
        Ok(out)
    }

    /// Leaves out all that a door cannot change.
    pub(super) fn restrict(&mut self, resets: Resets<'_>) {
        for set in [&mut self.added, &mut self.modified, &mut self.removed] {
            *set = resets.rest(set);
        }
    }

    fn node(
        &mut self,
        old: Option<&Value>,
        new: Option<&Value>,
        schema: Option<&Schema>,
        path: &mut Vec<Element>,
    ) -> Result<(), ApplyError> {
        let Some(sample) = new.or(old) else { return Ok(()) };
        let same_kind = |other: Option<&Value>| {
            other.is_none_or(|o| o.is_null() || std::mem::discriminant(o) == std::mem::discriminant(sample))
        };
        let is_empty = |value: Option<&Value>| match value {
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            _ => true,
        };
        let leaf = !same_kind(old) || (is_empty(old) && is_empty(new));
        match atom(schema, sample) {
            Atom::Map(schema) if !leaf => {
                let nothing = Map::new();
                let side = |value| Option::and_then(value, Value::as_object).unwrap_or(&nothing);
                let (before, after) = (side(old), side(new));
                let fresh = after.keys().filter(|key| !before.contains_key(*key));
                for name in before.keys().chain(fresh) {
                    path.push(Element::Field(name.clone()));
                    self.node(before.get(name), after.get(name), member(schema, name).0, path)?;
                    path.pop();
                }
            }
            Atom::List(list) if !leaf => {
                let before: IndexMap<Element, &Value> = elements(list, old)?.into_iter().collect();
                let after: IndexMap<Element, &Value> = elements(list, new)?.into_iter().collect();
                let fresh = after.keys().filter(|key| !before.contains_key(*key));
                for element in before.keys().chain(fresh) {
                    path.push(element.clone());
                    self.node(before.get(element).copied(), after.get(element).copied(), list.item(), path)?;
                    path.pop();
                }
            }
            _ => {
                if old.is_some() && new.is_some() && old != new {
                    self.modified.insert(path);
                }
            }
        }
        if old.is_none() {
            self.added.insert(path);
        } else if new.is_none() {
            self.removed.insert(path);
        }
        Ok(())
    }
}

/// Merges an applied tree into a live one: granular parts merge, leaves are the applied ones.
pub(super) fn merge(
    live: Option<&Value>,
    applied: Option<&Value>,
    schema: Option<&Schema>,
) -> Result<Option<Value>, ApplyError> {
    let (Some(old), Some(new)) = (live, applied) else { return Ok(applied.or(live).cloned()) };
    match (atom(schema, new), old, new) {
        (Atom::Map(schema), Value::Object(before), Value::Object(after)) => {
            let mut out = before.clone();
            for (name, value) in after {
                if let Some(merged) = merge(before.get(name), Some(value), member(schema, name).0)? {
                    out.insert(name.clone(), merged);
                }
            }
            Ok(Some(Value::Object(out)))
        }
        (Atom::List(list), Value::Array(_), Value::Array(_)) => merge_lists(list, old, new).map(Some),
        _ => Ok(Some(new.clone())),
    }
}

/// The applied elements in their order; those only the live list has stay where they are relative to the shared ones.
fn merge_lists(list: &Schema, live: &Value, applied: &Value) -> Result<Value, ApplyError> {
    let before = elements(list, Some(live))?;
    let mut after: IndexMap<Element, &Value> = IndexMap::new();
    for (element, value) in elements(list, Some(applied))? {
        if after.contains_key(&element) {
            return Err(ApplyError::Duplicate(element.to_string()));
        }
        after.insert(element, value);
    }
    let live_value = |element: &Element| before.iter().find(|(e, _)| e == element).map(|(_, v)| *v);
    let mut shared = after.keys().filter(|e| live_value(e).is_some()).peekable();
    let mut out = Vec::with_capacity(before.len().max(after.len()));
    let (mut left, mut right) = (0, 0);
    while left < before.len() || right < after.len() {
        if let (Some((own, value)), Some((next, applied))) = (before.get(left), after.get_index(right)) {
            if own == next {
                out.extend(merge(Some(value), Some(applied), list.item())?);
                left += 1;
                right += 1;
                shared.next();
                continue;
            }
            // A live element whose applied place comes later is passed over until then.
            if after.contains_key(own) && shared.peek().is_some_and(|e| *e != own) {
                left += 1;
                continue;
            }
        }
        if let Some((own, value)) = before.get(left)
            && !after.contains_key(own)
        {
            out.push((*value).clone());
            left += 1;
            continue;
        }
        let Some((next, applied)) = after.get_index(right) else {
            left += 1;
            continue;
        };
        out.extend(merge(live_value(next), Some(applied), list.item())?);
        right += 1;
        if shared.peek() == Some(&next) {
            shared.next();
        }
    }
    Ok(Value::Array(out))
}

/// Writes amounts as they are stored, so that another way of writing one is no change.
pub(super) fn canonical(value: &mut Value, schema: &Schema) {
    match (&schema.shape, value) {
        (Shape::Struct { .. } | Shape::Map { .. }, Value::Object(map)) => {
            for (name, value) in map.iter_mut() {
                if let Some(below) = schema.member(name) {
                    canonical(value, below);
                }
            }
        }
        (Shape::List { item, .. }, Value::Array(elements)) => {
            elements.iter_mut().for_each(|element| canonical(element, item.get()));
        }
        (Shape::Leaf { leaf: Leaf::Quantity, .. }, value) => {
            if let Some(Ok(quantity)) = Quantity::from_value(value) {
                *value = Value::from(quantity.to_string());
            }
        }
        _ => {}
    }
}

/// The tree without the paths of a set. A map or list that loses its last part goes with it.
pub(super) fn remove(value: &Value, set: &FieldSet, schema: Option<&Schema>) -> Option<Value> {
    match (atom(schema, value), value) {
        (Atom::Map(schema), Value::Object(map)) if !map.is_empty() => {
            let mut out = Map::new();
            for (name, value) in map {
                let element = Element::Field(name.clone());
                if set.has(&element) {
                    continue;
                }
                let kept = match set.below(&element) {
                    Some(below) => remove(value, below, member(schema, name).0),
                    None => Some(value.clone()),
                };
                out.extend(kept.map(|value| (name.clone(), value)));
            }
            (!out.is_empty()).then_some(Value::Object(out))
        }
        (Atom::List(list), Value::Array(elements)) if !elements.is_empty() => {
            let mut out = Vec::new();
            for value in elements {
                let Ok(element) = element_of(list, value) else {
                    out.push(value.clone());
                    continue;
                };
                if set.has(&element) {
                    continue;
                }
                match set.below(&element) {
                    Some(below) => out.extend(remove(value, below, list.item())),
                    None => out.push(value.clone()),
                }
            }
            (!out.is_empty()).then_some(Value::Array(out))
        }
        _ => Some(value.clone()),
    }
}
