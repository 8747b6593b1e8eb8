//! Protobuf as Kubernetes writes it, translated to and from JSON by the field numbers of the table.
//!
//! A message on the wire is the prefix `k8s\0` and a `runtime.Unknown` that names `apiVersion` and `kind` and holds the object's
//! own message. Leaves that JSON writes as text or number (amounts, times, ports) are messages of their own here.

mod read;
pub(crate) mod wire;
mod write;

use serde_json::Value;
use thiserror::Error;

use crate::decode::{self, DecodeError, Decoded, FieldValidation};
use crate::schema::Schema;

/// Content type of objects and lists.
pub const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What every message begins with.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// Messages nested deeper than this are refused.
const MAX_DEPTH: u32 = 120;

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProtobufError {
    /// The prefix is missing.
    #[error("provided data does not appear to be a protobuf message, expected prefix 6b 38 73 00")]
    Magic,
    /// A length or number goes beyond the end.
    #[error("proto: unexpected end of message")]
    Truncated,
    /// A number has more than ten bytes.
    #[error("proto: integer overflow")]
    Overflow,
    /// A field has a wire type that does not exist or does not fit its type.
    #[error("proto: wrong wireType = {wire} for field {field}")]
    WireType {
        /// Number of the field.
        field: u32,
        /// The wire type.
        wire: u8,
    },
    /// Text is not UTF-8.
    #[error("proto: string field {0} contains invalid UTF-8")]
    Utf8(u32),
    /// Embedded JSON cannot be read.
    #[error("proto: embedded JSON of field {0} is malformed")]
    Json(u32),
    /// A time is out of range.
    #[error("proto: time of field {0} is out of range")]
    Time(u32),
    /// Messages are nested too deeply.
    #[error("proto: messages are nested too deeply")]
    TooDeep,
    /// The object is compressed or encoded in a way that is not supported.
    #[error("proto: content encoding is not supported")]
    Encoding,
}

/// The parts of a `runtime.Unknown`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// `apiVersion` of the object; may be empty.
    pub api_version: &'a str,
    /// Kind of the object; may be empty.
    pub kind: &'a str,
    /// The object's own message.
    pub raw: &'a [u8],
}

/// Takes a message from its envelope.
///
/// # Errors
/// When the prefix is missing, the message is malformed, or its content is encoded.
pub fn envelope(bytes: &[u8]) -> Result<Envelope<'_>, ProtobufError> {
    read::envelope(bytes.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?)
}

/// Decodes a message with its envelope. Field numbers that the table does not know are skipped.
///
/// # Errors
/// When the message is malformed or a value does not fit its field.
pub fn decode(bytes: &[u8], schema: &Schema) -> Result<Decoded, DecodeError> {
    let envelope = envelope(bytes)?;
    let mut value = read::message(envelope.raw, schema)?;
    for (member, text) in [("apiVersion", envelope.api_version), ("kind", envelope.kind)] {
        if !text.is_empty() {
            value.insert(member.to_owned(), Value::from(text));
        }
    }
    let mut object = crate::Object::from(value);
    decode::conform(&mut object, schema, FieldValidation::Ignore)?;
    Ok(Decoded { object, warnings: Vec::new() })
}

/// Encodes an object or list with its envelope. Members that the schema does not know or that do not fit it are left out.
pub fn encode(value: &Value, schema: &Schema) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    let text = |member: &str| value.get(member).and_then(Value::as_str).unwrap_or_default();
    write::envelope(&mut out, text("apiVersion"), text("kind"), &write::message(value, schema));
    out
}

/// One event of a watch: its type and the object's encoded message. The caller frames it with its length, four bytes, big end
/// first.
pub fn encode_watch_event(event_type: &str, object: &[u8]) -> Vec<u8> {
    write::watch_event(event_type, object)
}

#[cfg(test)]
mod tests;
