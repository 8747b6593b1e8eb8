//! How answers are put: the one place where an error becomes a response.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use http::{Response, StatusCode};
use kminik_meta::schema::{self, Schema};
use kminik_meta::{GroupVersion, Gvk, StatusError, protobuf};
use serde_json::Value;

use super::accept::{Encoding, JSON};
use super::body::ResponseBody;

/// Answers with a `Status`.
pub fn error(error: &StatusError) -> Response<ResponseBody> {
    let code = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(code, &error.to_value());
    if let Some(seconds) = error.retry_after_seconds() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Answers with a JSON value.
pub fn json(code: StatusCode, value: &Value) -> Response<ResponseBody> {
    let mut text = value.to_string();
    text.push('\n');
    bytes(code, JSON, Bytes::from(text))
}

/// Answers with text.
pub fn text(code: StatusCode, text: impl Into<String>) -> Response<ResponseBody> {
    bytes(code, "text/plain; charset=utf-8", Bytes::from(text.into()))
}

/// Answers with bytes of a media type.
pub fn bytes(code: StatusCode, media_type: &'static str, bytes: Bytes) -> Response<ResponseBody> {
    with_body(code, media_type, bytes.into())
}

/// Answers with any body.
pub fn with_body(code: StatusCode, media_type: &'static str, body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// A value in the encoding asked for.
///
/// # Errors
/// 500 for a value that cannot be written.
pub fn encode(value: &Value, encoding: Encoding) -> Result<Bytes, StatusError> {
    match encoding {
        Encoding::Json => {
            let mut text = serde_json::to_vec(value).map_err(StatusError::internal)?;
            text.push(b'\n');
            Ok(Bytes::from(text))
        }
        Encoding::Yaml => serde_yaml::to_string(value).map(Bytes::from).map_err(StatusError::internal),
        Encoding::Protobuf => {
            let schema = schema_of(value).ok_or_else(|| StatusError::not_acceptable(&[JSON]))?;
            Ok(Bytes::from(protobuf::encode(value, schema)))
        }
    }
}

/// The type of a value that names its apiVersion and kind.
fn schema_of(value: &Value) -> Option<&'static Schema> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let gvk = GroupVersion::parse(text("apiVersion"))?.kind(text("kind"));
    schema::lookup(&gvk).or_else(|| schema::lookup(&Gvk::new("meta.k8s.io", "v1", gvk.kind)))
}

/// Adds `Warning` headers, as client tools print them: agent 299, quoted text.
pub fn add_warnings(response: &mut Response<ResponseBody>, warnings: &[String]) {
    for (at, warning) in warnings.iter().enumerate() {
        if warnings[..at].contains(warning) {
            continue;
        }
        let escaped: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| if matches!(c, '"' | '\\') { vec!['\\', c] } else { vec![c] })
            .collect();
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{escaped}\"").as_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
}
