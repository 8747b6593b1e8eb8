//! What the server itself writes to definitions: accepted names, conditions, and the end of a deleted one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use jiff::Timestamp;
use kminik_meta::{Object, Path, StatusError, validate};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::conditions::{Condition, is_true, remove_condition, set_condition};
use super::names::{Taken, accept};
use super::{CLEANUP, GROUP, PLURAL};
use crate::Server;
use crate::bootstrap;
use crate::health::Step;
use crate::registry::def::ResourceDef;
use crate::registry::strategy::StrategyContext;
use crate::registry::{Change, Written, storage_prefix};
use crate::storage::entry::Entry;
use crate::verbs::delete::{self, DeleteOptions};

/// Before what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Keeps the status of all definitions, and cleans up behind deleted ones, until cancelled.
pub(crate) async fn keep(server: Arc<Server>, stop: CancellationToken) {
    let Ok(row) = server.registry().row(GROUP, PLURAL) else { return };
    let Ok(prefix) = storage_prefix(&row).map(str::to_owned) else { return };
    let mut changed = server.registry().cache().resource(&prefix).subscribe();
    let mut kept = Kept::new();
    server.health().reached(Step::Definitions);
    loop {
        changed.borrow_and_update();
        let mut pass = pass(&server, &mut kept).await;
        // An object that was held is gone: its definition may be let go.
        let mut held: FuturesUnordered<_> = pass.held.iter_mut().map(|changed| changed.changed().boxed()).collect();
        tokio::select! {
            () = stop.cancelled() => return,
            woken = changed.changed() => {
                if woken.is_err() {
                    return;
                }
            }
            Some(_) = held.next() => {}
            () = tokio::time::sleep(RETRY), if pass.failed => {}
        }
    }
}

/// What a look at all definitions leaves to do.
#[derive(Default)]
struct Pass {
    /// Something has to be tried again.
    failed: bool,
    /// Resources whose objects are being deleted.
    held: Vec<watch::Receiver<u64>>,
}

/// What is kept of a definition between looks: all but its schemas, which are large and say only whether they are structural.
struct Known {
    revision: u64,
    definition: Object,
    shape: Option<Condition>,
}

impl Known {
    fn of(entry: &Entry) -> Option<Self> {
        let mut definition = entry.decode().ok()?;
        let shape = structure(&definition);
        if let Some(Value::Array(versions)) = definition.get_mut(&["spec", "versions"]) {
            versions.iter_mut().filter_map(Value::as_object_mut).for_each(|version| {
                version.remove("schema");
            });
        }
        Some(Known { revision: entry.revision, definition, shape })
    }
}

/// The definitions by their keys.
type Kept = BTreeMap<Bytes, Known>;

/// Looks at all definitions once.
async fn pass(server: &Arc<Server>, kept: &mut Kept) -> Pass {
    let snapshot = server.registry().cached(GROUP, PLURAL);
    kept.retain(|key, known| snapshot.get(key).is_some_and(|entry| entry.revision == known.revision));
    for (key, entry) in snapshot.entries.iter().filter(|(key, _)| !kept.contains_key(*key)).collect::<Vec<_>>() {
        kept.extend(Known::of(entry).map(|known| (key.clone(), known)));
    }
    let mut pass = Pass::default();
    for Known { definition, shape, .. } in kept.values() {
        let group = definition.str(&["spec", "group"]);
        let mut taken = Taken::default();
        let others = kept.values().map(|known| &known.definition).filter(|other| other.name() != definition.name());
        others.filter(|other| other.str(&["spec", "group"]) == group).for_each(|other| taken.add(other));
        let outcome = if definition.is_deleting() {
            clean_up(server, definition).await.map(|held| pass.held.extend(held))
        } else {
            status(server, definition, &taken, shape).await
        };
        // One that is gone needs nothing more.
        if let Err(error) = outcome
            && error.code() != 404
        {
            tracing::warn!(error = &error as &dyn std::error::Error, name = definition.name(), "definition not kept");
            pass.failed = true;
        }
    }
    pass
}

/// The condition of a definition whose schemas are not structural.
fn structure(definition: &Object) -> Option<Condition> {
    let mut violations = kminik_meta::ErrorList::new();
    for (index, version) in definition.array(&["spec", "versions"]).iter().enumerate() {
        let path = Path::new("spec").child("versions").index(index).children(&["schema", "openAPIV3Schema"]);
        if let Some(schema) = version.pointer("/schema/openAPIV3Schema") {
            violations.append(validate::definitions::violations(&path, schema));
        }
    }
    (!violations.is_empty())
        .then(|| Condition::new("NonStructuralSchema", "True", "Violations", violations.to_string()))
}

/// Writes names and conditions where they are not as they should be.
async fn status(
    server: &Arc<Server>,
    definition: &Object,
    taken: &Taken,
    shape: &Option<Condition>,
) -> Result<(), StatusError> {
    let mut wanted = definition.clone();
    let now = Timestamp::now();
    let (names, accepted) = accept(definition, taken);
    let has_names = accepted.status == "True";
    wanted.set(&["status", "acceptedNames"], names);
    set_condition(&mut wanted, &accepted, now);
    match shape {
        Some(condition) => set_condition(&mut wanted, condition, now),
        None => remove_condition(&mut wanted, "NonStructuralSchema"),
    }
    if let Some(approval) = validate::definitions::approval(definition) {
        let kind = "KubernetesAPIApprovalPolicyConformant";
        let condition = Condition::new(kind, approval.status, approval.reason, approval.message);
        set_condition(&mut wanted, &condition, now);
    }
    if !is_true(definition, "Established") {
        let condition = if !has_names {
            Condition::new("Established", "False", "NotAccepted", "not all names are accepted")
        } else if !bundle_is_valid(definition) {
            let message = "The conversion webhook CABundle is invalid";
            Condition::new("Established", "False", "InvalidCABundle", message)
        } else if is_true(definition, "NamesAccepted") && is_served(server, definition) {
            let message = "the initial names have been accepted";
            Condition::new("Established", "True", "InitialNamesAccepted", message)
        } else {
            Condition::new("Established", "False", "Installing", "the initial names have been accepted")
        };
        set_condition(&mut wanted, &condition, now);
    }
    if wanted == *definition {
        return Ok(());
    }
    let status = wanted.get(&["status"]).cloned().unwrap_or_default();
    write(server, definition, |object| object.set(&["status"], status.clone())).await
}

fn bundle_is_valid(definition: &Object) -> bool {
    let bundle = definition.str(&["spec", "conversion", "webhook", "clientConfig", "caBundle"]);
    bundle.is_none_or(validate::definitions::bundle_is_valid)
}

/// Whether the table has the row; it is made now if its turn has not come.
fn is_served(server: &Server, definition: &Object) -> bool {
    let text = |path: &[&str]| definition.str(path).unwrap_or_default();
    let (group, plural) = (text(&["spec", "group"]), text(&["spec", "names", "plural"]));
    let has = || server.registry().row(group, plural).is_ok();
    has() || (server.registry().recompose().is_ok() && has())
}

/// Changes a definition that still is as it was seen; one that is not comes again.
async fn write(server: &Server, seen: &Object, mut change: impl FnMut(&mut Object) + Send) -> Result<(), StatusError> {
    let row = server.registry().row(GROUP, PLURAL)?;
    let written = server.registry().modify(&row, "", seen.name(), |present| {
        if present.resource_version() != seen.resource_version() {
            return Ok(Change::Keep);
        }
        let mut object = present.clone();
        change(&mut object);
        let released = object.is_deleting() && object.finalizers().is_empty();
        Ok(if released { Change::Delete } else { Change::Put(object) })
    });
    written.await.map(|_| ())
}

/// Deletes the objects of a deleted definition and, when there are none, lets it go. Gives what to wait for where some remain.
async fn clean_up(server: &Arc<Server>, definition: &Object) -> Result<Option<watch::Receiver<u64>>, StatusError> {
    if !definition.finalizers().contains(&CLEANUP) {
        return Ok(None);
    }
    let text = |path: &[&str]| definition.str(path).unwrap_or_default();
    let (group, plural) = (text(&["spec", "group"]), text(&["spec", "names", "plural"]));
    let row = server.registry().row(group, plural).ok();
    let end = match row.filter(|row| row.edition.starts_with(definition.uid())) {
        None => Condition::new("Terminating", "False", "NeverEstablished", "resource was never established"),
        Some(row) => {
            let remaining = server.registry().cache().resource(storage_prefix(&row)?).subscribe();
            if delete_objects(server, &row).await? > 0 {
                let message = "CustomResource deletion is in progress";
                let condition = Condition::new("Terminating", "True", "InstanceDeletionInProgress", message);
                write(server, definition, |object| set_condition(object, &condition, Timestamp::now())).await?;
                return Ok(Some(remaining));
            }
            Condition::new("Terminating", "False", "InstanceDeletionCompleted", "removed all instances")
        }
    };
    let finalizers: Vec<String> =
        definition.finalizers().into_iter().filter(|name| *name != CLEANUP).map(str::to_owned).collect();
    write(server, definition, |object| {
        set_condition(object, &end, Timestamp::now());
        object.set_finalizers(&finalizers);
    })
    .await?;
    Ok(None)
}

/// Begins the deletion of every object of a resource; gives how many are still held by finalizers.
async fn delete_objects(server: &Server, row: &ResourceDef) -> Result<usize, StatusError> {
    let registry = server.registry();
    let snapshot = registry.cache().fresh(storage_prefix(row)?).await?;
    let user = bootstrap::user();
    let mut remaining = 0;
    for entry in snapshot.entries.values() {
        let (namespace, name) = entry.namespace_and_name();
        let context = StrategyContext { registry, row, user: &user, namespace, dry_run: false, now: Timestamp::now() };
        let deleted = registry.modify(row, namespace, name, |object| {
            if object.is_deleting() {
                return Ok(Change::Keep);
            }
            delete::next_state(&context, &DeleteOptions::default(), object)
        });
        match deleted.await {
            Ok(Written::Deleted(_)) => {}
            Ok(Written::Stored(_) | Written::Unchanged(_)) => remaining += 1,
            Err(error) if error.code() == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(remaining)
}
