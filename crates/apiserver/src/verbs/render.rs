//! Objects, lists and changes in the form a client asked for.
//!
//! Where the stored version is the request's, objects and their metadata are pieces of the stored bytes with the revision
//! spliced in; pretty JSON and protobuf are made of those. Tables, YAML lists and other versions decode and encode, one object at a
//! time: of no list but one in protobuf, whose length stands before it, exists more than a slice besides what is stored.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use kminik_meta::protobuf::ListEncoder;
use kminik_meta::{Object, StatusError};
use serde_json::{Map, Value, json};

use super::call::Call;
use super::stalled::{Answers, UNREAD};
use super::table;
use crate::http::accept::{Accepted, Encoding, JSON, View, YAML};
use crate::http::body::{BoxError, ResponseBody};
use crate::http::pretty::Pretty;
use crate::http::respond;
use crate::storage::codec;
use crate::storage::entry::Entry;

/// A list's bytes are sent in slices of about this size.
const SLICE: usize = 128 << 10;

/// One object as the whole answer.
pub(crate) fn entry(call: &Call, code: StatusCode, entry: &Entry) -> Result<Response<ResponseBody>, StatusError> {
    let Some(shown) = Shown::of(call).filter(|_| call.shows_stored(entry)) else {
        return self::object(call, code, call.object_of(entry)?);
    };
    let mut text = Vec::with_capacity(entry.value.len() + 64);
    shown.write(&mut text, entry, entry.revision)?;
    let form = call.accepted;
    let body = respond::encode_text(text, &shown.api_version, &shown.kind, form)?;
    Ok(respond::bytes(code, form.encoding.media_type(), body))
}

/// One object in the request's version as the whole answer.
pub(crate) fn object(call: &Call, code: StatusCode, object: Object) -> Result<Response<ResponseBody>, StatusError> {
    let value = match call.accepted.view {
        View::Object => object.into(),
        View::Metadata(stable) => metadata_of(object, stable),
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
///
/// # Errors
/// 500 where a stored object cannot be decoded, 406 for a kind without the form asked for.
pub(crate) async fn list(
    call: &Call,
    metadata: Map<String, Value>,
    entries: Vec<Arc<Entry>>,
) -> Result<Response<ResponseBody>, StatusError> {
    let Accepted { encoding, pretty, .. } = call.accepted;
    let answers = call.server.answers();
    let shown = Shown::of(call).filter(|_| call.shows_all_stored(&entries));
    let body = match (encoding, shown) {
        (Encoding::Protobuf, Some(shown)) => protobuf_list(answers, &shown, &metadata.into(), &entries).await?,
        (Encoding::Protobuf, None) => {
            let objects = entries.iter().map(|entry| call.object_of(entry)).collect::<Result<Vec<_>, StatusError>>()?;
            return self::objects(call, metadata, objects);
        }
        (Encoding::Json, Some(shown)) => {
            let mut head =
                codec::head(Some(&shown.list_kind.as_ref().into()), Some(&shown.api_version.as_ref().into()))?;
            head.extend_from_slice(b"\"metadata\":");
            head.extend_from_slice(Value::Object(metadata).to_string().as_bytes());
            head.extend_from_slice(b",\"items\":[");
            let item: WriteItem = Box::new(move |out, entry| shown.write_item(out, entry));
            text_list(answers, Frame { head, ..Frame::json(pretty) }, entries, item)?
        }
        (Encoding::Json | Encoding::Yaml, _) => {
            let viewer = Viewer::of(call);
            let frame = viewer.frame(metadata, call.accepted, entries.is_empty())?;
            let (row, version, yaml) = (call.row.clone(), call.version.clone(), encoding == Encoding::Yaml);
            let item: WriteItem = Box::new(move |out, entry| {
                let item = viewer.item(super::call::object_of(&row, &version, entry)?);
                match yaml {
                    true => serde_yaml::to_writer(out, &[item]).map_err(StatusError::internal),
                    false => serde_json::to_writer(out, &item).map_err(StatusError::internal),
                }
            });
            text_list(answers, frame, entries, item)?
        }
    };
    Ok(respond::with_body(StatusCode::OK, encoding.media_type(), body))
}

/// A list of objects in the request's version.
pub(crate) fn objects(
    call: &Call,
    metadata: Map<String, Value>,
    objects: Vec<Object>,
) -> Result<Response<ResponseBody>, StatusError> {
    let viewer = Viewer::of(call);
    let mut list = viewer.list(metadata);
    let items: Vec<Value> = objects.into_iter().map(|object| viewer.item(object)).collect();
    list[viewer.items()] = items.into();
    value_response(call, StatusCode::OK, &list)
}

/// What a client sees of lists of objects in the request's version.
struct Viewer {
    view: View,
    rows: Option<table::Rows>,
    list_kind: Cow<'static, str>,
    api_version: String,
}

impl Viewer {
    fn of(call: &Call) -> Self {
        let view = call.accepted.view;
        let rows = match view {
            View::Table(stable) => Some(table::Rows::of(call, stable)),
            View::Metadata(_) | View::Object => None,
        };
        let (list_kind, api_version) = match view {
            View::Table(stable) => ("Table".into(), meta_version(stable).into()),
            View::Metadata(stable) => ("PartialObjectMetadataList".into(), meta_version(stable).into()),
            View::Object => (call.row.list_kind.clone(), call.api_version()),
        };
        Viewer { view, rows, list_kind, api_version }
    }

    fn item(&self, mut object: Object) -> Value {
        match (&self.rows, self.view) {
            (Some(rows), _) => rows.row(object),
            (None, View::Metadata(stable)) => metadata_of(object, stable),
            (None, _) => {
                object.map_mut().remove("kind");
                object.map_mut().remove("apiVersion");
                object.into()
            }
        }
    }

    /// The member of a list that has the items.
    fn items(&self) -> &'static str {
        if self.rows.is_some() { "rows" } else { "items" }
    }

    /// A list without its items.
    fn list(&self, metadata: Map<String, Value>) -> Value {
        let mut list = value_of(&self.list_kind, &self.api_version, [("metadata", metadata.into())]);
        if let Some(rows) = &self.rows {
            list["columnDefinitions"] = rows.definitions();
        }
        list
    }

    /// What stands around the items.
    fn frame(&self, metadata: Map<String, Value>, form: Accepted, empty: bool) -> Result<Frame, StatusError> {
        let (list, items) = (self.list(metadata), self.items());
        Ok(match form.encoding {
            Encoding::Yaml => {
                let mut head = serde_yaml::to_string(&list).map_err(StatusError::internal)?.into_bytes();
                let none = if empty { " []" } else { "" };
                head.extend_from_slice(format!("{items}:{none}\n").as_bytes());
                Frame { head, separator: b"", tail: b"", lines: None, end: b"" }
            }
            Encoding::Json | Encoding::Protobuf => {
                let mut head = serde_json::to_vec(&list).map_err(StatusError::internal)?;
                // Its closing brace comes behind the items.
                head.pop();
                head.extend_from_slice(format!(",\"{items}\":[").as_bytes());
                Frame { head, ..Frame::json(form.pretty) }
            }
        })
    }
}

/// What a client sees of stored objects, as JSON text.
pub(crate) struct Shown {
    api_version: Cow<'static, str>,
    kind: Cow<'static, str>,
    list_kind: Cow<'static, str>,
    /// What each text of an object's metadata begins with; `None` where whole objects are shown.
    metadata: Option<Vec<u8>>,
}

impl Shown {
    /// `None` for a view that is not a part of the object.
    pub(crate) fn of(call: &Call) -> Option<Self> {
        match call.accepted.view {
            View::Table(_) => None,
            View::Object => Some(Shown {
                api_version: call.api_version().into(),
                kind: call.row.kind.clone(),
                list_kind: call.row.list_kind.clone(),
                metadata: None,
            }),
            View::Metadata(stable) => {
                let (kind, api_version) = ("PartialObjectMetadata", meta_version(stable));
                Some(Shown {
                    api_version: api_version.into(),
                    kind: kind.into(),
                    list_kind: "PartialObjectMetadataList".into(),
                    metadata: Some(codec::head(Some(&kind.into()), Some(&api_version.into())).ok()?),
                })
            }
        }
    }

    /// Appends an entry as of a revision.
    ///
    /// # Errors
    /// 500 where the stored bytes are no object.
    pub(crate) fn write(&self, out: &mut Vec<u8>, entry: &Entry, revision: u64) -> Result<(), StatusError> {
        match &self.metadata {
            None => entry.write_object_at(out, revision),
            Some(head) => {
                out.extend_from_slice(head);
                entry.write_metadata_at(out, revision)?;
            }
        }
        Ok(())
    }

    fn write_item(&self, out: &mut Vec<u8>, entry: &Entry) -> Result<(), StatusError> {
        if self.metadata.is_some() {
            return self.write(out, entry, entry.revision);
        }
        entry.write_item(out);
        Ok(())
    }

    /// An entry as of a revision, with the envelope of protobuf.
    ///
    /// # Errors
    /// 406 for a kind without that form, 500 where the stored bytes are no object.
    pub(crate) fn protobuf(&self, entry: &Entry, revision: u64) -> Result<Bytes, StatusError> {
        let mut text = Vec::with_capacity(entry.value.len() + 64);
        self.write(&mut text, entry, revision)?;
        let form = Accepted { encoding: Encoding::Protobuf, ..Accepted::JSON };
        respond::encode_text(text, &self.api_version, &self.kind, form)
    }
}

/// Appends an item of a list.
type WriteItem = Box<dyn FnMut(&mut Vec<u8>, &Entry) -> Result<(), StatusError> + Send>;

/// The text around the items of a list.
struct Frame {
    head: Vec<u8>,
    separator: &'static [u8],
    tail: &'static [u8],
    /// Sets what is JSON so far in lines.
    lines: Option<Pretty>,
    end: &'static [u8],
}

impl Frame {
    fn json(pretty: bool) -> Self {
        let lines = pretty.then(Pretty::default);
        Frame { head: Vec::new(), separator: b",", tail: b"]}", lines, end: b"\n" }
    }
}

fn text_list(
    answers: &Answers,
    frame: Frame,
    entries: Vec<Arc<Entry>>,
    mut write_item: WriteItem,
) -> Result<ResponseBody, StatusError> {
    let Frame { head, separator, tail, mut lines, end } = frame;
    let mut entries = entries.into_iter();
    let mut first = true;
    let mut fill = move |mut out: Vec<u8>| -> Result<(Bytes, bool), StatusError> {
        let mut more = false;
        for entry in entries.by_ref() {
            if !first {
                out.extend_from_slice(separator);
            }
            first = false;
            write_item(&mut out, &entry)?;
            more = out.len() >= SLICE;
            if more {
                break;
            }
        }
        if !more {
            out.extend_from_slice(tail);
        }
        if let Some(lines) = &mut lines {
            let mut set = Vec::with_capacity(out.len() + out.len() / 2);
            lines.push(&out, &mut set);
            out = set;
        }
        if !more {
            out.extend_from_slice(end);
        }
        Ok((out.into(), more))
    };
    let (head, more) = fill(head)?;
    if !more {
        return Ok(ResponseBody::from(head));
    }
    // A long list is made while it is sent, so only a slice of it exists twice at any time.
    let mut more = true;
    let rest = std::iter::from_fn(move || {
        let slice = more.then(|| fill(Vec::with_capacity(SLICE + (SLICE >> 2))))?;
        more = matches!(slice, Ok((_, true)));
        Some(slice.map(|(slice, _)| slice).map_err(BoxError::from))
    });
    Ok(resting(answers, head, rest))
}

/// A body of slices that are let go if their client does not take them in time.
fn resting(
    answers: &Answers,
    head: Bytes,
    slices: impl Iterator<Item = Result<Bytes, BoxError>> + Send + 'static,
) -> ResponseBody {
    let rest = futures::stream::unfold(answers.open(slices), |place| async move {
        let Some(mut slices) = place.take() else { return Some((Err(UNREAD.into()), place)) };
        let slice = slices.next()?;
        place.rest(slices);
        Some((slice, place))
    });
    ResponseBody::stream(futures::StreamExt::chain(futures::stream::iter([Ok(head)]), rest))
}

/// A list in protobuf, whose length stands before it: all of it is made before any is sent.
async fn protobuf_list(
    answers: &Answers,
    shown: &Shown,
    metadata: &Value,
    entries: &[Arc<Entry>],
) -> Result<ResponseBody, StatusError> {
    let schema = respond::schema_of(&shown.api_version, &shown.list_kind).and_then(ListEncoder::new);
    let mut list = schema.ok_or_else(|| StatusError::not_acceptable(&[JSON, YAML]))?;
    let (mut slices, mut item) = (Vec::new(), Vec::new());
    for entry in entries {
        item.clear();
        shown.write_item(&mut item, entry)?;
        list.item(&item).map_err(|_| entry.damaged())?;
        if list.pending() >= SLICE {
            slices.push(Bytes::from(list.take()));
            // Others are served on this thread, too.
            tokio::task::yield_now().await;
        }
    }
    slices.push(list.take().into());
    let (head, tail) = list.frame(&shown.api_version, &shown.list_kind, metadata);
    if slices.len() == 1 {
        return Ok(ResponseBody::chunks([Bytes::from(head)].into_iter().chain(slices).chain([tail.into()])));
    }
    Ok(resting(answers, head.into(), slices.into_iter().chain([tail.into()]).map(Ok)))
}

/// The PartialObjectMetadata of an object.
pub(crate) fn metadata_of(mut object: Object, stable: bool) -> Value {
    let metadata = object.map_mut().remove("metadata").unwrap_or_else(|| json!({}));
    value_of("PartialObjectMetadata", meta_version(stable), [("metadata", metadata)])
}

/// An object of these members, which `json!` would copy.
pub(crate) fn value_of<const N: usize>(kind: &str, api_version: &str, members: [(&str, Value); N]) -> Value {
    let named = [("kind", kind.into()), ("apiVersion", api_version.into())];
    Value::Object(named.into_iter().chain(members).map(|(name, value)| (name.to_owned(), value)).collect())
}

/// apiVersion of the kinds of meta.k8s.io.
pub(crate) fn meta_version(stable: bool) -> &'static str {
    if stable { "meta.k8s.io/v1" } else { "meta.k8s.io/v1beta1" }
}
