//! Built-in types as the schemas of custom resources.

#![allow(dead_code, unreachable_pub, reason = "a module of several tests")]

use kminik_meta::schema::{Leaf, ListType, Schema, Shape};
use serde_json::{Map, Value, json};

/// The schema of a type as a definition writes it.
pub fn written(schema: &Schema) -> Value {
    match &schema.shape {
        Shape::Struct { atomic, .. } => {
            let mut properties = Map::new();
            for field in
                schema.fields().iter().filter(|field| !matches!(&*field.name, "apiVersion" | "kind" | "metadata"))
            {
                let mut property = written(field.schema());
                if let Some(default) =
                    field.default.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok())
                {
                    property["default"] = default;
                }
                properties.insert(field.name.to_string(), property);
            }
            let mut out = json!({"type": "object", "properties": properties});
            if *atomic {
                out["x-kubernetes-map-type"] = "atomic".into();
            }
            out
        }
        Shape::Map { value, .. } => json!({"type": "object", "additionalProperties": written(value)}),
        Shape::List { item, list_type, .. } => {
            let mut out = json!({"type": "array", "items": written(item)});
            match list_type {
                ListType::Atomic => {}
                ListType::Set => out["x-kubernetes-list-type"] = "set".into(),
                ListType::Map => {
                    out["x-kubernetes-list-type"] = "map".into();
                    let keys: Vec<&str> = schema.list_keys().collect();
                    out["items"]["required"] = json!(keys);
                    out["x-kubernetes-list-map-keys"] = json!(keys);
                }
            }
            out
        }
        Shape::Leaf { leaf, .. } => match leaf {
            Leaf::Boolean => json!({"type": "boolean"}),
            Leaf::Double => json!({"type": "number"}),
            Leaf::Int32 | Leaf::Int64 => json!({"type": "integer"}),
            Leaf::IntOrString | Leaf::Quantity => json!({"x-kubernetes-int-or-string": true}),
            Leaf::Bytes => json!({"type": "string", "format": "byte"}),
            Leaf::String => json!({"type": "string"}),
            Leaf::Time | Leaf::MicroTime => json!({"type": "string", "format": "date-time", "nullable": true}),
            // Any object, which belongs to one manager as a whole.
            Leaf::RawExtension => json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                "x-kubernetes-map-type": "atomic"}),
            _ => json!({"x-kubernetes-preserve-unknown-fields": true}),
        },
    }
}
