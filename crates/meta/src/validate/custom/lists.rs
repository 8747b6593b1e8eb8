//! Lists whose elements must differ: as a whole in a set, by their keys in a map.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::field::{FieldError, Path};
use crate::schema::{ListType, Schema, Shape};

/// Checks all such lists of a value; `path` is where it stands, empty at the root.
pub(super) fn check(schema: &Schema, value: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    node(schema, value, path, &mut errors);
    errors
}

fn node(schema: &Schema, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match (&schema.shape, value) {
        (Shape::Struct { .. }, Value::Object(map)) => {
            for (name, member) in map {
                if let Some(schema) = schema.member(name).filter(|schema| schema.rules.is_some()) {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    node(schema, member, &path, errors);
                }
            }
        }
        (Shape::Map { value: inner, .. }, Value::Object(map)) if !matches!(inner.shape, Shape::Leaf { .. }) => {
            map.iter().for_each(|(key, member)| node(inner, member, &format!("{path}[{key}]"), errors));
        }
        (Shape::List { item, list_type, .. }, Value::Array(elements)) => {
            match list_type {
                ListType::Atomic => {}
                ListType::Set => repeated(elements.iter(), path, errors),
                ListType::Map => keyed(schema, elements, path, errors),
            }
            if !matches!(item.shape, Shape::Leaf { .. }) {
                let elements = elements.iter().enumerate();
                elements.for_each(|(index, element)| node(item, element, &format!("{path}[{index}]"), errors));
            }
        }
        _ => {}
    }
}

fn keyed(schema: &Schema, elements: &[Value], path: &str, errors: &mut Vec<FieldError>) {
    let other = elements.iter().position(|element| !element.is_null() && !element.is_object());
    if let Some(index) = other {
        let path = Path::new(path).index(index);
        let value = elements.get(index).cloned().unwrap_or_default();
        errors.push(FieldError::invalid(&path, value, "must be an object for an array of list-type map"));
        return;
    }
    let keys: Vec<Value> = elements
        .iter()
        .map(|element| {
            let found = schema.list_keys().filter_map(|key| Some((key.to_owned(), element.get(key)?.clone())));
            Value::Object(found.collect::<Map<_, _>>())
        })
        .collect();
    repeated(keys.iter(), path, errors);
}

/// Reports the second of equal elements.
fn repeated<'a>(elements: impl Iterator<Item = &'a Value>, path: &str, errors: &mut Vec<FieldError>) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (index, element) in elements.enumerate() {
        let times = seen.entry(element.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            errors.push(FieldError::duplicate(&Path::new(path).index(index), element.clone()));
        }
    }
}
