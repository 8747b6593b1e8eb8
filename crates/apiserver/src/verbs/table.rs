//! meta.k8s.io Table: objects as rows of cells, for people.

use jiff::Timestamp;
use kminik_meta::columns::{self, Columns};
use kminik_meta::{Gvk, Object};
use serde_json::{Map, Value, json};

use super::call::Call;
use super::render::{meta_version, metadata_of, value_of};

/// How objects of the request's version become rows.
pub(crate) struct Rows {
    gvk: Gvk,
    columns: Columns,
    /// What of its object a row has besides the cells.
    include: String,
    /// Of the stable version of meta.k8s.io.
    stable: bool,
    now: Timestamp,
}

impl Rows {
    pub(crate) fn of(call: &Call, stable: bool) -> Self {
        let include = call.query.get("includeObject").unwrap_or("Metadata").to_owned();
        Rows { gvk: call.gvk(), columns: call.version.columns.clone(), include, stable, now: call.now }
    }

    pub(crate) fn row(&self, object: Object) -> Value {
        let mut row = json!({"cells": self.columns.cells(&object, self.now)});
        if let Some(conditions) = columns::conditions(&self.gvk, &object) {
            row["conditions"] = conditions;
        }
        row["object"] = match self.include.as_str() {
            "None" => Value::Null,
            "Object" => object.into(),
            _ => metadata_of(object, self.stable),
        };
        row
    }

    /// `columnDefinitions`.
    pub(crate) fn definitions(&self) -> Value {
        self.columns.definitions().into()
    }
}

/// Objects of the request's version as a Table. `with_columns` is false for all but the first event of a watch.
pub(crate) fn table(
    call: &Call,
    stable: bool,
    objects: Vec<Object>,
    metadata: Map<String, Value>,
    with_columns: bool,
) -> Value {
    let shown = Rows::of(call, stable);
    let rows: Vec<Value> = objects.into_iter().map(|object| shown.row(object)).collect();
    let definitions = if with_columns { shown.definitions() } else { Value::Null };
    let members = [("metadata", metadata.into()), ("columnDefinitions", definitions), ("rows", rows.into())];
    value_of("Table", meta_version(stable), members)
}
