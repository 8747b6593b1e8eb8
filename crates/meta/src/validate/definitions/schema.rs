//! Schemas of custom resources: what may stand at each node.

use serde_json::{Map, Value};

use super::{Options, defaults, structural};
use crate::field::{ErrorList, FieldError, Path};
use crate::validate::formats;

/// JSON names of what may stand at a root whose `status` is a subresource.
const AT_ROOT: &[&str] = &[
    "description",
    "type",
    "format",
    "title",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "multipleOf",
    "required",
    "items",
    "properties",
    "externalDocs",
    "example",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];
const AT_ROOT_TEXT: &str = "only [Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength \
                            Pattern MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example \
                            XPreserveUnknownFields XValidations] fields are allowed at the root of the schema if the status \
                            subresource is enabled";
const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
/// Members that no schema of a custom resource has.
const UNSUPPORTED: [&str; 7] =
    ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref", "$schema"];

/// Checks the schema of a version, or of all alike.
pub(super) fn check(schema: Option<&Value>, status: bool, options: &Options, path: &Path, errors: &mut ErrorList) {
    let Some(schema) = schema.filter(|schema| schema.is_object()) else { return };
    let path = path.child("openAPIV3Schema");
    let mut found = ErrorList::new();
    if status {
        check_root(schema, &path, &mut found);
    }
    if flag(schema, "nullable") {
        found.push(FieldError::forbidden(&path.child("nullable"), "nullable cannot be true at the root"));
    }
    let unsupported = UNSUPPORTED.into_iter().find(|member| has(schema, &|node: &Value| is_set(node, member)));
    if options.structural && unsupported.is_none() {
        let violations = structural::violations(&path, schema);
        if violations.is_empty() {
            found.append(defaults::check(schema, options.pruned_defaults, &path));
        } else {
            found.append(violations);
        }
    }
    let mut walk = Walk { options, errors: &mut found };
    walk.node(schema, &path, Inside { root: true, ..Inside::default() });
    if let Some(member) = unsupported.filter(|_| found.is_empty()) {
        let name = member.trim_start_matches('$');
        let name = if member == "$ref" { "$ref" } else { name };
        found.push(FieldError::invalid(&path, "", format!("OpenAPIV3Schema '{name}' is not supported")));
    }
    errors.append(found);
}

fn check_root(schema: &Value, path: &Path, errors: &mut ErrorList) {
    let kind = text(schema, "type");
    if kind != "object" && !kind.is_empty() {
        let detail =
            "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        errors.push(FieldError::invalid(&path.child("type"), kind, detail));
        return;
    }
    let mut members = schema.as_object().into_iter().flat_map(Map::keys);
    if members.any(|member| !AT_ROOT.contains(&member.as_str())) {
        errors.push(FieldError::invalid(path, schema.clone(), AT_ROOT_TEXT));
    }
}

/// Whether a node anywhere in the schema is such.
pub(super) fn has(schema: &Value, is: &dyn Fn(&Value) -> bool) -> bool {
    is(schema) || children(schema).any(|(_, child)| has(child, is))
}

/// All nodes below a node in the order of upstream's walk, with their places relative to it.
pub(super) fn children(schema: &Value) -> impl Iterator<Item = (Path, &Value)> {
    let one = move |member: &'static str| {
        let child = schema.get(member).filter(|child| child.is_object());
        child.map(|child| (Path::new(member), child))
    };
    let lists = ["allOf", "oneOf", "anyOf"].into_iter().flat_map(move |member| {
        let all = schema.get(member).and_then(Value::as_array).into_iter().flatten().enumerate();
        all.map(move |(index, child)| (Path::new(member).index(index), child))
    });
    let map = move |member: &'static str| {
        let all = schema.get(member).and_then(Value::as_object).into_iter().flatten();
        all.map(move |(name, child)| (Path::new(member).key(name), child))
    };
    let inner = one("additionalProperties").into_iter().chain(map("properties")).chain(one("not")).chain(lists);
    inner.chain(map("definitions")).chain(map("patternProperties")).chain(one("items"))
}

pub(super) fn has_unknown_type(node: &Value) -> bool {
    let kind = text(node, "type");
    !kind.is_empty() && !TYPES.contains(&kind)
}

/// Whether a list is a set of what is not compared as a whole.
pub(super) fn is_granular_set(node: &Value) -> bool {
    granular_element(node).is_some()
}

/// The member of a set's elements that must say they are atomic, and what it says.
fn granular_element(node: &Value) -> Option<(&'static str, Option<&Value>)> {
    if text(node, "x-kubernetes-list-type") != "set" {
        return None;
    }
    let items = node.get("items")?;
    let (list, map) = (items.get("x-kubernetes-list-type"), items.get("x-kubernetes-map-type"));
    match text(items, "type") {
        "array" if list.is_some_and(|kind| kind != "atomic") => Some(("x-kubernetes-list-type", list)),
        "object" if map.is_none_or(|kind| kind != "atomic") => Some(("x-kubernetes-map-type", list)),
        _ => None,
    }
}

/// What is wrong with the keys of a list, or with elements that are null.
pub(super) fn list_keys(node: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let kind = text(node, "x-kubernetes-list-type");
    let Some(items) = node.get("items").filter(|items| items.is_object() && matches!(kind, "set" | "map")) else {
        return errors;
    };
    let path = path.child("items");
    if flag(items, "nullable") {
        let detail = format!("cannot be nullable when x-kubernetes-list-type is {kind}");
        errors.push(FieldError::forbidden(&path.child("nullable"), detail));
    }
    if kind == "map" {
        let required: Vec<&str> = strings(items, "required").collect();
        for key in strings(node, "x-kubernetes-list-map-keys") {
            let Some(property) = items.get("properties").and_then(|all| all.get(key)) else { continue };
            let path = path.child("properties").key(key);
            if !required.contains(&key) && !is_set(property, "default") {
                let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                errors.push(FieldError::required(&path.child("default"), detail));
            }
            if flag(property, "nullable") {
                let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
                errors.push(FieldError::forbidden(&path.child("nullable"), detail));
            }
        }
    }
    errors
}

pub(super) fn text<'a>(node: &'a Value, member: &str) -> &'a str {
    node.get(member).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn flag(node: &Value, member: &str) -> bool {
    node.get(member).and_then(Value::as_bool).unwrap_or_default()
}

fn strings<'a>(node: &'a Value, member: &str) -> impl Iterator<Item = &'a str> {
    node.get(member).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// Whether a member is there and says something.
pub(super) fn is_set(node: &Value, member: &str) -> bool {
    match node.get(member) {
        None | Some(Value::Null) => false,
        Some(Value::Object(map)) => !map.is_empty() || member.starts_with("additional"),
        Some(Value::String(text)) => !text.is_empty(),
        Some(_) => true,
    }
}

/// Where a node is.
#[derive(Clone, Copy, Default)]
struct Inside {
    root: bool,
    /// In apiVersion, kind or metadata of an object.
    meta: bool,
    /// Why defaults are not allowed.
    no_defaults: Option<&'static str>,
}

struct Walk<'a> {
    options: &'a Options,
    errors: &'a mut ErrorList,
}

impl Walk<'_> {
    fn node(&mut self, node: &Value, path: &Path, inside: Inside) {
        self.members(node, path, inside);
        if flag(node, "uniqueItems") {
            let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.errors.push(FieldError::forbidden(&path.child("uniqueItems"), detail));
        }
        let properties = node.get("properties").and_then(Value::as_object).is_some_and(|all| !all.is_empty());
        let additional = node.get("additionalProperties").filter(|values| !values.is_null());
        if properties && additional.is_some_and(|values| values != &Value::Bool(true)) {
            let path = path.child("additionalProperties");
            let detail = "additionalProperties and properties are mutual exclusive";
            self.errors.push(FieldError::forbidden(&path, detail));
        }
        for (place, child) in children(node) {
            let whole = format!("{path}.{place}");
            let mut within = Inside { root: false, ..inside };
            match whole.strip_prefix(&format!("{path}.properties[")).and_then(|rest| rest.strip_suffix(']')) {
                Some(name @ ("metadata" | "kind" | "apiVersion"))
                    if inside.root || flag(node, "x-kubernetes-embedded-resource") =>
                {
                    within.meta = true;
                    if inside.root {
                        within.no_defaults = Some(match name {
                            "metadata" => "in top-level metadata",
                            "kind" => "in top-level kind",
                            _ => "in top-level apiVersion",
                        });
                    }
                }
                _ if inside.meta && place == Path::new("additionalProperties") => {
                    within.no_defaults = Some("inside additionalProperties applying to object metadata");
                }
                _ => {}
            }
            self.node(child, &Path::new(&whole), within);
        }
        self.types(node, path);
        self.lists(node, path);
    }

    fn members(&mut self, node: &Value, path: &Path, inside: Inside) {
        let kind = text(node, "type");
        if self.options.known_types && has_unknown_type(node) {
            self.errors.push(FieldError::not_supported(&path.child("type"), kind, &TYPES));
        }
        if let Some(reason) = inside.no_defaults.filter(|_| node.get("default").is_some()) {
            self.errors.push(FieldError::forbidden(&path.child("default"), format!("must not be set {reason}")));
        }
        for member in UNSUPPORTED.into_iter().filter(|member| *member != "$schema" && is_set(node, member)) {
            self.errors.push(FieldError::forbidden(&path.child(member), format!("{member} is not supported")));
        }
        if kind == "null" {
            let detail = "type cannot be set to null, use nullable as an alternative";
            self.errors.push(FieldError::forbidden(&path.child("type"), detail));
        }
        if node.get("items").is_some_and(Value::is_array) {
            let detail = "items must be a schema object and not an array";
            self.errors.push(FieldError::forbidden(&path.child("items"), detail));
        }
        if inside.meta && flag(node, "x-kubernetes-embedded-resource") {
            let path = path.child("x-kubernetes-embedded-resource");
            self.errors.push(FieldError::forbidden(&path, "must not be used inside of resource meta"));
        }
        if node.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
            let path = path.child("x-kubernetes-preserve-unknown-fields");
            self.errors.push(FieldError::invalid(&path, false, "must be true or undefined"));
        }
    }

    /// The type that a list or map type asks for.
    fn types(&mut self, node: &Value, path: &Path) {
        for (member, wanted, known) in [
            ("x-kubernetes-map-type", "object", &["atomic", "granular"][..]),
            ("x-kubernetes-list-type", "array", &["atomic", "set", "map"][..]),
        ] {
            let Some(value) = node.get(member).and_then(Value::as_str) else { continue };
            let kind = text(node, "type");
            let detail = format!("must be {wanted} if {member} is specified");
            if kind.is_empty() {
                self.errors.push(FieldError::required(&path.child("type"), detail));
            } else if kind != wanted {
                self.errors.push(FieldError::invalid(&path.child("type"), kind, detail));
            }
            if !known.contains(&value) {
                self.errors.push(FieldError::not_supported(&path.child(member), value, known));
            }
        }
    }

    fn lists(&mut self, node: &Value, path: &Path) {
        let (list_type, keys_path) = (path.child("x-kubernetes-list-type"), path.child("x-kubernetes-list-map-keys"));
        if let Some((member, value)) = granular_element(node).filter(|_| self.options.atomic_sets) {
            let path = path.child("items").child(member);
            let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
            self.errors.push(FieldError::invalid(&path, value.cloned().unwrap_or_default(), detail));
        }
        let keys: Vec<&str> = strings(node, "x-kubernetes-list-map-keys").collect();
        let kind = node.get("x-kubernetes-list-type").and_then(Value::as_str);
        if !keys.is_empty() && kind != Some("map") {
            let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
            self.errors.push(match kind {
                None => FieldError::required(&list_type, detail),
                Some(other) => FieldError::invalid(&list_type, other, detail),
            });
        }
        if kind == Some("map") {
            if keys.is_empty() {
                let detail = "must not be empty if x-kubernetes-list-type is map";
                self.errors.push(FieldError::required(&keys_path, detail));
            }
            match node.get("items") {
                None => {
                    let detail = "must have a schema if x-kubernetes-list-type is map";
                    self.errors.push(FieldError::required(&path.child("items"), detail));
                }
                Some(items) if text(items, "type") == "object" => self.keys(items, &keys, path),
                Some(items) => {
                    let path = path.child("items").child("type");
                    let detail = "must be object if parent array's x-kubernetes-list-type is map";
                    self.errors.push(FieldError::invalid(&path, text(items, "type"), detail));
                }
            }
        }
        if self.options.sound_list_keys {
            self.errors.append(list_keys(node, path));
        }
    }

    fn keys(&mut self, items: &Value, keys: &[&str], path: &Path) {
        let all = || Value::from(keys.to_vec());
        let keys_path = path.child("x-kubernetes-list-map-keys");
        for (index, key) in keys.iter().enumerate() {
            match items.get("properties").and_then(|properties| properties.get(key)) {
                None => {
                    let detail = "entries must all be names of item properties";
                    self.errors.push(FieldError::invalid(&keys_path, all(), detail));
                }
                Some(property) if matches!(text(property, "type"), "array" | "object") => {
                    let path = path.child("items").child("properties").key(key).child("type");
                    let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                    self.errors.push(FieldError::invalid(&path, text(items, "type"), detail));
                }
                Some(_) => {}
            }
            if keys.iter().take(index).any(|earlier| earlier == key) {
                self.errors.push(FieldError::invalid(&keys_path, all(), "must not contain duplicate entries"));
            }
        }
    }
}

/// Formats of strings in a schema that nothing checks.
pub(super) fn unknown_formats(schema: &Value) -> Vec<String> {
    let format = text(schema, "format");
    let own = (text(schema, "type") == "string" && !format.is_empty() && !formats::is_known(format))
        .then(|| format.to_owned());
    own.into_iter().chain(children(schema).flat_map(|(_, child)| unknown_formats(child))).collect()
}
