//! Pods and what can be done below them.

mod binding;
mod eviction;
mod qos;
mod resize;

use kminik_meta::{ErrorList, FieldError, Object, Path, time};
use serde_json::{Value, json};

pub(crate) use self::binding::{Binding, Bindings};
pub(crate) use self::eviction::Eviction;
pub(crate) use self::resize::Resize;
use crate::registry::strategy::{
    Grace, Strategy, StrategyContext, copy_member, default_prepare_create, default_prepare_update, keep_all_but_status,
};

/// Seconds between the end of a pod's grace and a kill, where nothing is said.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// Pods themselves.
pub(crate) struct Pods;

impl Strategy for Pods {
    fn prepare_create(&self, ctx: &StrategyContext<'_>, pod: &mut Object) {
        default_prepare_create(ctx, pod);
        pod.set(&["status"], json!({ "phase": "Pending", "qosClass": qos::class_of(pod).as_str() }));
        if !pod.array(&["spec", "schedulingGates"]).is_empty() {
            let condition = json!({
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
                "lastTransitionTime": time::format(ctx.now),
            });
            pod.set(&["status", "conditions"], json!([condition]));
        }
        same_account(pod);
    }

    fn prepare_update(&self, ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        same_account(new);
        default_prepare_update(ctx, old, new);
    }

    fn grace(&self, _ctx: &StrategyContext<'_>, pod: &Object, requested: Option<i64>) -> Grace {
        let scheduled = pod.str(&["spec", "nodeName"]).is_some_and(|node| !node.is_empty());
        let ended = matches!(pod.str(&["status", "phase"]), Some("Succeeded" | "Failed"));
        // Nobody would confirm the end of a pod that no kubelet runs.
        if !scheduled || ended {
            return Grace::None;
        }
        let own = pod.i64(&["spec", "terminationGracePeriodSeconds"]).unwrap_or(DEFAULT_GRACE_SECONDS);
        match requested.unwrap_or(own) {
            0 => Grace::None,
            seconds if seconds < 0 => Grace::Seconds(1),
            seconds => Grace::Seconds(seconds),
        }
    }
}

/// The old name of the field follows the new one.
fn same_account(pod: &mut Object) {
    let name = pod.str(&["spec", "serviceAccountName"]).filter(|name| !name.is_empty()).map(str::to_owned);
    let old_name = pod.str(&["spec", "serviceAccount"]).filter(|name| !name.is_empty()).map(str::to_owned);
    if let Some(name) = name.or(old_name) {
        pod.set(&["spec", "serviceAccountName"], name.clone());
        pod.set(&["spec", "serviceAccount"], name);
    }
}

/// `pods/status`: the kubelet's word; who the pod belongs to and its class of service are not the kubelet's to change.
pub(crate) struct PodStatus;

impl Strategy for PodStatus {
    fn prepare_update(&self, _ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        keep_all_but_status(old, new);
        match old.get(&["metadata", "ownerReferences"]) {
            Some(owners) => new.set(&["metadata", "ownerReferences"], owners.clone()),
            None => drop(new.remove(&["metadata", "ownerReferences"])),
        }
        if let Some(class) = old.get(&["status", "qosClass"])
            && new.str(&["status", "qosClass"]).unwrap_or_default().is_empty()
        {
            new.set(&["status", "qosClass"], class.clone());
        }
    }

    fn validate_update(&self, _ctx: &StrategyContext<'_>, old: &Object, new: &Object) -> ErrorList {
        super::immutable(old, new, &["status", "qosClass"])
    }
}

/// `pods/ephemeralcontainers`: containers can be added to a running pod, not changed or taken away.
pub(crate) struct EphemeralContainers;

impl Strategy for EphemeralContainers {
    fn prepare_update(&self, _ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        let containers = new.remove(&["spec", "ephemeralContainers"]);
        copy_member(old, new, "spec");
        copy_member(old, new, "status");
        match containers {
            Some(containers) => new.set(&["spec", "ephemeralContainers"], containers),
            None => drop(new.remove(&["spec", "ephemeralContainers"])),
        }
        bump_generation(old, new);
    }

    fn validate_update(&self, _ctx: &StrategyContext<'_>, old: &Object, new: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("spec").child("ephemeralContainers");
        let name = |container: &Value| container.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let new_containers = new.array(&["spec", "ephemeralContainers"]);
        for container in old.array(&["spec", "ephemeralContainers"]) {
            let name_of_old = name(container);
            match new_containers.iter().position(|other| name(other) == name_of_old) {
                None => {
                    let detail = format!("existing ephemeral containers {name_of_old:?} may not be removed");
                    errors.push(FieldError::forbidden(&path, detail));
                }
                Some(index) if new_containers.get(index) != Some(container) => {
                    let detail = format!("existing ephemeral containers {name_of_old:?} may not be changed");
                    errors.push(FieldError::forbidden(&path.index(index), detail));
                }
                Some(_) => {}
            }
        }
        errors
    }
}

/// Counts a change of the spec.
fn bump_generation(old: &Object, new: &mut Object) {
    let changed = old.get(&["spec"]) != new.get(&["spec"]);
    new.set_generation(old.generation() + i64::from(changed));
}

/// Sets a condition; its transition time moves only when its status does.
pub(crate) fn set_condition(pod: &mut Object, mut condition: Value) {
    let mut conditions = pod.array(&["status", "conditions"]).to_vec();
    match conditions.iter_mut().find(|known| known["type"] == condition["type"]) {
        Some(known) => {
            if known["status"] == condition["status"] {
                condition["lastTransitionTime"] = known["lastTransitionTime"].clone();
            }
            *known = condition;
        }
        None => conditions.push(condition),
    }
    pod.set(&["status", "conditions"], conditions);
}
