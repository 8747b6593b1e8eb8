//! Properties that hold for any object of any kind: objects are made at random from the field table, with a fixed seed a run.

use kminik_meta::decode::{FieldValidation, conform};
use kminik_meta::schema::{self, Leaf, ListType, Schema, Shape};
use kminik_meta::{Gvk, Object, apply, columns, decode, defaults, patch, protobuf, validate};
use serde_json::{Map, Value, json};

/// A small generator of random numbers (xorshift), so that a failure repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn word(&mut self) -> String {
        const WORDS: [&str; 8] = ["", "a", "b-c", "x.y/z", "A_B", "-", "0", "latest"];
        WORDS[self.below(8) as usize].to_owned()
    }

    /// A value of a schema. `wild` sometimes gives something else.
    fn value(&mut self, schema: &Schema, depth: u32, wild: bool) -> Value {
        if wild && self.below(40) == 0 {
            return [json!(null), json!(1), json!("x"), json!([]), json!({}), json!(true), json!([null])]
                [self.below(7) as usize]
                .clone();
        }
        match &schema.shape {
            Shape::Struct { .. } => {
                let mut map = Map::new();
                // A kind inside another object is not carried by protobuf; the object's own is set below.
                for field in schema.fields().iter().filter(|f| f.number != 0) {
                    let chance = if depth < 3 { 2 } else { 5 };
                    if depth < 9 && self.below(chance) == 0 {
                        map.insert(field.name.to_string(), self.value(field.schema(), depth + 1, wild));
                    }
                }
                Value::Object(map)
            }
            Shape::Map { value, .. } => {
                let count = self.below(3);
                let entries = (0..count).map(|i| (format!("k{i}"), self.value(value.get(), depth + 1, wild)));
                Value::Object(entries.collect())
            }
            Shape::List { item, list_type, .. } => {
                let count = self.below(3);
                let mut out: Vec<Value> = Vec::new();
                for i in 0..count {
                    let mut element = self.value(item.get(), depth + 1, wild);
                    if *list_type == ListType::Map && !wild {
                        // Elements are told apart by their keys, which must be there and differ.
                        for key in schema.list_keys() {
                            let Some(field) = item.get().field(key) else { continue };
                            element[key] = match &field.schema().shape {
                                Shape::Leaf { leaf: Leaf::Int32 | Leaf::Int64, .. } => json!(i + 1),
                                _ => json!(format!("e{i}")),
                            };
                        }
                    } else if *list_type == ListType::Set && !wild && element.is_string() {
                        element = json!(format!("s{i}"));
                    }
                    out.push(element);
                }
                Value::Array(out)
            }
            Shape::Leaf { leaf, values } => match leaf {
                Leaf::Boolean => json!(self.below(2) == 0),
                Leaf::Bytes => json!("AAEC"),
                Leaf::Double => json!(self.below(100) as f64 + 0.5),
                Leaf::Int32 | Leaf::Int64 => json!(self.below(70_000) as i64 - 10),
                Leaf::IntOrString if self.below(2) == 0 => json!(self.below(100)),
                Leaf::IntOrString => json!(["http", "25%"][self.below(2) as usize]),
                Leaf::Quantity => json!(["1", "500m", "1536Mi", "-1", "0.1"][self.below(5) as usize]),
                Leaf::Time => json!("2024-01-02T03:04:05Z"),
                Leaf::MicroTime => json!("2024-01-02T03:04:05.000006Z"),
                Leaf::FieldsV1 => json!({"f:spec": {}}),
                Leaf::Json | Leaf::RawExtension => json!({"any": [1, "x"]}),
                Leaf::SchemaOrBool => json!(true),
                Leaf::SchemaOrArray => json!([{"type": "string"}]),
                Leaf::SchemaOrStringArray => json!(["a"]),
                Leaf::String if !values.is_empty() && self.below(4) > 0 => {
                    let all: Vec<&str> = values.split(',').collect();
                    json!(all[self.below(all.len() as u64) as usize])
                }
                Leaf::String => json!(self.word()),
            },
        }
    }

    fn object(&mut self, gvk: &Gvk, schema: &Schema, wild: bool) -> Object {
        let Value::Object(map) = self.value(schema, 0, wild) else { return Object::new(gvk) };
        let mut object = Object::from(map);
        object.set_gvk(gvk);
        object.remove(&["metadata", "managedFields"]);
        object
    }
}

fn each_kind(seed: u64, rounds: usize, mut check: impl FnMut(&mut Random, &Gvk, &'static Schema)) {
    let mut random = Random(seed);
    for _ in 0..rounds {
        for (gvk, schema) in schema::kinds() {
            check(&mut random, &gvk, schema);
        }
    }
}

#[test]
fn the_normal_form_and_defaults_are_stable() {
    each_kind(0x5eed_0001, 8, |random, gvk, schema| {
        let mut object = random.object(gvk, schema, false);
        conform(&mut object, schema, FieldValidation::Strict).unwrap_or_else(|e| panic!("{gvk}: {e}"));
        let once = object.clone();
        conform(&mut object, schema, FieldValidation::Strict).unwrap();
        assert_eq!(object, once, "{gvk}");
        defaults::apply(&mut object, schema);
        conform(&mut object, schema, FieldValidation::Strict).unwrap();
        let defaulted = object.clone();
        defaults::apply(&mut object, schema);
        assert_eq!(object, defaulted, "{gvk}");
        let decoded = decode::decode(&object.to_vec(), schema, FieldValidation::Strict).unwrap();
        assert_eq!(decoded.object, object, "{gvk}");
    });
}

#[test]
fn protobuf_round_trips() {
    each_kind(0x5eed_0002, 8, |random, gvk, schema| {
        let mut object = random.object(gvk, schema, false);
        conform(&mut object, schema, FieldValidation::Strict).unwrap();
        let message = protobuf::encode(&object.to_value(), schema);
        let text = protobuf::encode_text(&object.to_vec(), &gvk.api_version(), &gvk.kind, schema).unwrap();
        assert_eq!(text, message, "{gvk} from text and from a tree");
        let decoded = protobuf::decode(&message, schema).unwrap();
        assert_eq!(normal(&decoded.object), normal(&object), "{gvk}");
    });
}

/// Protobuf does not tell empty lists and maps behind pointers, or inside lists, from absent ones.
fn normal(object: &Object) -> Value {
    fn strip(value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                let kept = map.iter().map(|(key, value)| (key.clone(), strip(value)));
                Value::Object(kept.filter(|(_, value)| !is_empty(value)).collect())
            }
            Value::Array(list) => Value::Array(list.iter().map(strip).collect()),
            other => other.clone(),
        }
    }
    fn is_empty(value: &Value) -> bool {
        value.is_null() || value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty)
    }
    strip(&object.to_value())
}

#[test]
fn patches_and_applies_reach_what_they_say() {
    each_kind(0x5eed_0003, 4, |random, gvk, schema| {
        if schema.member("metadata").is_none_or(|m| !m.name.ends_with(".ObjectMeta")) {
            return;
        }
        let mut old = random.object(gvk, schema, false);
        let mut new = random.object(gvk, schema, false);
        conform(&mut old, schema, FieldValidation::Strict).unwrap();
        conform(&mut new, schema, FieldValidation::Strict).unwrap();
        assert_eq!(patch::strategic(&old, b"{}", schema).unwrap().object, old, "{gvk}");
        assert_eq!(patch::merge(&old, b"{}").unwrap().object, old, "{gvk}");
        let own = old.to_vec();
        let patched = patch::strategic(&old, &own, schema).map(|p| p.object);
        if let Ok(mut patched) = patched {
            conform(&mut patched, schema, FieldValidation::Strict).unwrap();
            assert_eq!(patched, old, "{gvk}: an object patched with itself");
        }
        let write = |manager: &'static str| apply::Write {
            schema,
            manager,
            api_version: Box::leak(gvk.api_version().into_boxed_str()),
            subresource: "",
            resets: apply::Resets::Fields(&[]),
            convert: None,
            now: "2024-01-01T00:00:00Z".parse().unwrap(),
        };
        let empty = Object::new(gvk);
        let Ok(applied) = apply::apply(&empty, &new, false, write("a")) else { return };
        // One that owns nothing (all it says are empty lists) leaves no trace, so the next apply takes the object for one that
        // was there before the first, as upstream does.
        if applied.get(&["metadata", "managedFields"]).is_none() {
            return;
        }
        assert_eq!(apply::apply(&applied, &new, false, write("a")).unwrap(), applied, "{gvk}: applied twice");
        // Everything goes when nothing is applied any more, but for what no one owns.
        let gone = apply::apply(&applied, &Object::new(gvk), false, write("a")).unwrap();
        assert!(gone.get(&["spec"]).is_none_or(|s| normal(&object_of(s)) == json!({})), "{gvk}: {gone:?}");
        // A plain write is tracked, and writing the same again is not.
        let mut written = new.clone();
        apply::update(None, &mut written, write("w")).unwrap();
        let mut again = written.clone();
        apply::update(Some(&written), &mut again, write("v")).unwrap();
        assert_eq!(again, written, "{gvk}: written twice");
    });
}

fn object_of(value: &Value) -> Object {
    Object::try_from(value.clone()).unwrap_or_default()
}

#[test]
fn nothing_panics_on_wild_objects() {
    let now = "2024-01-01T00:00:00Z".parse().unwrap();
    each_kind(0x5eed_0004, 12, |random, gvk, schema| {
        let object = random.object(gvk, schema, true);
        let other = random.object(gvk, schema, true);
        let _ = columns::table(gvk, [&object], now);
        let _ = validate::create(gvk, schema, &object);
        let _ = validate::update(gvk, schema, &object, &other);
        let (message, kind) = (protobuf::encode(&object.to_value(), schema), object.kind());
        let text = protobuf::encode_text(&object.to_vec(), object.api_version(), kind, schema);
        assert_eq!(text.unwrap(), message, "{gvk} from text and from a tree");
        let _ = patch::strategic(&object, &other.to_vec(), schema);
        let _ = patch::merge(&object, &other.to_vec());
        let mut defaulted = object.clone();
        defaults::apply(&mut defaulted, schema);
        let mut conformed = object.clone();
        let _ = conform(&mut conformed, schema, FieldValidation::Warn);
        let write = apply::Write {
            schema,
            manager: "m",
            api_version: object.api_version(),
            subresource: "",
            resets: apply::Resets::Fields(&[]),
            convert: None,
            now,
        };
        let _ = apply::apply(&other, &object, true, write);
        let mut written = object.clone();
        let _ = apply::update(Some(&other), &mut written, write);
    });
}

#[test]
fn nothing_panics_on_broken_messages() {
    each_kind(0x5eed_0005, 4, |random, gvk, schema| {
        let object = random.object(gvk, schema, false);
        let mut bytes = protobuf::encode(&object.to_value(), schema);
        for _ in 0..20 {
            let at = 4 + random.below(bytes.len() as u64 - 4) as usize;
            bytes[at] = random.below(256) as u8;
            let _ = protobuf::decode(&bytes, schema);
        }
    });
}
