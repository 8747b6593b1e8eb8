//! Types from schemas: what an expression sees of an object, and how large each part may be.
//!
//! A custom resource's come from its JSON schema ([`DeclType::from_json_schema`]), those of built-in kinds from the field table
//! ([`DeclType::from_schema`]). Sizes follow upstream's estimates, since the cost limits of rules are reckoned from them.

use std::collections::BTreeMap;
use std::sync::Arc;

use kminik_meta::schema::{Leaf, ListType, Schema, Shape};
use serde_json::Value as Json;

use crate::types::{ObjectType, Type};

/// The largest request, in bytes: what bounds everything that a schema does not bound.
const MAX_REQUEST: u64 = 3 * 1024 * 1024;
/// Schemas may be nested so deeply; below, values are dynamic.
const MAX_DEPTH: usize = 64;
/// What upstream takes as the size of numbers, booleans, objects and maps' keys.
pub(crate) const UNSIZED: u64 = 0;

/// A type from a schema.
#[derive(Debug)]
pub struct DeclType {
    /// What stands here.
    pub kind: DeclKind,
    /// Elements, entries, characters or bytes there may be.
    pub max_elements: u64,
    /// Bytes that the shortest value takes in JSON.
    pub min_size: u64,
}

/// The shapes of schema types.
#[derive(Debug)]
pub enum DeclKind {
    Dyn,
    Bool,
    Int,
    Double,
    String,
    Bytes,
    Duration,
    /// A point in time; `date` when written without a time of day.
    Timestamp {
        date: bool,
    },
    List {
        item: Arc<DeclType>,
        merge: ListMerge,
    },
    Map {
        value: Arc<DeclType>,
    },
    Object {
        name: String,
        fields: BTreeMap<String, DeclField>,
    },
}

/// How lists of `x-kubernetes-list-type` are compared and added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListMerge {
    Atomic,
    Set,
    Map(Vec<String>),
}

/// A field of an object type, under the name by which expressions know it.
#[derive(Debug)]
pub struct DeclField {
    /// Its name in JSON.
    pub json: String,
    /// Its type.
    pub decl: Arc<DeclType>,
}

/// The name by which expressions know a property; `None` for those they cannot know.
pub fn escape(name: &str) -> Option<String> {
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if kminik_meta::names::CEL_RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let mut escaped = String::with_capacity(name.len());
    let mut rest = name.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '_' if rest.peek() == Some(&'_') => {
                rest.next();
                escaped.push_str("__underscores__");
            }
            '.' => escaped.push_str("__dot__"),
            '-' => escaped.push_str("__dash__"),
            '/' => escaped.push_str("__slash__"),
            c if c.is_ascii_alphanumeric() || c == '_' => escaped.push(c),
            _ => return None,
        }
    }
    Some(escaped)
}

impl DeclType {
    fn new(kind: DeclKind, max_elements: u64, min_size: u64) -> Arc<Self> {
        Arc::new(DeclType { kind, max_elements, min_size })
    }

    /// A type of this shape that nothing but the size of a request bounds.
    pub fn of(kind: DeclKind) -> Arc<Self> {
        Self::new(kind, MAX_REQUEST - 2, 1)
    }

    /// An object type of the host, whose fields expressions know by their JSON names.
    pub fn object(name: &str, fields: &[(&str, Arc<DeclType>)]) -> Arc<Self> {
        let field = |(name, decl): &(&str, Arc<DeclType>)| {
            ((*name).to_owned(), DeclField { json: (*name).to_owned(), decl: decl.clone() })
        };
        Self::new(DeclKind::Object { name: name.to_owned(), fields: fields.iter().map(field).collect() }, UNSIZED, 2)
    }

    /// The field that expressions call `name`.
    pub fn field(&self, name: &str) -> Option<&DeclField> {
        match &self.kind {
            DeclKind::Object { fields, .. } => fields.get(name),
            _ => None,
        }
    }

    /// The type of a list's elements or a map's values.
    pub fn element(&self) -> Option<&Arc<DeclType>> {
        match &self.kind {
            DeclKind::List { item, .. } => Some(item),
            DeclKind::Map { value } => Some(value),
            _ => None,
        }
    }

    /// The checker's type.
    pub fn cel_type(self: &Arc<Self>) -> Type {
        match &self.kind {
            DeclKind::Dyn => Type::Dyn,
            DeclKind::Bool => Type::Bool,
            DeclKind::Int => Type::Int,
            DeclKind::Double => Type::Double,
            DeclKind::String => Type::String,
            DeclKind::Bytes => Type::Bytes,
            DeclKind::Duration => Type::Duration,
            DeclKind::Timestamp { .. } => Type::Timestamp,
            DeclKind::List { item, .. } => Type::list(item.cel_type()),
            DeclKind::Map { value } => Type::map(Type::String, value.cel_type()),
            DeclKind::Object { .. } => Type::Object(ObjectType::Decl(self.clone())),
        }
    }

    /// The most values of this type that a request can hold.
    pub fn max_cardinality(&self) -> u64 {
        MAX_REQUEST / (self.min_size + 1)
    }

    /// The type of an OpenAPI v3 schema; `None` where expressions see nothing. `resource_root` adds `apiVersion`, `kind` and `metadata`.
    pub fn from_json_schema(schema: &Json, resource_root: bool) -> Option<Arc<Self>> {
        Self::json(schema, resource_root, "selfType", 0)
    }

    fn json(schema: &Json, root: bool, name: &str, depth: usize) -> Option<Arc<Self>> {
        let flag = |key: &str| schema.get(key).and_then(Json::as_bool).unwrap_or_default();
        let number = |key: &str| schema.get(key).and_then(Json::as_i64).map(|n| u64::try_from(n).unwrap_or_default());
        if depth > MAX_DEPTH {
            return Some(Self::new(DeclKind::Dyn, MAX_REQUEST - 2, 1));
        }
        if flag("x-kubernetes-int-or-string") {
            let max = number("maxLength").map_or(MAX_REQUEST - 2, |n| n.saturating_mul(4));
            return Some(Self::new(DeclKind::Dyn, max, 1));
        }
        let embedded = |s: &Json| s.get("x-kubernetes-embedded-resource").and_then(Json::as_bool).unwrap_or_default();
        let format = schema.get("format").and_then(Json::as_str).unwrap_or_default();
        Some(match schema.get("type").and_then(Json::as_str).unwrap_or_default() {
            "array" => {
                let items = schema.get("items")?;
                let item = Self::json(items, embedded(items), &format!("{name}.@idx"), depth + 1)?;
                let max = number("maxItems").unwrap_or((MAX_REQUEST - 2) / (item.min_size + 1));
                let keys = schema.get("x-kubernetes-list-map-keys").and_then(Json::as_array);
                let merge = match schema.get("x-kubernetes-list-type").and_then(Json::as_str) {
                    Some("set") => ListMerge::Set,
                    Some("map") => {
                        ListMerge::Map(keys.into_iter().flatten().filter_map(Json::as_str).map(str::to_owned).collect())
                    }
                    _ => ListMerge::Atomic,
                };
                Self::new(DeclKind::List { item, merge }, max, 2)
            }
            "object" => {
                if let Some(values) = schema.get("additionalProperties").filter(|v| v.is_object()) {
                    let value = Self::json(values, embedded(values), &format!("{name}.@elem"), depth + 1)?;
                    let max = number("maxProperties").unwrap_or((MAX_REQUEST - 2) / (value.min_size + 6));
                    return Some(Self::new(DeclKind::Map { value }, max, 2));
                }
                Self::json_object(schema, root, name, depth)
            }
            "string" => {
                let bounded = |max: u64| number("maxLength").unwrap_or(max);
                match format {
                    "byte" => Self::new(DeclKind::Bytes, bounded(MAX_REQUEST - 2), 2),
                    "duration" => Self::new(DeclKind::Duration, 32, 3),
                    "date" => Self::new(DeclKind::Timestamp { date: true }, 12, 12),
                    "date-time" => Self::new(DeclKind::Timestamp { date: false }, 32, 21),
                    _ => {
                        let longest =
                            schema.get("enum").and_then(Json::as_array).filter(|e| !e.is_empty()).map(|values| {
                                values.iter().filter_map(Json::as_str).map(|v| v.len() as u64).max().unwrap_or_default()
                            });
                        let max = match number("maxLength") {
                            // Lengths are in characters, sizes in bytes.
                            Some(n) => n.saturating_mul(4),
                            None => longest.unwrap_or(MAX_REQUEST - 2),
                        };
                        Self::new(DeclKind::String, max, 2)
                    }
                }
            }
            "boolean" => Self::new(DeclKind::Bool, UNSIZED, 4),
            "number" => Self::new(DeclKind::Double, UNSIZED, 1),
            "integer" => Self::new(DeclKind::Int, UNSIZED, 1),
            _ => return None,
        })
    }

    fn json_object(schema: &Json, root: bool, name: &str, depth: usize) -> Arc<Self> {
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Json::as_array)
            .map(|r| r.iter().filter_map(Json::as_str).collect())
            .unwrap_or_default();
        let mut fields = BTreeMap::new();
        let mut min_size = 2;
        let properties = schema.get("properties").and_then(Json::as_object);
        for (json, property) in properties.into_iter().flatten() {
            if root && matches!(json.as_str(), "apiVersion" | "kind" | "metadata") {
                continue;
            }
            let embedded = property.get("x-kubernetes-embedded-resource").and_then(Json::as_bool).unwrap_or_default();
            let escaped = escape(json);
            let inner = format!("{name}.{}", escaped.as_deref().unwrap_or(json));
            let Some(decl) = Self::json(property, embedded, &inner, depth + 1) else { continue };
            if required.contains(&json.as_str()) && property.get("default").is_none() {
                min_size += json.len() as u64 + decl.min_size + 4;
            }
            if let Some(escaped) = escaped {
                fields.insert(escaped, DeclField { json: json.clone(), decl });
            }
        }
        if root {
            let text = || Self::new(DeclKind::String, MAX_REQUEST - 2, 2);
            let field = |json: &str, decl| (json.to_owned(), DeclField { json: json.to_owned(), decl });
            let metadata = DeclKind::Object {
                name: format!("{name}.metadata"),
                fields: [field("name", text()), field("generateName", text())].into(),
            };
            fields.extend([
                field("apiVersion", text()),
                field("kind", text()),
                field("metadata", Self::new(metadata, UNSIZED, 2)),
            ]);
        }
        Self::new(DeclKind::Object { name: name.to_owned(), fields }, UNSIZED, min_size)
    }

    /// The type of a kind of the field table.
    pub fn from_schema(schema: &Schema) -> Arc<Self> {
        Self::table(schema, &mut Vec::new())
    }

    fn table<'s>(schema: &'s Schema, above: &mut Vec<&'s str>) -> Arc<Self> {
        let text = |kind| Self::new(kind, MAX_REQUEST - 2, 2);
        let dynamic = || Self::new(DeclKind::Dyn, MAX_REQUEST - 2, 1);
        match &schema.shape {
            Shape::Struct { preserve: true, .. } => dynamic(),
            // A type that contains itself is dynamic inside of itself.
            Shape::Struct { .. } if !schema.name.is_empty() && above.contains(&&*schema.name) => dynamic(),
            Shape::Struct { fields, .. } => {
                above.push(&schema.name);
                let mut decls = BTreeMap::new();
                for field in fields.as_slice() {
                    let decl = Self::table(field.schema(), above);
                    if let Some(escaped) = escape(&field.name) {
                        decls.insert(escaped, DeclField { json: field.name.to_string(), decl });
                    }
                }
                above.pop();
                let name = if schema.name.is_empty() { "object".to_owned() } else { schema.name.to_string() };
                Self::new(DeclKind::Object { name, fields: decls }, UNSIZED, 2)
            }
            Shape::Map { value, .. } => {
                let value = Self::table(value.get(), above);
                let max = (MAX_REQUEST - 2) / (value.min_size + 6);
                Self::new(DeclKind::Map { value }, max, 2)
            }
            Shape::List { item, list_type, .. } => {
                let item = Self::table(item.get(), above);
                let merge = match list_type {
                    ListType::Atomic => ListMerge::Atomic,
                    ListType::Set => ListMerge::Set,
                    ListType::Map => ListMerge::Map(schema.list_keys().map(str::to_owned).collect()),
                };
                let max = (MAX_REQUEST - 2) / (item.min_size + 1);
                Self::new(DeclKind::List { item, merge }, max, 2)
            }
            Shape::Leaf { leaf, .. } => match leaf {
                Leaf::Boolean => Self::new(DeclKind::Bool, UNSIZED, 4),
                Leaf::Int32 | Leaf::Int64 => Self::new(DeclKind::Int, UNSIZED, 1),
                Leaf::Double => Self::new(DeclKind::Double, UNSIZED, 1),
                Leaf::String => text(DeclKind::String),
                Leaf::Bytes => text(DeclKind::Bytes),
                Leaf::Time | Leaf::MicroTime => Self::new(DeclKind::Timestamp { date: false }, 32, 21),
                _ => dynamic(),
            },
        }
    }
}
