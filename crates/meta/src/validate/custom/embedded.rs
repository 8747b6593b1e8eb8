//! Objects of Kubernetes inside custom resources.

use serde_json::Value;

use crate::field::{ErrorList, FieldError, Path};
use crate::schema::{Schema, Shape};
use crate::validate::meta;
use crate::{GroupVersion, Object, names};

/// Checks all embedded objects of a value; `path` is where it stands, empty at the root.
pub(super) fn check(schema: &Schema, value: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    node(schema, value, path, &mut errors);
    errors
}

fn node(schema: &Schema, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match (&schema.shape, value) {
        (Shape::Struct { .. } | Shape::Map { .. }, Value::Object(map)) => {
            if schema.rules.as_ref().is_some_and(|rules| rules.embedded) {
                errors.extend(object(value, path));
            }
            let is_map = matches!(schema.shape, Shape::Map { .. });
            for (name, member) in map {
                let Some(schema) = schema.member(name).filter(|schema| schema.rules.is_some()) else { continue };
                let path = match (is_map, path.is_empty()) {
                    (true, _) => format!("{path}[{name}]"),
                    (false, true) => name.clone(),
                    (false, false) => format!("{path}.{name}"),
                };
                node(schema, member, &path, errors);
            }
        }
        (Shape::List { item, .. }, Value::Array(elements)) if !matches!(item.shape, Shape::Leaf { .. }) => {
            let elements = elements.iter().enumerate();
            elements.for_each(|(index, element)| node(item, element, &format!("{path}[{index}]"), errors));
        }
        _ => {}
    }
}

fn object(value: &Value, path: &str) -> ErrorList {
    let mut errors = ErrorList::new();
    let place = Path::new(path);
    let (version, kind) = (place.child("apiVersion"), place.child("kind"));
    for (member, path) in [("apiVersion", &version), ("kind", &kind)] {
        match value.get(member) {
            None => errors.push(FieldError::required(path, "")),
            Some(Value::String(text)) if text.is_empty() => {
                errors.push(FieldError::invalid(path, "", "must not be empty"));
            }
            Some(Value::String(_)) => {}
            Some(other) => errors.push(FieldError::invalid(path, other.clone(), "must be a string")),
        }
    }
    if let Some(text) = value.get("apiVersion").and_then(Value::as_str).filter(|text| !text.is_empty())
        && GroupVersion::parse(text).is_none()
    {
        errors.push(FieldError::invalid(&version, text, format!("unexpected GroupVersion string: {text}")));
    }
    if let Some(text) = value.get("kind").and_then(Value::as_str).filter(|text| !text.is_empty()) {
        let wrong = names::dns1035_label(&text.to_lowercase());
        if !wrong.is_empty() {
            let detail = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
            errors.push(FieldError::invalid(&kind, text, detail));
        }
    }
    if let Some(metadata) = value.get("metadata") {
        let mut object = Object::default();
        object.map_mut().insert("metadata".into(), metadata.clone());
        // An object inside another needs no name of its own.
        if object.name().is_empty() {
            object.set_name("fakename");
        }
        let prefix = place.child("");
        errors.extend(meta::object_meta(&object, names::path_segment).into_iter().map(|mut error| {
            error.field.insert_str(0, &prefix.to_string());
            error
        }));
    }
    errors
}
