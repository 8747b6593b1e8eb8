//! Every group version that this server serves itself has an APIService, by which clients see it among the others.
//!
//! Those of built-in groups are written when the server starts, and left alone then; those of custom resources come and go
//! with them. One that somebody wrote under such a name is theirs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use jiff::Timestamp;
use kminik_meta::{Gvk, Object, StatusError, time};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::priorities::{self, Priority};
use super::{GROUP, PLURAL, STORED};
use crate::registry::Change;
use crate::registry::def::ResourceDef;
use crate::registry::strategy::StrategyContext;
use crate::{Server, bootstrap};

/// Says that this server keeps the object, and how.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// Written at the start.
const ON_START: &str = "onstart";
/// Kept as long as the group version is served.
const ALWAYS: &str = "true";
/// Pause before a failed pass is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Registers everything that is served, and leaves a task behind that follows the table until cancelled.
///
/// # Errors
/// When the store fails.
pub(crate) async fn register(server: Arc<Server>, stop: CancellationToken) -> Result<(), StatusError> {
    pass(&server, true).await?;
    tokio::spawn(follow(server, stop));
    Ok(())
}

async fn follow(server: Arc<Server>, stop: CancellationToken) {
    let mut changes = server.registry().subscribe();
    let mut registered = server.registry().cache().resource(STORED).subscribe();
    loop {
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.changed() => changed.is_err(),
            changed = registered.changed() => changed.is_err(),
        };
        if ended {
            return;
        }
        if let Err(error) = pass(&server, false).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "APIServices cannot be written");
            changes.mark_changed();
            if stop.run_until_cancelled(tokio::time::sleep(RETRY)).await.is_none() {
                return;
            }
        }
    }
}

/// Writes what is missing or has changed, removes what is served no more.
async fn pass(server: &Server, starting: bool) -> Result<(), StatusError> {
    let registry = server.registry();
    let row = registry.row(GROUP, PLURAL)?;
    let mut wanted = BTreeMap::new();
    for (group, versions) in registry.table().groups() {
        for served in versions.iter().filter(|served| !served.resources.is_empty() && group != GROUP) {
            let (priority, managed) = match priorities::of_builtin(group, &served.version) {
                Some(priority) => (priority, ON_START),
                None => (priorities::CUSTOM, ALWAYS),
            };
            wanted
                .insert(format!("{}.{group}", served.version), registration(group, &served.version, priority, managed));
        }
    }
    let present = registry.cache().fresh(STORED).await?;
    for entry in present.entries.values() {
        let object = entry.object()?;
        let Some(managed) = object.labels().get(MANAGED).map(|managed| (*managed).to_owned()) else {
            wanted.remove(object.name());
            continue;
        };
        match wanted.remove(object.name()) {
            Some(wanted) if managed == ALWAYS || starting => {
                let change = |object: &Object| {
                    let mut object = object.clone();
                    object.set(&["spec"], wanted.get(&["spec"]).cloned().unwrap_or_default());
                    object.set_label(MANAGED, wanted.labels().get(MANAGED).copied().unwrap_or(ALWAYS));
                    Ok(Change::Put(object))
                };
                gone_is_fine(registry.modify(&row, "", object.name(), change).await.map(drop))?;
            }
            None if managed == ALWAYS => {
                gone_is_fine(registry.modify(&row, "", object.name(), |_| Ok(Change::Delete)).await.map(drop))?;
            }
            _ => {}
        }
    }
    let missing = wanted.into_values().filter(|object| starting || object.labels().get(MANAGED) == Some(&ALWAYS));
    // Side by side, so that they share the store's commits: a cluster's start waits for them.
    try_join_all(missing.map(|object| insert(server, &row, object))).await.map(drop)
}

async fn insert(server: &Server, row: &ResourceDef, mut object: Object) -> Result<(), StatusError> {
    // What the pipeline of a client's create would have added.
    let now = Timestamp::now();
    let context = StrategyContext {
        registry: server.registry(),
        row,
        user: &bootstrap::user(),
        namespace: "",
        dry_run: false,
        now,
    };
    row.strategy.prepare_create(&context, &mut object);
    object.metadata_mut().insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    object.metadata_mut().insert("creationTimestamp".into(), time::format(now).into());
    match server.registry().insert(row, &object).await {
        // Another server of this cluster was faster.
        Err(error) if error.code() == 409 => Ok(()),
        inserted => inserted.map(drop),
    }
}

fn gone_is_fine(written: Result<(), StatusError>) -> Result<(), StatusError> {
    written.or_else(|error| if error.code() == 404 { Ok(()) } else { Err(error) })
}

fn registration(group: &str, version: &str, priority: Priority, managed: &str) -> Object {
    let mut object = Object::new(&Gvk::new(GROUP, "v1", "APIService"));
    object.set_name(&format!("{version}.{group}"));
    object.set_label(MANAGED, managed);
    let mut spec =
        json!({"version": version, "groupPriorityMinimum": priority.group, "versionPriority": priority.version});
    if !group.is_empty() {
        spec["group"] = group.into();
    }
    object.set(&["spec"], spec);
    object
}
