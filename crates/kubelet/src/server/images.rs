//! `/kminik/v1/images…`: what the command line's image commands do on a node.

use std::io;

use futures::{StreamExt, TryStreamExt};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::body::Incoming;
use kminik_base::component::{BoxError, chain};
use kminik_oci::{ImageError, NoProgress};
use tokio_util::io::{ReaderStream, StreamReader};

use super::Shared;
use super::query::Query;
use super::route::{Body, Failure, json};

/// Bytes of an export that wait for a slow reader.
const EXPORT_BUFFER_BYTES: usize = 256 * 1024;

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Failure {
        let status = match &error {
            ImageError::NotFound(_) => StatusCode::NOT_FOUND,
            ImageError::InvalidName { .. } | ImageError::Ambiguous(_) => StatusCode::BAD_REQUEST,
            ImageError::BadArchive(_) | ImageError::WrongPlatform { .. } | ImageError::BadDocument { .. } => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            ImageError::ReadArchive(_) => StatusCode::BAD_REQUEST,
            ImageError::AllFailed { .. } => StatusCode::BAD_GATEWAY,
            ImageError::NoSpace(_) => StatusCode::INSUFFICIENT_STORAGE,
            ImageError::WriteArchive(_)
            | ImageError::BadConfig { .. }
            | ImageError::Io { .. }
            | ImageError::File(_)
            | ImageError::Client(_)
            | ImageError::Cancelled => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Failure::new(status, chain(&error))
    }
}

pub(super) async fn serve(
    shared: &Shared,
    rest: &[String],
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Failure> {
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    let needed = |name: &str| {
        query
            .get(name)
            .map(str::to_owned)
            .ok_or_else(|| Failure::bad_request(format!("the parameter {name} is needed")))
    };
    match (request.method(), rest.as_slice()) {
        (&Method::GET, []) => list(shared).await,
        (&Method::DELETE, []) => {
            shared.images.remove(&needed("image")?).await?;
            Ok(json(&serde_json::json!({})))
        }
        (&Method::POST, ["load"]) => load(shared, request).await,
        (&Method::POST, ["pull"]) => {
            let name = needed("image")?;
            let image = shared.images.pull(&name, &[], &NoProgress).await?;
            Ok(json(&serde_json::json!({ "image": name, "id": image.id })))
        }
        (&Method::POST, ["tag"]) => {
            shared.images.tag(&needed("source")?, &needed("target")?).await?;
            Ok(json(&serde_json::json!({})))
        }
        (&Method::GET, ["save"]) => {
            let names: Vec<String> = query.all("image").filter(|name| !name.is_empty()).map(str::to_owned).collect();
            save(shared, names).await
        }
        _ => Err(Failure::not_found()),
    }
}

async fn list(shared: &Shared) -> Result<Response<Body>, Failure> {
    let rows: Vec<_> = shared
        .images
        .list()
        .await?
        .into_iter()
        .map(|image| {
            serde_json::json!({
                "id": image.id, "repoTags": image.repo_tags, "repoDigests": image.repo_digests,
                "size": image.size_bytes.to_string(),
            })
        })
        .collect();
    Ok(json(&rows.into()))
}

async fn load(shared: &Shared, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
    let frames = TryStreamExt::map_err(BodyStream::new(request.into_body()), io::Error::other);
    let data = frames.try_filter_map(async |frame| Ok(frame.into_data().ok()));
    let images = shared.images.import(StreamReader::new(data.boxed())).await?;
    let names: Vec<String> = images
        .into_iter()
        .flat_map(|image| match image.repo_tags.is_empty() {
            true => vec![image.id.to_string()],
            false => image.repo_tags,
        })
        .collect();
    Ok(json(&serde_json::json!({ "images": names })))
}

async fn save(shared: &Shared, names: Vec<String>) -> Result<Response<Body>, Failure> {
    if names.is_empty() {
        return Err(Failure::bad_request("the parameter image is needed"));
    }
    // After the first byte an error can only cut the stream, so what can be known before is asked before.
    for name in &names {
        if shared.images.get(name).await?.is_none() {
            return Err(ImageError::NotFound(name.clone()).into());
        }
    }
    let (writer, reader) = tokio::io::duplex(EXPORT_BUFFER_BYTES);
    let images = shared.images.clone();
    let export = tokio::spawn(async move { images.export(&names, writer).await });
    let data = ReaderStream::new(reader).map_ok(Frame::data).map_err(BoxError::from);
    let ended = futures::stream::once(async move {
        match export.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Err(BoxError::from(error))),
            Err(error) => Some(Err(BoxError::from(error))),
        }
    });
    let body = data.chain(ended.filter_map(|end| async { end }));
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(body)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    Ok(response)
}
