//! meta.k8s.io Table: objects as rows of cells, for people.

use kminik_meta::{Object, columns};
use serde_json::{Map, Value, json};

use super::call::Call;
use super::render::{meta_version, metadata_of, value_of};

/// Objects of the request's version as a Table. `with_columns` is false for all but the first event of a watch.
pub(crate) fn table(
    call: &Call,
    stable: bool,
    objects: Vec<Object>,
    metadata: Map<String, Value>,
    with_columns: bool,
) -> Value {
    let gvk = call.gvk();
    let include = call.query.get("includeObject").unwrap_or("Metadata");
    let shown = &call.version.columns;
    let rows: Vec<Value> = objects
        .into_iter()
        .map(|object| {
            let mut row = json!({"cells": shown.cells(&object, call.now)});
            if let Some(conditions) = columns::conditions(&gvk, &object) {
                row["conditions"] = conditions;
            }
            row["object"] = match include {
                "None" => Value::Null,
                "Object" => object.into(),
                _ => metadata_of(object, stable),
            };
            row
        })
        .collect();
    let definitions: Value = match with_columns {
        true => shown.definitions().into(),
        false => Value::Null,
    };
    let members = [("metadata", metadata.into()), ("columnDefinitions", definitions), ("rows", rows.into())];
    value_of("Table", meta_version(stable), members)
}
