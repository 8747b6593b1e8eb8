//! The stored form: canonical JSON without `metadata.resourceVersion`, with kind, apiVersion and metadata first, so that
//! the revision is spliced in (and kind and apiVersion are left out of list items) without decoding.

use bytes::Bytes;
use kminik_meta::{Object, StatusError};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

const METADATA: &[u8] = b"\"metadata\":{";
/// The metadata of an object stands at most so far from its beginning: behind kind and apiVersion.
const SEARCHED: usize = 1024;

/// Encodes an object for the store.
///
/// # Errors
/// Never for an object that was decoded by this server; a status of 500 otherwise.
pub fn encode(object: &Object) -> Result<Bytes, StatusError> {
    let mut out = head(object.map().get("kind"), object.map().get("apiVersion"))?;
    out.extend_from_slice(METADATA);
    let empty = Map::new();
    let mut first = true;
    for (key, value) in object.metadata().unwrap_or(&empty) {
        if key == "resourceVersion" {
            continue;
        }
        if !first {
            out.push(b',');
        }
        first = false;
        member(&mut out, key, value)?;
    }
    out.push(b'}');
    for (key, value) in object.map() {
        if !matches!(key.as_str(), "kind" | "apiVersion" | "metadata") {
            out.push(b',');
            member(&mut out, key, value)?;
        }
    }
    out.push(b'}');
    // It is kept for as long as the object.
    out.shrink_to_fit();
    Ok(Bytes::from(out))
}

/// What the stored form of an object of this type begins with.
///
/// # Errors
/// As [`encode`].
pub fn head(kind: Option<&Value>, api_version: Option<&Value>) -> Result<Vec<u8>, StatusError> {
    let mut out = Vec::with_capacity(1024);
    out.push(b'{');
    for (key, value) in [("kind", kind), ("apiVersion", api_version)] {
        if let Some(value) = value {
            member(&mut out, key, value)?;
            out.push(b',');
        }
    }
    Ok(out)
}

fn member(out: &mut Vec<u8>, key: &str, value: &Value) -> Result<(), StatusError> {
    let failed = |error: serde_json::Error| StatusError::internal(format!("unable to encode an object: {error}"));
    serde_json::to_writer(&mut *out, key).map_err(failed)?;
    out.push(b':');
    serde_json::to_writer(out, value).map_err(failed)
}

/// Where the revision is spliced in: behind the opening brace of metadata. `None` for bytes that were not made by [`encode`].
pub fn splice_at(stored: &[u8]) -> Option<usize> {
    let head = stored.get(..SEARCHED.min(stored.len()))?;
    head.windows(METADATA.len()).position(|window| window == METADATA).map(|at| at + METADATA.len())
}

/// Appends the object with its revision.
pub fn write_object(out: &mut Vec<u8>, stored: &[u8], splice: usize, revision: u64) {
    let (head, tail) = stored.split_at(splice.min(stored.len()));
    out.extend_from_slice(head);
    write_tail(out, tail, revision);
}

/// Appends the object as an item of a list: with its revision, without kind and apiVersion.
pub fn write_item(out: &mut Vec<u8>, stored: &[u8], splice: usize, revision: u64) {
    let (_, tail) = stored.split_at(splice.min(stored.len()));
    out.push(b'{');
    out.extend_from_slice(METADATA);
    write_tail(out, tail, revision);
}

/// Appends what of the object is metadata, with its revision, as the last member of an object that `out` ends with; false for
/// bytes that were not made by [`encode`].
pub fn write_metadata(out: &mut Vec<u8>, stored: &[u8], splice: usize, revision: u64) -> bool {
    let Some(from) = splice.checked_sub(1).and_then(|brace| stored.get(brace..)) else { return false };
    let mut values = serde_json::Deserializer::from_slice(from).into_iter::<&RawValue>();
    let Some(Ok(metadata)) = values.next() else { return false };
    out.extend_from_slice(METADATA);
    write_tail(out, metadata.get().as_bytes().get(1..).unwrap_or_default(), revision);
    out.push(b'}');
    true
}

fn write_tail(out: &mut Vec<u8>, tail: &[u8], revision: u64) {
    out.extend_from_slice(b"\"resourceVersion\":\"");
    write_decimal(out, revision);
    out.push(b'"');
    if tail.first() != Some(&b'}') {
        out.push(b',');
    }
    out.extend_from_slice(tail);
}

fn write_decimal(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Decodes stored bytes and sets the revision.
///
/// # Errors
/// 500 for bytes that are no object: the store is damaged.
pub fn decode(stored: &[u8], revision: u64) -> Result<Object, StatusError> {
    let mut object = Object::from_slice(stored)
        .map_err(|error| StatusError::internal(format!("unable to decode a stored object: {error}")))?;
    object.set_resource_version(&revision.to_string());
    Ok(object)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_revision_is_spliced_in() {
        let object = Object::try_from(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "\"metadata\":{"},
            "metadata": {"name": "x", "resourceVersion": "3"},
        }))
        .unwrap();
        let stored = encode(&object).unwrap();
        let splice = splice_at(&stored).unwrap();
        let mut out = Vec::new();
        write_object(&mut out, &stored, splice, 1207);
        let mut expected = object.to_value();
        expected["metadata"]["resourceVersion"] = json!("1207");
        assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), expected);

        out.clear();
        write_item(&mut out, &stored, splice, 0);
        assert_eq!(
            serde_json::from_slice::<Value>(&out).unwrap(),
            json!({"data": {"a": "\"metadata\":{"}, "metadata": {"name": "x", "resourceVersion": "0"}})
        );
        assert_eq!(decode(&stored, 9).unwrap().resource_version(), "9");

        out = b"{".to_vec();
        assert!(write_metadata(&mut out, &stored, splice, 18));
        assert_eq!(
            serde_json::from_slice::<Value>(&out).unwrap(),
            json!({"metadata": {"name": "x", "resourceVersion": "18"}})
        );
        assert!(!write_metadata(&mut out, b"{}", 0, 1));
    }
}
