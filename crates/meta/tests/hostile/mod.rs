//! What must hold for bytes from anywhere: nothing panics, and what is taken is taken the same way twice. The fuzz targets and
//! the mutating test run the same functions.

#![allow(clippy::unwrap_used, unreachable_pub, dead_code, reason = "a module of tests and of the fuzz targets")]

use kminik_meta::apply::{self, Resets, Write};
use kminik_meta::decode::{self, Decoded, FieldValidation};
use kminik_meta::patch::{self, PatchType};
use kminik_meta::schema::{self, Schema};
use kminik_meta::{FieldSelector, Gvk, LabelSelector, Object, Quantity, defaults, protobuf, time, validate};

/// A property of any input.
pub type Target = fn(&[u8]);

/// All of them, by the names of the fuzz targets.
pub const TARGETS: &[(&str, Target)] = &[
    ("decode_json", decode_json),
    ("decode_yaml", decode_yaml),
    ("patches", patches),
    ("server_side_apply", server_side_apply),
    ("selectors", selectors),
    ("protobuf_messages", protobuf_messages),
    ("scalars", scalars),
];

/// The first byte chooses the kind.
fn kind(data: &[u8]) -> Option<(Gvk, &'static Schema, &[u8])> {
    let (first, rest) = data.split_first()?;
    let count = schema::kinds().count();
    let (gvk, schema) = schema::kinds().nth(usize::from(*first) % count)?;
    Some((gvk, schema, rest))
}

/// The normal form is a fixed point, and validation takes whatever decoding took.
fn check(gvk: &Gvk, schema: &Schema, decoded: Decoded) {
    let mut object = decoded.object;
    let mut again = object.clone();
    decode::conform(&mut again, schema, FieldValidation::Strict).unwrap();
    assert_eq!(object, again, "the normal form of {gvk}");
    defaults::apply(&mut object, schema);
    let _ = validate::create(gvk, schema, &object);
}

pub fn decode_json(data: &[u8]) {
    let Some((gvk, schema, body)) = kind(data) else { return };
    if let Ok(decoded) = decode::decode(body, schema, FieldValidation::Warn) {
        check(&gvk, schema, decoded);
    }
}

pub fn decode_yaml(data: &[u8]) {
    let Some((gvk, schema, body)) = kind(data) else { return };
    if let Ok(decoded) = decode::decode_yaml(body, schema, FieldValidation::Warn) {
        check(&gvk, schema, decoded);
    }
}

fn deployment() -> (Gvk, &'static Schema, Object) {
    let gvk = Gvk::new("apps", "v1", "Deployment");
    let schema = schema::lookup(&gvk).unwrap();
    let body = br#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a","labels":{"a":"b"},"finalizers":["x.y/z"],
        "managedFields":[{"manager":"m","operation":"Update","apiVersion":"apps/v1","fieldsType":"FieldsV1",
            "fieldsV1":{"f:spec":{"f:replicas":{},"f:template":{"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{"f:image":{}}}}}}}}]},
        "spec":{"replicas":1,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{
            "containers":[{"name":"c","image":"i","ports":[{"containerPort":80,"protocol":"TCP"}]},{"name":"d","image":"j"}]}}}}"#;
    let object = decode::decode(body, schema, FieldValidation::Strict).unwrap().object;
    (gvk, schema, object)
}

/// The first byte chooses the kind of patch.
pub fn patches(data: &[u8]) {
    let Some((first, body)) = data.split_first() else { return };
    let (gvk, schema, present) = deployment();
    let patched = match PatchType::ALL.get(usize::from(*first) % 3) {
        Some(PatchType::Json) => patch::json(&present, body),
        Some(PatchType::Merge) => patch::merge(&present, body),
        _ => patch::strategic(&present, body, schema),
    };
    let Ok(patched) = patched else { return };
    let mut object = patched.object;
    if let Ok(warnings) = decode::conform(&mut object, schema, FieldValidation::Warn) {
        check(&gvk, schema, Decoded { object, warnings });
    }
}

/// The first byte says whether it is forced. What was applied once changes nothing when it is applied again.
pub fn server_side_apply(data: &[u8]) {
    let Some((first, body)) = data.split_first() else { return };
    let Ok(configuration) = decode::parse_yaml(body) else { return };
    let (_, schema, present) = deployment();
    let now = time::parse("2024-01-02T03:04:05Z").unwrap();
    let write = Write {
        schema,
        manager: "f",
        api_version: "apps/v1",
        subresource: "",
        resets: Resets::Fields(&[]),
        now,
        convert: None,
    };
    let Ok(mut applied) = apply::apply(&present, &configuration.object, first.is_multiple_of(2), write) else { return };
    if decode::conform(&mut applied, schema, FieldValidation::Ignore).is_err() {
        return;
    }
    let mut again = apply::apply(&applied, &configuration.object, false, write).unwrap();
    decode::conform(&mut again, schema, FieldValidation::Ignore).unwrap();
    assert_eq!(applied, again, "applied twice");
}

pub fn selectors(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(selector) = LabelSelector::parse(text) {
        let again = LabelSelector::parse(&selector.to_string()).unwrap();
        assert_eq!(selector.to_string(), again.to_string());
    }
    let _ = FieldSelector::parse(text);
}

pub fn protobuf_messages(data: &[u8]) {
    let Some((gvk, schema, body)) = kind(data) else { return };
    let Ok(decoded) = protobuf::decode(body, schema) else { return };
    let bytes = protobuf::encode(&decoded.object.to_value(), schema);
    // JSON text is not nested as deeply as messages.
    let (api_version, kind) = (decoded.object.api_version(), decoded.object.kind());
    if let Ok(text) = protobuf::encode_text(&decoded.object.to_vec(), api_version, kind, schema) {
        assert_eq!(text, bytes, "{gvk} from text and from a tree");
    }
    let again = protobuf::decode(&bytes, schema).unwrap();
    assert_eq!(again.object, decoded.object, "{gvk} written and read again");
    check(&gvk, schema, decoded);
}

pub fn scalars(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(quantity) = text.parse::<Quantity>() {
        assert_eq!(quantity.to_string().parse::<Quantity>().unwrap().to_string(), quantity.to_string());
    }
    if let Some(instant) = time::parse(text) {
        assert_eq!(time::parse(&time::format(instant)).map(time::format), Some(time::format(instant)));
    }
}
