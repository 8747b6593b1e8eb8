#![no_main]
//! CEL from anywhere: nothing panics, and an evaluation gives the same value for the same cost twice. (That it costs no more
//! than was estimated does not hold, upstream neither: for named formats, and where types are known only at run time.)

use std::sync::{Arc, LazyLock};

use kminik_cel::{Activation, Budget, DeclType, Env, Program, Type, Value};
use serde_json::{Value as Json, json};

/// What an evaluation may spend: enough for nested comprehensions, little enough for thousands of runs a second.
const LIMIT: u64 = 20_000;

static SCHEMA: LazyLock<Arc<DeclType>> = LazyLock::new(|| {
    let schema = json!({"type": "object", "properties": {
        "name": {"type": "string", "maxLength": 20}, "count": {"type": "integer"}, "ratio": {"type": "number"},
        "on": {"type": "boolean"}, "when": {"type": "string", "format": "date-time"},
        "any": {"x-kubernetes-int-or-string": true},
        "words": {"type": "array", "maxItems": 8, "items": {"type": "string", "maxLength": 10}},
        "map": {"type": "object", "maxProperties": 8, "additionalProperties": {"type": "integer"}},
        "rows": {"type": "array", "maxItems": 8, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "required": ["k"], "properties": {
                "k": {"type": "string", "maxLength": 10}, "v": {"type": "integer"}}}}}});
    DeclType::from_json_schema(&schema, false).expect("the schema is structural")
});

static OBJECT: LazyLock<Json> = LazyLock::new(|| {
    json!({"name": "web-1.example", "count": 3, "ratio": 0.5, "on": true, "when": "2024-02-29T01:02:03Z", "any": "50%",
        "words": ["b", "a", "10.0.0.1", "1Gi"], "map": {"a": 1, "b-c": -2},
        "rows": [{"k": "a", "v": 1}, {"k": "b", "v": 2}]})
});

fn run(program: &Program) -> (Result<Json, String>, u64) {
    let mut activation = Activation::new();
    match Value::typed(&OBJECT, &SCHEMA) {
        Ok(own) => activation.set("self", own),
        Err(error) => panic!("the object is of its schema: {error}"),
    }
    activation.set("object", Value::json(&OBJECT));
    let mut budget = Budget::new(LIMIT);
    let value = match program.eval(&activation, &mut budget) {
        Ok(value) => value.to_json().map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    (value, budget.spent())
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(source) = std::str::from_utf8(data) else { return };
    let env = Env::new().variable("self", SCHEMA.cel_type()).variable("object", Type::Dyn);
    let Ok(program) = Program::compile(source, &env) else { return };
    let estimate = program.estimate(Some(&SCHEMA));
    assert!(estimate.min <= estimate.max, "{source}: {} to {}", estimate.min, estimate.max);
    assert_eq!(run(&program), run(&program), "{source}");
});
