//! The condition `Dangling` of flow schemas: whether the priority level that one names is there.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::try_join_all;
use jiff::Timestamp;
use kminik_meta::{Object, StatusError, time};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::apply_status;
use super::flow_control::{API_VERSION, LEVELS_PLURAL, SCHEMAS_PLURAL};
use crate::Server;
use crate::http::service::LocalService;
use crate::registry::Registry;
use crate::storage::follow::follow;

/// As upstream's API server, which keeps the condition too, signs it.
const MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";
const DANGLING: &str = "Dangling";

/// Keeps the condition of all flow schemas until cancelled.
pub(super) async fn keep(client: LocalService, server: Arc<Server>, stop: CancellationToken) {
    let changes = |plural: &str| server.registry().cache().resource(&stored(plural)).subscribe();
    let changes = either(changes(LEVELS_PLURAL), changes(SCHEMAS_PLURAL), stop.clone());
    follow("conditions of flow schemas", changes, stop, || pass(&client, server.registry())).await;
}

/// Wakes when either of two does.
fn either(
    mut one: watch::Receiver<u64>,
    mut other: watch::Receiver<u64>,
    stop: CancellationToken,
) -> watch::Receiver<()> {
    let (send, changes) = watch::channel(());
    tokio::spawn(async move {
        loop {
            let changed = tokio::select! {
                () = stop.cancelled() => return,
                changed = one.changed() => changed,
                changed = other.changed() => changed,
            };
            if changed.is_err() || send.send(()).is_err() {
                return;
            }
        }
    });
    changes
}

fn stored(plural: &str) -> String {
    format!("flowcontrol.apiserver.k8s.io/{plural}")
}

async fn pass(client: &LocalService, registry: &Registry) -> Result<(), StatusError> {
    let levels = registry.cache().fresh(&stored(LEVELS_PLURAL)).await?;
    let levels = levels.entries.values().map(|entry| entry.object()).collect::<Result<Vec<_>, _>>()?;
    let levels: BTreeSet<&str> = levels.iter().map(|level| level.name()).collect();
    let schemas = registry.cache().fresh(&stored(SCHEMAS_PLURAL)).await?;
    let mut wanted = Vec::new();
    for entry in schemas.entries.values() {
        let schema = entry.object()?;
        wanted.extend(condition(&schema, &levels).map(|condition| {
            json!({
                "apiVersion": API_VERSION, "kind": "FlowSchema", "metadata": {"name": schema.name()},
                "status": {"conditions": [condition]},
            })
        }));
    }
    let collection = format!("/apis/{API_VERSION}/{SCHEMAS_PLURAL}");
    // Side by side, so that they share the store's commits.
    try_join_all(wanted.iter().map(|status| apply_status(client, MANAGER, &collection, status))).await.map(drop)
}

/// The condition that a schema should have; `None` if it has it.
fn condition(schema: &Object, levels: &BTreeSet<&str>) -> Option<Value> {
    let level = schema.str(&["spec", "priorityLevelConfiguration", "name"]).unwrap_or_default();
    let names = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    let (status, reason, message) = if levels.contains(level) {
        ("False", "Found", format!("{names} and it exists"))
    } else {
        ("True", "NotFound", format!("{names} but there is no such object"))
    };
    let known = schema.array(&["status", "conditions"]).iter().find(|condition| condition["type"] == DANGLING);
    let same = |known: &Value| known["status"] == status;
    if known.is_some_and(|known| same(known) && known["reason"] == reason && known["message"] == message) {
        return None;
    }
    let since = known.filter(|known| same(known)).map(|known| known["lastTransitionTime"].clone());
    Some(json!({
        "type": DANGLING, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": since.unwrap_or_else(|| time::format(Timestamp::now()).into()),
    }))
}
