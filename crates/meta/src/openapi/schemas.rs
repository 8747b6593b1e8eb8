//! Definitions: one a type, with the extensions that clients merge and explain by.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::custom::published;
use super::{Resource, Style};
use crate::gvk::Gvk;
use crate::schema::{self, Descriptions, Field, JSON_SCHEMA, Leaf, ListType, Ref, Schema, Shape};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const EXTENSIONS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1";

/// What the members that every object has are for; the texts of types leave these out.
const OWN_TEXTS: [(&str, &str); 3] = [
    (
        "apiVersion",
        "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources",
    ),
    (
        "kind",
        "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
    ),
    (
        "metadata",
        "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
    ),
];
const LIST_METADATA: &str = "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

/// The definitions gathered for a document.
pub(super) struct Schemas {
    style: Style,
    texts: Descriptions,
    kinds: BTreeMap<&'static str, Vec<Gvk>>,
    done: BTreeMap<String, Value>,
    pending: Vec<&'static Schema>,
}

impl Schemas {
    pub(super) fn new(style: Style) -> Self {
        let mut kinds: BTreeMap<&'static str, Vec<Gvk>> = BTreeMap::new();
        for (gvk, schema) in schema::kinds() {
            kinds.entry(schema.name.as_ref()).or_default().push(gvk);
        }
        Self { style, texts: Descriptions::unpack(), kinds, done: BTreeMap::new(), pending: Vec::new() }
    }

    pub(super) fn finish(mut self) -> Value {
        while let Some(schema) = self.pending.pop() {
            if !self.done.contains_key(schema.name.as_ref()) {
                let definition = self.definition(schema);
                self.done.insert(schema.name.clone().into_owned(), definition);
            }
        }
        Value::Object(self.done.into_iter().collect())
    }

    /// A reference to the definition of a resource's kind.
    pub(super) fn of_resource(&mut self, resource: &Resource<'_>) -> Value {
        match resource.schema {
            Some(schema) if !schema.is_named() => {
                let name = custom_name(resource.kind);
                if !self.done.contains_key(&name) {
                    let definition = self.custom(resource.kind, schema);
                    self.done.insert(name.clone(), definition);
                }
                self.style.reference(&name)
            }
            _ => self.of_kind(resource.kind),
        }
    }

    /// A reference to the definition of a resource's list.
    pub(super) fn of_list(&mut self, resource: &Resource<'_>) -> Value {
        let list = Gvk { kind: format!("{}List", resource.kind.kind), ..resource.kind.clone() };
        if resource.schema.is_none_or(|schema| schema.is_named()) {
            return self.of_kind(&list);
        }
        let name = custom_name(&list);
        let items = self.of_resource(resource);
        let metadata = described(self.of_definition(&format!("{META}.ListMeta")), self.style, LIST_METADATA);
        let text = |member: &str| json!({"type": "string", "description": own_text(member)});
        let of_items = format!(
            "List of {}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md",
            resource.name
        );
        let definition = json!({
            "description": format!("{} is a list of {}", list.kind, resource.kind.kind),
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": text("apiVersion"),
                "items": {"description": of_items, "type": "array", "items": items},
                "kind": text("kind"),
                "metadata": metadata,
            },
            "x-kubernetes-group-version-kind": [gvk_extension(&list)],
        });
        self.done.insert(name.clone(), definition);
        self.style.reference(&name)
    }

    /// A reference to a built-in kind; an object of any form when it is not known.
    pub(super) fn of_kind(&mut self, gvk: &Gvk) -> Value {
        match schema::lookup(gvk) {
            Some(schema) => self.of_schema(schema),
            None => json!({"type": "object"}),
        }
    }

    /// A reference to a definition by its name.
    pub(super) fn of_definition(&mut self, name: &str) -> Value {
        match schema::definition(name) {
            Some(schema) => self.of_schema(schema),
            None => json!({"type": "object"}),
        }
    }

    /// A reference to the body of a patch, which may be anything.
    pub(super) fn of_patch(&mut self) -> Value {
        self.leaf(
            &format!("{META}.Patch"),
            json!({"type": "object", "description": "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body."}),
        )
    }

    fn of_schema(&mut self, schema: &'static Schema) -> Value {
        self.pending.push(schema);
        self.style.reference(&schema.name)
    }

    fn leaf(&mut self, name: &str, definition: Value) -> Value {
        self.done.entry(name.to_owned()).or_insert(definition);
        self.style.reference(name)
    }

    fn definition(&mut self, schema: &'static Schema) -> Value {
        let mut out = json!({"type": "object"});
        if let Some(text) = self.texts.get(&schema.name, "") {
            out["description"] = text.into();
        }
        let required: Vec<&str> = schema.fields().iter().filter(|f| f.required).map(|f| f.name.as_ref()).collect();
        if !required.is_empty() {
            out["required"] = required.into();
        }
        let mut properties = Map::new();
        for field in schema.fields() {
            let property = self.property(&schema.name, field);
            properties.insert(field.name.clone().into_owned(), property);
        }
        if !properties.is_empty() {
            out["properties"] = Value::Object(properties);
        }
        if let Some(gvks) = self.kinds.get(schema.name.as_ref()) {
            out["x-kubernetes-group-version-kind"] = gvks.iter().map(gvk_extension).collect();
        }
        out
    }

    fn property(&mut self, owner: &str, field: &'static Field) -> Value {
        let node = field.schema();
        let mut out = self.node(node);
        let is_reference = out.get("$ref").is_some();
        if is_reference && self.style == Style::V3 {
            out = json!({"allOf": [out]});
            if matches!(node.shape, Shape::Struct { .. }) && !field.pointer {
                out["default"] = json!({});
            }
        }
        let own = || self.kinds.contains_key(owner).then(|| own_text(&field.name)).flatten().map(str::to_owned);
        if let Some(text) = self.texts.get(owner, &field.name).or_else(own) {
            out["description"] = text.into();
        }
        if let Some(default) = field.default.as_deref().and_then(|json| serde_json::from_str::<Value>(json).ok()) {
            out["default"] = default;
        }
        match &node.shape {
            Shape::List { list_type, .. } => {
                // A list without a marker is atomic to every client, so that is what all others say.
                let (name, has_keys) = match list_type {
                    ListType::Atomic => ("atomic", false),
                    ListType::Set => ("set", false),
                    ListType::Map => ("map", true),
                };
                out["x-kubernetes-list-type"] = name.into();
                if has_keys {
                    out["x-kubernetes-list-map-keys"] = node.list_keys().map(Value::from).collect();
                }
            }
            Shape::Map { atomic: true, .. } | Shape::Struct { atomic: true, .. } => {
                out["x-kubernetes-map-type"] = "atomic".into();
            }
            _ => {}
        }
        if !field.merge_key.is_empty() {
            out["x-kubernetes-patch-merge-key"] = field.merge_key.as_ref().into();
        }
        if !field.strategy.is_empty() {
            out["x-kubernetes-patch-strategy"] = field.strategy.as_ref().into();
        }
        out
    }

    fn node(&mut self, node: &'static Schema) -> Value {
        match &node.shape {
            Shape::Struct { .. } => self.of_schema(node),
            Shape::Map { value, .. } => {
                let value = self.node(value.get());
                json!({"type": "object", "additionalProperties": value})
            }
            Shape::List { item, .. } => {
                let mut item_node = self.node(item.get());
                if self.style == Style::V3 && item_node.get("$ref").is_some() {
                    item_node = json!({"allOf": [item_node], "default": {}});
                }
                json!({"type": "array", "items": item_node})
            }
            Shape::Leaf { leaf, values } => {
                let mut out = self.leaf_type(*leaf);
                if !values.is_empty() {
                    out["enum"] = values.split(',').map(Value::from).collect();
                }
                out
            }
        }
    }

    fn leaf_type(&mut self, leaf: Leaf) -> Value {
        let v3 = self.style == Style::V3;
        match leaf {
            Leaf::Boolean => json!({"type": "boolean"}),
            Leaf::Bytes => json!({"type": "string", "format": "byte"}),
            Leaf::Double => json!({"type": "number", "format": "double"}),
            Leaf::Int32 => json!({"type": "integer", "format": "int32"}),
            Leaf::Int64 => json!({"type": "integer", "format": "int64"}),
            Leaf::String => json!({"type": "string"}),
            Leaf::Time => self.leaf(&format!("{META}.Time"), json!({"type": "string", "format": "date-time"})),
            Leaf::MicroTime => {
                self.leaf(&format!("{META}.MicroTime"), json!({"type": "string", "format": "date-time"}))
            }
            Leaf::FieldsV1 => self.leaf(&format!("{META}.FieldsV1"), json!({"type": "object"})),
            Leaf::RawExtension => self.leaf("io.k8s.apimachinery.pkg.runtime.RawExtension", json!({"type": "object"})),
            Leaf::Quantity => {
                let either = json!({"oneOf": [{"type": "string"}, {"type": "number"}]});
                let definition = if v3 { either } else { json!({"type": "string"}) };
                self.leaf("io.k8s.apimachinery.pkg.api.resource.Quantity", definition)
            }
            Leaf::IntOrString => {
                let either = json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]});
                let definition = if v3 { either } else { json!({"type": "string", "format": "int-or-string"}) };
                self.leaf("io.k8s.apimachinery.pkg.util.intstr.IntOrString", definition)
            }
            Leaf::Json => self.leaf(&format!("{EXTENSIONS}.JSON"), json!({"description": "Any JSON value."})),
            Leaf::SchemaOrArray => self.union("JSONSchemaPropsOrArray", "A schema or a list of schemas."),
            Leaf::SchemaOrBool => self.union("JSONSchemaPropsOrBool", "A schema or a boolean."),
            Leaf::SchemaOrStringArray => self.union("JSONSchemaPropsOrStringArray", "A schema or a list of strings."),
        }
    }

    fn union(&mut self, name: &str, description: &str) -> Value {
        self.of_definition(JSON_SCHEMA);
        self.leaf(&format!("{EXTENSIONS}.{name}"), json!({"description": description}))
    }

    /// A custom resource's schema as it was given, with the members that every object has.
    fn custom(&mut self, gvk: &Gvk, schema: &Ref) -> Value {
        let metadata = self.of_definition(&format!("{META}.ObjectMeta"));
        let metadata = described(metadata, self.style, own_text("metadata").unwrap_or_default());
        let text = |member: &str| json!({"type": "string", "description": own_text(member)});
        let own = [("apiVersion", text("apiVersion")), ("kind", text("kind")), ("metadata", metadata)];
        let mut out = published(schema.source().unwrap_or_default(), self.style, &own);
        out["x-kubernetes-group-version-kind"] = json!([gvk_extension(gvk)]);
        out
    }
}

fn own_text(member: &str) -> Option<&'static str> {
    OWN_TEXTS.iter().find(|(name, _)| *name == member).map(|(_, text)| *text)
}

/// A reference with a text beside it; in version 3 nothing counts beside a bare reference.
fn described(reference: Value, style: Style, text: &str) -> Value {
    let mut out = if style == Style::V3 { json!({"allOf": [reference]}) } else { reference };
    out["description"] = text.into();
    out
}

/// `stable.example.com/v1 CronTab` is `com.example.stable.v1.CronTab`.
fn custom_name(gvk: &Gvk) -> String {
    let group: Vec<&str> = gvk.group.split('.').rev().collect();
    format!("{}.{}.{}", group.join("."), gvk.version, gvk.kind)
}

/// The extension that says which kind a definition or operation is about.
pub(super) fn gvk_extension(gvk: &Gvk) -> Value {
    // Kinds of every group carry no group here.
    let group = if gvk.group == "meta.k8s.io" { "" } else { &gvk.group };
    json!({"group": group, "version": gvk.version, "kind": gvk.kind})
}
