//! gzip for large answers to clients that accept it; small ones and watches are sent as they are.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::StreamExt;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderValue, VARY};
use http::{Response, StatusCode};

use super::body::{BoxError, ResponseBody};

/// Smaller answers are not worth the time, as upstream measured.
const THRESHOLD: u64 = 128 << 10;

/// Compresses the answer of a get or list if it is large and the client accepts gzip.
pub(crate) fn gzip(request: &HeaderMap, response: Response<ResponseBody>) -> Response<ResponseBody> {
    let accepts = request
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            parts.next() == Some("gzip") && !parts.any(|part| matches!(part, "q=0" | "q=0.0"))
        });
    let large = match response.body() {
        ResponseBody::Chunks { remaining, .. } => *remaining >= THRESHOLD,
        // Only lists of more than a slice are streamed.
        ResponseBody::Stream(_) => true,
    };
    if !accepts || !large || response.status() != StatusCode::OK {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    parts.headers.remove(CONTENT_LENGTH);
    let plain = match body {
        ResponseBody::Chunks { chunks, .. } => futures::stream::iter(chunks).map(Ok).boxed(),
        ResponseBody::Stream(stream) => stream,
    };
    let state = Some((plain, GzEncoder::new(Vec::new(), Compression::fast())));
    let compressed = futures::stream::try_unfold(state, |state| async move {
        let Some((mut plain, mut encoder)) = state else { return Ok::<_, BoxError>(None) };
        while let Some(chunk) = plain.next().await {
            encoder.write_all(&chunk?)?;
            if !encoder.get_ref().is_empty() {
                let out = std::mem::take(encoder.get_mut());
                return Ok(Some((Bytes::from(out), Some((plain, encoder)))));
            }
        }
        Ok(Some((Bytes::from(encoder.finish()?), None)))
    });
    Response::from_parts(parts, ResponseBody::stream(compressed))
}
