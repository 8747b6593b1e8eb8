//! Bodies of requests, read with bounds, and of answers.

use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use kminik_base::component::BoxError;
pub(crate) use kminik_oci::serve::Body;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use crate::error::RegistryError;

/// How long a client may send nothing.
const IDLE: Duration = Duration::from_secs(60);
const FILE_CHUNK_BYTES: usize = 256 * 1024;

/// What requests have as bodies.
pub(crate) trait Incoming:
    http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static
{
}
impl<B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static> Incoming for B {}

/// The next bytes; `None` at the end.
pub(crate) async fn next<B: Incoming>(body: &mut B) -> Result<Option<Bytes>, RegistryError> {
    loop {
        match tokio::time::timeout(IDLE, body.frame()).await {
            Err(_) => return Err(RegistryError::Stalled),
            Ok(None) => return Ok(None),
            Ok(Some(Err(_))) => return Err(RegistryError::Broken),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// All of it, of at most `limit` bytes.
pub(crate) async fn whole<B: Incoming>(body: &mut B, limit: usize) -> Result<Vec<u8>, RegistryError> {
    let mut all = Vec::new();
    while let Some(data) = next(body).await? {
        if all.len() + data.len() > limit {
            return Err(RegistryError::TooLarge { limit_bytes: limit as u64 });
        }
        all.extend_from_slice(&data);
    }
    Ok(all)
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// An answer with nothing in it.
pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(""));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    response
}

/// Bytes of a type.
pub(crate) fn typed(content_type: &str, bytes: Vec<u8>) -> Response<Body> {
    let length = bytes.len();
    let mut response = Response::new(full(bytes));
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    set(&mut response, CONTENT_TYPE.as_str(), content_type);
    response
}

pub(crate) fn json(value: &Value) -> Response<Body> {
    typed("application/json", value.to_string().into_bytes())
}

/// `length` bytes of a file from where it stands.
pub(crate) fn file(file: tokio::fs::File, length: u64) -> Body {
    let pieces = ReaderStream::with_capacity(file.take(length), FILE_CHUNK_BYTES);
    BodyExt::boxed_unsync(StreamBody::new(pieces.map_ok(Frame::data).map_err(BoxError::from)))
}

/// Sets a header; a value that can be none is left out.
pub(crate) fn set(response: &mut Response<Body>, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

pub(crate) fn refused(error: &RegistryError) -> Response<Body> {
    let (status, code) = error.answer();
    let mut response = json(&json!({ "errors": [{ "code": code, "message": error.to_string(), "detail": null }] }));
    *response.status_mut() = status;
    match error {
        RegistryError::Range { size } => set(&mut response, "content-range", &format!("bytes */{size}")),
        RegistryError::OutOfOrder { at } => set(&mut response, "range", &received(*at)),
        _ => {}
    }
    response
}

/// The bytes of an upload that are there, as the specification has them: both ends are within, so nothing looks like one byte.
pub(crate) fn received(at: u64) -> String {
    format!("0-{}", at.saturating_sub(1))
}
