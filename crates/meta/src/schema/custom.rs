//! A custom resource's schema in the form of the table: decoding, pruning, defaulting, patches and apply then need not know that it
//! is one.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;
use thiserror::Error;

use super::{Field, Fields, Leaf, ListType, Ref, Rules, Schema, Shape, object_meta};

/// Why an OpenAPI schema is no structural one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CompileError {
    /// A node has a type that does not exist.
    #[error("{path}.type: Unsupported value: {found:?}")]
    Type {
        /// Path of the node.
        path: String,
        /// What it says.
        found: String,
    },
    /// A node has no type and does not say that anything may stand there.
    #[error("{path}.type: Required value: must not be empty for specified {kind}")]
    NoType {
        /// Path of the node.
        path: String,
        /// Where it stands: `object fields` or `array items`.
        kind: &'static str,
    },
    /// A list has no schema of its elements.
    #[error("{0}.items: Required value: must be specified")]
    NoItems(String),
    /// A map-like list does not name the members that tell its elements apart.
    #[error("{0}.x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map")]
    NoKeys(String),
}

/// Compiles the `openAPIV3Schema` of a version. The root gets `apiVersion`, `kind` and `metadata`.
///
/// # Errors
/// When a node does not say what it is.
pub fn compile(source: &Value) -> Result<Arc<Schema>, CompileError> {
    let mut root = node(source, "openAPIV3Schema", true)?;
    if let Some(rules) = &mut root.rules {
        rules.source = source.clone();
    }
    Ok(Arc::new(root))
}

fn text<'a>(source: &'a Value, member: &str) -> &'a str {
    source.get(member).and_then(Value::as_str).unwrap_or_default()
}

fn flag(source: &Value, member: &str) -> bool {
    source.get(member).and_then(Value::as_bool).unwrap_or_default()
}

fn leaf(leaf: Leaf) -> Shape {
    Shape::Leaf { leaf, values: Cow::Borrowed("") }
}

fn node(source: &Value, path: &str, is_object: bool) -> Result<Schema, CompileError> {
    let open = flag(source, "x-kubernetes-preserve-unknown-fields");
    let shape = if flag(source, "x-kubernetes-int-or-string") {
        leaf(Leaf::IntOrString)
    } else {
        match text(source, "type") {
            "object" => object(source, path, is_object || flag(source, "x-kubernetes-embedded-resource"), open)?,
            "array" => list(source, path)?,
            "string" => leaf(Leaf::String),
            "boolean" => leaf(Leaf::Boolean),
            "number" => leaf(Leaf::Double),
            "integer" if text(source, "format") == "int32" => leaf(Leaf::Int32),
            "integer" => leaf(Leaf::Int64),
            "" if open => leaf(Leaf::Json),
            "" => {
                let kind = if path.ends_with(".items") { "array items" } else { "object fields" };
                return Err(CompileError::NoType { path: path.to_owned(), kind });
            }
            other => return Err(CompileError::Type { path: path.to_owned(), found: other.to_owned() }),
        }
    };
    let rules = Rules { source: Value::Null, default: source.get("default").cloned() };
    Ok(Schema { name: Cow::Borrowed(""), shape, nullable: flag(source, "nullable"), rules: Some(Box::new(rules)) })
}

fn object(source: &Value, path: &str, whole: bool, open: bool) -> Result<Shape, CompileError> {
    let atomic = text(source, "x-kubernetes-map-type") == "atomic";
    if let Some(values @ Value::Object(_)) = source.get("additionalProperties") {
        let value = Arc::new(node(values, &format!("{path}.additionalProperties"), false)?);
        return Ok(Shape::Map { value: Ref::Owned(value), atomic });
    }
    let required: Vec<&str> =
        source.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let mut fields = Vec::new();
    for (name, source) in source.get("properties").and_then(Value::as_object).into_iter().flatten() {
        // What every object has is not the schema's to say.
        if whole && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            continue;
        }
        let schema = Arc::new(node(source, &format!("{path}.properties[{name}]"), false)?);
        fields.push(field(name.clone(), Ref::Owned(schema), required.contains(&name.as_str())));
    }
    if whole {
        let rules = || Some(Box::new(Rules::default()));
        for name in ["apiVersion", "kind"] {
            let schema = Schema { name: "".into(), shape: leaf(Leaf::String), nullable: false, rules: rules() };
            fields.push(field(name.to_owned(), Ref::Owned(Arc::new(schema)), false));
        }
        fields.push(field("metadata".to_owned(), object_meta(), false));
    }
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    let open = open || source.get("additionalProperties").and_then(Value::as_bool) == Some(true);
    Ok(Shape::Struct { fields: Fields::Owned(fields), atomic, preserve: open })
}

fn field(name: String, schema: Ref, required: bool) -> Field {
    Field {
        name: Cow::Owned(name),
        schema,
        required,
        pointer: true,
        always: false,
        default: None,
        merge_key: Cow::Borrowed(""),
        strategy: Cow::Borrowed(""),
        number: 0,
        via: 0,
    }
}

fn list(source: &Value, path: &str) -> Result<Shape, CompileError> {
    let items = source.get("items").filter(|i| i.is_object()).ok_or_else(|| CompileError::NoItems(path.to_owned()))?;
    let keys = source.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
    let keys: Vec<&str> = keys.into_iter().flatten().filter_map(Value::as_str).collect();
    let list_type = match text(source, "x-kubernetes-list-type") {
        "set" => ListType::Set,
        "map" if keys.is_empty() => return Err(CompileError::NoKeys(path.to_owned())),
        "map" => ListType::Map,
        _ => ListType::Atomic,
    };
    Ok(Shape::List {
        item: Ref::Owned(Arc::new(node(items, &format!("{path}.items"), false)?)),
        list_type,
        keys: Cow::Owned(keys.join(",")),
        message: false,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::apply::{Write, apply};
    use crate::decode::{FieldValidation, decode};
    use crate::{Object, defaults};

    fn cron_tab() -> Arc<Schema> {
        compile(&json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["cron"], "properties": {
            "cron": {"type": "string"},
            "replicas": {"type": "integer", "default": 1},
            "port": {"x-kubernetes-int-or-string": true},
            "note": {"type": "string", "nullable": true},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "jobs": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}, "image": {"type": "string"}}}}}}}}))
        .unwrap()
    }

    #[test]
    fn custom_objects_are_pruned_checked_and_defaulted() {
        let body = br#"{"apiVersion":"s/v1","kind":"CronTab","metadata":{"name":"c","foo":1,"creationTimestamp":null},
            "spec":{"cron":"x","bad":1,"note":null,"free":{"any":{"thing":0}},"labels":{"a":"b"},"jobs":[{"name":"","x":1}],"port":null}}"#;
        let schema = cron_tab();
        let decoded = decode(body, &schema, FieldValidation::Warn).unwrap();
        assert_eq!(
            decoded.warnings,
            ["unknown field \"metadata.foo\"", "unknown field \"spec.bad\"", "unknown field \"spec.jobs[0].x\""]
        );
        let mut object = decoded.object;
        defaults::apply(&mut object, &schema);
        assert_eq!(
            object.get(&["spec"]),
            Some(&json!({"cron": "x", "note": null, "free": {"any": {"thing": 0}}, "labels": {"a": "b"},
                "jobs": [{"name": ""}], "replicas": 1}))
        );
        assert_eq!(object.get(&["metadata"]), Some(&json!({"name": "c"})));
    }

    #[test]
    fn custom_objects_are_applied_by_their_keys() {
        let schema = cron_tab();
        let write = |manager| Write {
            schema: &schema,
            manager,
            api_version: "s/v1",
            subresource: "",
            ignored: &[],
            now: "2024-01-01T00:00:00Z".parse().unwrap(),
        };
        let config = |jobs: Value| {
            Object::try_from(json!({"apiVersion": "s/v1", "kind": "CronTab", "spec": {"jobs": jobs}})).unwrap()
        };
        let empty = Object::try_from(json!({"apiVersion": "s/v1", "kind": "CronTab"})).unwrap();
        let live = apply(&empty, &config(json!([{"name": "a", "image": "1"}])), false, write("me")).unwrap();
        let both = apply(&live, &config(json!([{"name": "b"}])), false, write("you")).unwrap();
        assert_eq!(both.get(&["spec", "jobs"]), Some(&json!([{"name": "a", "image": "1"}, {"name": "b"}])));
        let clash = apply(&both, &config(json!([{"name": "a", "image": "2"}])), false, write("you")).unwrap_err();
        assert_eq!(
            clash.to_string(),
            "Apply failed with 1 conflict: conflict with \"me\": .spec.jobs[name=\"a\"].image"
        );
    }

    #[test]
    fn schemas_that_are_not_structural_are_refused() {
        let error = |properties: Value| compile(&json!({"type": "object", "properties": properties})).unwrap_err();
        assert_eq!(
            error(json!({"a": {}})).to_string(),
            "openAPIV3Schema.properties[a].type: Required value: must not be empty for specified object fields"
        );
        assert!(matches!(error(json!({"a": {"type": "text"}})), CompileError::Type { .. }));
        assert!(matches!(error(json!({"a": {"type": "array"}})), CompileError::NoItems(_)));
        let keyless = json!({"a": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "map"}});
        assert!(matches!(error(keyless), CompileError::NoKeys(_)));
    }
}
