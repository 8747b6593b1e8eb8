//! Protobuf as Kubernetes writes it, translated to and from JSON by the field numbers of the table.
//!
//! A message on the wire is the prefix `k8s\0` and a `runtime.Unknown` that names `apiVersion` and `kind` and holds the object's
//! own message. Leaves that JSON writes as text or number (amounts, times, ports) are messages of their own here.

mod read;
pub(crate) mod wire;
mod write;

use serde_json::Value;
use thiserror::Error;

use self::write::Sink;
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
    let mut sink = Sink::default();
    // What is read from a tree is well-formed; a value that is no object has no message.
    if sink.message(schema, value).is_err() {
        sink.out.clear();
    }
    let text = |member: &str| value.get(member).and_then(Value::as_str).unwrap_or_default();
    enveloped(text("apiVersion"), text("kind"), &sink.out)
}

/// As [`encode`], from JSON text and without a tree of it.
///
/// # Errors
/// When the text is no JSON object.
pub fn encode_text(text: &[u8], api_version: &str, kind: &str, schema: &Schema) -> Result<Vec<u8>, serde_json::Error> {
    let mut sink = Sink::default();
    sink.message(schema, &mut serde_json::Deserializer::from_slice(text))?;
    Ok(enveloped(api_version, kind, &sink.out))
}

fn enveloped(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 64);
    out.extend_from_slice(MAGIC);
    write::envelope(&mut out, api_version, kind, message);
    out
}

/// A list that is encoded item by item. Its length stands before it, so its beginning is known last:
/// [`ListEncoder::frame`] gives what stands before and behind the items.
pub struct ListEncoder<'a> {
    schema: &'a Schema,
    item: &'a Schema,
    number: u32,
    sink: Sink,
    /// Bytes of items that were taken.
    taken: usize,
}

impl<'a> ListEncoder<'a> {
    /// `None` for a type that is no list.
    pub fn new(schema: &'a Schema) -> Option<Self> {
        let items = schema.field("items")?;
        let item = items.schema().item()?;
        Some(ListEncoder { schema, item, number: items.number.into(), sink: Sink::default(), taken: 0 })
    }

    /// Adds an item, as JSON text.
    ///
    /// # Errors
    /// When the text is no JSON.
    pub fn item(&mut self, text: &[u8]) -> Result<(), serde_json::Error> {
        self.sink.field(self.number, self.item, &mut serde_json::Deserializer::from_slice(text))
    }

    /// Bytes that can be taken.
    pub fn pending(&self) -> usize {
        self.sink.out.len()
    }

    /// The items added since the last time, as they are sent.
    pub fn take(&mut self) -> Vec<u8> {
        let size = self.sink.out.len();
        self.taken += size;
        std::mem::replace(&mut self.sink.out, Vec::with_capacity(size))
    }

    /// What is sent before and behind all items that were taken. `metadata` is the list's.
    pub fn frame(&self, api_version: &str, kind: &str, metadata: &Value) -> (Vec<u8>, Vec<u8>) {
        let mut head = Sink::default();
        let field = self.schema.field("metadata");
        if field.is_none_or(|field| head.field(field.number.into(), field.schema(), metadata).is_err()) {
            head.out.clear();
        }
        let (mut before, mut behind) = (MAGIC.to_vec(), Vec::new());
        write::envelope_head(&mut before, api_version, kind, head.out.len() + self.taken);
        before.append(&mut head.out);
        write::envelope_tail(&mut behind);
        (before, behind)
    }
}

/// One event of a watch: its type and the object's encoded message. The caller frames it with its length, four bytes, big end
/// first.
pub fn encode_watch_event(event_type: &str, object: &[u8]) -> Vec<u8> {
    write::watch_event(event_type, object)
}

#[cfg(test)]
mod tests;
