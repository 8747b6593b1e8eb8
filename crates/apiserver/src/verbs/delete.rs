//! Deletion, of one object or a collection: at once, after a grace period, or once the finalizers are done.
//!
//! ```text
//!  live ──(grace, finalizers or strategy hold it)──► deleting ──(all let go)──► gone
//!    └──────────────(nothing holds it)──────────────────────────────────────────┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{Request, Response, StatusCode};
use jiff::SignedDuration;
use kminik_meta::{Details, Object, StatusError, status, time};
use serde_json::{Map, Value};

use super::call::{Call, WriteOptions};
use super::list::{self, ListOptions};
use super::render;
use super::selection::Selection;
use crate::admission::Operation;
use crate::http::accept;
use crate::http::body::{RequestBody, ResponseBody};
use crate::http::info::Query;
use crate::registry::def::{Propagation, ResourceDef};
use crate::registry::strategy::{Grace, StrategyContext};
use crate::registry::{Attempt, Change, Written};
use crate::schema;
use crate::storage::entry::Entry;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// DeleteOptions, from body and query.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeleteOptions {
    grace_seconds: Option<i64>,
    propagation: Option<Propagation>,
    uid: Option<String>,
    resource_version: Option<String>,
    /// The old orphanDependents=false was asked for: a deletion that only begins is then answered with 202.
    asynchronous: bool,
}

impl DeleteOptions {
    /// Reads the options from the body, or from the query where there is none.
    ///
    /// # Errors
    /// 422 for values that contradict each other or are not known, 400 for a number that is none.
    pub(crate) fn of(query: &Query, body: Option<&Object>) -> Result<Self, StatusError> {
        use kminik_meta::{ErrorList, FieldError, Path};
        let mut errors = ErrorList::new();
        let policy = match body {
            Some(body) => body.str(&["propagationPolicy"]),
            None => query.get("propagationPolicy"),
        };
        let orphan_dependents = match body {
            Some(body) => body.bool(&["orphanDependents"]),
            None => query.get("orphanDependents").map(|_| query.flag("orphanDependents")),
        };
        let path = Path::new("propagationPolicy");
        if let (Some(policy), Some(_)) = (policy, orphan_dependents) {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(FieldError::invalid(&path, policy, why));
        }
        let propagation = match (policy, orphan_dependents) {
            (Some("Foreground"), _) => Some(Propagation::Foreground),
            (Some("Background"), _) => Some(Propagation::Background),
            (Some("Orphan"), _) => Some(Propagation::Orphan),
            (Some(other), _) => {
                let known = ["Foreground", "Background", "Orphan", "nil"];
                errors.push(FieldError::not_supported(&path, other, &known));
                None
            }
            (None, Some(true)) => Some(Propagation::Orphan),
            (None, Some(false)) => Some(Propagation::Background),
            (None, None) => None,
        };
        if !errors.is_empty() {
            return Err(StatusError::invalid("meta.k8s.io", "DeleteOptions", "", &errors));
        }
        let precondition = |key: &str| body.and_then(|body| body.str(&["preconditions", key])).map(str::to_owned);
        Ok(DeleteOptions {
            grace_seconds: match body {
                Some(body) => body.i64(&["gracePeriodSeconds"]),
                None => query.integer("gracePeriodSeconds")?,
            },
            asynchronous: orphan_dependents == Some(false),
            propagation,
            uid: precondition("uid"),
            resource_version: precondition("resourceVersion"),
        })
    }
}

/// How a deletion ended.
struct Deletion {
    entry: Arc<Entry>,
    gone: bool,
    /// A dry run's object, in the version that the row works in.
    dry_run: Option<Object>,
}

/// Answers a DELETE of one object.
pub(crate) async fn delete(call: &Call, request: Request<RequestBody>) -> Result<Response<ResponseBody>, StatusError> {
    let (options, delete) = read_options(call, request).await?;
    let deletion = run(call, &options, &delete, &call.info.name).await?;
    if deletion.gone && !call.row.policy.returns_deleted {
        let object = deletion.entry.object()?;
        let details = Details {
            name: object.name().to_owned(),
            group: call.row.group.to_string(),
            kind: call.row.plural.to_string(),
            uid: object.uid().to_owned(),
            ..Details::default()
        };
        return render::value_response(call, StatusCode::OK, &status::success(Some(&details)));
    }
    let code = if !deletion.gone && delete.asynchronous { StatusCode::ACCEPTED } else { StatusCode::OK };
    match deletion.dry_run {
        Some(mut object) => {
            call.to_request_version(&mut object);
            render::object(call, code, object)
        }
        None => render::entry(call, code, &deletion.entry),
    }
}

/// Answers a DELETE of a collection with the list of what was deleted.
pub(crate) async fn delete_collection(
    call: &Call,
    request: Request<RequestBody>,
) -> Result<Response<ResponseBody>, StatusError> {
    let (options, delete) = read_options(call, request).await?;
    let list_options = ListOptions::of(call)?;
    let selection = Selection::of(call)?;
    let page = list::page(call, &list_options, &selection).await?;
    let mut deleted = Vec::with_capacity(page.entries.len());
    for entry in page.entries {
        let (namespace, name) = entry.namespace_and_name();
        match run_in(call, &options, &delete, namespace, name).await {
            Ok(deletion) => deleted.push(deletion.entry),
            // Somebody else was faster: that is what was wanted.
            Err(error) if error.code() == 404 => {}
            Err(error) => return Err(error),
        }
    }
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".into(), Value::from(page.revision.to_string()));
    render::list(call, metadata, deleted).await
}

async fn read_options(
    call: &Call,
    request: Request<RequestBody>,
) -> Result<(WriteOptions, DeleteOptions), StatusError> {
    let bytes = call.body(request).await?;
    let mut options = WriteOptions::of(&call.query, &call.headers, "DeleteOptions")?;
    if !bytes.is_empty() {
        let object = schema::decode_options(&bytes, accept::body_encoding(&call.headers)?)?;
        options.dry_run = !object.array(&["dryRun"]).is_empty();
        options.object = Some(object);
        call.audit.request_patch(|| options.object.as_ref().map(Object::to_value));
    }
    let delete = DeleteOptions::of(&call.query, options.object.as_ref())?;
    if delete.propagation.is_none() {
        call.warn(call.row.policy.silent_delete.map(str::to_owned));
    }
    Ok((options, delete))
}

async fn run(call: &Call, options: &WriteOptions, delete: &DeleteOptions, name: &str) -> Result<Deletion, StatusError> {
    run_in(call, options, delete, &call.info.namespace, name).await
}

async fn run_in(
    call: &Call,
    options: &WriteOptions,
    delete: &DeleteOptions,
    namespace: &str,
    name: &str,
) -> Result<Deletion, StatusError> {
    let mut removal = Removal { call, options, delete, namespace, name, gone: false, dry_run: None };
    let written = call.server.registry().update(&call.row, namespace, name, &mut removal).await?;
    let (Written::Stored(entry) | Written::Unchanged(entry) | Written::Deleted(entry)) = written;
    Ok(Deletion { entry, gone: removal.gone, dry_run: removal.dry_run })
}

struct Removal<'a> {
    call: &'a Call,
    options: &'a WriteOptions,
    delete: &'a DeleteOptions,
    namespace: &'a str,
    name: &'a str,
    gone: bool,
    dry_run: Option<Object>,
}

#[async_trait]
impl Attempt for Removal<'_> {
    async fn attempt(&mut self, current: &Entry) -> Result<Change, StatusError> {
        let call = self.call;
        let object = current.object()?;
        self.delete.check_preconditions(&call.row, &object)?;
        let mut attributes = call.attributes(Operation::Delete, self.name, Some(&object), self.options);
        attributes.namespace = self.namespace;
        call.server.admission().delete(&attributes).await?;
        let next = next_state(&call.strategy_context(self.options.dry_run), self.delete, &object)?;
        self.gone = matches!(next, Change::Delete);
        if self.options.dry_run {
            self.dry_run = Some(match next {
                Change::Put(object) => object,
                Change::Keep | Change::Delete => Object::clone(&object),
            });
            return Ok(Change::Keep);
        }
        Ok(next)
    }
}

impl DeleteOptions {
    /// Whether the object is the one that was meant.
    ///
    /// # Errors
    /// 409 if not.
    pub(crate) fn check_preconditions(&self, row: &ResourceDef, object: &Object) -> Result<(), StatusError> {
        let uid = ("UID", &self.uid, object.uid(), "deleted and then recreated");
        let revision = ("ResourceVersion", &self.resource_version, object.resource_version(), "modified");
        for (what, wanted, found, happened) in [uid, revision] {
            if let Some(wanted) = wanted
                && wanted != found
            {
                let why = format!(
                    "the {what} in the precondition ({wanted}) does not match the {what} in record ({found}). \
                     The object might have been {happened}"
                );
                // As upstream, which names the kind here and not the resource.
                return Err(StatusError::conflict(&row.group, &row.kind, object.name(), why));
            }
        }
        Ok(())
    }
}

/// What a deletion makes of the object.
///
/// # Errors
/// When the strategy does not let it begin.
pub(crate) fn next_state(
    ctx: &StrategyContext<'_>,
    delete: &DeleteOptions,
    object: &Object,
) -> Result<Change, StatusError> {
    let strategy = ctx.row.strategy.as_ref();
    strategy.check_delete(ctx, object)?;
    let mut next = object.clone();
    set_propagation(ctx.row, delete, &mut next);
    let wanted = match strategy.grace(ctx, object, delete.grace_seconds) {
        Grace::None => 0,
        Grace::Seconds(seconds) => seconds.max(0),
    };
    let held = !next.finalizers().is_empty() || strategy.held(&next);
    if object.is_deleting() {
        let running = object.deletion_grace_period_seconds().unwrap_or_default();
        // A second delete can only shorten the wait.
        if wanted < running {
            set_deletion(ctx, &mut next, wanted);
            // The first deletion's time minus the seconds saved.
            if let Some(at) = object.deletion_timestamp() {
                let earlier = at - Duration::from_secs(u64::try_from(running - wanted).unwrap_or_default());
                next.set_meta("deletionTimestamp", &time::format(earlier));
            }
        }
        let remaining = next.deletion_grace_period_seconds().unwrap_or_default();
        if remaining == 0 && !held {
            return Ok(Change::Delete);
        }
    } else {
        if wanted == 0 && !held {
            return Ok(Change::Delete);
        }
        set_deletion(ctx, &mut next, wanted);
        strategy.begin_delete(ctx, &mut next);
        if ctx.row.policy.generation && object.generation() > 0 {
            next.set_generation(object.generation() + 1);
        }
    }
    Ok(if next == *object { Change::Keep } else { Change::Put(next) })
}

fn set_deletion(ctx: &StrategyContext<'_>, object: &mut Object, grace_seconds: i64) {
    let at = ctx.now + SignedDuration::from_secs(grace_seconds);
    object.set_meta("deletionTimestamp", &time::format(at));
    object.set(&["metadata", "deletionGracePeriodSeconds"], grace_seconds);
}

/// Adds or removes the finalizers by which the garbage collector is told what to do with dependents.
fn set_propagation(row: &ResourceDef, delete: &DeleteOptions, object: &mut Object) {
    let present: Vec<String> = object.finalizers().into_iter().map(str::to_owned).collect();
    let had = |name: &str| present.iter().any(|finalizer| finalizer == name);
    let propagation = match delete.propagation {
        Some(propagation) => propagation,
        None if had(ORPHAN) => Propagation::Orphan,
        None if had(FOREGROUND) => Propagation::Foreground,
        None => row.policy.propagation,
    };
    let mut finalizers: Vec<String> =
        present.into_iter().filter(|finalizer| finalizer != ORPHAN && finalizer != FOREGROUND).collect();
    match propagation {
        Propagation::Background => {}
        Propagation::Foreground => finalizers.push(FOREGROUND.into()),
        Propagation::Orphan => finalizers.push(ORPHAN.into()),
    }
    if finalizers != object.finalizers() {
        object.set_finalizers(&finalizers);
    }
}
