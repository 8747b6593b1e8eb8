use serde_json::json;

use super::wire::put_bytes;
use super::*;
use crate::Object;
use crate::decode::conform;
use crate::gvk::Gvk;
use crate::schema::{Leaf, Shape, lookup};

fn round_trip(group: &str, kind: &str, object: Value) {
    let schema = lookup(&Gvk::new(group, "v1", kind)).unwrap();
    let mut object = Object::try_from(object).unwrap();
    object.set_gvk(&Gvk::new(group, "v1", kind));
    conform(&mut object, schema, FieldValidation::Strict).unwrap();
    let bytes = encode(&object.to_value(), schema);
    assert_eq!(decode(&bytes, schema).unwrap().object, object);
}

#[test]
fn objects_round_trip() {
    round_trip(
        "",
        "Pod",
        json!({
            "metadata": {"name": "p", "labels": {"a": "b"}, "creationTimestamp": "2024-01-02T03:04:05Z", "generation": 3,
                "managedFields": [{"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
                    "fieldsV1": {"f:spec": {}}, "time": "1960-01-02T03:04:05Z"}]},
            "spec": {"terminationGracePeriodSeconds": 0, "hostNetwork": true,
                "volumes": [{"name": "v", "secret": {"secretName": "s", "defaultMode": 420}}, {"name": "e", "emptyDir": {"sizeLimit": "1Gi"}}],
                "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "env": [{"name": "E", "valueFrom": {"configMapKeyRef": {"name": "n", "key": "k", "optional": false}}}],
                    "resources": {"limits": {"cpu": "500m"}, "requests": {"memory": "1Gi"}},
                    "livenessProbe": {"httpGet": {"port": "http", "path": "/"}, "periodSeconds": 3},
                    "securityContext": {"runAsUser": 0, "runAsNonRoot": false}}]},
        }),
    );
    round_trip("", "Secret", json!({"data": {"k": "AAECAw=="}, "type": "Opaque", "immutable": true}));
    round_trip(
        "apps",
        "Deployment",
        json!({"spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}},
        "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": -1}}}}),
    );
    round_trip(
        "coordination.k8s.io",
        "Lease",
        json!({"spec": {"renewTime": "2024-01-02T03:04:05.123456Z", "leaseDurationSeconds": 40}}),
    );
    round_trip(
        "admissionregistration.k8s.io",
        "ValidatingAdmissionPolicy",
        json!({"spec": {"matchConstraints": {"resourceRules": [{"resourceNames": ["a"], "operations": ["CREATE"],
            "apiGroups": [""], "scope": "*"}]}}}),
    );
    round_trip(
        "authorization.k8s.io",
        "SubjectAccessReview",
        json!({"spec": {"user": "u", "extra": {"k": ["a", "b"]}}}),
    );
    round_trip(
        "apiextensions.k8s.io",
        "CustomResourceDefinition",
        json!({"spec": {"group": "g", "scope": "Namespaced",
        "names": {"plural": "p", "kind": "K"}, "versions": [{"name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object", "additionalProperties": false, "default": {"a": [1]},
            "properties": {"x": {"type": "array", "items": {"type": "number", "maximum": 1.5}},
                "y": {"additionalProperties": {"type": "string"}}}}}}]}}),
    );
    round_trip(
        "",
        "ConfigMapList",
        json!({"metadata": {"resourceVersion": "7"}, "items": [{"metadata": {"name": "a"}, "data": {"x": "y"}}]}),
    );
}

#[test]
fn every_kind_round_trips_its_zero_value() {
    for (gvk, schema) in crate::schema::kinds() {
        let mut object = Object::new(&gvk);
        conform(&mut object, schema, FieldValidation::Strict).unwrap();
        let decoded = decode(&encode(&object.to_value(), schema), schema).unwrap().object;
        assert_eq!(decoded, object, "{gvk}");
    }
}

/// Every field that protobuf carries set, each to a value that is not zero; a type inside itself stays away.
fn maximal<'a>(schema: &'a Schema, within: &mut Vec<&'a str>, set: &mut usize) -> Value {
    *set += 1;
    match &schema.shape {
        Shape::Struct { .. } => {
            if within.contains(&schema.name.as_ref()) {
                return Value::Null;
            }
            within.push(schema.name.as_ref());
            let fields = schema.fields().iter().filter(|field| field.number != 0);
            let members = fields.map(|field| (field.name.to_string(), maximal(field.schema(), within, set)));
            let members = members
                .filter(|(_, value)| !value.is_null() && *value != json!([null]) && *value != json!({"k": null}));
            let value = Value::Object(members.collect());
            within.pop();
            value
        }
        Shape::Map { value, .. } => json!({"k": maximal(value.get(), within, set)}),
        Shape::List { item, .. } => json!([maximal(item.get(), within, set)]),
        Shape::Leaf { leaf, .. } => match leaf {
            Leaf::Boolean => json!(true),
            Leaf::Bytes => json!("AAECAw=="),
            Leaf::Double => json!(1.5),
            Leaf::FieldsV1 => json!({"f:a": {".": {}}}),
            Leaf::Int32 => json!(-7),
            Leaf::Int64 => json!(i64::MAX),
            Leaf::IntOrString if set.is_multiple_of(2) => json!(-1),
            Leaf::IntOrString => json!("25%"),
            Leaf::Json => json!({"a": [1, "x", null]}),
            Leaf::RawExtension => json!({"apiVersion": "example.com/v1", "kind": "K", "a": 1}),
            Leaf::MicroTime => json!("2024-01-02T03:04:05.678901Z"),
            Leaf::Time => json!("2024-01-02T03:04:05Z"),
            Leaf::Quantity => json!("500m"),
            Leaf::SchemaOrArray | Leaf::SchemaOrBool => json!({"type": "string"}),
            Leaf::SchemaOrStringArray => json!(["a", "b"]),
            Leaf::String => json!("text"),
        },
    }
}

#[test]
fn every_field_of_every_kind_round_trips() {
    let (mut kinds, mut set) = (0, 0);
    for (gvk, schema) in crate::schema::kinds() {
        let mut object = Object::try_from(maximal(schema, &mut Vec::new(), &mut set)).unwrap();
        object.set_gvk(&gvk);
        conform(&mut object, schema, FieldValidation::Strict).unwrap_or_else(|error| panic!("{gvk}: {error}"));
        let decoded = decode(&encode(&object.to_value(), schema), schema).unwrap().object;
        assert_eq!(decoded, object, "{gvk}");
        kinds += 1;
    }
    assert!(kinds > 150 && set > 20_000, "{kinds} kinds, {set} fields");
}

/// As [`encode`], from the text of the value.
fn from_text(value: &Value, schema: &Schema) -> Vec<u8> {
    let text = |member: &str| value.get(member).and_then(Value::as_str).unwrap_or_default();
    encode_text(value.to_string().as_bytes(), text("apiVersion"), text("kind"), schema).unwrap()
}

#[test]
fn text_and_tree_of_every_kind_give_the_same_message() {
    let mut set = 0;
    for (gvk, schema) in crate::schema::kinds() {
        let mut object = Object::try_from(maximal(schema, &mut Vec::new(), &mut set)).unwrap();
        object.set_gvk(&gvk);
        let value = object.to_value();
        assert_eq!(from_text(&value, schema), encode(&value, schema), "{gvk}");
    }
}

#[test]
fn fields_stand_in_order_of_their_numbers() {
    // By hand: volumes (1) before nodeName (10) before hostNetwork (11), a volume's name (1) before its inlined source (2).
    let schema = lookup(&Gvk::new("", "v1", "Pod")).unwrap();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"hostNetwork": true, "nodeName": "n",
        "volumes": [{"emptyDir": {"medium": "M"}, "name": "v"}, {"name": "h", "hostPath": {"path": "/"}}]}});
    let mut wanted = b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12".to_vec();
    let spec: &[u8] =
        b"\x0a\x0a\x0a\x01v\x12\x05\x12\x03\x0a\x01M\x0a\x0a\x0a\x01h\x12\x05\x0a\x03\x0a\x01/\x52\x01n\x58\x01";
    let mut message = b"\x0a\x03\x0a\x01p".to_vec();
    put_bytes(&mut message, 2, spec);
    wanted.push(message.len() as u8);
    wanted.extend_from_slice(&message);
    wanted.extend_from_slice(b"\x1a\0\x22\0");
    assert_eq!(encode(&pod, schema), wanted);
    assert_eq!(from_text(&pod, schema), wanted);
}

#[test]
fn lists_are_encoded_item_by_item() {
    let schema = lookup(&Gvk::new("", "v1", "ConfigMapList")).unwrap();
    let item = |name: &str| json!({"metadata": {"name": name, "uid": "u"}, "data": {"k": "\u{1d11e}\n"}});
    let metadata = json!({"resourceVersion": "7", "continue": "c"});
    for names in [&["a", "b", "c"][..], &[]] {
        let items: Vec<Value> = names.iter().map(|name| item(name)).collect();
        let list = json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": metadata, "items": items});
        let mut encoder = ListEncoder::new(schema).unwrap();
        let mut parts = Vec::new();
        for item in &items {
            encoder.item(item.to_string().as_bytes()).unwrap();
            assert_ne!(encoder.pending(), 0);
            parts.extend(encoder.take());
        }
        let (head, tail) = encoder.frame("v1", "ConfigMapList", &metadata);
        assert_eq!([head, parts, tail].concat(), encode(&list, schema));
    }
    let mut encoder = ListEncoder::new(schema).unwrap();
    assert!(encoder.item(b"{\"metadata\":{").is_err());
    assert!(ListEncoder::new(lookup(&Gvk::new("", "v1", "Pod")).unwrap()).is_none());
}

#[test]
fn hostile_messages_are_refused() {
    let schema = lookup(&Gvk::new("", "v1", "Pod")).unwrap();
    let bad = |bytes: &[u8]| decode(bytes, schema).unwrap_err();
    assert_eq!(bad(b"{}"), DecodeError::Protobuf(ProtobufError::Magic));
    assert_eq!(bad(b"k8s\0\x12\xff\x01"), DecodeError::Protobuf(ProtobufError::Truncated));
    assert_eq!(bad(b"k8s\0\x12\x02\x08\xff"), DecodeError::Protobuf(ProtobufError::Truncated));
    assert_eq!(bad(b"k8s\0\x12\x02\x08\x01"), DecodeError::Protobuf(ProtobufError::WireType { field: 1, wire: 0 }));
    // A schema inside a schema inside a schema …
    let definition = lookup(&Gvk::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition")).unwrap();
    let not = crate::schema::definition(crate::schema::JSON_SCHEMA).unwrap().field("not").unwrap().number;
    let mut message = Vec::new();
    for _ in 0..10_000 {
        let mut outer = Vec::new();
        put_bytes(&mut outer, not.into(), &message);
        message = outer;
    }
    for number in [1, 4, 7, 2] {
        let mut outer = Vec::new();
        put_bytes(&mut outer, number, &message);
        message = outer;
    }
    let mut bytes = MAGIC.to_vec();
    write::envelope(&mut bytes, "apiextensions.k8s.io/v1", "CustomResourceDefinition", &message);
    assert_eq!(decode(&bytes, definition).unwrap_err(), DecodeError::Protobuf(ProtobufError::TooDeep));
}

/// With a checkout of k8s.io/api at hand (`KUBERNETES_API_DIR`), every golden message must decode to its golden JSON.
#[test]
fn upstreams_goldens_decode() {
    let Some(directory) = std::env::var_os("KUBERNETES_API_DIR") else { return };
    let mut checked = 0;
    for (gvk, schema) in crate::schema::kinds() {
        let group = if gvk.group.is_empty() { "core" } else { &gvk.group };
        let base = std::path::Path::new(&directory).join("testdata/HEAD");
        let file = |suffix: &str| std::fs::read(base.join(format!("{group}.{}.{}.{suffix}", gvk.version, gvk.kind)));
        let (Ok(json), Ok(pb)) = (file("json"), file("pb")) else { continue };
        let wanted = crate::decode::decode(&json, schema, FieldValidation::Strict).unwrap().object;
        // The golden JSON is in normal form already: every field is known and nothing is rewritten.
        assert_eq!(wanted.to_value(), serde_json::from_slice::<Value>(&json).unwrap(), "{gvk}");
        let decoded = decode(&pb, schema).unwrap().object;
        assert_eq!(decoded, wanted, "{gvk}");
        let again = decode(&encode(&wanted.to_value(), schema), schema).unwrap().object;
        assert_eq!(again, wanted, "{gvk}");
        checked += 1;
    }
    assert!(checked > 50, "only {checked} goldens found");
}
