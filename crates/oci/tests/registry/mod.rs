//! A real registry (Debian's docker-registry), and a proxy before it that does what networks do.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use kminik_oci::Digest;
use parking_lot::Mutex;
use tokio::net::TcpListener;

pub(crate) struct Registry {
    child: Child,
    pub(crate) address: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    pub(crate) async fn start() -> Registry {
        let dir = tempfile::tempdir().unwrap();
        // The port is free now; the registry cannot choose one and tell.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp: {{addr: '{address}'}}\n",
            dir.path().join("data").display()
        );
        let path = dir.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("docker-registry is needed for this test");
        let registry = Registry { child, address, _dir: dir };
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(address).await.is_ok() {
                return registry;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("docker-registry does not answer");
    }

    async fn put(&self, path: &str, media_type: &str, body: Vec<u8>) {
        let url = format!("http://{}{path}", self.address);
        let client = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls()).build().unwrap();
        let response = client.put(url).header("content-type", media_type).body(body).send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.status());
    }

    pub(crate) async fn push_blob(&self, repository: &str, blob: &[u8]) -> Digest {
        let client = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls()).build().unwrap();
        let url = format!("http://{}/v2/{repository}/blobs/uploads/", self.address);
        let response = client.post(url).send().await.unwrap();
        let location = response.headers()["location"].to_str().unwrap().to_owned();
        let digest = Digest::of(blob);
        let separator = if location.contains('?') { '&' } else { '?' };
        let path = location.strip_prefix(&format!("http://{}", self.address)).unwrap_or(&location).to_owned();
        self.put(&format!("{path}{separator}digest={digest}"), "application/octet-stream", blob.to_vec()).await;
        digest
    }

    /// Pushes an image of these layers (gzip tars are not needed: nobody unpacks here); returns its manifest's digest.
    pub(crate) async fn push(&self, repository: &str, tag: &str, architecture: &str, layers: &[Vec<u8>]) -> Digest {
        let manifest = self.manifest(repository, architecture, layers).await;
        self.put(
            &format!("/v2/{repository}/manifests/{tag}"),
            "application/vnd.oci.image.manifest.v1+json",
            manifest.clone(),
        )
        .await;
        Digest::of(&manifest)
    }

    async fn manifest(&self, repository: &str, architecture: &str, layers: &[Vec<u8>]) -> Vec<u8> {
        let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer)).collect();
        let config = serde_json::json!({
            "os": "linux", "architecture": architecture, "config": {"Cmd": ["/bin/sh"], "Env": ["A=b"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        self.push_blob(repository, &config).await;
        let mut descriptors = Vec::new();
        for layer in layers {
            let digest = self.push_blob(repository, layer).await;
            descriptors.push(serde_json::json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": layer.len(),
            }));
        }
        serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(&config), "size": config.len()},
            "layers": descriptors,
        })
        .to_string()
        .into_bytes()
    }

    /// Pushes an index over one image for each architecture; returns the index' digest.
    pub(crate) async fn push_index(&self, repository: &str, tag: &str, images: &[(&str, Vec<Vec<u8>>)]) -> Digest {
        let mut entries = Vec::new();
        for (architecture, layers) in images {
            let manifest = self.manifest(repository, architecture, layers).await;
            let digest = Digest::of(&manifest);
            let path = format!("/v2/{repository}/manifests/{digest}");
            self.put(&path, "application/vnd.oci.image.manifest.v1+json", manifest.clone()).await;
            entries.push(serde_json::json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": manifest.len(),
                "platform": {"os": "linux", "architecture": architecture},
            }));
        }
        let index = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries,
        });
        let index = index.to_string().into_bytes();
        let path = format!("/v2/{repository}/manifests/{tag}");
        self.put(&path, "application/vnd.oci.image.index.v1+json", index.clone()).await;
        Digest::of(&index)
    }
}

pub(crate) fn tls() -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
}

/// What a proxy does to the blobs (and where said, manifests) that pass.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    None,
    /// Every request gets this status.
    Status(u16),
    /// 429 with Retry-After for the first so many requests.
    Busy {
        times: u64,
        retry_after: u64,
    },
    /// Blobs end (the connection breaks) after so many bytes.
    Cut(usize),
    /// Blobs stop after so many bytes, and the connection stays.
    Stall(usize),
    /// Blobs have one byte changed.
    Corrupt,
    /// Blobs are redirected to the registry itself.
    Redirect,
    /// Nothing without a bearer token, which `/token` gives; with a login if one is set.
    Token {
        login: Option<&'static str>,
    },
    /// Nothing without a bearer token, which `/token` gives for this identity token, posted.
    Identity(&'static str),
    /// Blobs always come from their first byte.
    NoRanges,
    /// Who asks for a range gets this status; a blob that comes for the first time ends after so many bytes.
    RangesRefused {
        status: u16,
        cut: usize,
    },
}

/// A proxy before the registry; counts what it sends.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    upstream: SocketAddr,
    address: SocketAddr,
    fault: Mutex<Fault>,
    requests: AtomicU64,
    /// Bytes of blobs sent, by path.
    sent: Mutex<HashMap<String, u64>>,
    authorizations: Mutex<Vec<String>>,
    client: reqwest::Client,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    pub(crate) async fn start(upstream: SocketAddr, fault: Fault) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls()).build().unwrap();
        let shared = Arc::new(Shared {
            upstream,
            address,
            fault: Mutex::new(fault),
            requests: AtomicU64::new(0),
            sent: Mutex::default(),
            authorizations: Mutex::default(),
            client,
        });
        let accepted = shared.clone();
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let shared = accepted.clone();
                let service = hyper::service::service_fn(move |request| {
                    let shared = shared.clone();
                    async move { Ok::<_, Infallible>(answer(shared, request).await) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Proxy { address, shared, task }
    }

    pub(crate) fn set(&self, fault: Fault) {
        *self.shared.fault.lock() = fault;
    }

    /// Bytes of all blobs it has sent.
    pub(crate) fn sent(&self) -> u64 {
        self.shared.sent.lock().values().sum()
    }

    pub(crate) fn authorizations(&self) -> Vec<String> {
        self.shared.authorizations.lock().clone()
    }
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

fn body(bytes: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

fn plain(status: u16) -> Response<Body> {
    let mut response = Response::new(body(""));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    let count = shared.requests.fetch_add(1, Ordering::SeqCst);
    let fault = shared.fault.lock().clone();
    let path = request.uri().path().to_owned();
    let authorization = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
    shared.authorizations.lock().extend(authorization.clone());
    match &fault {
        Fault::Status(status) => return plain(*status),
        Fault::Busy { times, retry_after } if count < *times => {
            let mut response = plain(429);
            response.headers_mut().insert("retry-after", (*retry_after).into());
            return response;
        }
        Fault::Token { .. } | Fault::Identity(_) => {
            if let (Fault::Identity(token), "/token") = (&fault, path.as_str()) {
                let method = request.method().clone();
                let form = request.into_body().collect().await.unwrap().to_bytes();
                let form: HashMap<String, String> = url::form_urlencoded::parse(&form).into_owned().collect();
                let right = form.get("refresh_token").is_some_and(|shown| shown == token)
                    && form.get("grant_type").is_some_and(|kind| kind == "refresh_token");
                return match method == "POST" && right {
                    true => Response::new(body(r#"{"access_token":"good"}"#)),
                    false => plain(401),
                };
            }
            let login = match &fault {
                Fault::Token { login } => *login,
                _ => None,
            };
            if path == "/token" {
                return match login {
                    Some(login) if authorization.as_deref() != Some(login) => plain(401),
                    _ => Response::new(body(r#"{"token":"good"}"#)),
                };
            }
            if authorization.as_deref() != Some("Bearer good") {
                let mut response = plain(401);
                let challenge = format!("Bearer realm=\"http://{}/token\",service=\"test\"", shared.address);
                response.headers_mut().insert("www-authenticate", challenge.parse().unwrap());
                return response;
            }
        }
        _ => {}
    }
    if request.method() != http::Method::GET {
        // Pushes: where an upload goes on, the registry says by its own address.
        let (parts, body_in) = request.into_parts();
        let url = format!("http://{}{}", shared.upstream, parts.uri.path_and_query().unwrap());
        let mut forward = shared.client.request(parts.method, url);
        if let Some(kind) = parts.headers.get("content-type") {
            forward = forward.header("content-type", kind);
        }
        let upstream = forward.body(body_in.collect().await.unwrap().to_bytes()).send().await.unwrap();
        let mut response = plain(upstream.status().as_u16());
        if let Some(location) = upstream.headers().get("location") {
            response.headers_mut().insert("location", location.clone());
        }
        return response;
    }
    let is_blob = path.contains("/blobs/");
    if is_blob && fault == Fault::Redirect {
        let mut response = plain(307);
        let location = format!("http://{}{path}", shared.upstream);
        response.headers_mut().insert("location", location.parse().unwrap());
        return response;
    }
    if let Fault::RangesRefused { status, .. } = fault
        && is_blob
        && request.headers().contains_key("range")
    {
        return plain(status);
    }
    let mut forward = shared.client.get(format!("http://{}{path}", shared.upstream));
    for name in ["accept", "range"] {
        if let Some(value) = request.headers().get(name)
            && !(name == "range" && fault == Fault::NoRanges)
        {
            forward = forward.header(name, value);
        }
    }
    let upstream = forward.send().await.unwrap();
    let mut response = Response::builder().status(upstream.status());
    for name in ["content-type", "content-range", "content-length", "docker-content-digest"] {
        if let Some(value) = upstream.headers().get(name) {
            response = response.header(name, value);
        }
    }
    if !is_blob {
        return response.body(body(upstream.bytes().await.unwrap())).unwrap();
    }
    let mut bytes = upstream.bytes().await.unwrap().to_vec();
    let is_config = bytes.first() == Some(&b'{');
    let mut end = bytes.len();
    let mut then = None;
    match fault {
        Fault::Corrupt if !is_config => {
            if let Some(last) = bytes.last_mut() {
                *last ^= 1;
            }
        }
        Fault::Cut(at) if !is_config && at < end => (end, then) = (at, Some(false)),
        Fault::RangesRefused { cut, .. } if !is_config && !shared.sent.lock().contains_key(&path) => {
            (end, then) = (cut, Some(false));
        }
        Fault::Stall(at) if !is_config && at < end => (end, then) = (at, Some(true)),
        _ => {}
    }
    bytes.truncate(end);
    let chunks: Vec<_> = bytes.chunks(16 * 1024).map(Bytes::copy_from_slice).collect();
    let counted = futures::stream::iter(chunks).map(move |chunk| {
        *shared.sent.lock().entry(path.clone()).or_default() += chunk.len() as u64;
        Ok(Frame::data(chunk))
    });
    let tail = futures::stream::once(async move {
        match then {
            None => None,
            Some(true) => {
                tokio::time::sleep(Duration::from_secs(3600)).await;
                None
            }
            // Let what was sent arrive before the connection breaks.
            Some(false) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Some(Err(std::io::Error::other("cut")))
            }
        }
    })
    .filter_map(|item| async { item });
    response.body(BodyExt::boxed_unsync(StreamBody::new(counted.chain(tail)))).unwrap()
}

/// Bytes that differ by `seed` and do not compress into nothing.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.write_all(&state.to_le_bytes()).unwrap();
    }
    bytes.truncate(length);
    bytes
}
