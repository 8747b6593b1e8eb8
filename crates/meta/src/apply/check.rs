//! What is wrong with an applied configuration, in the words in which upstream's merging library says it: with the paths of
//! fields as conflicts have them, and values as Go prints them.

use serde_json::Value;

use super::ApplyError;
use super::set::Element;
use super::typed::{element_of, is_closed, member};
use crate::schema::{Leaf, ListType, Schema, Shape};
use crate::{Object, go};

/// Checks a configuration as it was sent.
///
/// # Errors
/// All that does not fit the schema.
pub(super) fn check(config: &Object, schema: &Schema) -> Result<(), ApplyError> {
    let mut faults = Vec::new();
    value(&config.to_value(), Some(schema), "", &mut faults);
    if faults.is_empty() {
        return Ok(());
    }
    let object = format!("{}/{}; {}", config.namespace(), config.name(), config.gvk());
    Err(ApplyError::Untyped { object, faults })
}

fn value(found: &Value, schema: Option<&Schema>, path: &str, faults: &mut Vec<String>) {
    let Some(schema) = schema else { return };
    if found.is_null() {
        return;
    }
    let fault = |message: String| if path.is_empty() { message } else { format!("{path}: {message}") };
    match (&schema.shape, found) {
        (Shape::Struct { .. } | Shape::Map { .. }, Value::Object(members)) => {
            for (name, below) in members {
                let (schema_below, named) = member(Some(schema), name);
                let place = format!("{path}.{name}");
                if !named && is_closed(Some(schema)) {
                    faults.push(format!("{place}: field not declared in schema"));
                } else {
                    value(below, schema_below, &place, faults);
                }
            }
        }
        (Shape::List { list_type, item, .. }, Value::Array(elements)) => {
            let mut seen: Vec<Element> = Vec::new();
            for (index, below) in elements.iter().enumerate() {
                let place = if *list_type == ListType::Atomic {
                    format!("{path}[{index}]")
                } else {
                    let element = match element_of(schema, below) {
                        Ok(element) => element,
                        // Nothing can be said of what comes after it.
                        Err(error) => return faults.push(fault(format!("element {index}: {error}"))),
                    };
                    if seen.contains(&element) {
                        faults.push(fault(format!("duplicate entries for key {element}")));
                    }
                    let place = format!("{path}{element}");
                    seen.push(element);
                    place
                };
                value(below, Some(item.get()), &place, faults);
            }
        }
        (Shape::Struct { .. } | Shape::Map { .. }, _) => {
            faults.push(fault(format!("expected map, got &{{{}}}", go::text(found))));
        }
        (Shape::List { .. }, _) => faults.push(fault(format!("expected list, got &{{{}}}", go::text(found)))),
        (Shape::Leaf { leaf, .. }, _) => match leaf {
            Leaf::String | Leaf::Bytes if !found.is_string() => {
                faults.push(fault(format!(
                    "expected string, got &value.valueUnstructured{{Value:{}}}",
                    go::syntax(found)
                )));
            }
            Leaf::Int32 | Leaf::Int64 | Leaf::Double if !found.is_number() => {
                faults.push(fault(format!("expected numeric (int or float), got {}", go::type_name(found))));
            }
            Leaf::Boolean if !found.is_boolean() => {
                faults.push(fault(format!("expected boolean, got &{{{}}}", go::text(found))));
            }
            _ => {}
        },
    }
}
