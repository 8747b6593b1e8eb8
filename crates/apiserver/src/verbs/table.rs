//! meta.k8s.io Table: objects as rows of cells, for people.

use kminik_meta::{Object, time};
use serde_json::{Map, Value, json};

use super::call::Call;
use super::render::{meta_version, metadata_of};

/// Objects as a Table. `with_columns` is false for all but the first event of a watch.
pub fn table(
    call: &Call,
    stable: bool,
    objects: Vec<Object>,
    metadata: Map<String, Value>,
    with_columns: bool,
) -> Value {
    let include = call.query.get("includeObject").unwrap_or("Metadata");
    let rows: Vec<Value> = objects
        .into_iter()
        .map(|object| {
            let cells = json!([object.name(), time::age(object.creation_timestamp(), call.now)]);
            let shown = match include {
                "None" => Value::Null,
                "Object" => object.into(),
                _ => metadata_of(&object, stable),
            };
            json!({"cells": cells, "object": shown})
        })
        .collect();
    let columns = if with_columns {
        json!([
            {"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0},
            {"name": "Age", "type": "string", "format": "", "description": "", "priority": 0},
        ])
    } else {
        Value::Null
    };
    json!({"kind": "Table", "apiVersion": meta_version(stable), "metadata": metadata, "columnDefinitions": columns, "rows": rows})
}
