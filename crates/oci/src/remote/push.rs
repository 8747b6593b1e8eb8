//! Pushing: blobs that the registry lacks, several at once, then the manifest.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use parking_lot::Mutex;
use reqwest::{Body, Response};
use tokio::time::Instant;
use tokio_util::io::ReaderStream;
use url::Url;

use super::lookup::secured;
use super::transport::{Refusal, Transport, innermost, url};
use super::{Credential, PARALLEL_BLOBS, Timeouts, checked, short};
use crate::layout::Layout;
use crate::mirrors::{Place, Resolver};
use crate::{Attempt, Digest, ImageError, ImageName, Progress};

/// Tries of a blob whose upload breaks off.
const TRIES: u32 = 3;
const RETRY_PAUSE: Duration = Duration::from_millis(500);
const CHUNK_BYTES: usize = 256 * 1024;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// One push, with everything it uses.
pub(crate) struct Pusher<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) transport: &'a Transport,
    pub(crate) resolver: &'a Resolver,
    pub(crate) timeouts: Timeouts,
    pub(crate) progress: &'a dyn Progress,
    pub(crate) credentials: &'a [Credential],
}

impl Pusher<'_> {
    /// Pushes a stored image under a name to the registry that it means, where that may be insecure by TLS or else in plain
    /// text.
    pub(crate) async fn push(&self, name: &ImageName, manifest: &Digest) -> Result<(), ImageError> {
        let mut attempts = Vec::new();
        for place in secured(self.resolver, self.resolver.upstream(name)).await {
            let started = Instant::now();
            match self.push_to(name, &place, manifest).await {
                Ok(()) => return Ok(()),
                Err(Failure::Store(error)) => return Err(error),
                Err(Failure::Place { wanted, refusal }) => {
                    let answer = refusal.to_string();
                    attempts.push(Attempt { place: place.label(), wanted, answer, elapsed: started.elapsed() });
                }
            }
        }
        Err(ImageError::NotTaken { name: name.to_string(), attempts })
    }

    async fn push_to(&self, name: &ImageName, place: &Place, digest: &Digest) -> Result<(), Failure> {
        let body = self.layout.read(digest)?;
        let manifest = self.layout.manifest(digest)?;
        let mut blobs = Vec::new();
        for descriptor in std::iter::once(&manifest.config).chain(&manifest.layers) {
            let digest = checked(name, &descriptor.digest)?;
            if !blobs.contains(&digest) {
                blobs.push(digest);
            }
        }
        let room = Arc::new(tokio::sync::Semaphore::new(PARALLEL_BLOBS));
        let mut running: FuturesUnordered<_> = blobs
            .iter()
            .map(|digest| {
                let room = room.clone();
                async move {
                    let _permit = room.acquire().await.map_err(|_| ImageError::Cancelled)?;
                    self.blob(place, digest).await
                }
            })
            .collect();
        while let Some(done) = running.next().await {
            done?;
        }
        let reference = name.tag().map_or_else(|| digest.to_string(), str::to_owned);
        let target = url(place, &format!("manifests/{reference}"));
        let media_type = manifest.media_type.as_deref().unwrap_or(MANIFEST);
        let build =
            |client: &reqwest::Client| client.put(target.clone()).header(CONTENT_TYPE, media_type).body(body.clone());
        let wanted = || "manifest".to_owned();
        let put = || async {
            let put = self.transport.execute(place, &build, self.timeouts.answer, self.credentials).await;
            put.map(drop).map_err(|refusal| Failure::Place { wanted: wanted(), refusal })
        };
        self.patiently(place, true, || put().boxed()).await
    }

    /// Tries again what may go better the next time; where the place has not been reached yet, not what the network says, for
    /// the next place may be the one that speaks plain text.
    async fn patiently<'w, T>(
        &self,
        place: &Place,
        reached: bool,
        work: impl Fn() -> BoxFuture<'w, Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let ended = work().await;
            let Err(Failure::Place { refusal, .. }) = &ended else { return ended };
            let pause = match refusal {
                _ if attempt == TRIES || refusal.is_final() => return ended,
                Refusal::Busy { retry_after, .. } if *retry_after > self.timeouts.retry_after => return ended,
                Refusal::Busy { retry_after, .. } => *retry_after,
                Refusal::Network(_) if !reached => return ended,
                _ => RETRY_PAUSE * attempt,
            };
            self.progress.note(&format!("{}: {refusal}", place.label()));
            tokio::time::sleep(pause).await;
        }
    }

    async fn blob(&self, place: &Place, digest: &Digest) -> Result<(), Failure> {
        let label = short(digest);
        let failed = |refusal| Failure::Place { wanted: format!("layer {label}"), refusal };
        let size = self.layout.size_of(digest).ok_or_else(|| ImageError::NotFound(digest.to_string()))?;
        let path = url(place, &format!("blobs/{digest}"));
        let head = |client: &reqwest::Client| client.head(path.clone());
        let is_there = || async {
            match self.transport.execute(place, &head, self.timeouts.answer, self.credentials).await {
                Ok(_) => Ok(true),
                Err(Refusal::Status { status: StatusCode::NOT_FOUND, .. }) => Ok(false),
                Err(refusal) => Err(failed(refusal)),
            }
        };
        if self.patiently(place, false, || is_there().boxed()).await? {
            self.progress.start(&label, size, size);
        } else {
            self.patiently(place, true, || self.upload(place, digest, size, &label).boxed()).await?;
        }
        self.progress.done(&label);
        Ok(())
    }

    async fn upload(&self, place: &Place, digest: &Digest, size: u64, label: &str) -> Result<(), Failure> {
        let failed = |refusal| Failure::Place { wanted: format!("layer {label}"), refusal };
        let begin = url(place, "blobs/uploads/");
        let post = |client: &reqwest::Client| client.post(begin.clone()).header(CONTENT_LENGTH, 0);
        let begun = self.transport.execute(place, &post, self.timeouts.answer, self.credentials).await;
        let mut target = session(place, &begun.map_err(failed)?).map_err(failed)?;
        target.query_pairs_mut().append_pair("digest", digest.as_str());
        self.progress.start(label, size, 0);
        let path = self.layout.blob(digest);
        // Opened now, so that a request that is sent twice reads from the beginning.
        let file = std::fs::File::open(&path).map_err(ImageError::io("open", &path))?;
        let moved = Arc::new(Mutex::new((Instant::now(), 0_u64)));
        let (watch, label_owned) = (moved.clone(), label.to_owned());
        let build = |client: &reqwest::Client| {
            let request = client.put(target.clone()).header(CONTENT_TYPE, "application/octet-stream");
            let request = request.header(CONTENT_LENGTH, size);
            match file.try_clone() {
                Ok(file) => request.body(body(file, watch.clone())),
                // It is answered as the wrong length.
                Err(_) => request,
            }
        };
        // The bound is that of standing still.
        let put = self.transport.execute(place, &build, Duration::MAX / 4, self.credentials);
        tokio::pin!(put);
        let mut told = 0;
        loop {
            let (last, sent) = *moved.lock();
            self.progress.advance(&label_owned, sent.saturating_sub(told));
            told = told.max(sent);
            let patience = self.timeouts.stall.max(self.timeouts.answer);
            tokio::select! {
                ended = &mut put => {
                    self.progress.advance(&label_owned, size.saturating_sub(told));
                    return ended.map(drop).map_err(failed);
                }
                () = tokio::time::sleep(Duration::from_millis(200)) => {
                    if last.elapsed() > patience {
                        return Err(failed(Refusal::NoAnswer(patience)));
                    }
                }
            }
        }
    }
}

/// Where an upload that was begun goes on.
fn session(place: &Place, begun: &Response) -> Result<Url, Refusal> {
    let location = begun.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or_else(|| Refusal::Network("it does not say where to upload to".to_owned()))?;
    let target = begun.url().join(location).map_err(|error| Refusal::Network(innermost(&error)))?;
    if place.base.scheme() == "https" && target.scheme() != "https" {
        return Err(Refusal::Network("it wants the upload in plain http".to_owned()));
    }
    Ok(target)
}

/// The file's bytes; when the last of them was asked for, and how many there were.
fn body(mut file: std::fs::File, moved: Arc<Mutex<(Instant, u64)>>) -> Body {
    use std::io::Seek;
    if let Err(error) = file.rewind() {
        return Body::wrap_stream(futures::stream::once(async move { Err::<bytes::Bytes, _>(error) }));
    }
    *moved.lock() = (Instant::now(), 0);
    let reader = ReaderStream::with_capacity(tokio::fs::File::from_std(file), CHUNK_BYTES);
    Body::wrap_stream(reader.inspect(move |piece| {
        let mut moved = moved.lock();
        *moved = (Instant::now(), moved.1 + piece.as_ref().map_or(0, |bytes| bytes.len() as u64));
    }))
}

/// Whose fault it is.
enum Failure {
    Place { wanted: String, refusal: Refusal },
    Store(ImageError),
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Failure {
        Failure::Store(error)
    }
}
