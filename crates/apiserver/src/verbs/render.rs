//! Objects, lists and changes in the form a client asked for.
//!
//! JSON of the stored version is the stored bytes with the revision spliced in. Every other form decodes (once for an
//! entry) and encodes.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use kminik_meta::{Object, StatusError};
use serde_json::{Map, Value, json};

use super::call::Call;
use super::table;
use crate::http::accept::{Encoding, View};
use crate::http::body::ResponseBody;
use crate::http::respond;
use crate::storage::entry::Entry;

/// A list's bytes are sent in slices of about this size.
const SLICE: usize = 128 << 10;

/// One object as the whole answer.
pub(crate) fn entry(call: &Call, code: StatusCode, entry: &Entry) -> Result<Response<ResponseBody>, StatusError> {
    if call.sends_as_stored(entry) {
        let mut out = Vec::with_capacity(entry.value.len() + 48);
        entry.write_object(&mut out);
        out.push(b'\n');
        return Ok(respond::bytes(code, Encoding::Json.media_type(), Bytes::from(out)));
    }
    self::object(call, code, call.object_of(entry)?)
}

/// One object in the request's version as the whole answer.
pub(crate) fn object(call: &Call, code: StatusCode, object: Object) -> Result<Response<ResponseBody>, StatusError> {
    let value = match call.accepted.view {
        View::Object => object.into(),
        View::Metadata(stable) => metadata_of(&object, stable),
        View::Table(stable) => {
            let meta = json!({"resourceVersion": object.resource_version()});
            table::table(call, stable, vec![object], meta.as_object().cloned().unwrap_or_default(), true)
        }
    };
    value_response(call, code, &value)
}

/// A value in the encoding asked for.
pub(crate) fn value_response(
    call: &Call,
    code: StatusCode,
    value: &Value,
) -> Result<Response<ResponseBody>, StatusError> {
    respond::document(code, value, call.accepted)
}

/// A list with this metadata.
pub(crate) fn list(
    call: &Call,
    metadata: Map<String, Value>,
    entries: Vec<Arc<Entry>>,
) -> Result<Response<ResponseBody>, StatusError> {
    if call.sends_all_as_stored(&entries) {
        let body = json_list(call, &metadata, entries);
        return Ok(respond::with_body(StatusCode::OK, Encoding::Json.media_type(), body));
    }
    let objects = entries.iter().map(|entry| call.object_of(entry)).collect::<Result<Vec<_>, StatusError>>()?;
    self::objects(call, metadata, objects)
}

/// A list of objects in the request's version.
pub(crate) fn objects(
    call: &Call,
    metadata: Map<String, Value>,
    objects: Vec<Object>,
) -> Result<Response<ResponseBody>, StatusError> {
    let value = match call.accepted.view {
        View::Table(stable) => table::table(call, stable, objects, metadata, true),
        View::Metadata(stable) => {
            let items: Vec<Value> = objects.iter().map(|object| metadata_of(object, stable)).collect();
            json!({"kind": "PartialObjectMetadataList", "apiVersion": meta_version(stable), "metadata": metadata, "items": items})
        }
        View::Object => {
            let items: Vec<Value> = objects
                .into_iter()
                .map(|mut object| {
                    object.map_mut().remove("kind");
                    object.map_mut().remove("apiVersion");
                    object.into()
                })
                .collect();
            json!({"kind": call.row.list_kind, "apiVersion": call.api_version(), "metadata": metadata, "items": items})
        }
    };
    value_response(call, StatusCode::OK, &value)
}

fn json_list(call: &Call, metadata: &Map<String, Value>, entries: Vec<Arc<Entry>>) -> ResponseBody {
    let head = json!({"kind": call.row.list_kind, "apiVersion": call.api_version()}).to_string();
    let metadata = Value::from(metadata.clone()).to_string();
    let mut out = Vec::with_capacity(SLICE + (SLICE >> 2));
    out.extend_from_slice(head.trim_end_matches('}').as_bytes());
    out.extend_from_slice(b",\"metadata\":");
    out.extend_from_slice(metadata.as_bytes());
    out.extend_from_slice(b",\"items\":[");
    let mut entries = entries.into_iter();
    let mut first = true;
    let mut fill = move |mut out: Vec<u8>| -> (Vec<u8>, bool) {
        for entry in entries.by_ref() {
            if !first {
                out.push(b',');
            }
            first = false;
            entry.write_item(&mut out);
            if out.len() >= SLICE {
                return (out, true);
            }
        }
        out.extend_from_slice(b"]}\n");
        (out, false)
    };
    let (head, more) = fill(out);
    if !more {
        return ResponseBody::from(head);
    }
    // A long list is copied while it is sent, so only a slice of it exists twice at any time.
    let rest = futures::stream::unfold((fill, true), |(mut fill, more)| async move {
        if !more {
            return None;
        }
        let (slice, more) = fill(Vec::with_capacity(SLICE + (SLICE >> 2)));
        Some((Ok(Bytes::from(slice)), (fill, more)))
    });
    ResponseBody::stream(futures::StreamExt::chain(futures::stream::iter([Ok(Bytes::from(head))]), rest))
}

/// The PartialObjectMetadata of an object.
pub(crate) fn metadata_of(object: &Object, stable: bool) -> Value {
    let metadata = object.map().get("metadata").cloned().unwrap_or_else(|| json!({}));
    json!({"kind": "PartialObjectMetadata", "apiVersion": meta_version(stable), "metadata": metadata})
}

/// apiVersion of the kinds of meta.k8s.io.
pub(crate) fn meta_version(stable: bool) -> &'static str {
    if stable { "meta.k8s.io/v1" } else { "meta.k8s.io/v1beta1" }
}
