//! Reads of objects that nobody stored: they are made when somebody asks.

use bytes::Bytes;
use http::{Response, StatusCode};
use kminik_meta::{Object, StatusError};
use serde_json::Map;

use super::call::Call;
use super::list::ListOptions;
use super::render;
use super::selection::Selection;
use crate::http::body::ResponseBody;
use crate::registry::action::Source;
use crate::storage::entry::Entry;
use crate::storage::{codec, key};

/// Answers with the object of the URL's name.
pub(crate) async fn get(call: &Call, source: &dyn Source) -> Result<Response<ResponseBody>, StatusError> {
    let mut objects = source.objects(call.action_context(None)).await?.into_iter();
    let object = objects.find(|object| object.name() == call.info.name).ok_or_else(|| call.not_found())?;
    render::object(call, StatusCode::OK, object)
}

/// Answers with all that are selected; a limit is met by sending more at once.
pub(crate) async fn list(call: &Call, source: &dyn Source) -> Result<Response<ResponseBody>, StatusError> {
    ListOptions::of(call)?;
    let selection = Selection::of(call)?;
    let mut selected = Vec::new();
    for object in source.objects(call.action_context(None)).await? {
        if selection.matches(&entry_of(call, &object)?)? {
            selected.push(object);
        }
    }
    render::objects(call, Map::new(), selected)
}

fn entry_of(call: &Call, object: &Object) -> Result<Entry, StatusError> {
    let prefix = format!("core/{}", call.row.plural);
    let key: Bytes = key::object(&prefix, object.namespace(), object.name());
    Ok(Entry::at(key, codec::encode(object)?, 0))
}
