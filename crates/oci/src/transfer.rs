//! Bringing images to a store behind HTTP ([`crate::serve`]): it is asked what it lacks, and only that is sent.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use reqwest::{Body, Client, Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use tokio_util::io::ReaderStream;

use crate::remote::innermost;
use crate::serve::Event;
use crate::{Credential, Digest, ImageError, Outgoing, Progress};

/// Bytes that wait for the connection.
const BUFFER_BYTES: usize = 512 * 1024;
/// Longest line of the answer to a pull or push.
const MAX_LINE_BYTES: usize = 1024 * 1024;
/// The largest answer that is read, and the longest text of an error.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
const MAX_ERROR_BYTES: usize = 64 * 1024;
/// Bound on what takes no time.
pub const SHORT: Duration = Duration::from_secs(20);
/// Digests asked for in one request.
const DIGESTS: usize = 1000;

/// Why the other store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// It answered so; the text is its own.
    #[error("{text}")]
    Refused { status: StatusCode, text: String },
    #[error("the connection failed: {0}")]
    Connection(String),
    #[error("its answer is not understood")]
    Answer,
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl From<reqwest::Error> for TransferError {
    fn from(error: reqwest::Error) -> TransferError {
        TransferError::Connection(innermost(&error))
    }
}

/// All of an answer, which has to be of so many bytes at most.
async fn whole(mut response: Response, limit: usize) -> Result<Vec<u8>, TransferError> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await? {
        if body.len() + piece.len() > limit {
            return Err(TransferError::Answer);
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// A store elsewhere.
#[derive(Clone)]
pub struct RemoteStore {
    client: Client,
    base: String,
    login: Option<(String, String)>,
}

impl RemoteStore {
    /// `base` is the URL of the store, without a slash at its end. Nothing is sent yet.
    pub fn new(client: Client, base: String, login: Option<(String, String)>) -> RemoteStore {
        RemoteStore { client, base, login }
    }

    /// A request below the store's URL.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.login {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        }
    }

    /// A successful answer.
    ///
    /// # Errors
    /// [`TransferError::Refused`] with the answer's text, for a Kubernetes Status its message.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, TransferError> {
        let response = request.send().await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = whole(response, MAX_ERROR_BYTES).await.unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let message = serde_json::from_str::<serde_json::Value>(&text)
            .ok()
            .and_then(|document| Some(document.get("message")?.as_str()?.to_owned()));
        Err(TransferError::Refused { status, text: message.unwrap_or_else(|| text.trim().to_owned()) })
    }

    /// An answer as JSON.
    ///
    /// # Errors
    /// As [`RemoteStore::send`]; [`TransferError::Answer`].
    pub async fn json<T: for<'de> Deserialize<'de>>(&self, request: RequestBuilder) -> Result<T, TransferError> {
        let body = whole(self.send(request).await?, MAX_ANSWER_BYTES).await?;
        serde_json::from_slice(&body).map_err(|_| TransferError::Answer)
    }

    /// Sends images, of their pieces those that are not there; the names that they have there then.
    ///
    /// # Errors
    /// What either side says.
    pub async fn load(&self, images: Outgoing, progress: &Arc<dyn Progress>) -> Result<Vec<String>, TransferError> {
        match self.load_missing(&images, progress).await {
            // Something went between the question and the answer.
            Err(TransferError::Refused { status: StatusCode::UNPROCESSABLE_ENTITY, text })
                if text.contains("missing") =>
            {
                self.load_missing(&images, progress).await
            }
            other => other,
        }
    }

    async fn load_missing(
        &self,
        images: &Outgoing,
        progress: &Arc<dyn Progress>,
    ) -> Result<Vec<String>, TransferError> {
        #[derive(Deserialize)]
        struct Loaded {
            images: Vec<String>,
        }
        let mut missing = BTreeSet::new();
        for some in images.digests().chunks(DIGESTS) {
            let body = serde_json::to_vec(some).unwrap_or_default();
            let request = self.request(Method::POST, "/missing").body(body).timeout(SHORT);
            let lacks: Vec<Digest> = self.json(request).await?;
            missing.extend(lacks);
        }
        let label = images.names().join(", ");
        progress.start(&label, images.size_of(&missing), 0);
        let (writer, reader) = tokio::io::duplex(BUFFER_BYTES);
        let (told, name) = (progress.clone(), label.clone());
        let bytes = ReaderStream::with_capacity(reader, BUFFER_BYTES / 2).inspect(move |piece| {
            told.advance(&name, piece.as_ref().map_or(0, |bytes| bytes.len() as u64));
        });
        let request = self.request(Method::POST, "/load").body(Body::wrap_stream(bytes));
        // The connection breaks when the writer fails: its error is the one that says why.
        let (written, loaded) = tokio::join!(images.clone().send(missing, writer), self.json::<Loaded>(request));
        match (loaded, written) {
            (Ok(loaded), _) => {
                progress.done(&label);
                Ok(loaded.images)
            }
            (Err(refused @ TransferError::Refused { .. }), _) => Err(refused),
            (Err(_), Err(error)) if !matches!(error, ImageError::WriteArchive(_)) => Err(error.into()),
            (Err(error), _) => Err(error),
        }
    }

    /// Has the other store pull or push (`verb`) an image, telling how far it is.
    ///
    /// # Errors
    /// [`TransferError::Refused`] with what it says.
    pub async fn order(
        &self,
        verb: &str,
        image: &str,
        credentials: Vec<Credential>,
        progress: &dyn Progress,
    ) -> Result<Digest, TransferError> {
        let image: String = url::form_urlencoded::byte_serialize(image.as_bytes()).collect();
        let body = serde_json::to_vec(&crate::serve::Logins { credentials }).unwrap_or_default();
        let request = self.request(Method::POST, &format!("/{verb}?image={image}")).body(body);
        let mut answer = self.send(request).await?.bytes_stream();
        let mut unread: Vec<u8> = Vec::new();
        let mut begun: std::collections::BTreeMap<String, u64> = std::collections::BTreeMap::new();
        while let Some(piece) = answer.next().await {
            let piece: Bytes = piece?;
            unread.extend_from_slice(&piece);
            while let Some(end) = unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = unread.drain(..=end).collect();
                match serde_json::from_slice(&line).map_err(|_| TransferError::Answer)? {
                    Event::Done(digest) => return Ok(digest),
                    Event::Failed { status, error } => {
                        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                        return Err(TransferError::Refused { status, text: error });
                    }
                    Event::Note(note) => progress.note(&note),
                    Event::Blob { blob, size, at } => {
                        match begun.insert(blob.clone(), at) {
                            None => progress.start(&blob, size, at),
                            Some(before) => progress.advance(&blob, at.saturating_sub(before)),
                        }
                        if at >= size {
                            progress.done(&blob);
                        }
                    }
                }
            }
            if unread.len() > MAX_LINE_BYTES {
                return Err(TransferError::Answer);
            }
        }
        Err(TransferError::Connection("it ended early".to_owned()))
    }
}
