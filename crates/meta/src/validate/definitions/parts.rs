//! What versions say of schema, subresources, printer columns and selectable fields: once beside the versions where all say the same.

use std::collections::HashSet;

use serde_json::Value;

use super::{Options, schema, schema_of};
use crate::Object;
use crate::field::{ErrorList, FieldError, Path};

const MAX_SELECTABLE: usize = 8;
/// Members of a version that stand beside the versions where all are the same.
const LIFTED: [&str; 4] = ["schema", "subresources", "additionalPrinterColumns", "selectableFields"];

/// The member of all versions, where it is the same in all.
fn common<'a>(object: &'a Object, member: &str) -> Option<Option<&'a Value>> {
    let mut found = object.array(&["spec", "versions"]).iter().map(|version| version.get(member));
    let first = found.next()?;
    found.all(|other| other == first).then_some(first)
}

/// Checks what all versions say alike.
pub(super) fn check_common(new: &Object, options: &Options, spec: &Path, errors: &mut ErrorList) {
    let [validation, subresources, columns, selectable] = LIFTED.map(|member| common(new, member).flatten());
    let status = new.array(&["spec", "versions"]).iter().any(has_status);
    if let Some(validation) = validation {
        schema::check(validation.get("openAPIV3Schema"), status, options, &spec.child("validation"), errors);
    }
    check_subresources(subresources, &spec.child("subresources"), errors);
    check_columns(columns, &spec.child("additionalPrinterColumns"), errors);
    let schema = validation.and_then(|validation| validation.get("openAPIV3Schema"));
    let excused = options.many_selectable.contains("");
    let needs = "may only be set when validations.schema is included";
    check_selectable(selectable, schema.ok_or(needs), excused, &spec.child("selectableFields"), errors);
}

/// Checks what a version says alone.
pub(super) fn check_version(new: &Object, version: &Value, options: &Options, path: &Path, errors: &mut ErrorList) {
    let own = |member: &str| version.get(member).filter(|_| common(new, member).is_none());
    check_deprecation(version, &path.child("deprecationWarning"), errors);
    if own("schema").is_some() {
        schema::check(schema_of(version), has_status(version), options, &path.child("schema"), errors);
    }
    check_subresources(own("subresources"), &path.child("subresources"), errors);
    check_columns(own("additionalPrinterColumns"), &path.child("additionalPrinterColumns"), errors);
    let name = version.get("name").and_then(Value::as_str).unwrap_or_default();
    let excused = options.many_selectable.contains(name);
    let path = path.child("selectableFields");
    // Upstream's words, which say the opposite.
    let needs = "may only be set when `version.schema.openAPIV3Schema` is not included";
    check_selectable(own("selectableFields"), schema_of(version).ok_or(needs), excused, &path, errors);
}

fn has_status(version: &Value) -> bool {
    version.pointer("/subresources/status").is_some_and(Value::is_object)
}

fn check_deprecation(version: &Value, path: &Path, errors: &mut ErrorList) {
    let deprecated = version.get("deprecated").and_then(Value::as_bool) == Some(true);
    let Some(text) = version.get("deprecationWarning").and_then(Value::as_str) else { return };
    let mut wrong = |detail: String| errors.push(FieldError::invalid(path, text, detail));
    if !deprecated {
        wrong("can only be set for deprecated versions".into());
        return;
    }
    if text.len() > 256 {
        wrong("must be <= 256 characters long".into());
    }
    if text.is_empty() {
        wrong("must not be an empty string".into());
    }
    if let Some((at, _)) = text.char_indices().find(|(_, c)| c.is_control() || (c.is_whitespace() && *c != ' ')) {
        wrong(format!("must only contain printable UTF-8 characters; non-printable character found at index {at}"));
    }
}

/// A path of names behind dots.
fn check_path(text: &str, path: &Path, errors: &mut ErrorList) -> bool {
    if text.starts_with('.') {
        return true;
    }
    errors.push(FieldError::invalid(path, text, "must be a simple json path starting with ."));
    false
}

fn check_subresources(subresources: Option<&Value>, path: &Path, errors: &mut ErrorList) {
    let Some(scale) = subresources.and_then(|all| all.get("scale")).filter(|scale| scale.is_object()) else { return };
    for (member, below, required) in [
        ("specReplicasPath", &[".spec."][..], true),
        ("statusReplicasPath", &[".status."][..], true),
        ("labelSelectorPath", &[".spec.", ".status."][..], false),
    ] {
        let path = path.child("scale").child(member);
        match scale.get(member).and_then(Value::as_str).unwrap_or_default() {
            "" if required => errors.push(FieldError::required(&path, "")),
            "" => {}
            text => {
                if check_path(text, &path, errors) && !below.iter().any(|prefix| text.starts_with(prefix)) {
                    let names: Vec<&str> = below.iter().map(|prefix| prefix.trim_end_matches('.')).collect();
                    let either = if names.len() > 1 { "either " } else { "" };
                    let detail = format!("should be a json path under {either}{}", names.join(" or "));
                    errors.push(FieldError::invalid(&path, text, detail));
                }
            }
        }
    }
}

fn check_columns(columns: Option<&Value>, path: &Path, errors: &mut ErrorList) {
    const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
    const FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
    for (index, column) in columns.and_then(Value::as_array).into_iter().flatten().enumerate() {
        let path = path.index(index);
        let text = |member: &str| column.get(member).and_then(Value::as_str).unwrap_or_default();
        if text("name").is_empty() {
            errors.push(FieldError::required(&path.child("name"), ""));
        }
        let types = format!("must be one of {}", TYPES.join(","));
        if text("type").is_empty() {
            errors.push(FieldError::required(&path.child("type"), types));
        } else if !TYPES.contains(&text("type")) {
            errors.push(FieldError::invalid(&path.child("type"), text("type"), types));
        }
        if !text("format").is_empty() && !FORMATS.contains(&text("format")) {
            let detail = format!("must be one of {}", FORMATS.join(","));
            errors.push(FieldError::invalid(&path.child("format"), text("format"), detail));
        }
        let path = path.child("JSONPath");
        if text("jsonPath").is_empty() {
            errors.push(FieldError::required(&path, ""));
        } else {
            check_path(text("jsonPath"), &path, errors);
        }
    }
}

/// Versions (empty: all alike) that had too many selectable fields already and did not change them.
pub(super) fn excused(new: &Object, old: &Object) -> HashSet<String> {
    let many = |value: &Value| value.as_array().is_some_and(|fields| fields.len() > MAX_SELECTABLE);
    let mut excused = HashSet::new();
    for version in new.array(&["spec", "versions"]) {
        let same = old.array(&["spec", "versions"]).iter().find(|old| old.get("name") == version.get("name"));
        let Some(fields) = same.and_then(|old| old.get("selectableFields")).filter(|fields| many(fields)) else {
            continue;
        };
        if version.get("selectableFields") == Some(fields) {
            excused.insert(version.get("name").and_then(Value::as_str).unwrap_or_default().to_owned());
            excused.insert(String::new());
        }
    }
    excused
}

fn check_selectable(
    fields: Option<&Value>,
    schema: Result<&Value, &str>,
    excused: bool,
    path: &Path,
    errors: &mut ErrorList,
) {
    let Some(fields) = fields.and_then(Value::as_array).filter(|fields| !fields.is_empty()) else { return };
    let schema = match schema {
        Ok(schema) => schema,
        Err(needs) => {
            errors.push(FieldError::invalid(path, "", needs));
            return;
        }
    };
    let mut known: Vec<Vec<String>> = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        let path = path.index(index).child("jsonPath");
        let text = field.get("jsonPath").and_then(Value::as_str).unwrap_or_default();
        if text.is_empty() {
            errors.push(FieldError::required(&path, ""));
            continue;
        }
        let (names, node) = match field_path(text, schema) {
            Ok(found) => found,
            Err(why) => {
                errors.push(FieldError::invalid(&path, text, format!("is an invalid path: {why}")));
                continue;
            }
        };
        if names.first().is_some_and(|first| first == "metadata") {
            errors.push(FieldError::invalid(&path, text, "must not point to fields in metadata"));
        }
        let kind = node.get("type").and_then(Value::as_str).unwrap_or_default();
        if !["string", "boolean", "integer"].contains(&kind) {
            let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            errors.push(FieldError::invalid(&path, text, detail));
        }
        if known.contains(&names) {
            errors.push(FieldError::duplicate(&path, text));
        } else {
            known.push(names);
        }
    }
    if known.len() > MAX_SELECTABLE && !excused {
        errors.push(FieldError::too_many(path, known.len(), MAX_SELECTABLE));
    }
}

/// Follows a path (`.spec.a`) through a schema: the names on the way, and the node it leads to.
fn field_path<'a>(text: &str, schema: &'a Value) -> Result<(Vec<String>, &'a Value), String> {
    let (mut names, mut node, mut rest) = (Vec::new(), schema, text);
    while !rest.is_empty() {
        let name = if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[', ']']).unwrap_or(after.len());
            let (name, behind) = after.split_at(end);
            if name.is_empty() {
                return Err("unexpected end of JSON path".into());
            }
            rest = behind;
            name.to_owned()
        } else if rest.starts_with('[') {
            return Err("array notation is not allowed".into());
        } else {
            return Err(format!("expected [ or . but got: {rest}"));
        };
        let nowhere = || "does not refer to a valid field".to_owned();
        let properties = node.get("properties").and_then(Value::as_object).filter(|members| !members.is_empty());
        node = match properties {
            Some(properties) => properties.get(&name).ok_or_else(nowhere)?,
            None => node.get("additionalProperties").filter(|values| values.is_object()).ok_or_else(nowhere)?,
        };
        names.push(name);
    }
    Ok((names, node))
}
