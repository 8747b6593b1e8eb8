//! Changes of a resource as they happen: a stream of events, one JSON document a line.
//!
//! ```text
//!  initial ──(all sent)──► [end of initial events] ──► live ──(deadline, shutdown)──► ended
//!                                                        └──(log left behind)──► ERROR 410 ──► ended
//! ```
//!
//! A watch is a cursor into the cache's log of changes. One that begins before the log reads the store's history instead.
//! An object that enters the selection is `ADDED`, one that leaves it `DELETED`, whatever happened to it.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use kminik_meta::{StatusError, protobuf};
use kminik_store::{StoreError, WatchOptions, Watcher};
use rand::Rng;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use super::call::Call;
use super::list::{self, ListOptions};
use super::render::{Shown, meta_version, metadata_of};
use super::selection::Selection;
use super::stalled::UNREAD;
use super::table;
use crate::error::from_store;
use crate::http::accept::{Encoding, View};
use crate::http::body::ResponseBody;
use crate::http::respond;
use crate::metrics::family::{Counter, Histogram};
use crate::metrics::requests;
use crate::registry::storage_prefix;
use crate::storage::cache::{Advance, Change, Cursor, ResourceCache};
use crate::storage::entry::Entry;
use crate::storage::key;

const ADDED: &str = "ADDED";
const MODIFIED: &str = "MODIFIED";
const DELETED: &str = "DELETED";

/// Events are sent in slices of about this size.
const SLICE: usize = 64 << 10;
/// Initial objects that are converted at a time.
const CONVERTED: usize = 64;
/// Changes looked at before the client gets what was found.
const BATCH: usize = 512;
/// Without `timeoutSeconds` a watch ends after this time, or up to twice of it.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1800);
/// Between bookmarks.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// Bytes of history that may wait for a watch that reads the store.
const HISTORY_BYTES: usize = 16 << 20;
/// What watches in protobuf are sent as.
const PROTOBUF_STREAM: &str = "application/vnd.kubernetes.protobuf;stream=watch";
/// Marks the bookmark behind the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

enum Source {
    Log(Cursor),
    History(Watcher),
}

/// An object before and after a change.
struct State {
    before: Option<Arc<Entry>>,
    now: Option<Arc<Entry>>,
}

impl State {
    /// What of a change is below a prefix.
    fn of(change: &Change, prefix: &str) -> State {
        let visible = |entry: &Option<Arc<Entry>>| {
            entry.as_ref().filter(|entry| entry.key.starts_with(prefix.as_bytes())).cloned()
        };
        State { before: visible(&change.before), now: visible(&change.now) }
    }

    /// Both, or only what follows from the change.
    fn parts(&mut self, both: bool) -> impl Iterator<Item = &mut Arc<Entry>> {
        let replaced = !both && self.now.is_some();
        self.before.as_mut().filter(|_| !replaced).into_iter().chain(self.now.as_mut())
    }
}

/// Where what a watch sends is counted.
struct Meters {
    begun: Instant,
    events: Arc<Counter>,
    sizes: Arc<Histogram>,
}

impl Meters {
    fn of(call: &Call, begun: Instant) -> Self {
        let table = &call.server.metrics().table.watches;
        let labels = [&*call.row.group, &*call.row.plural, &*call.version.name];
        Meters { begun, events: table.events.with(labels), sizes: table.event_sizes.with(labels) }
    }

    fn initial(&self, call: &Call, count: usize) {
        let labels = [&*call.row.group, &*call.row.plural];
        call.server.metrics().table.watches.initial_events.with(labels).add(count as u64);
    }

    fn sent(&self, bytes: usize) {
        self.events.inc();
        self.sizes.observe(bytes as f64);
    }

    /// All initial events are sent.
    fn listed(&self, call: &Call) {
        let labels = [&*call.row.group, &*call.row.plural, requests::scope(&call.info), &*call.version.name];
        call.server.metrics().table.watches.list_duration.with(labels).took(self.begun.elapsed());
    }

    /// The client was too slow.
    fn terminated(&self, call: &Call) {
        call.server.metrics().table.watches.terminated.with([&*call.row.group, &*call.row.plural]).inc();
    }
}

struct Watch {
    meters: Meters,
    call: Arc<Call>,
    shown: Option<Shown>,
    selection: Selection,
    everything: bool,
    prefix: String,
    resource: Arc<ResourceCache>,
    changed: watch::Receiver<u64>,
    source: Source,
    initial: std::vec::IntoIter<Arc<Entry>>,
    /// The bookmark behind the initial events is still owed.
    announce_end: bool,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Instant,
    /// Everything up to this revision was looked at.
    seen: u64,
    form: u64,
    columns_sent: bool,
    ended: bool,
}

/// Answers with a stream of events.
pub(crate) async fn watch(mut call: Call) -> Result<Response<ResponseBody>, StatusError> {
    let begun = Instant::now();
    // An event is a line.
    call.accepted.pretty = false;
    let media_type = match call.accepted.encoding {
        Encoding::Json => Encoding::Json.media_type(),
        Encoding::Protobuf => PROTOBUF_STREAM,
        Encoding::Yaml => return Err(StatusError::not_acceptable(&["application/json;stream=watch", PROTOBUF_STREAM])),
    };
    let options = ListOptions::of(&call)?;
    let selection = Selection::of(&call)?;
    let storage = storage_prefix(&call.row)?.to_owned();
    let cache = call.server.registry().cache().clone();
    let send_initial = options.send_initial_events == Some(true);
    let initial_wanted = match options.send_initial_events {
        Some(wanted) => wanted,
        None => options.revision.unwrap_or_default() == 0,
    };
    let snapshot = match options.revision {
        Some(revision) if initial_wanted => cache.at(&storage, revision).await?,
        Some(_) => cache.snapshot(&storage),
        None => cache.fresh(&storage).await?,
    };
    let resource = cache.resource(&storage);
    let changed = resource.subscribe();
    let prefix = key::namespace(&storage, &call.info.namespace);
    let (initial, from) = if initial_wanted {
        let snapshot = list::selectable(&call, &selection, &prefix, snapshot).await?;
        let mut initial = Vec::new();
        for entry in snapshot.range(&prefix, None) {
            if selection.matches(entry)? {
                initial.push(entry.clone());
            }
        }
        (initial, snapshot.revision)
    } else {
        (Vec::new(), options.revision.filter(|revision| *revision > 0).unwrap_or(snapshot.revision))
    };
    let source = match resource.cursor(from) {
        Some(cursor) => Source::Log(cursor),
        None => {
            let history = WatchOptions { prefix: prefix.clone().into(), from: from + 1, buffer_bytes: HISTORY_BYTES };
            match call.server.registry().store().watch(history).await {
                Ok(watcher) => Source::History(watcher),
                // A watch has begun by then: it tells so in its only event.
                Err(StoreError::Compacted { oldest, .. }) => {
                    let error = too_old(from, oldest.saturating_sub(1));
                    let event = framed(&call, "ERROR", &error.to_value())?;
                    return Ok(respond::bytes(StatusCode::OK, media_type, event));
                }
                Err(error) => return Err(from_store(error)),
            }
        }
    };
    let timeout = options
        .timeout_seconds
        .filter(|seconds| *seconds > 0)
        .map_or_else(|| DEFAULT_TIMEOUT.mul_f64(1.0 + rand::rng().random::<f64>()), Duration::from_secs);
    let mut hasher = DefaultHasher::new();
    (call.accepted, call.api_version(), call.row.kind.as_ref(), call.query.get("includeObject")).hash(&mut hasher);
    // Nothing more is read from the headers, and there may be thousands of watches.
    call.headers = HeaderMap::new();
    let now = Instant::now();
    let meters = Meters::of(&call, begun);
    if !initial.is_empty() {
        meters.initial(&call, initial.len());
    }
    let state = Watch {
        meters,
        everything: selection.is_everything(),
        selection,
        prefix,
        resource,
        changed,
        source,
        initial: initial.into_iter(),
        announce_end: send_initial && options.allow_bookmarks,
        bookmarks: options.allow_bookmarks,
        next_bookmark: now + BOOKMARK_INTERVAL,
        deadline: now + timeout,
        seen: from,
        form: hasher.finish(),
        columns_sent: false,
        ended: false,
        shown: Shown::of(&call),
        call: Arc::new(call),
    };
    let server = state.call.server.clone();
    let place = server.answers().open(state);
    let events = futures::stream::unfold(place, |place| async move {
        let Some(mut state) = place.take() else {
            return Some((Err(UNREAD.into()), place));
        };
        let bytes = state.next().await?;
        place.rest(state);
        Some((Ok(bytes), place))
    });
    Ok(respond::with_body(StatusCode::OK, media_type, ResponseBody::stream(events)))
}

/// 410 for a revision whose history is gone.
pub(crate) fn too_old(requested: u64, current: u64) -> StatusError {
    StatusError::expired(format!("too old resource version: {requested} ({current})"))
}

impl Watch {
    /// The next slice of events; `None` when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        match self.step().await {
            Ok(next) => next,
            Err(error) => {
                self.ended = true;
                framed(&self.call, "ERROR", &error.to_value()).inspect(|event| self.meters.sent(event.len())).ok()
            }
        }
    }

    async fn step(&mut self) -> Result<Option<Bytes>, StatusError> {
        if let Some(slice) = self.initial_slice().await? {
            return Ok(Some(slice));
        }
        if std::mem::take(&mut self.announce_end) {
            self.meters.listed(&self.call);
            return self.bookmark(true).map(Some);
        }
        let stop = self.call.server.stopping();
        let retired = self.call.row.retired.clone();
        loop {
            self.changed.borrow_and_update();
            // Every change of this resource up to here is in the log before the log is read.
            let complete = self.call.server.registry().cache().revision();
            let changes = match &mut self.source {
                Source::Log(cursor) => match self.resource.advance(cursor, BATCH) {
                    Advance::Changes(changes) => changes,
                    Advance::Behind => {
                        self.meters.terminated(&self.call);
                        return Err(too_old(self.seen, self.resource.last_changed()));
                    }
                },
                Source::History(_) => Vec::new(),
            };
            if !changes.is_empty() {
                if let Some(slice) = self.slice_of(&changes).await? {
                    return Ok(Some(slice));
                }
                continue;
            }
            if matches!(self.source, Source::Log(_)) {
                self.seen = self.seen.max(complete);
            }
            let bookmark_at = if self.bookmarks { self.next_bookmark.min(self.deadline) } else { self.deadline };
            tokio::select! {
                () = stop.cancelled() => {
                    self.ended = true;
                    return Ok(None);
                }
                () = retired.cancelled() => {
                    self.ended = true;
                    return Ok(None);
                }
                () = tokio::time::sleep_until(bookmark_at) => {
                    self.ended = Instant::now() >= self.deadline;
                    self.next_bookmark = Instant::now() + BOOKMARK_INTERVAL;
                    return self.bookmarks.then(|| self.bookmark(false)).transpose();
                }
                woken = self.changed.changed(), if matches!(self.source, Source::Log(_)) => {
                    if woken.is_err() {
                        return Ok(None);
                    }
                }
                batch = history(&mut self.source) => match batch {
                    None => return Ok(None),
                    Some(Err(StoreError::SlowWatcher { .. })) => {
                        self.meters.terminated(&self.call);
                        return Err(too_old(self.seen, self.resource.last_changed()));
                    }
                    Some(Err(error)) => return Err(from_store(error)),
                    Some(Ok(batch)) => {
                        let changes: Vec<Arc<Change>> =
                            batch.events.iter().map(|event| Arc::new(Change::from_event(event))).collect();
                        let slice = self.slice_of(&changes).await?;
                        self.seen = self.seen.max(batch.revision);
                        if slice.is_some() {
                            return Ok(slice);
                        }
                    }
                },
            }
        }
    }

    async fn initial_slice(&mut self) -> Result<Option<Bytes>, StatusError> {
        let mut out = Vec::new();
        let mut next = Vec::new();
        while out.len() < SLICE {
            // What is converted is converted together.
            next.extend(self.initial.by_ref().take(if self.call.row.hub.is_some() { CONVERTED } else { 1 }));
            if next.is_empty() {
                break;
            }
            next = self.call.row.shown_all(next).await?;
            for entry in next.drain(..) {
                let columns = !std::mem::replace(&mut self.columns_sent, true);
                let before = out.len();
                encode(&self.call, self.shown.as_ref(), ADDED, &entry, entry.revision, columns, &mut out)?;
                self.meters.sent(out.len() - before);
            }
        }
        Ok((!out.is_empty()).then(|| Bytes::from(out)))
    }

    async fn slice_of(&mut self, changes: &[Arc<Change>]) -> Result<Option<Bytes>, StatusError> {
        let mut frames = Vec::new();
        let states = self.states(changes).await?;
        for (change, state) in changes.iter().zip(states) {
            if let Some(frame) = self.frame(change, &state)? {
                self.meters.sent(frame.len());
                frames.push(frame);
            }
            self.seen = self.seen.max(change.revision);
        }
        Ok(match frames.len() {
            0 => None,
            1 => frames.pop(),
            _ => Some(Bytes::from(frames.concat())),
        })
    }

    /// The objects of each change before and after it, in the version that the row works in. Those that this client cannot
    /// see are left out.
    async fn states(&self, changes: &[Arc<Change>]) -> Result<Vec<State>, StatusError> {
        let mut states = Vec::with_capacity(changes.len());
        for change in changes {
            states.push(State::of(change, &self.prefix));
        }
        let row = &self.call.row;
        if row.hub.is_some() {
            // Of what is shown in any case, only what is sent need be converted.
            let both = self.selection.reads_objects();
            let mut entries = Vec::with_capacity(states.len());
            for state in &mut states {
                entries.extend(state.parts(both).map(|entry| entry.clone()));
            }
            let mut shown = row.shown_to_many(entries).await?.into_iter();
            for state in &mut states {
                state.parts(both).zip(shown.by_ref()).for_each(|(entry, shown)| *entry = shown);
            }
        }
        Ok(states)
    }

    /// What a change is to this client.
    fn frame(&mut self, change: &Arc<Change>, state: &State) -> Result<Option<Bytes>, StatusError> {
        let selected = |entry: &Option<Arc<Entry>>| -> Result<bool, StatusError> {
            let Some(entry) = entry else { return Ok(false) };
            if self.everything { Ok(true) } else { self.selection.matches(entry) }
        };
        let (kind, entry) = match (selected(&state.before)?, selected(&state.now)?) {
            (false, false) => return Ok(None),
            (false, true) => (ADDED, &state.now),
            (true, true) => (MODIFIED, &state.now),
            (true, false) => (DELETED, &state.before),
        };
        let Some(entry) = entry else { return Ok(None) };
        let render = |columns: bool| {
            let mut out = Vec::with_capacity(entry.value.len() + 96);
            encode(&self.call, self.shown.as_ref(), kind, entry, change.revision, columns, &mut out)?;
            Ok(Bytes::from(out))
        };
        if matches!(self.call.accepted.view, View::Table(_)) && !self.columns_sent {
            let frame = render(true)?;
            self.columns_sent = true;
            return Ok(Some(frame));
        }
        change.frame((kind, self.form), || render(false)).map(Some)
    }

    fn bookmark(&self, initial_end: bool) -> Result<Bytes, StatusError> {
        let mut metadata = json!({"resourceVersion": self.seen.to_string(), "creationTimestamp": null});
        if initial_end {
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let object = match self.call.accepted.view {
            View::Object => {
                json!({"kind": self.call.row.kind, "apiVersion": self.call.api_version(), "metadata": metadata})
            }
            View::Metadata(stable) => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": meta_version(stable), "metadata": metadata})
            }
            View::Table(stable) => {
                let partial =
                    json!({"kind": "PartialObjectMetadata", "apiVersion": meta_version(stable), "metadata": metadata});
                json!({
                    "kind": "Table", "apiVersion": meta_version(stable),
                    "metadata": {"resourceVersion": self.seen.to_string()},
                    "columnDefinitions": null, "rows": [{"cells": [], "object": partial}],
                })
            }
        };
        framed(&self.call, "BOOKMARK", &object).inspect(|event| self.meters.sent(event.len()))
    }
}

async fn history(source: &mut Source) -> Option<Result<kminik_store::WatchBatch, StoreError>> {
    match source {
        Source::History(watcher) => watcher.batches.recv().await,
        Source::Log(_) => std::future::pending().await,
    }
}

/// One event in the client's encoding: a line of JSON, or protobuf behind its length.
fn framed(call: &Call, kind: &str, object: &Value) -> Result<Bytes, StatusError> {
    if call.accepted.encoding != Encoding::Protobuf {
        return Ok(Bytes::from(format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")));
    }
    let mut out = Vec::new();
    frame(kind, &respond::encode(object, call.accepted)?, &mut out)?;
    Ok(out.into())
}

/// Appends an event in protobuf behind its length.
fn frame(kind: &str, object: &[u8], out: &mut Vec<u8>) -> Result<(), StatusError> {
    let event = protobuf::encode_watch_event(kind, object);
    out.extend_from_slice(&u32::try_from(event.len()).map_err(StatusError::internal)?.to_be_bytes());
    out.extend_from_slice(&event);
    Ok(())
}

fn encode(
    call: &Call,
    shown: Option<&Shown>,
    kind: &str,
    entry: &Entry,
    revision: u64,
    columns: bool,
    out: &mut Vec<u8>,
) -> Result<(), StatusError> {
    if let Some(shown) = shown.filter(|_| call.shows_stored(entry)) {
        if call.accepted.encoding == Encoding::Protobuf {
            return frame(kind, &shown.protobuf(entry, revision)?, out);
        }
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\",\"object\":");
        shown.write(out, entry, revision)?;
        out.extend_from_slice(b"}\n");
        return Ok(());
    }
    let mut object = call.object_of(entry)?;
    object.set_resource_version(&revision.to_string());
    let value = match call.accepted.view {
        View::Object => object.into(),
        View::Metadata(stable) => metadata_of(object, stable),
        View::Table(stable) => {
            let metadata = json!({"resourceVersion": revision.to_string()});
            table::table(call, stable, vec![object], metadata.as_object().cloned().unwrap_or_default(), columns)
        }
    };
    out.extend_from_slice(&framed(call, kind, &value)?);
    Ok(())
}
