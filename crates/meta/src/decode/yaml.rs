//! YAML to JSON, as far as objects need it: keys are text, tags are passed over.

use serde_json::{Map, Number, Value};
use serde_yaml::Value as Yaml;

use super::DecodeError;

/// Parses one document. Aliases and nesting are bounded by the parser.
pub(super) fn parse(bytes: &[u8]) -> Result<Value, DecodeError> {
    serde_yaml::from_slice(bytes).map(json).map_err(|e| DecodeError::Yaml(e.to_string()))
}

fn json(yaml: Yaml) -> Value {
    match yaml {
        Yaml::Null => Value::Null,
        Yaml::Bool(flag) => Value::Bool(flag),
        Yaml::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), _, _) => Value::from(number),
            (None, Some(number), _) => Value::from(number),
            // What JSON cannot write (infinities) is null.
            (None, None, number) => number.and_then(Number::from_f64).map_or(Value::Null, Value::Number),
        },
        Yaml::String(text) => Value::String(text),
        Yaml::Sequence(elements) => Value::Array(elements.into_iter().map(json).collect()),
        Yaml::Mapping(members) => {
            let mut map = Map::with_capacity(members.len());
            for (key, value) in members {
                let key = match json(key) {
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                map.insert(key, json(value));
            }
            Value::Object(map)
        }
        Yaml::Tagged(tagged) => json(tagged.value),
    }
}
