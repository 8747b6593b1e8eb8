//! Keeps an informer's cache equal to the API: list, watch from there, watch again, list again when too old.
//!
//! ```text
//!            ┌──────────── gone ───────────┐
//!            ▼                             │
//!   list ─ page ─ page ─► replace ─► watch from revision ─ event ─┐
//!     ▲ error: back-off               ▲ ended: at once   ▲────────┘
//!     └───────────                    └ error: back-off
//! ```

use std::io::ErrorKind;
use std::time::Duration;

use futures::{AsyncBufReadExt, StreamExt};
use kminik_base::backoff::Backoff;
use kube::Resource;
use kube::api::{ListParams, WatchParams};
use kube::core::ObjectList;
use kube::core::watch::Bookmark;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::decode::{Event, EventKind};
use crate::error::{describe, is_gone};
use crate::informer::Informer;
use crate::key::revision_of;

/// Objects asked for in one list request.
const PAGE: u32 = 500;
/// Shortest and longest pause after a failed request.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(10));
/// How long one watch request lasts, in seconds; the next one goes on where it ended.
const WATCH_SECONDS: u32 = 290;

/// What to read: a collection's path and the selectors on it.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) url: String,
    pub(crate) labels: Option<String>,
    pub(crate) fields: Option<String>,
}

#[derive(Debug, thiserror::Error)]
enum WatchEnd {
    #[error("the revision is no longer kept")]
    Gone,
    #[error("the request failed")]
    Failed(#[source] kube::Error),
}

impl From<kube::Error> for WatchEnd {
    fn from(error: kube::Error) -> Self {
        if is_gone(&error) { WatchEnd::Gone } else { WatchEnd::Failed(error) }
    }
}

/// Runs until `stop`.
pub(crate) async fn run<K>(client: kube::Client, source: Source, informer: Informer<K>, stop: CancellationToken)
where
    K: Resource + Clone + DeserializeOwned + Send + Sync + 'static,
{
    stop.run_until_cancelled(follow(client, source, &informer)).await;
    informer.end();
}

async fn follow<K>(client: kube::Client, source: Source, informer: &Informer<K>)
where
    K: Resource + Clone + DeserializeOwned + Send + Sync + 'static,
{
    let mut retry = Backoff::new(RETRY.0, RETRY.1);
    let mut revision = None;
    loop {
        let from = match revision {
            Some(from) => from,
            None => match list(&client, &source, informer).await {
                Ok(at) => {
                    retry.reset();
                    *revision.insert(at)
                }
                Err(error) => {
                    pause(&source, &mut retry, &error).await;
                    continue;
                }
            },
        };
        match watch(&client, &source, informer, from).await {
            Ok(reached) => {
                // A server that ends every watch at once without an event must not be asked in a tight loop.
                if reached == from {
                    tokio::time::sleep(RETRY.0).await;
                }
                retry.reset();
                revision = Some(reached);
            }
            Err((WatchEnd::Gone, _)) => revision = None,
            Err((WatchEnd::Failed(error), reached)) => {
                if reached > from {
                    retry.reset();
                }
                revision = Some(reached);
                pause(&source, &mut retry, &error).await;
            }
        }
    }
}

/// Reads the whole collection page by page into the cache; the revision it was read at.
async fn list<K>(client: &kube::Client, source: &Source, informer: &Informer<K>) -> Result<u64, kube::Error>
where
    K: Resource + Clone + DeserializeOwned + Send + Sync + 'static,
{
    let request = kube::core::Request::new(&source.url);
    let mut params = ListParams {
        label_selector: source.labels.clone(),
        field_selector: source.fields.clone(),
        limit: Some(PAGE),
        ..ListParams::default()
    };
    let mut objects = Vec::new();
    loop {
        let page = if K::metadata_api() { request.list_metadata(&params) } else { request.list(&params) };
        let page: ObjectList<K> = client.request(page.map_err(kube::Error::BuildRequest)?).await?;
        objects.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => {
                let revision = page.metadata.resource_version.and_then(|v| v.parse().ok()).unwrap_or(0);
                informer.replace(objects, revision);
                return Ok(revision);
            }
        }
    }
}

/// Follows one watch request to its end; the revision reached, also beside an error.
async fn watch<K>(
    client: &kube::Client,
    source: &Source,
    informer: &Informer<K>,
    from: u64,
) -> Result<u64, (WatchEnd, u64)>
where
    K: Resource + Clone + DeserializeOwned + Send + Sync + 'static,
{
    let request = kube::core::Request::new(&source.url);
    let params = WatchParams {
        label_selector: source.labels.clone(),
        field_selector: source.fields.clone(),
        timeout: Some(WATCH_SECONDS),
        bookmarks: true,
        send_initial_events: false,
    };
    let version = from.to_string();
    let request =
        if K::metadata_api() { request.watch_metadata(&params, &version) } else { request.watch(&params, &version) };
    let request = request.map_err(|error| (kube::Error::BuildRequest(error).into(), from))?;
    let lines = client.request_stream(request).await.map_err(|error| (error.into(), from))?.lines();
    let mut lines = std::pin::pin!(lines);
    let mut reached = from;
    while let Some(line) = lines.next().await {
        let line = match line {
            Ok(line) => line,
            // The request has ended, by its time or with its connection.
            Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::UnexpectedEof) => break,
            Err(error) => return Err((kube::Error::ReadEvents(error).into(), reached)),
        };
        let failed = |error: kube::Error| (error.into(), reached);
        let event = Event::read(&line).map_err(failed)?;
        match event.kind {
            EventKind::Added | EventKind::Modified => {
                let object: K = event.object().map_err(failed)?;
                reached = reached.max(revision_of(object.meta()));
                informer.apply(object, reached);
            }
            EventKind::Deleted => {
                let object: K = event.object().map_err(failed)?;
                reached = reached.max(revision_of(object.meta()));
                informer.remove(object, reached);
            }
            EventKind::Bookmark => {
                let bookmark: Bookmark = event.object().map_err(failed)?;
                reached = reached.max(bookmark.metadata.resource_version.parse().unwrap_or(0));
                informer.advance(reached);
            }
            EventKind::Error => return Err(failed(kube::Error::Api(event.object().map_err(failed)?))),
        }
    }
    Ok(reached)
}

async fn pause(source: &Source, retry: &mut Backoff, error: &kube::Error) {
    let delay = retry.next_delay();
    tracing::debug!(url = source.url, ?delay, error = describe(error), "informer request failed");
    tokio::time::sleep(delay).await;
}
