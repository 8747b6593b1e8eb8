//! How answers are put: the one place where an error becomes a response.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, RETRY_AFTER, VARY, WARNING};
use http::{Response, StatusCode};
use kminik_meta::schema::{self, Schema};
use kminik_meta::{GroupVersion, Gvk, StatusError, protobuf};
use serde_json::Value;

use super::accept::{Accepted, Encoding, JSON, YAML};
use super::body::ResponseBody;
use super::pretty::pretty;

/// Answers with a `Status` in the form the client accepts.
pub fn error(error: &StatusError, form: Accepted) -> Response<ResponseBody> {
    let code = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let value = error.to_value();
    let mut response = document(code, &value, form).unwrap_or_else(|_| json(code, &value));
    if let Some(seconds) = error.retry_after_seconds() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Answers with a value in the form the client accepts.
///
/// # Errors
/// 406 for a value that has no such form.
pub fn document(code: StatusCode, value: &Value, form: Accepted) -> Result<Response<ResponseBody>, StatusError> {
    Ok(bytes(code, form.encoding.media_type(), encode(value, form)?))
}

/// Answers with a JSON value.
pub fn json(code: StatusCode, value: &Value) -> Response<ResponseBody> {
    let mut text = value.to_string();
    text.push('\n');
    bytes(code, JSON, Bytes::from(text))
}

/// Answers with bytes that the client may have kept from before: with nothing but their tag if it has.
pub fn tagged(request: &HeaderMap, hash: &str, media_type: &'static str, body: Bytes) -> Response<ResponseBody> {
    let tag = format!("\"{hash}\"");
    let kept = request.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let known = kept
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|sent| sent == "*" || sent.strip_prefix("W/").unwrap_or(sent) == tag);
    let mut response = if known {
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        bytes(StatusCode::OK, media_type, body)
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
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
/// 406 for a value without a protobuf form, 500 for one that cannot be written.
pub fn encode(value: &Value, form: Accepted) -> Result<Bytes, StatusError> {
    match form.encoding {
        Encoding::Json => {
            let text = if form.pretty { serde_json::to_vec_pretty(value) } else { serde_json::to_vec(value) };
            let mut text = text.map_err(StatusError::internal)?;
            text.push(b'\n');
            Ok(Bytes::from(text))
        }
        Encoding::Yaml => serde_yaml::to_string(value).map(Bytes::from).map_err(StatusError::internal),
        Encoding::Protobuf => {
            let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
            let schema = schema_of(text("apiVersion"), text("kind"));
            let schema = schema.ok_or_else(|| StatusError::not_acceptable(&[JSON, YAML]))?;
            Ok(Bytes::from(protobuf::encode(value, schema)))
        }
    }
}

/// JSON text of an object of this type in the encoding asked for, without a tree of it but for YAML.
///
/// # Errors
/// As [`encode`], and 500 for what is no JSON object.
pub fn encode_text(mut text: Vec<u8>, api_version: &str, kind: &str, form: Accepted) -> Result<Bytes, StatusError> {
    Ok(Bytes::from(match form.encoding {
        Encoding::Json => {
            if form.pretty {
                text = pretty(&text);
            }
            text.push(b'\n');
            text
        }
        Encoding::Yaml => return encode(&serde_json::from_slice(&text).map_err(StatusError::internal)?, form),
        Encoding::Protobuf => {
            let schema = schema_of(api_version, kind).ok_or_else(|| StatusError::not_acceptable(&[JSON, YAML]))?;
            protobuf::encode_text(&text, api_version, kind, schema).map_err(StatusError::internal)?
        }
    }))
}

/// The built-in type of this apiVersion and kind.
pub fn schema_of(api_version: &str, kind: &str) -> Option<&'static Schema> {
    let gvk = GroupVersion::parse(api_version)?.kind(kind);
    // The kinds of meta.k8s.io are those of every group, and the same in both its versions.
    schema::lookup(&gvk).or_else(|| schema::lookup(&Gvk::new("meta.k8s.io", "v1", gvk.kind)))
}

/// All warnings of an answer together may have so many characters; beyond it each is cut to [`CUT_WARNING`].
const MAX_WARNINGS: usize = 4096;
const CUT_WARNING: usize = 256;

/// Adds `Warning` headers, as client tools print them: agent 299, quoted text; each text once, all of them bounded.
pub fn add_warnings(response: &mut Response<ResponseBody>, warnings: &[String]) {
    let mut texts: Vec<&str> = Vec::new();
    for warning in warnings.iter().map(String::as_str).filter(|warning| !warning.is_empty()) {
        if !texts.contains(&warning) {
            texts.push(warning);
        }
    }
    let cut = texts.iter().map(|text| text.chars().count()).sum::<usize>() > MAX_WARNINGS;
    let mut written = 0;
    for text in texts {
        if cut && written >= MAX_WARNINGS {
            return;
        }
        let text: String = text.chars().take(if cut { CUT_WARNING } else { usize::MAX }).collect();
        written += text.chars().count();
        let escaped: String = text
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| if matches!(c, '"' | '\\') { vec!['\\', c] } else { vec![c] })
            .collect();
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{escaped}\"").as_bytes()) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_bounded_and_come_once() {
        let headers = |warnings: &[String]| {
            let mut response = Response::new(ResponseBody::empty());
            add_warnings(&mut response, warnings);
            response.headers().get_all(WARNING).iter().map(|v| v.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(headers(&["a\"b\n".into(), String::new(), "a\"b\n".into()]), ["299 - \"a\\\"b\""]);
        let many: Vec<String> = (0..100).map(|number| format!("{number:03}{}", "x".repeat(400))).collect();
        let cut = headers(&many);
        assert_eq!((cut.len(), cut[0].len()), (MAX_WARNINGS / CUT_WARNING, CUT_WARNING + "299 - \"\"".len()));
    }
}
