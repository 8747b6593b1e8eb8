//! A custom resource's schema in the form of the table: decoding, pruning, defaulting, patches and apply then need not know that it
//! is one.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Field, Fields, Leaf, ListType, Pattern, Ref, Rules, Schema, Shape, Values, object_meta};
use crate::validate::formats;

/// The schema of one version of a CustomResourceDefinition. It keeps the definition's bytes, which the store has anyway, and compiles
/// them when an object of the version is first read or written.
#[derive(Debug)]
pub struct Definition {
    definition: Bytes,
    version: String,
    compiled: OnceLock<Schema>,
}

impl Definition {
    /// Of a version of a definition in JSON; nothing is read yet.
    pub fn new(definition: Bytes, version: impl Into<String>) -> Self {
        Self { definition, version: version.into(), compiled: OnceLock::new() }
    }

    /// The compiled schema. A version without a schema takes objects with any members.
    pub fn schema(&self) -> &Schema {
        self.compiled.get_or_init(|| match self.source() {
            Some(source) => compile_root(&source),
            None => compile_root(&serde_json::json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})),
        })
    }

    /// The schema as it was written.
    pub fn source(&self) -> Option<Value> {
        #[derive(Deserialize)]
        struct Root<'a> {
            #[serde(borrow)]
            spec: Spec<'a>,
        }
        #[derive(Deserialize)]
        struct Spec<'a> {
            #[serde(borrow)]
            versions: Vec<Version<'a>>,
        }
        #[derive(Deserialize)]
        struct Version<'a> {
            name: String,
            #[serde(borrow, default)]
            schema: Option<Validated<'a>>,
        }
        #[derive(Deserialize)]
        struct Validated<'a> {
            #[serde(borrow, rename = "openAPIV3Schema", default)]
            schema: Option<&'a RawValue>,
        }
        let root: Root<'_> = serde_json::from_slice(&self.definition).ok()?;
        let version = root.spec.versions.into_iter().find(|version| version.name == self.version)?;
        serde_json::from_str(version.schema?.schema?.get()).ok()
    }
}

/// Compiles the `openAPIV3Schema` of a version. The root gets `apiVersion`, `kind` and `metadata`. A node that does not say what it is
/// takes anything: whether the schema is a good one was checked when its definition was written.
pub fn compile(source: &Value) -> Arc<Schema> {
    Arc::new(compile_root(source))
}

/// Compiles a node that is not a root.
pub(crate) fn compile_node(source: &Value) -> Schema {
    node(source, false, false)
}

fn compile_root(source: &Value) -> Schema {
    node(source, true, false)
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

/// Compiles a node. `root`: the object of the resource itself; `open`: unknown members are kept because an outer list says so.
fn node(source: &Value, root: bool, open: bool) -> Schema {
    let open = open || flag(source, "x-kubernetes-preserve-unknown-fields");
    let embedded = flag(source, "x-kubernetes-embedded-resource");
    let types = types_of(source);
    let shape = match types {
        "object" => object(source, root || embedded, open),
        "array" => list(source, open),
        "string" => leaf(Leaf::String),
        "boolean" => leaf(Leaf::Boolean),
        "number" => leaf(Leaf::Double),
        "integer" => leaf(Leaf::Int64),
        "integer,string" => leaf(Leaf::IntOrString),
        _ if source.get("properties").is_some() => object(source, root || embedded, true),
        _ => leaf(Leaf::Json),
    };
    let granular = match &shape {
        Shape::Struct { atomic, .. } | Shape::Map { atomic, .. } => !atomic,
        Shape::List { list_type, .. } => *list_type == ListType::Map,
        Shape::Leaf { .. } => false,
    };
    let metadata = source.pointer("/properties/metadata").filter(|_| root || embedded);
    let rules = Rules {
        default: source.get("default").cloned(),
        types,
        embedded,
        metadata: metadata.map(|source| Arc::new(node(source, false, true))),
        granular,
        values: values(source).map(Box::new),
    };
    Schema { name: Cow::Borrowed(""), shape, nullable: flag(source, "nullable"), rules: Some(Box::new(rules)) }
}

/// The types that may stand at a node, as messages write them.
fn types_of(source: &Value) -> &'static str {
    const KNOWN: [&str; 6] = ["object", "array", "string", "boolean", "number", "integer"];
    if flag(source, "x-kubernetes-int-or-string") {
        return "integer,string";
    }
    KNOWN.into_iter().find(|known| *known == text(source, "type")).unwrap_or_default()
}

/// The conditions of a node on its value; `None` for a node that has none.
fn values(source: &Value) -> Option<Values> {
    let number = |member: &str| source.get(member).and_then(Value::as_f64);
    let count = |member: &str| source.get(member).and_then(Value::as_u64);
    let all = |member: &str| -> Vec<Values> { elements(source, member).map(junctor).collect() };
    let format = text(source, "format");
    let found = Values {
        types: "",
        format: formats::is_known(format).then(|| format.to_owned()),
        maximum: number("maximum"),
        exclusive_maximum: flag(source, "exclusiveMaximum"),
        minimum: number("minimum"),
        exclusive_minimum: flag(source, "exclusiveMinimum"),
        multiple_of: number("multipleOf"),
        max_length: count("maxLength"),
        min_length: count("minLength"),
        pattern: source.get("pattern").and_then(Value::as_str).filter(|p| !p.is_empty()).map(Pattern::new),
        max_items: count("maxItems"),
        min_items: count("minItems"),
        max_properties: count("maxProperties"),
        min_properties: count("minProperties"),
        required: elements(source, "required").filter_map(Value::as_str).map(str::to_owned).collect(),
        one_of_values: elements(source, "enum").cloned().collect(),
        all_of: all("allOf"),
        any_of: all("anyOf"),
        one_of: all("oneOf"),
        not: source.get("not").filter(|not| not.is_object()).map(|not| Box::new(junctor(not))),
        properties: Vec::new(),
        items: None,
    };
    let some = found.format.is_some()
        || [found.maximum, found.minimum, found.multiple_of].iter().any(Option::is_some)
        || [found.max_length, found.min_length, found.max_items, found.min_items].iter().any(Option::is_some)
        || [found.max_properties, found.min_properties].iter().any(Option::is_some)
        || found.pattern.is_some()
        || found.not.is_some()
        || !(found.required.is_empty() && found.one_of_values.is_empty())
        || !(found.all_of.is_empty() && found.any_of.is_empty() && found.one_of.is_empty());
    some.then_some(found)
}

/// Conditions inside `allOf` and its like, which also go into members and elements.
fn junctor(source: &Value) -> Values {
    let properties = source.get("properties").and_then(Value::as_object).into_iter().flatten();
    Values {
        types: types_of(source),
        properties: properties.map(|(name, source)| (name.clone(), junctor(source))).collect(),
        items: source.get("items").filter(|items| items.is_object()).map(|items| Box::new(junctor(items))),
        ..values(source).unwrap_or_default()
    }
}

fn elements<'a>(source: &'a Value, member: &str) -> impl Iterator<Item = &'a Value> {
    source.get(member).and_then(Value::as_array).into_iter().flatten()
}

fn object(source: &Value, whole: bool, open: bool) -> Shape {
    let atomic = text(source, "x-kubernetes-map-type") == "atomic";
    let properties = source.get("properties").and_then(Value::as_object);
    match source.get("additionalProperties") {
        Some(values @ Value::Object(_)) => {
            return Shape::Map { value: Ref::Owned(Arc::new(node(values, false, false))), atomic };
        }
        // The members of what stands in such a map are unknown, and dropped like all that are.
        Some(Value::Bool(true)) if !open && !whole && properties.is_none_or(serde_json::Map::is_empty) => {
            let shape = Shape::Struct { fields: Fields::Owned(Vec::new()), atomic: false, preserve: false };
            let rules = Some(Box::new(Rules::default()));
            let value = Schema { name: Cow::Borrowed(""), shape, nullable: true, rules };
            return Shape::Map { value: Ref::Owned(Arc::new(value)), atomic };
        }
        _ => {}
    }
    let required: Vec<&str> = elements(source, "required").filter_map(Value::as_str).collect();
    let mut fields = Vec::new();
    for (name, source) in properties.into_iter().flatten() {
        // What metadata holds is not the schema's to say.
        if whole && name == "metadata" {
            continue;
        }
        let schema = Arc::new(node(source, false, false));
        fields.push(field(name.clone(), Ref::Owned(schema), required.contains(&name.as_str())));
    }
    if whole {
        for name in ["apiVersion", "kind"] {
            if fields.iter().all(|field| field.name != name) {
                let rules = Some(Box::new(Rules { types: "string", ..Rules::default() }));
                let schema = Schema { name: "".into(), shape: leaf(Leaf::String), nullable: false, rules };
                fields.push(field(name.to_owned(), Ref::Owned(Arc::new(schema)), false));
            }
        }
        fields.push(field("metadata".to_owned(), object_meta(), false));
    }
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    let open = open || source.get("additionalProperties").and_then(Value::as_bool) == Some(true);
    Shape::Struct { fields: Fields::Owned(fields), atomic, preserve: open }
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

fn list(source: &Value, open: bool) -> Shape {
    let keys: Vec<&str> = elements(source, "x-kubernetes-list-map-keys").filter_map(Value::as_str).collect();
    let list_type = match text(source, "x-kubernetes-list-type") {
        "set" => ListType::Set,
        "map" if !keys.is_empty() => ListType::Map,
        _ => ListType::Atomic,
    };
    let item = match source.get("items") {
        Some(items @ Value::Object(_)) => node(items, false, open),
        _ => node(&Value::Null, false, true),
    };
    let keys = Cow::Owned(keys.join(","));
    Shape::List { item: Ref::Owned(Arc::new(item)), list_type, keys, message: false }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::apply::{Resets, Write, apply};
    use crate::decode::{FieldValidation, decode};
    use crate::{Object, defaults};

    fn cron_tab() -> Arc<Schema> {
        compile(
            &json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["cron"], "properties": {
            "cron": {"type": "string"},
            "replicas": {"type": "integer", "default": 1},
            "port": {"x-kubernetes-int-or-string": true},
            "note": {"type": "string", "nullable": true},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "jobs": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}, "image": {"type": "string"}}}}}}}}),
        )
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
            resets: Resets::Fields(&[]),
            convert: None,
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
}
