//! Persistent volumes and claims: their phase begins as Pending, and a volume tells since when it has its own. Drivers count
//! the changes that nodes must follow.

use kminik_meta::Object;
use serde_json::json;

use crate::registry::strategy::{Strategy, StrategyContext, default_prepare_update, keep_all_but_status};

/// Persistent volumes.
pub(crate) struct Volumes;

impl Strategy for Volumes {
    fn prepare_create(&self, ctx: &StrategyContext<'_>, volume: &mut Object) {
        let since = kminik_meta::time::format(ctx.now);
        volume.set(&["status"], json!({ "phase": "Pending", "lastPhaseTransitionTime": since }));
    }
}

/// `persistentvolumes/status`: tells when the phase changed.
pub(crate) struct VolumeStatus;

impl Strategy for VolumeStatus {
    fn prepare_update(&self, ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        keep_all_but_status(old, new);
        if old.get(&["status", "phase"]) != new.get(&["status", "phase"]) {
            new.set(&["status", "lastPhaseTransitionTime"], kminik_meta::time::format(ctx.now));
        }
    }
}

/// Persistent volume claims.
pub(crate) struct Claims;

impl Strategy for Claims {
    fn prepare_create(&self, _ctx: &StrategyContext<'_>, claim: &mut Object) {
        claim.set(&["status"], json!({ "phase": "Pending" }));
        drop_unknown_source(claim);
        same_source(claim);
    }

    fn prepare_update(&self, ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        default_prepare_update(ctx, old, new);
        // What is of an older server may have one of them only.
        same_source(new);
    }
}

/// A new claim's old member knows claims and snapshots; anything else is as if it were not there.
fn drop_unknown_source(claim: &mut Object) {
    let text = |member: &str| claim.str(&["spec", "dataSource", member]).unwrap_or_default();
    let known = match text("kind") {
        "PersistentVolumeClaim" => text("apiGroup").is_empty(),
        "VolumeSnapshot" => text("apiGroup") == "snapshot.storage.k8s.io",
        _ => false,
    };
    if !known && claim.get(&["spec", "dataSource"]).is_some() && claim.get(&["spec", "dataSourceRef"]).is_none() {
        claim.remove(&["spec", "dataSource"]);
    }
}

/// dataSource and dataSourceRef say the same; a client may give one of them.
fn same_source(claim: &mut Object) {
    let (plain, reference) =
        (claim.get(&["spec", "dataSource"]).cloned(), claim.get(&["spec", "dataSourceRef"]).cloned());
    match (plain, reference) {
        (Some(plain), None) => claim.set(&["spec", "dataSourceRef"], plain),
        (None, Some(reference)) if reference.get("namespace").is_none() => {
            claim.set(&["spec", "dataSource"], reference);
        }
        _ => {}
    }
}

/// CSI drivers.
pub(crate) struct Drivers;

/// What kubelets look at again when it changes.
const FOLLOWED: [&str; 3] = ["tokenRequests", "requiresRepublish", "seLinuxMount"];

impl Strategy for Drivers {
    fn prepare_create(&self, _ctx: &StrategyContext<'_>, _driver: &mut Object) {}

    fn prepare_update(&self, _ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        let changed = FOLLOWED.iter().any(|member| old.get(&["spec", member]) != new.get(&["spec", member]));
        new.set_generation(old.generation() + i64::from(changed));
    }
}
