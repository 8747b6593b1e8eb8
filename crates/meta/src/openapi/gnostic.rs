//! A version 2 document in the protobuf form of the gnostic project, which older clients ask for.
//!
//! Messages are named in the comments; the numbers are those of its OpenAPIv2.proto.

use serde_json::Value;

use crate::protobuf::wire::{put_bytes, put_number};

/// Encodes a document made by [`super::v2`].
pub fn encode(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, document.get("swagger"));
    out.message(2, document.get("info"), |info, out| {
        out.text(1, info.get("title"));
        out.text(2, info.get("version"));
    });
    out.message(8, document.get("paths"), |paths, out| {
        named(out, 2, paths, path_item);
    });
    out.message(9, document.get("definitions"), |definitions, out| {
        named(out, 1, definitions, schema);
    });
    for requirement in document.get("security").and_then(Value::as_array).into_iter().flatten() {
        // SecurityRequirement { NamedStringArray { name, StringArray } }
        out.message(12, Some(requirement), |requirement, out| {
            named(out, 1, requirement, |_, _| {});
        });
    }
    out.message(13, document.get("securityDefinitions"), |definitions, out| {
        // NamedSecurityDefinitionsItem { name, SecurityDefinitionsItem { ApiKeySecurity } }
        named(out, 1, definitions, |item, out| {
            out.message(2, Some(item), |key, out| {
                out.text(1, key.get("type"));
                out.text(2, key.get("name"));
                out.text(3, key.get("in"));
                out.text(4, key.get("description"));
            });
        });
    });
    out.0
}

/// A message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn text(&mut self, field: u32, value: Option<&Value>) {
        if let Some(text) = value.and_then(Value::as_str) {
            put_bytes(&mut self.0, field, text.as_bytes());
        }
    }

    fn flag(&mut self, field: u32, value: Option<&Value>) {
        if value.and_then(Value::as_bool) == Some(true) {
            put_number(&mut self.0, field, 1);
        }
    }

    fn texts(&mut self, field: u32, value: Option<&Value>) {
        for text in value.and_then(Value::as_array).into_iter().flatten() {
            self.text(field, Some(text));
        }
    }

    fn message(&mut self, field: u32, value: Option<&Value>, fill: impl FnOnce(&Value, &mut Message)) {
        let Some(value) = value else { return };
        let mut inner = Self::default();
        fill(value, &mut inner);
        put_bytes(&mut self.0, field, &inner.0);
    }

    /// `Any { yaml }`.
    fn any(&mut self, field: u32, value: Option<&Value>) {
        self.message(field, value, |value, out| put_bytes(&mut out.0, 2, format!("{value}\n").as_bytes()));
    }

    /// `NamedAny` for every extension.
    fn extensions(&mut self, field: u32, value: &Value) {
        for (name, value) in value.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-")) {
            let mut inner = Self::default();
            put_bytes(&mut inner.0, 1, name.as_bytes());
            inner.any(2, Some(value));
            put_bytes(&mut self.0, field, &inner.0);
        }
    }
}

/// A repeated `{ name, value }` message for every member of an object.
fn named(out: &mut Message, field: u32, map: &Value, fill: fn(&Value, &mut Message)) {
    for (name, value) in map.as_object().into_iter().flatten() {
        let mut inner = Message::default();
        put_bytes(&mut inner.0, 1, name.as_bytes());
        inner.message(2, Some(value), fill);
        put_bytes(&mut out.0, field, &inner.0);
    }
}

fn path_item(item: &Value, out: &mut Message) {
    for (field, method) in
        [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (6, "options"), (7, "head"), (8, "patch")]
    {
        out.message(field, item.get(method), operation);
    }
    parameters(out, 9, item.get("parameters"));
    out.extensions(10, item);
}

fn operation(operation: &Value, out: &mut Message) {
    out.texts(1, operation.get("tags"));
    out.text(3, operation.get("description"));
    out.text(5, operation.get("operationId"));
    out.texts(6, operation.get("produces"));
    out.texts(7, operation.get("consumes"));
    parameters(out, 8, operation.get("parameters"));
    out.message(9, operation.get("responses"), |responses, out| {
        // NamedResponseValue { name, ResponseValue { Response } }
        named(out, 1, responses, |response, out| {
            out.message(1, Some(response), |response, out| {
                out.text(1, response.get("description"));
                // SchemaItem { Schema }
                out.message(2, response.get("schema"), |item, out| out.message(1, Some(item), schema));
            });
        });
    });
    out.texts(10, operation.get("schemes"));
    out.extensions(13, operation);
}

/// `ParametersItem { Parameter { BodyParameter | NonBodyParameter { query or path } } }`.
fn parameters(out: &mut Message, field: u32, list: Option<&Value>) {
    for parameter in list.and_then(Value::as_array).into_iter().flatten() {
        out.message(field, Some(parameter), |parameter, out| {
            out.message(1, Some(parameter), |parameter, out| match parameter.get("in").and_then(Value::as_str) {
                Some("body") => out.message(1, Some(parameter), |body, out| {
                    out.text(1, body.get("description"));
                    out.text(2, body.get("name"));
                    out.text(3, body.get("in"));
                    out.flag(4, body.get("required"));
                    out.message(5, body.get("schema"), schema);
                }),
                place => out.message(2, Some(parameter), |parameter, out| {
                    let (number, kind) = if place == Some("path") { (4, 5) } else { (3, 6) };
                    out.message(number, Some(parameter), |parameter, out| {
                        out.flag(1, parameter.get("required"));
                        out.text(2, parameter.get("in"));
                        out.text(3, parameter.get("description"));
                        out.text(4, parameter.get("name"));
                        out.text(kind, parameter.get("type"));
                    });
                }),
            });
        });
    }
}

fn schema(value: &Value, out: &mut Message) {
    out.text(1, value.get("$ref"));
    out.text(2, value.get("format"));
    out.text(3, value.get("title"));
    out.text(4, value.get("description"));
    out.any(5, value.get("default"));
    out.text(13, value.get("pattern"));
    out.texts(19, value.get("required"));
    for variant in value.get("enum").and_then(Value::as_array).into_iter().flatten() {
        out.any(20, Some(variant));
    }
    out.message(21, value.get("additionalProperties"), |inner, out| match inner {
        Value::Bool(allowed) => put_number(&mut out.0, 2, u64::from(*allowed)),
        inner => out.message(1, Some(inner), schema),
    });
    out.message(22, value.get("type"), |kind, out| out.text(1, Some(kind)));
    out.message(23, value.get("items"), |items, out| out.message(1, Some(items), schema));
    for part in value.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        out.message(24, Some(part), schema);
    }
    out.message(25, value.get("properties"), |properties, out| named(out, 1, properties, schema));
    out.extensions(31, value);
}
