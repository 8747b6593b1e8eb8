//! A store over HTTP. Who may ask is the caller's to decide.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | all images, as minikube lists them, and which names no registry has given |
//! | `DELETE /?image=` | removes a name, or an image by its id |
//! | `POST /tag?source=&target=` | |
//! | `POST /pull?image=`, `/push?image=` | body: [`Logins`], or nothing; answer: a line of JSON an [`Event`], the last is the end |
//! | `POST /missing` | body: a list of digests; answer: those that are not stored |
//! | `POST /load` | body: an archive, which may leave out blobs of an OCI layout that are stored |
//! | `GET /save?image=…` | an archive |
//! | `GET` and `HEAD /v2/<repository>/manifests/…`, `/blobs/…` | the read half of the distribution API; `?ns=` names the registry |

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RANGE};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, Full, Limited, StreamBody};
use kminik_base::component::{BoxError, chain};
use oci_client::manifest::OciManifest;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::{ReaderStream, StreamReader};

use crate::{Credential, Digest, ImageError, ImageStore, Progress};

pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Bytes of an export that wait for a slow reader.
const EXPORT_BUFFER_BYTES: usize = 256 * 1024;
const FILE_CHUNK_BYTES: usize = 256 * 1024;
const MAX_REQUEST_BYTES: usize = 1024 * 1024;
/// How often a pull or push tells how far it is.
const TELL: Duration = Duration::from_millis(200);
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// What a pull or push needs to know beside the name.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Logins {
    pub credentials: Vec<Credential>,
}

/// One line of the answer to a pull or push.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Event {
    /// So far a blob has come.
    Blob {
        blob: String,
        size: u64,
        at: u64,
    },
    Note(String),
    /// It is done: the image's id, or what was pushed.
    Done(Digest),
    /// It failed, with what the answer's status would have been.
    Failed {
        status: u16,
        error: String,
    },
}

/// Why a request is answered with an error; the text is the body.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Refused {
    pub status: StatusCode,
    pub text: String,
}

impl Refused {
    fn new(status: StatusCode, text: impl Into<String>) -> Refused {
        Refused { status, text: text.into() }
    }
}

impl From<ImageError> for Refused {
    fn from(error: ImageError) -> Refused {
        Refused::new(status(&error), chain(&error))
    }
}

fn status(error: &ImageError) -> StatusCode {
    match error {
        ImageError::NotFound(_) => StatusCode::NOT_FOUND,
        ImageError::InvalidName { .. } | ImageError::Ambiguous(_) | ImageError::ReadArchive(_) => {
            StatusCode::BAD_REQUEST
        }
        ImageError::BadArchive(_) | ImageError::WrongPlatform { .. } | ImageError::BadDocument { .. } => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        ImageError::AllFailed { .. } | ImageError::NotTaken { .. } | ImageError::NoFile { .. } => {
            StatusCode::BAD_GATEWAY
        }
        ImageError::NoSpace(_) => StatusCode::INSUFFICIENT_STORAGE,
        ImageError::WriteArchive(_)
        | ImageError::TooLarge { .. }
        | ImageError::BadConfig { .. }
        | ImageError::Io { .. }
        | ImageError::File(_)
        | ImageError::Client(_)
        | ImageError::Cancelled => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Answers a request whose path below the store's is `path`.
///
/// # Errors
/// [`Refused`] with the status and text to answer.
pub async fn serve<B>(store: &ImageStore, path: &[&str], request: Request<B>) -> Result<Response<Body>, Refused>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let pairs: Vec<(String, String)> =
        url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned().collect();
    let all = |key: &str| -> Vec<String> {
        pairs.iter().filter(|(name, value)| name == key && !value.is_empty()).map(|(_, value)| value.clone()).collect()
    };
    let needed = |key: &str| {
        let first = all(key).into_iter().next();
        first.ok_or_else(|| Refused::new(StatusCode::BAD_REQUEST, format!("the parameter {key} is needed")))
    };
    match (request.method(), path) {
        (&Method::GET, []) => list(store).await,
        (&Method::DELETE, []) => {
            store.remove(&needed("image")?).await?;
            Ok(json(&serde_json::json!({})))
        }
        (&Method::POST, ["tag"]) => {
            store.tag(&needed("source")?, &needed("target")?).await?;
            Ok(json(&serde_json::json!({})))
        }
        (&Method::POST, ["pull" | "push"]) => {
            let pushes = path == ["push"];
            let (store, image) = (store.clone(), needed("image")?);
            let logins: Logins = document(request).await?;
            Ok(told(async move |progress: Arc<Told>| {
                if pushes {
                    store.push(&image, &logins.credentials, progress.as_ref()).await
                } else {
                    store.pull(&image, &logins.credentials, progress.as_ref()).await.map(|image| image.id)
                }
            }))
        }
        (&Method::POST, ["missing"]) => {
            let digests: Vec<Digest> = document(request).await?;
            Ok(json(&serde_json::json!(store.missing(digests).await?)))
        }
        (&Method::POST, ["load"]) => load(store, request).await,
        (&Method::GET, ["save"]) => save(store, all("image")).await,
        (&Method::GET | &Method::HEAD, ["v2", rest @ ..]) => {
            let registry = all("ns").into_iter().next().unwrap_or_else(|| "docker.io".to_owned());
            distribution(store, &registry, rest, &request).await
        }
        _ => Err(absent()),
    }
}

fn absent() -> Refused {
    Refused::new(StatusCode::NOT_FOUND, "404 page not found")
}

/// A body as JSON; an empty one is the default.
async fn document<B, T>(request: Request<B>) -> Result<T, Refused>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
    T: Default + for<'de> Deserialize<'de>,
{
    let bad = |error: &dyn std::fmt::Display| Refused::new(StatusCode::BAD_REQUEST, error.to_string());
    let body = Limited::new(request.into_body(), MAX_REQUEST_BYTES).collect().await.map_err(|error| bad(&error))?;
    let bytes = body.to_bytes();
    if bytes.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(&bytes).map_err(|error| bad(&error))
}

async fn list(store: &ImageStore) -> Result<Response<Body>, Refused> {
    let rows: Vec<_> = store
        .list()
        .await?
        .into_iter()
        .map(|image| {
            serde_json::json!({
                "id": image.id, "repoTags": image.repo_tags, "localTags": image.local_tags,
                "repoDigests": image.repo_digests, "size": image.size_bytes.to_string(),
            })
        })
        .collect();
    Ok(json(&rows.into()))
}

async fn load<B>(store: &ImageStore, request: Request<B>) -> Result<Response<Body>, Refused>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let body = BodyStream::new(request.into_body());
    let frames = TryStreamExt::map_err(body, |error| io::Error::other(error.into()));
    let data = frames.try_filter_map(async |frame| Ok(frame.into_data().ok()));
    let images = store.import(StreamReader::new(data.boxed())).await?;
    store.make_room().await;
    let names: Vec<String> = images
        .into_iter()
        .flat_map(|image| match image.repo_tags.is_empty() {
            true => vec![image.id.to_string()],
            false => image.repo_tags,
        })
        .collect();
    Ok(json(&serde_json::json!({ "images": names })))
}

async fn save(store: &ImageStore, names: Vec<String>) -> Result<Response<Body>, Refused> {
    if names.is_empty() {
        return Err(Refused::new(StatusCode::BAD_REQUEST, "the parameter image is needed"));
    }
    // After the first byte an error can only cut the stream, so what can be known before is asked before.
    for name in &names {
        if store.get(name).await?.is_none() {
            return Err(ImageError::NotFound(name.clone()).into());
        }
    }
    let (writer, reader) = tokio::io::duplex(EXPORT_BUFFER_BYTES);
    let images = store.clone();
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
    Ok(typed("application/x-tar", BodyExt::boxed_unsync(StreamBody::new(body))))
}

/// How far a pull or push is, for whoever asks now and then.
#[derive(Default)]
struct Told(Mutex<Untold>);

#[derive(Default)]
struct Untold {
    blobs: BTreeMap<String, Reached>,
    notes: Vec<String>,
}

struct Reached {
    size: u64,
    at: u64,
}

/// Most notes that wait to be told.
const MAX_NOTES: usize = 100;

impl Progress for Told {
    fn start(&self, blob: &str, size_bytes: u64, already: u64) {
        self.0.lock().blobs.insert(blob.to_owned(), Reached { size: size_bytes, at: already });
    }

    fn advance(&self, blob: &str, bytes: u64) {
        if let Some(blob) = self.0.lock().blobs.get_mut(blob) {
            blob.at += bytes;
        }
    }

    fn done(&self, blob: &str) {
        if let Some(blob) = self.0.lock().blobs.get_mut(blob) {
            blob.at = blob.size;
        }
    }

    fn note(&self, message: &str) {
        let mut untold = self.0.lock();
        if untold.notes.len() < MAX_NOTES {
            untold.notes.push(message.to_owned());
        }
    }
}

impl Told {
    /// What has changed since it was asked last; what is complete is told once.
    fn changes(&self) -> Vec<Event> {
        let mut untold = self.0.lock();
        let mut events: Vec<Event> = untold.notes.drain(..).map(Event::Note).collect();
        let blobs = untold.blobs.iter();
        events.extend(blobs.map(|(blob, r)| Event::Blob { blob: blob.clone(), size: r.size, at: r.at }));
        untold.blobs.retain(|_, reached| reached.at < reached.size);
        events
    }
}

/// Runs the work as long as somebody reads the answer.
fn told<W>(work: impl FnOnce(Arc<Told>) -> W) -> Response<Body>
where
    W: Future<Output = Result<Digest, ImageError>> + Send + 'static,
{
    let progress = Arc::new(Told::default());
    let running = Some(Box::pin(work(progress.clone())));
    let events = futures::stream::unfold((running, progress), |(running, progress)| async move {
        let mut running = running?;
        let ended = tokio::time::timeout(TELL, running.as_mut()).await;
        let mut events = progress.changes();
        let running = match ended {
            Err(_) => Some(running),
            Ok(end) => {
                events.push(match end {
                    Ok(digest) => Event::Done(digest),
                    Err(error) => Event::Failed { status: status(&error).as_u16(), error: chain(&error) },
                });
                None
            }
        };
        let mut lines = Vec::new();
        for event in events {
            lines.extend(serde_json::to_vec(&event).unwrap_or_default());
            lines.push(b'\n');
        }
        Some((Ok::<_, BoxError>(Frame::data(Bytes::from(lines))), (running, progress)))
    });
    typed("application/x-ndjson", BodyExt::boxed_unsync(StreamBody::new(events)))
}

/// `<repository…>/manifests/<reference>` and `<repository…>/blobs/<digest>`.
async fn distribution<B>(
    store: &ImageStore,
    registry: &str,
    path: &[&str],
    request: &Request<B>,
) -> Result<Response<Body>, Refused> {
    let [repository @ .., kind, reference] = path else {
        return if path.is_empty() { Ok(json(&serde_json::json!({}))) } else { Err(absent()) };
    };
    let head = request.method() == Method::HEAD;
    match *kind {
        "manifests" => {
            let separator = if reference.contains(':') { '@' } else { ':' };
            let name = format!("{registry}/{}{separator}{reference}", repository.join("/"));
            let Some((digest, bytes)) = store.manifest(&name).await? else { return Err(absent()) };
            let kind = match serde_json::from_slice(&bytes) {
                Ok(OciManifest::ImageIndex(index)) => index.media_type.unwrap_or_else(|| INDEX_TYPE.to_owned()),
                Ok(OciManifest::Image(manifest)) => manifest.media_type.unwrap_or_else(|| MANIFEST_TYPE.to_owned()),
                Err(_) => return Err(absent()),
            };
            let length = bytes.len();
            let mut response = typed(&kind, if head { full("") } else { full(bytes) });
            response.headers_mut().insert(CONTENT_LENGTH, length.into());
            if let Ok(digest) = HeaderValue::from_str(digest.as_str()) {
                response.headers_mut().insert("docker-content-digest", digest);
            }
            Ok(response)
        }
        "blobs" => {
            let digest: Digest = reference.parse().map_err(|_| absent())?;
            let from = request.headers().get(RANGE).and_then(|range| range.to_str().ok()).and_then(from_byte);
            blob(store, &digest, from.unwrap_or(0), head).await
        }
        _ => Err(absent()),
    }
}

/// `bytes=N-`; any other range is answered with the whole.
fn from_byte(range: &str) -> Option<u64> {
    range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

async fn blob(store: &ImageStore, digest: &Digest, from: u64, head: bool) -> Result<Response<Body>, Refused> {
    let (path, size) = store.blob(digest).ok_or_else(absent)?;
    if from > 0 && from >= size {
        return Err(Refused::new(StatusCode::RANGE_NOT_SATISFIABLE, "the blob is shorter"));
    }
    let open = async {
        let mut file = tokio::fs::File::open(&path).await?;
        file.seek(io::SeekFrom::Start(from)).await?;
        Ok::<_, io::Error>(file)
    };
    let file = open.await.map_err(|_| absent())?;
    let pieces = ReaderStream::with_capacity(file.take(size - from), FILE_CHUNK_BYTES);
    let pieces = pieces.map_ok(Frame::data).map_err(BoxError::from);
    let body = if head { full("") } else { BodyExt::boxed_unsync(StreamBody::new(pieces)) };
    let mut response = typed("application/octet-stream", body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_LENGTH, (size - from).into());
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if from > 0 {
        if let Ok(range) = HeaderValue::from_str(&format!("bytes {from}-{}/{size}", size - 1)) {
            headers.insert(CONTENT_RANGE, range);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

fn typed(content_type: &str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    if let Ok(value) = HeaderValue::from_str(content_type) {
        response.headers_mut().insert(CONTENT_TYPE, value);
    }
    response
}

pub(crate) fn text(text: String) -> Response<Body> {
    typed("text/plain; charset=utf-8", full(text))
}

fn json(value: &serde_json::Value) -> Response<Body> {
    typed("application/json", full(value.to_string()))
}
