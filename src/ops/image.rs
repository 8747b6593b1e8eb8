//! The images of a cluster: calls of the node's endpoints (`/kminik/v1/images…`) through `nodes/<name>/proxy`.

use std::path::Path;

use futures::StreamExt;
use reqwest::{Body, Client, Method, Response};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;

use super::client;
use crate::home::Home;
use crate::profile::Profile;
use crate::reason::{
    Failure, GUEST_IMAGE_LIST, GUEST_IMAGE_LOAD, GUEST_IMAGE_PULL, GUEST_IMAGE_REMOVE, HOST_PATH_MISSING,
    K8S_NOT_RESPONDING, MK_INTERNAL, OrFail, Outcome, Reason,
};
use crate::terminal;

/// minikube's shape of a listed image.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    pub id: String,
    pub repo_digests: Vec<String>,
    pub repo_tags: Vec<String>,
    /// Bytes, as text.
    pub size: String,
}

/// A cluster's images.
pub struct Images {
    client: Client,
    base: String,
}

impl Images {
    /// Nothing is sent yet.
    pub fn connect(home: &Home, profile: &str) -> Outcome<Self> {
        let profile = Profile::load(home, profile)?;
        let node = profile.name.to_ascii_lowercase();
        let base = format!("{}/api/v1/nodes/{node}/proxy/kminik/v1/images", profile.api_url());
        Ok(Self { client: client::https(home, &profile)?, base })
    }

    async fn call(&self, method: Method, path: &str, body: Option<Body>, reason: &'static Reason) -> Outcome<Response> {
        let request = self.client.request(method, format!("{}{path}", self.base));
        let request = match body {
            Some(body) => request.body(body),
            None => request,
        };
        let response = request.send().await.or_fail(&K8S_NOT_RESPONDING, "the cluster does not answer")?;
        if response.status().is_success() {
            return Ok(response);
        }
        let text = response.text().await.unwrap_or_default();
        // Errors of the API server itself come as a Status.
        let message = serde_json::from_str::<serde_json::Value>(&text)
            .ok()
            .and_then(|status| Some(status.get("message")?.as_str()?.to_owned()))
            .unwrap_or_else(|| text.trim().to_owned());
        Err(Failure::new(reason, message))
    }

    async fn json<T: for<'de> Deserialize<'de>>(response: Response) -> Outcome<T> {
        let body = response.bytes().await.or_fail(&K8S_NOT_RESPONDING, "the answer broke off")?;
        serde_json::from_slice(&body).or_fail(&MK_INTERNAL, "the node's answer cannot be read")
    }

    pub async fn list(&self) -> Outcome<Vec<Image>> {
        Self::json(self.call(Method::GET, "", None, &GUEST_IMAGE_LIST).await?).await
    }

    /// Streams an archive into the node; the names it brought.
    pub async fn load(&self, file: &Path) -> Outcome<Vec<String>> {
        #[derive(Deserialize)]
        struct Loaded {
            images: Vec<String>,
        }
        let body = if file == Path::new("-") {
            streamed(terminal::stream(rustix::stdio::stdin()).or_fail(&HOST_PATH_MISSING, "cannot read stdin")?)
        } else {
            let file = tokio::fs::File::open(file)
                .await
                .or_fail(&HOST_PATH_MISSING, format_args!("cannot read {}", file.display()))?;
            streamed(file)
        };
        let response = self.call(Method::POST, "/load", Some(body), &GUEST_IMAGE_LOAD).await?;
        Ok(Self::json::<Loaded>(response).await?.images)
    }

    pub async fn pull(&self, image: &str) -> Outcome<()> {
        self.call(Method::POST, &format!("/pull?image={}", encode(image)), None, &GUEST_IMAGE_PULL).await.map(drop)
    }

    pub async fn remove(&self, image: &str) -> Outcome<()> {
        self.call(Method::DELETE, &format!("?image={}", encode(image)), None, &GUEST_IMAGE_REMOVE).await.map(drop)
    }

    pub async fn tag(&self, source: &str, target: &str) -> Outcome<()> {
        let path = format!("/tag?source={}&target={}", encode(source), encode(target));
        self.call(Method::POST, &path, None, &GUEST_IMAGE_LOAD).await.map(drop)
    }

    /// Streams an archive out; `-` is stdout.
    pub async fn save(&self, image: &str, file: &Path) -> Outcome<()> {
        let response =
            self.call(Method::GET, &format!("/save?image={}", encode(image)), None, &GUEST_IMAGE_LIST).await?;
        let cannot = format!("cannot write {}", file.display());
        let mut out: Box<dyn tokio::io::AsyncWrite + Unpin> = if file == Path::new("-") {
            Box::new(terminal::stream(rustix::stdio::stdout()).or_fail(&HOST_PATH_MISSING, &cannot)?)
        } else {
            Box::new(tokio::fs::File::create(file).await.or_fail(&HOST_PATH_MISSING, &cannot)?)
        };
        let mut body = response.bytes_stream();
        while let Some(chunk) = body.next().await {
            let chunk = chunk.or_fail(&K8S_NOT_RESPONDING, "the archive broke off")?;
            out.write_all(&chunk).await.or_fail(&HOST_PATH_MISSING, &cannot)?;
        }
        out.flush().await.or_fail(&HOST_PATH_MISSING, &cannot)
    }
}

fn streamed(file: tokio::fs::File) -> Body {
    Body::wrap_stream(ReaderStream::with_capacity(file, 256 << 10))
}

fn encode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// `repository` and `tag` of a name.
pub fn split_tag(name: &str) -> (&str, &str) {
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, tag),
        _ => (name, "<none>"),
    }
}

/// 13 characters of the digest, as minikube's table.
pub fn short_id(id: &str) -> String {
    id.trim_start_matches("sha256:").chars().take(13).collect()
}

/// Decimal units, three digits: `142MB`.
pub fn human_size(bytes: &str) -> String {
    let mut size = bytes.parse::<f64>().unwrap_or(0.0);
    for unit in ["B", "kB", "MB", "GB"] {
        if size < 1000.0 {
            let digits = if size >= 100.0 || unit == "B" {
                0
            } else if size >= 10.0 {
                1
            } else {
                2
            };
            return format!("{size:.digits$}{unit}");
        }
        size /= 1000.0;
    }
    format!("{size:.2}TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_sizes() {
        assert_eq!(split_tag("localhost:5000/a/b:1"), ("localhost:5000/a/b", "1"));
        assert_eq!(split_tag("localhost:5000/a"), ("localhost:5000/a", "<none>"));
        assert_eq!(human_size("142000000"), "142MB");
        assert_eq!(human_size("1500"), "1.50kB");
        assert_eq!(human_size("12"), "12B");
    }
}
