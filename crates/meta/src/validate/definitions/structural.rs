//! Structural schemas: the structure is told outside of junctors, which only narrow it.

use serde_json::{Value, json};

use super::schema::{flag, is_set, text};
use crate::field::{ErrorList, FieldError, Path};
use crate::schema::Pattern;

/// Where a node is, as far as its messages differ.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

/// What makes a schema not structural, in order of the messages.
pub fn violations(path: &Path, schema: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    node(schema, Level::Root, path, &mut errors);
    complete(schema, Some(schema), path, path, &mut errors);
    let mut sorted: Vec<FieldError> = errors.into_iter().collect();
    sorted.sort_by_cached_key(ToString::to_string);
    let mut errors = ErrorList::new();
    errors.extend(sorted);
    errors
}

fn node(node_: &Value, level: Level, path: &Path, errors: &mut ErrorList) {
    let kind = text(node_, "type");
    let embedded = flag(node_, "x-kubernetes-embedded-resource");
    let open = flag(node_, "x-kubernetes-preserve-unknown-fields");
    let int_or_string = flag(node_, "x-kubernetes-int-or-string");
    match node_.get("items").filter(|items| items.is_object()) {
        Some(items) => node(items, Level::Item, &path.child("items"), errors),
        None if kind == "array" => {
            errors.push(FieldError::required(&path.child("items"), "must be specified"));
        }
        None => {}
    }
    for (name, child) in members(node_) {
        node(child, Level::Field, &path.child("properties").key(name), errors);
    }
    if let Some(values) = node_.get("additionalProperties").filter(|values| !values.is_null()) {
        let path = path.child("additionalProperties");
        if level == Level::Root {
            errors.push(FieldError::forbidden(&path, "must not be used at the root"));
        }
        if embedded {
            let detail = "must not be used if x-kubernetes-embedded-resource is set";
            errors.push(FieldError::forbidden(&path, detail));
        }
        if values.is_object() {
            node(values, Level::Field, &path, errors);
        }
    }
    for (member, set) in [("x-kubernetes-preserve-unknown-fields", open), ("x-kubernetes-embedded-resource", embedded)]
    {
        if int_or_string && set {
            let detail = "must be false if x-kubernetes-int-or-string is true";
            errors.push(FieldError::invalid(&path.child(member), true, detail));
        }
    }
    let either = json!([{"type": "integer"}, {"type": "string"}]);
    let first_of_all = node_.pointer("/allOf/0/anyOf") == Some(&either);
    junctors(node_, node_.get("anyOf") == Some(&either), first_of_all, path, errors);
    if embedded && kind != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        let path = path.child("type");
        errors.push(match kind {
            "" => FieldError::required(&path, detail),
            other => FieldError::invalid(&path, other, detail),
        });
    } else if kind.is_empty() && !int_or_string && !open {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.push(FieldError::required(&path.child("type"), detail));
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        errors.push(FieldError::invalid(&path.child("type"), kind, "must be object at the root"));
    }
    if level == Level::Root || embedded {
        own_members(node_, level, path, errors);
    }
    if embedded && !open && members(node_).next().is_none() {
        let detail =
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.push(FieldError::required(&path.child("properties"), detail));
    }
}

/// apiVersion, kind and metadata of an object of Kubernetes.
fn own_members(node: &Value, level: Level, path: &Path, errors: &mut ErrorList) {
    let path = path.child("properties");
    for (name, child) in members(node) {
        let path = path.key(name);
        let kind = text(child, "type");
        match name.as_str() {
            "kind" | "apiVersion" if kind != "string" => {
                errors.push(FieldError::invalid(&path.child("type"), kind, "must be string"));
            }
            "metadata" => {
                if kind != "object" {
                    errors.push(FieldError::invalid(&path.child("type"), kind, "must be object"));
                }
                let names = members(child).all(|(name, _)| matches!(name.as_str(), "name" | "generateName"));
                let others = child.as_object().into_iter().flatten().filter(|(member, value)| {
                    !matches!(member.as_str(), "type" | "properties" | "default") && is_said(value)
                });
                if level == Level::Root && (!names || others.count() > 0) {
                    let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
                    errors.push(FieldError::forbidden(&path, detail));
                }
            }
            _ => {}
        }
    }
}

fn is_said(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Bool(false)) && value.as_str() != Some("")
}

fn members(node: &Value) -> impl Iterator<Item = (&String, &Value)> {
    node.get("properties").and_then(Value::as_object).into_iter().flatten()
}

/// All junctors of a node with their places.
fn parts<'a>(node: &'a Value, path: &Path) -> Vec<(Path, &'a Value)> {
    let mut parts = Vec::new();
    for member in ["anyOf", "allOf", "oneOf"] {
        let all = node.get(member).and_then(Value::as_array).into_iter().flatten().enumerate();
        parts.extend(all.map(|(index, part)| (path.child(member).index(index), part)));
    }
    if let Some(not) = node.get("not").filter(|not| not.is_object()) {
        parts.push((path.child("not"), not));
    }
    parts
}

fn junctors(node: &Value, skip_any: bool, skip_first_all: bool, path: &Path, errors: &mut ErrorList) {
    let any = path.child("anyOf").to_string();
    let first = path.child("allOf").index(0);
    for (place, part) in parts(node, path) {
        if skip_any && place.to_string().starts_with(&any) {
            continue;
        }
        nested(part, skip_first_all && place == first, &place, errors);
    }
    let pattern = text(node, "pattern");
    if let Some(why) = Pattern::check(pattern) {
        let detail = format!("must be a valid regular expression, but isn't: {why}");
        errors.push(FieldError::invalid(&path.child("pattern"), pattern, detail));
    }
}

/// Inside a junctor nothing may tell a structure.
fn nested(node: &Value, skip_any: bool, path: &Path, errors: &mut ErrorList) {
    junctors(node, skip_any, false, path, errors);
    if let Some(items) = node.get("items").filter(|items| items.is_object()) {
        nested(items, false, &path.child("items"), errors);
    }
    for (name, child) in members(node) {
        nested(child, false, &path.child("properties").key(name), errors);
    }
    for (member, detail) in [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
        ("x-kubernetes-validations", "must be empty to be structural"),
    ] {
        let said = is_set(node, member) && node.get(member).is_some_and(|value| value != &Value::Bool(false));
        if said && node.get(member).and_then(Value::as_array).is_none_or(|all| !all.is_empty()) {
            errors.push(FieldError::forbidden(&path.child(member), detail));
        }
    }
    if members(node).any(|(name, _)| name == "metadata") {
        let path = path.child("properties").key("metadata");
        errors.push(FieldError::forbidden(&path, "must not be specified in a nested context"));
    }
}

/// What junctors narrow must be told by the structure.
fn complete(node: &Value, structure: Option<&Value>, at: &Path, path: &Path, errors: &mut ErrorList) {
    for (place, part) in parts(node, path) {
        complete_part(part, structure, at, &place, errors);
    }
}

fn complete_part(part: &Value, structure: Option<&Value>, at: &Path, path: &Path, errors: &mut ErrorList) {
    let Some(told) = structure else {
        errors.push(FieldError::required(at, format!("because it is defined in {path}")));
        return;
    };
    complete(part, structure, at, path, errors);
    if let Some(items) = part.get("items").filter(|items| items.is_object()) {
        let structure = told.get("items").filter(|items| items.is_object());
        complete_part(items, structure, &at.child("items"), &path.child("items"), errors);
    }
    for (name, child) in members(part) {
        let structure = told.get("properties").and_then(|all| all.get(name));
        let (at, path) = (at.child("properties").key(name), path.child("properties").key(name));
        complete_part(child, structure, &at, &path, errors);
    }
}
