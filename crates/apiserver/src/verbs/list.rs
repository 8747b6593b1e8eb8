//! All objects of a resource, or of one namespace; whole or page by page.
//!
//! | resourceVersion | resourceVersionMatch | what is read |
//! |---|---|---|
//! | unset | unset | the newest state |
//! | `0` | unset, NotOlderThan | whatever the cache holds |
//! | X | unset, NotOlderThan | anything not older than X (exactly X if `limit` is set and the match is not) |
//! | X | Exact | exactly X |

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Response;
use kminik_meta::{ErrorList, FieldError, Path, StatusError};
use kminik_store::{Range, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::call::Call;
use super::render;
use super::selection::Selection;
use crate::error::from_store;
use crate::http::body::ResponseBody;
use crate::registry::storage_prefix;
use crate::storage::cache::Snapshot;
use crate::storage::entry::Entry;
use crate::storage::key;

/// Records read at a time when a page is looked for in an old revision.
const SCAN: usize = 500;

/// How `resourceVersion` is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    Exact,
    NotOlderThan,
}

/// The options of list, watch, get and deletecollection.
#[derive(Clone, Debug)]
pub(crate) struct ListOptions {
    /// `None`: unset.
    pub(crate) revision: Option<u64>,
    pub(crate) revision_match: Option<Match>,
    /// 0: no limit.
    pub(crate) limit: usize,
    pub(crate) continue_token: Option<String>,
    pub(crate) send_initial_events: Option<bool>,
    pub(crate) allow_bookmarks: bool,
    pub(crate) timeout_seconds: Option<u64>,
}

impl ListOptions {
    /// Reads the query and checks what goes with what.
    ///
    /// # Errors
    /// 400 or 422 in upstream's words.
    pub(crate) fn of(call: &Call) -> Result<Self, StatusError> {
        let query = &call.query;
        let mut errors = ErrorList::new();
        let revision = match query.get("resourceVersion") {
            None => None,
            Some(text) => match text.parse() {
                Ok(revision) => Some(revision),
                Err(_) => {
                    let why = format!("strconv.ParseUint: parsing {}: invalid syntax", kminik_meta::field::quote(text));
                    let errors = ErrorList::from(FieldError::invalid(&Path::new("resourceVersion"), text, why));
                    return Err(match call.info.verb.as_str() {
                        "watch" => StatusError::invalid(&call.row.group, &call.row.plural, "", &errors),
                        _ => StatusError::bad_request(format!("invalid resource version: {errors}")),
                    });
                }
            },
        };
        let path = Path::new("resourceVersionMatch");
        let revision_match = match query.get("resourceVersionMatch") {
            None => None,
            Some("Exact") => Some(Match::Exact),
            Some("NotOlderThan") => Some(Match::NotOlderThan),
            Some(other) => {
                errors.push(FieldError::not_supported(&path, other, &["Exact", "NotOlderThan", ""]));
                None
            }
        };
        let send_initial_events = query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents"));
        let continue_token = query.get("continue").map(str::to_owned);
        if call.info.verb == "watch" {
            match (send_initial_events, revision_match) {
                (Some(_), Some(Match::NotOlderThan)) | (None, None) => {}
                (Some(_), _) => errors.push(FieldError::forbidden(
                    &path,
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                )),
                (None, Some(_)) => errors.push(FieldError::forbidden(
                    &path,
                    "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
                )),
            }
            if revision_match.is_some() && continue_token.is_some() {
                errors
                    .push(FieldError::forbidden(&path, "resourceVersionMatch is forbidden when continue is provided"));
            }
        } else {
            if send_initial_events.is_some() {
                errors.push(FieldError::forbidden(
                    &Path::new("sendInitialEvents"),
                    "sendInitialEvents is forbidden for list",
                ));
            }
            if revision_match.is_some() {
                if continue_token.is_some() {
                    errors.push(FieldError::forbidden(
                        &path,
                        "resourceVersionMatch is forbidden when continue is provided",
                    ));
                }
                if revision.is_none() {
                    errors.push(FieldError::forbidden(
                        &path,
                        "resourceVersionMatch is forbidden unless resourceVersion is provided",
                    ));
                }
                if revision_match == Some(Match::Exact) && revision == Some(0) {
                    errors.push(FieldError::forbidden(
                        &path,
                        "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                    ));
                }
            }
        }
        if !errors.is_empty() {
            return Err(StatusError::invalid("meta.k8s.io", "ListOptions", "", &errors));
        }
        // A watch that begins nowhere in particular begins with what there is, and says where that ends.
        let from_the_beginning =
            call.info.verb == "watch" && revision_match.is_none() && revision.unwrap_or_default() == 0;
        let send_initial_events = send_initial_events.or(from_the_beginning.then_some(true));
        if continue_token.is_some() && revision.is_some_and(|revision| revision > 0) {
            return Err(StatusError::bad_request("specifying resource version is not allowed when using continue"));
        }
        Ok(ListOptions {
            revision,
            revision_match,
            limit: usize::try_from(query.integer("limit")?.unwrap_or_default()).unwrap_or_default(),
            continue_token,
            send_initial_events,
            allow_bookmarks: query.flag("allowWatchBookmarks"),
            timeout_seconds: query.integer("timeoutSeconds")?.and_then(|seconds| u64::try_from(seconds).ok()),
        })
    }
}

/// Where the next page begins. `rv` -1 means: at whatever revision is newest.
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    v: String,
    rv: i64,
    start: String,
}

impl Token {
    fn encode(rv: i64, start: &str) -> String {
        let token = Token { v: "meta.k8s.io/v1".into(), rv, start: start.into() };
        // A struct of two strings and a number can always be written.
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
    }

    fn parse(text: &str) -> Result<Self, StatusError> {
        let invalid =
            |why: String| StatusError::bad_request(format!("invalid continue token: continue key is not valid{why}"));
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|error| invalid(format!(": {error}")))?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|error| invalid(format!(": {error}")))?;
        if token.v != "meta.k8s.io/v1" {
            return Err(invalid(format!(": server does not recognize this encoded version {}", token.v)));
        }
        if token.rv == 0 {
            return Err(invalid(": incorrect encoded start resourceVersion (version meta.k8s.io/v1)".into()));
        }
        if token.start.is_empty() {
            return Err(invalid(": encoded start key empty (version meta.k8s.io/v1)".into()));
        }
        let outside = |part: &str| part.is_empty() || part == "." || part == "..";
        if token.start.trim_start_matches('/').split('/').any(outside) {
            return Err(invalid(format!(": {}", token.start)));
        }
        Ok(token)
    }
}

/// One page of a list.
pub(crate) struct Page {
    /// Revision of the whole list.
    pub(crate) revision: u64,
    pub(crate) entries: Vec<Arc<Entry>>,
    /// Token of the next page.
    pub(crate) next: Option<String>,
    /// How many follow, where that is known.
    pub(crate) remaining: Option<usize>,
    /// How many objects were looked at, and whether they came from the store.
    read: usize,
    stored: bool,
}

impl Page {
    fn new(revision: u64, stored: bool) -> Self {
        Page { revision, entries: Vec::new(), next: None, remaining: None, read: 0, stored }
    }

    fn count(&self, call: &Call) {
        let table = &call.server.metrics().table;
        let (group, resource) = (&*call.row.group, &*call.row.plural);
        let (read, returned) = (self.read as u64, self.entries.len() as u64);
        if self.stored {
            let (table, labels) = (&table.storage, [group, resource]);
            table.lists.with(labels).inc();
            table.lists_fetched.with(labels).add(read);
            table.lists_evaluated.with(labels).add(read);
            table.lists_returned.with(labels).add(returned);
        } else {
            // No list is found by an index.
            let (table, labels) = (&table.watches, [group, "", resource]);
            table.lists.with(labels).inc();
            table.lists_fetched.with(labels).add(read);
            table.lists_returned.with([group, resource]).add(returned);
        }
    }
}

/// Answers with a list.
pub(crate) async fn list(call: &Call) -> Result<Response<ResponseBody>, StatusError> {
    let options = ListOptions::of(call)?;
    let selection = Selection::of(call)?;
    let page = page(call, &options, &selection).await?;
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".into(), page.revision.to_string().into());
    if let Some(next) = page.next {
        metadata.insert("continue".into(), next.into());
    }
    if let Some(remaining) = page.remaining {
        metadata.insert("remainingItemCount".into(), Value::from(remaining));
    }
    render::list(call, metadata, page.entries).await
}

/// The page that options and selectors describe, in the version that the row works in.
///
/// # Errors
/// 410 where the revision is compacted, 500 for a conversion that fails.
pub(crate) async fn page(call: &Call, options: &ListOptions, selection: &Selection) -> Result<Page, StatusError> {
    let mut page = select(call, options, selection).await?;
    page.count(call);
    page.entries = call.row.shown_all(page.entries).await?;
    Ok(page)
}

/// What the snapshot has in this range as the request's version shows it, as far as selectors must see that.
pub(crate) async fn selectable(
    call: &Call,
    selection: &Selection,
    range: &str,
    mut snapshot: Snapshot,
) -> Result<Snapshot, StatusError> {
    if call.row.hub.is_some() && selection.reads_objects() {
        let shown = call.row.shown_all(snapshot.range(range, None).cloned().collect()).await?;
        snapshot.entries = shown.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
    }
    Ok(snapshot)
}

async fn select(call: &Call, options: &ListOptions, selection: &Selection) -> Result<Page, StatusError> {
    let cache = call.server.registry().cache();
    let prefix = storage_prefix(&call.row)?;
    let range = key::namespace(prefix, &call.info.namespace);
    if let Some(token) = &options.continue_token {
        let token = Token::parse(token)?;
        let after = format!("{range}{}", token.start);
        let Ok(revision) = u64::try_from(token.rv) else {
            let snapshot = selectable(call, selection, &range, cache.fresh(prefix).await?).await?;
            return from_entries(
                &range,
                snapshot.revision,
                -1,
                snapshot.range(&range, Some(after.as_bytes())),
                options,
                selection,
            );
        };
        return old_page(call, &range, revision, Some(after), options, selection).await;
    }
    let exact = match (options.revision, options.revision_match) {
        (Some(revision), Some(Match::Exact)) => Some(revision),
        (Some(revision), None) if revision > 0 && options.limit > 0 => Some(revision),
        _ => None,
    };
    if let Some(revision) = exact {
        return old_page(call, &range, revision, None, options, selection).await;
    }
    let snapshot = match options.revision {
        None => cache.fresh(prefix).await?,
        Some(revision) => cache.at(prefix, revision).await?,
    };
    let snapshot = selectable(call, selection, &range, snapshot).await?;
    let revision = snapshot.revision;
    if let Some(name) = selection.only_name() {
        let named = match call.row.namespaced() && call.info.namespace.is_empty() {
            true => {
                snapshot.range(&range, None).filter(|entry| entry.namespace_and_name().1 == name).cloned().collect()
            }
            false => snapshot.get(&Bytes::from(format!("{range}{name}"))).cloned().into_iter().collect::<Vec<_>>(),
        };
        return from_entries(&range, revision, revision as i64, named.iter(), options, selection);
    }
    from_entries(&range, revision, revision as i64, snapshot.range(&range, None), options, selection)
}

fn from_entries<'a>(
    range: &str,
    revision: u64,
    token_revision: i64,
    entries: impl Iterator<Item = &'a Arc<Entry>>,
    options: &ListOptions,
    selection: &Selection,
) -> Result<Page, StatusError> {
    let mut page = Page::new(revision, false);
    let everything = selection.is_everything();
    let mut beyond = 0;
    for entry in entries {
        page.read += 1;
        if !everything && !selection.matches(entry)? {
            continue;
        }
        if options.limit > 0 && page.entries.len() == options.limit {
            if page.next.is_none() {
                page.next = page.entries.last().map(|last| Token::encode(token_revision, tail(range, last)));
            }
            if !everything {
                break;
            }
            beyond += 1;
            continue;
        }
        page.entries.push(entry.clone());
    }
    page.remaining = (beyond > 0).then_some(beyond);
    Ok(page)
}

/// What of an entry's key follows the range's prefix.
fn tail<'a>(range: &str, entry: &'a Entry) -> &'a str {
    let key = entry.key.get(range.len()..).unwrap_or_default();
    std::str::from_utf8(key).unwrap_or_default()
}

async fn old_page(
    call: &Call,
    range: &str,
    revision: u64,
    after: Option<String>,
    options: &ListOptions,
    selection: &Selection,
) -> Result<Page, StatusError> {
    let store = call.server.registry().store();
    let continued = after.is_some();
    // The first key behind `after` is `after` with a zero byte.
    let mut start =
        after.clone().map_or_else(|| Bytes::from(range.to_owned()), |after| Bytes::from(format!("{after}\0")));
    let everything = selection.is_everything();
    let mut page = Page::new(revision, true);
    loop {
        let wanted = match (options.limit, everything) {
            (0, _) => 0,
            (limit, true) => limit,
            (_, false) => SCAN,
        };
        let found = store
            .range(Range {
                start: start.clone(),
                end: key::end_of(range.as_bytes()),
                limit: wanted,
                revision: Some(revision),
                count: everything && options.limit > 0,
            })
            .await;
        let found = match found {
            Ok(found) => found,
            Err(StoreError::Compacted { .. }) => return Err(expired(range, continued, after.as_deref())),
            Err(error) => return Err(from_store(error)),
        };
        let (read, more) = (found.records.len(), found.more);
        page.read += read;
        let mut entries = found.records.into_iter().map(|record| Arc::new(Entry::new(record))).collect();
        if selection.reads_objects() {
            entries = call.row.shown_all(entries).await?;
        }
        for entry in entries {
            if !everything && !selection.matches(&entry)? {
                continue;
            }
            if options.limit > 0 && page.entries.len() == options.limit {
                page.next = page.entries.last().map(|last| Token::encode(revision as i64, tail(range, last)));
                return Ok(page);
            }
            start = Bytes::from([&entry.key[..], b"\0"].concat());
            page.entries.push(entry);
        }
        if everything && more {
            page.next = page.entries.last().map(|last| Token::encode(revision as i64, tail(range, last)));
            page.remaining = Some(found.count.saturating_sub(read)).filter(|remaining| *remaining > 0);
            return Ok(page);
        }
        if !more {
            return Ok(page);
        }
    }
}

fn expired(range: &str, continued: bool, after: Option<&str>) -> StatusError {
    if !continued {
        return StatusError::expired("The resourceVersion for the provided list is too old.");
    }
    let start = after.and_then(|after| after.strip_prefix(range)).unwrap_or_default();
    StatusError::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without \
         the continue parameter, or use the continue token in this response to retrieve the remainder of the results. \
         Continuing with the provided token results in an inconsistent list - objects that were created, modified, or \
         deleted between the time the first chunk was returned and now may show up in the list.",
    )
    .with_continue(Token::encode(-1, start))
}
