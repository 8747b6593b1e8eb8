//! Requests to what the storage does.

use std::io::SeekFrom;

use http::header::{CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{Method, Request, Response, StatusCode};
use kminik_oci::Digest;
use serde_json::{Value, json};
use tokio::io::AsyncSeekExt;
use tokio::sync::RwLock;

use crate::body::{self, Body, Incoming, set};
use crate::collect::{self, Collected, Policy};
use crate::error::RegistryError;
use crate::manifest::{self, Manifest};
use crate::name::{self, Reference, Repository};
use crate::storage::Storage;
use crate::uploads::{Session, Uploads};

const DIGEST: &str = "docker-content-digest";
const LOCATION: &str = "location";
/// Most names in one page.
const PAGE: usize = 10_000;
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

type Answer = Result<Response<Body>, RegistryError>;

pub(crate) struct Registry {
    storage: Storage,
    uploads: Uploads,
    /// Held for writing by a collection, for reading by whatever gives something to a repository.
    gate: RwLock<()>,
}

/// What the query says.
struct Query(Vec<(String, String)>);

impl Query {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Registry {
    pub(crate) fn new(storage: Storage, limit_bytes: u64) -> Self {
        Self { uploads: Uploads::new(storage.clone(), limit_bytes), storage, gate: RwLock::default() }
    }

    pub(crate) async fn answer<B: Incoming>(&self, request: Request<B>) -> Response<Body> {
        let head = request.method() == Method::HEAD;
        let mut response = self.route(request).await.unwrap_or_else(|error| {
            if let RegistryError::Io(source) = &error {
                tracing::error!(error = %source, "the registry's disk does not work");
            }
            body::refused(&error)
        });
        if head {
            *response.body_mut() = body::full("");
        }
        set(&mut response, "docker-distribution-api-version", "registry/2.0");
        set(&mut response, "x-content-type-options", "nosniff");
        response
    }

    /// Collects what nobody needs.
    pub(crate) async fn collect(&self, policy: Policy) -> Result<Collected, RegistryError> {
        let _all = self.gate.write().await;
        self.blocking(move |storage| collect::collect(storage, &policy, std::time::SystemTime::now())).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Storage) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        let storage = self.storage.clone();
        let done = tokio::task::spawn_blocking(move || work(&storage)).await;
        done.map_err(|error| RegistryError::Io(std::io::Error::other(error)))?
    }

    async fn route<B: Incoming>(&self, request: Request<B>) -> Answer {
        let pairs = url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes());
        let query = Query(pairs.into_owned().collect());
        let path = request.uri().path().replace("%3A", ":").replace("%3a", ":");
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let ["v2", rest @ ..] = parts.as_slice() else { return Err(RegistryError::NoSuchPage) };
        let method = request.method().clone();
        let get = matches!(method, Method::GET | Method::HEAD);
        let of = |name: &[&str]| Repository::parse(&name.join("/"));
        match rest {
            [] | [""] if get => Ok(body::json(&json!({}))),
            ["_catalog"] if get => self.catalog(&query).await,
            [name @ .., "tags", "list"] if get => self.tags(of(name)?, &query).await,
            [name @ .., "referrers", digest] if get => {
                self.referrers(of(name)?, name::digest(digest)?, query.get("artifactType").map(str::to_owned)).await
            }
            [name @ .., "manifests", reference] => {
                self.manifest(of(name)?, Reference::parse(reference)?, &method, request).await
            }
            [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] if method == Method::POST => {
                self.start(of(name)?, &query, request).await
            }
            [name @ .., "blobs", "uploads", id] => self.upload(of(name)?, id, &query, &method, request).await,
            [name @ .., "blobs", digest] => {
                let (repository, digest) = (of(name)?, name::digest(digest)?);
                match method {
                    Method::GET | Method::HEAD => self.blob(repository, digest, &request).await,
                    Method::DELETE => {
                        let _gate = self.gate.read().await;
                        self.blocking(move |storage| storage.unlink_blob(&repository, &digest)).await?;
                        Ok(body::empty(StatusCode::ACCEPTED))
                    }
                    _ => Err(RegistryError::Unsupported),
                }
            }
            _ if get => Err(RegistryError::NoSuchPage),
            _ => Err(RegistryError::Unsupported),
        }
    }

    async fn catalog(&self, query: &Query) -> Answer {
        let all = self.blocking(|storage| Ok(storage.repositories()?)).await?;
        let all = all.into_iter().map(|repository| repository.as_str().to_owned()).collect();
        page("/v2/_catalog", all, query, |names| json!({ "repositories": names }))
    }

    async fn tags(&self, repository: Repository, query: &Query) -> Answer {
        let name = repository.as_str().to_owned();
        let tags = self.blocking(move |storage| match storage.has(&repository) {
            true => Ok(storage.tags(&repository)?),
            false => Err(RegistryError::UnknownRepository(repository.as_str().to_owned())),
        });
        page(&format!("/v2/{name}/tags/list"), tags.await?, query, |tags| json!({ "name": name, "tags": tags }))
    }

    async fn referrers(&self, repository: Repository, subject: Digest, artifact_type: Option<String>) -> Answer {
        let found = self.blocking(move |storage| storage.referrers(&repository, &subject)).await?;
        let mut manifests: Vec<Value> = Vec::new();
        for stored in found {
            let Ok(parsed) = Manifest::parse(&stored.bytes, Some(&stored.media_type)) else { continue };
            if artifact_type.as_ref().is_some_and(|wanted| parsed.artifact_type.as_ref() != Some(wanted)) {
                continue;
            }
            let mut row = json!({
                "mediaType": stored.media_type, "digest": stored.digest, "size": stored.bytes.len(),
            });
            if let Some(kind) = parsed.artifact_type {
                row["artifactType"] = json!(kind);
            }
            if let Some(annotations) = parsed.annotations {
                row["annotations"] = annotations;
            }
            manifests.push(row);
        }
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        let mut response = body::typed(INDEX, index.to_string().into_bytes());
        if artifact_type.is_some() {
            set(&mut response, "oci-filters-applied", "artifactType");
        }
        Ok(response)
    }

    async fn manifest<B: Incoming>(
        &self,
        repository: Repository,
        reference: Reference,
        method: &Method,
        request: Request<B>,
    ) -> Answer {
        match *method {
            Method::GET | Method::HEAD => {
                let stored = self.blocking(move |storage| storage.manifest(&repository, &reference)).await?;
                let mut response = body::typed(&stored.media_type, stored.bytes);
                set(&mut response, DIGEST, stored.digest.as_str());
                set(&mut response, "etag", &format!("\"{}\"", stored.digest));
                Ok(response)
            }
            Method::PUT => {
                let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
                let content_type = content_type.map(str::to_owned);
                let bytes = body::whole(&mut request.into_body(), manifest::LIMIT_BYTES).await?;
                let name = repository.as_str().to_owned();
                let _gate = self.gate.read().await;
                let put = self.blocking(move |storage| {
                    storage.put_manifest(&repository, &reference, &bytes, content_type.as_deref())
                });
                let (digest, manifest) = put.await?;
                let mut response = body::empty(StatusCode::CREATED);
                set(&mut response, LOCATION, &format!("/v2/{name}/manifests/{digest}"));
                set(&mut response, DIGEST, digest.as_str());
                if let Some(subject) = manifest.subject {
                    set(&mut response, "oci-subject", subject.as_str());
                }
                Ok(response)
            }
            Method::DELETE => {
                let _gate = self.gate.read().await;
                self.blocking(move |storage| storage.remove_manifest(&repository, &reference)).await?;
                Ok(body::empty(StatusCode::ACCEPTED))
            }
            _ => Err(RegistryError::Unsupported),
        }
    }

    async fn blob<B>(&self, repository: Repository, digest: Digest, request: &Request<B>) -> Answer {
        let _gate = self.gate.read().await;
        let wanted = digest.clone();
        let (path, size) = self.blocking(move |storage| storage.blob(&repository, &wanted)).await?;
        let asked = request.headers().get(RANGE).and_then(|range| range.to_str().ok());
        let range = asked.map(|text| range(text, size)).transpose()?.flatten();
        let (from, length) = range.unwrap_or((0, size));
        let mut file = tokio::fs::File::open(&path).await?;
        file.seek(SeekFrom::Start(from)).await?;
        let mut response = Response::new(body::file(file, length));
        if range.is_some() {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            set(&mut response, "content-range", &format!("bytes {from}-{}/{size}", from + length - 1));
        }
        set(&mut response, "content-length", &length.to_string());
        set(&mut response, "content-type", "application/octet-stream");
        set(&mut response, "accept-ranges", "bytes");
        set(&mut response, "etag", &format!("\"{digest}\""));
        set(&mut response, DIGEST, digest.as_str());
        Ok(response)
    }

    /// A blob that another repository has, one that comes with the request, or the beginning of an upload.
    async fn start<B: Incoming>(&self, repository: Repository, query: &Query, request: Request<B>) -> Answer {
        if let (Some(mount), Some(from)) = (query.get("mount"), query.get("from")) {
            let (digest, from) = (name::digest(mount)?, Repository::parse(from)?);
            let _gate = self.gate.read().await;
            let (target, wanted) = (repository.clone(), digest.clone());
            let mounted = self.blocking(move |storage| {
                storage.blob(&from, &wanted)?;
                storage.link_blob(&target, &wanted)
            });
            match mounted.await {
                Ok(()) => return Ok(made(&repository, &digest)),
                // Then it has to be sent.
                Err(RegistryError::UnknownBlob(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let wanted = query.get("digest").map(name::digest).transpose()?;
        let session = {
            // A collection takes directories away in which there is nothing yet.
            let _gate = self.gate.read().await;
            self.uploads.start(&repository).await?
        };
        let mut session = session.lock().await;
        match wanted {
            None => Ok(under_way(&repository, &session, StatusCode::ACCEPTED)),
            Some(digest) => {
                let sent = self.uploads.append(&mut session, &mut request.into_body(), None).await;
                if let Err(error) = sent {
                    self.uploads.cancel(&mut session)?;
                    return Err(error);
                }
                self.finish(&repository, &mut session, &digest).await
            }
        }
    }

    async fn finish(&self, repository: &Repository, session: &mut Session, digest: &Digest) -> Answer {
        let _gate = self.gate.read().await;
        self.uploads.finish(session, digest).await?;
        Ok(made(repository, digest))
    }

    async fn upload<B: Incoming>(
        &self,
        repository: Repository,
        id: &str,
        query: &Query,
        method: &Method,
        request: Request<B>,
    ) -> Answer {
        let session = self.uploads.find(&repository, id).await?;
        let mut session = session.lock().await;
        session.check()?;
        let start = request.headers().get(CONTENT_RANGE).map(|range| -> Result<u64, RegistryError> {
            let bad = || RegistryError::InvalidUpload("its Content-Range is not FROM-TO".to_owned());
            let text = range.to_str().map_err(|_| bad())?;
            let (from, to) = text.trim_start_matches("bytes ").split_once('-').ok_or_else(bad)?;
            let (from, _): (u64, u64) = (from.parse().map_err(|_| bad())?, to.parse().map_err(|_| bad())?);
            Ok(from)
        });
        match *method {
            Method::GET | Method::HEAD => Ok(under_way(&repository, &session, StatusCode::NO_CONTENT)),
            Method::PATCH => {
                self.uploads.append(&mut session, &mut request.into_body(), start.transpose()?).await?;
                Ok(under_way(&repository, &session, StatusCode::ACCEPTED))
            }
            Method::PUT => {
                let digest = query.get("digest");
                let digest = digest.ok_or_else(|| RegistryError::InvalidDigest("no digest is given".to_owned()))?;
                let digest = name::digest(digest)?;
                self.uploads.append(&mut session, &mut request.into_body(), start.transpose()?).await?;
                self.finish(&repository, &mut session, &digest).await
            }
            Method::DELETE => {
                self.uploads.cancel(&mut session)?;
                Ok(body::empty(StatusCode::NO_CONTENT))
            }
            _ => Err(RegistryError::Unsupported),
        }
    }
}

fn made(repository: &Repository, digest: &Digest) -> Response<Body> {
    let mut response = body::empty(StatusCode::CREATED);
    set(&mut response, LOCATION, &format!("/v2/{}/blobs/{digest}", repository.as_str()));
    set(&mut response, DIGEST, digest.as_str());
    response
}

fn under_way(repository: &Repository, session: &Session, status: StatusCode) -> Response<Body> {
    let mut response = body::empty(status);
    set(&mut response, LOCATION, &format!("/v2/{}/blobs/uploads/{}", repository.as_str(), session.id));
    set(&mut response, "docker-upload-uuid", &session.id.to_string());
    set(&mut response, "range", &body::received(session.at));
    response
}

/// Names after `last`, `n` of them, and where the next are.
fn page(path: &str, mut names: Vec<String>, query: &Query, document: impl FnOnce(&[String]) -> Value) -> Answer {
    let bad = |_| RegistryError::InvalidName("n is no number".to_owned());
    let n = query.get("n").map(str::parse::<usize>).transpose().map_err(bad)?.unwrap_or(PAGE).min(PAGE);
    if let Some(last) = query.get("last") {
        names.retain(|name| name.as_str() > last);
    }
    let more = names.len() > n;
    names.truncate(n);
    let mut response = body::json(&document(&names));
    if let Some(last) = names.last().filter(|_| more) {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("n", &n.to_string())
            .append_pair("last", last)
            .finish();
        set(&mut response, "link", &format!("<{path}?{query}>; rel=\"next\""));
    }
    Ok(response)
}

/// First byte and length of `bytes=FROM-[TO]` and `bytes=-LAST`; `None` for what is to be answered with the whole.
fn range(text: &str, size: u64) -> Result<Option<(u64, u64)>, RegistryError> {
    let Some((from, to)) = text.strip_prefix("bytes=").and_then(|text| text.split_once('-')) else { return Ok(None) };
    let (from, end) = match (from.parse::<u64>().ok(), to.parse::<u64>().ok()) {
        (Some(from), Some(to)) if from <= to => (from, to.saturating_add(1).min(size)),
        (Some(from), None) if to.is_empty() => (from, size),
        (None, Some(last)) if from.is_empty() => (size.saturating_sub(last), size),
        // Several ranges, or nonsense.
        _ => return Ok(None),
    };
    if from < end { Ok(Some((from, end - from))) } else { Err(RegistryError::Range { size }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let of = |text| range(text, 10).ok();
        assert_eq!(of("bytes=2-4"), Some(Some((2, 3))));
        assert_eq!(of("bytes=2-"), Some(Some((2, 8))));
        assert_eq!(of("bytes=2-99"), Some(Some((2, 8))));
        assert_eq!(of("bytes=-3"), Some(Some((7, 3))));
        assert_eq!(of("bytes=10-"), None);
        for whole in ["bytes=1-2,4-5", "lines=1-2", "bytes=4-2", "bytes=-"] {
            assert_eq!(of(whole), Some(None), "{whole}");
        }
    }
}
