//! A JSON reader that notices members given twice.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{DecodeError, MAX_ISSUES};

/// Parses one JSON value; adds `duplicate field "path"` to `issues` for each member given again (the last one counts).
pub(super) fn parse(bytes: &[u8], issues: &mut Vec<String>) -> Result<Value, DecodeError> {
    let mut found = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Reader { found: &mut found }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|e| DecodeError::Syntax(e.to_string()))?;
    issues.extend(found.into_iter().map(|path| format!("duplicate field \"{}\"", path.trim_start_matches('.'))));
    Ok(value)
}

/// Paths of duplicates are completed from the inside out, so that a body without any costs nothing.
struct Reader<'a> {
    found: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        let mut known = self.found.len();
        while let Some(value) = elements.next_element_seed(Reader { found: self.found })? {
            for path in self.found.iter_mut().skip(known) {
                path.insert_str(0, &format!("[{}]", out.len()));
            }
            known = self.found.len();
            out.push(value);
        }
        Ok(Value::Array(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            let known = self.found.len();
            let value = members.next_value_seed(Reader { found: self.found })?;
            for path in self.found.iter_mut().skip(known) {
                path.insert_str(0, &format!(".{key}"));
            }
            if self.found.len() < MAX_ISSUES && out.contains_key(&key) {
                self.found.push(format!(".{key}"));
            }
            out.insert(key, value);
        }
        Ok(Value::Object(out))
    }
}
