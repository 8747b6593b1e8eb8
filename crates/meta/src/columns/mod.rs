//! What `kubectl get` shows of each kind: a row a kind, a column a name and a function of the object.

mod core;
mod describe;
mod others;
mod pods;
mod printed;
mod storage;
mod workloads;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::gvk::Gvk;
use crate::{Object, time};

pub use printed::{Columns, Printed};

/// A column of a kind's table.
#[derive(Clone, Copy)]
pub struct Column {
    /// Title; kubectl writes it in capitals.
    pub name: &'static str,
    /// OpenAPI type of the cells.
    pub kind: &'static str,
    /// OpenAPI format; `name` marks the column that names the object.
    pub format: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: u8,
    /// What the column means.
    pub description: &'static str,
    /// The cell of an object at a time.
    pub cell: fn(&Object, Timestamp) -> Value,
}

impl Column {
    /// The column's entry in `columnDefinitions`.
    pub fn definition(&self) -> Value {
        json!({"name": self.name, "type": self.kind, "format": self.format, "priority": self.priority,
            "description": self.description})
    }
}

/// The columns of one kind in every version of a group.
type KindColumns = (&'static str, &'static str, &'static [Column]);

const fn text(name: &'static str, description: &'static str, cell: fn(&Object, Timestamp) -> Value) -> Column {
    Column { name, kind: "string", format: "", priority: 0, description, cell }
}

const fn number(name: &'static str, description: &'static str, cell: fn(&Object, Timestamp) -> Value) -> Column {
    Column { name, kind: "integer", format: "", priority: 0, description, cell }
}

const fn wide(column: Column) -> Column {
    Column { priority: 1, ..column }
}

const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    priority: 0,
    description: "Name of the object, unique within its namespace.",
    cell: |object, _| object.name().into(),
};

const AGE: Column =
    text("Age", "Time since the object was created.", |object, now| time::age(object.creation_timestamp(), now).into());

const CREATED_AT: Column = Column {
    name: "Created At",
    kind: "date",
    format: "",
    priority: 0,
    description: "Time at which the object was created.",
    cell: |object, _| object.creation_timestamp().map_or(Value::Null, |time| time::format(time).into()),
};

/// Kinds without columns of their own.
const PLAIN: &[Column] = &[NAME, CREATED_AT];

/// The columns of a kind; custom resources bring their own instead.
pub fn columns(gvk: &Gvk) -> &'static [Column] {
    let tables = [core::KINDS, workloads::KINDS, storage::KINDS, others::KINDS];
    let mut kinds = tables.into_iter().flatten();
    kinds.find(|(group, kind, _)| *group == gvk.group && *kind == gvk.kind).map_or(PLAIN, |(_, _, columns)| *columns)
}

/// The cells of an object, one a column.
pub fn cells(columns: &[Column], object: &Object, now: Timestamp) -> Vec<Value> {
    columns.iter().map(|column| (column.cell)(object, now)).collect()
}

/// The row's `conditions`: finished pods are marked, so that clients can hide them.
pub fn conditions(gvk: &Gvk, object: &Object) -> Option<Value> {
    if !gvk.group.is_empty() || gvk.kind != "Pod" {
        return None;
    }
    let message = match object.str(&["status", "phase"]) {
        Some("Succeeded") => "The pod has completed successfully.",
        Some("Failed") => "The pod failed.",
        _ => return None,
    };
    let phase = object.get(&["status", "phase"]);
    Some(json!([{"type": "Completed", "status": "True", "reason": phase, "message": message}]))
}

/// Column definitions and rows (without the `object` part, which is for the caller to add) of a kind's objects.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// `columnDefinitions`.
    pub definitions: Vec<Value>,
    /// `cells` and perhaps `conditions` of each object, in order.
    pub rows: Vec<Value>,
}

/// The table of a kind's objects at a time.
pub fn table<'a>(gvk: &Gvk, objects: impl IntoIterator<Item = &'a Object>, now: Timestamp) -> Table {
    let columns = columns(gvk);
    let rows = objects.into_iter().map(|object| {
        let mut row = json!({"cells": cells(columns, object, now)});
        if let Some(conditions) = conditions(gvk, object) {
            row["conditions"] = conditions;
        }
        row
    });
    Table { definitions: columns.iter().map(Column::definition).collect(), rows: rows.collect() }
}

#[cfg(test)]
mod tests;
