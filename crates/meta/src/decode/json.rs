//! A reader of JSON (and what looks like it to serde) that notices members given twice.

use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde_json::{Map, Number, Value};

use super::{DecodeError, MAX_ISSUES};

/// Parses one JSON value; adds `duplicate field "path"` to `issues` for each member given again (the last one counts).
pub(super) fn parse(bytes: &[u8], issues: &mut Vec<String>) -> Result<Value, DecodeError> {
    let mut found = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Reader::new(&mut found)
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|e| DecodeError::Syntax(e.to_string()))?;
    issues.extend(found.into_iter().map(|path| format!("duplicate field \"{}\"", path.trim_start_matches('.'))));
    Ok(value)
}

/// Paths of duplicates are completed from the inside out, so that a body without any costs nothing.
pub(super) struct Reader<'a> {
    found: &'a mut Vec<String>,
    /// Makes one duplicate an error, whose place the parser then knows.
    stop: Option<Stop<'a>>,
}

struct Stop<'a> {
    /// Duplicates to pass before.
    left: &'a mut usize,
    /// The key at which the reader stopped.
    key: &'a mut Option<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(found: &'a mut Vec<String>) -> Self {
        Reader { found, stop: None }
    }

    /// Stops with an error at the duplicate after so many (`left`), and tells its key.
    pub(super) fn stopping(found: &'a mut Vec<String>, left: &'a mut usize, key: &'a mut Option<String>) -> Self {
        Reader { found, stop: Some(Stop { left, key }) }
    }

    fn inner(&mut self) -> Reader<'_> {
        let stop = self.stop.as_mut().map(|stop| Stop { left: &mut *stop.left, key: &mut *stop.key });
        Reader { found: self.found, stop }
    }
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

    fn visit_i128<E: Error>(self, value: i128) -> Result<Value, E> {
        self.visit_f64(value as f64)
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<Value, E> {
        self.visit_f64(value as f64)
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

    /// A YAML value with a tag of its own: the value.
    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Value, A::Error> {
        let (IgnoredAny, value) = tagged.variant()?;
        value.newtype_variant_seed(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        let mut known = self.found.len();
        while let Some(value) = elements.next_element_seed(self.inner())? {
            for path in self.found.iter_mut().skip(known) {
                path.insert_str(0, &format!("[{}]", out.len()));
            }
            known = self.found.len();
            out.push(value);
        }
        Ok(Value::Array(out))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(key) = members.next_key_seed(Key { known: &out, stop: &mut self.stop })? {
            let known = self.found.len();
            let value = members.next_value_seed(self.inner())?;
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

/// A member's name.
struct Key<'a, 's> {
    known: &'a Map<String, Value>,
    stop: &'a mut Option<Stop<'s>>,
}

impl<'de> DeserializeSeed<'de> for Key<'_, '_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_string(self)
    }
}

impl<'de> Visitor<'de> for Key<'_, '_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<String, E> {
        self.visit_string(key.to_owned())
    }

    fn visit_string<E: Error>(self, key: String) -> Result<String, E> {
        if let Some(stop) = self.stop
            && self.known.contains_key(&key)
        {
            if *stop.left == 0 {
                *stop.key = Some(key);
                return Err(E::custom("duplicate"));
            }
            *stop.left -= 1;
        }
        Ok(key)
    }
}
