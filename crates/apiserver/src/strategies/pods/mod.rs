//! Pods and what can be done below them.

mod binding;
mod eviction;
mod qos;
mod resize;
mod status;

use std::collections::BTreeMap;

use kminik_meta::pod_annotations::{APP_ARMOR, MIRROR};
use kminik_meta::{ErrorList, FieldError, Object, Path, time};
use serde_json::{Value, json};

pub(crate) use self::binding::{Binding, Bindings};
pub(crate) use self::eviction::Eviction;
pub(crate) use self::resize::Resize;
pub(crate) use self::status::PodStatus;
use crate::registry::strategy::{
    Grace, Strategy, StrategyContext, copy_member, default_prepare_create, default_prepare_update, keep_metadata,
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
        merge_label_keys(pod);
        profiles_of_annotations(pod);
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

/// `matchLabelKeys` and `mismatchLabelKeys` become requirements of the selectors beside them, with the pod's own values.
fn merge_label_keys(pod: &mut Object) {
    const OPERATORS: [(&str, &str); 2] = [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")];
    let labels: BTreeMap<String, String> =
        pod.labels().into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let merge = |term: &mut Value| {
        let keys = |member: &str| term.get(member).and_then(Value::as_array).cloned().unwrap_or_default();
        let requirements: Vec<Value> = OPERATORS
            .iter()
            .flat_map(|(member, operator)| keys(member).into_iter().map(move |key| (key, operator)))
            .filter_map(|(key, operator)| {
                let value = labels.get(key.as_str()?)?;
                Some(json!({"key": key, "operator": operator, "values": [value]}))
            })
            .collect();
        let Some(selector) = term.get_mut("labelSelector").and_then(Value::as_object_mut) else { return };
        if requirements.is_empty() {
            return;
        }
        if let Value::Array(expressions) = selector.entry("matchExpressions").or_insert_with(|| json!([])) {
            expressions.extend(requirements);
        }
    };
    for kind in ["podAffinity", "podAntiAffinity"] {
        for (list, inner) in [
            ("requiredDuringSchedulingIgnoredDuringExecution", None),
            ("preferredDuringSchedulingIgnoredDuringExecution", Some("podAffinityTerm")),
        ] {
            let terms = pod.get_mut(&["spec", "affinity", kind, list]).and_then(Value::as_array_mut);
            for term in terms.into_iter().flatten() {
                let term = match inner {
                    None => Some(term),
                    Some(inner) => term.get_mut(inner),
                };
                term.into_iter().for_each(merge);
            }
        }
    }
    let constraints = pod.get_mut(&["spec", "topologySpreadConstraints"]).and_then(Value::as_array_mut);
    constraints.into_iter().flatten().for_each(merge);
}

/// AppArmor profiles by their old annotations become the containers' own, where those have none and the pod has another.
fn profiles_of_annotations(pod: &mut Object) {
    let whole = pod.get(&["spec", "securityContext", "appArmorProfile"]).cloned();
    let annotations: BTreeMap<String, String> = pod
        .annotations()
        .into_iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(APP_ARMOR)?.to_owned(), value.to_owned())))
        .collect();
    let profile = |text: &str| match text.strip_prefix("localhost/") {
        Some(name) => Some(json!({"type": "Localhost", "localhostProfile": name})),
        None if text == "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        None => (text == "unconfined").then(|| json!({"type": "Unconfined"})),
    };
    for list in ["initContainers", "containers"] {
        for container in pod.get_mut(&["spec", list]).and_then(Value::as_array_mut).into_iter().flatten() {
            let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
            let Some(wanted) = annotations.get(name).and_then(|text| profile(text)) else { continue };
            let own = container.pointer("/securityContext/appArmorProfile").is_some_and(|own| !own.is_null());
            if !own && whole.as_ref() != Some(&wanted) {
                if container.get("securityContext").is_none_or(Value::is_null) {
                    container["securityContext"] = json!({});
                }
                container["securityContext"]["appArmorProfile"] = wanted;
            }
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

/// `pods/ephemeralcontainers`: containers can be added to a running pod, not changed or taken away.
pub(crate) struct EphemeralContainers;

impl Strategy for EphemeralContainers {
    fn prepare_update(&self, ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        keep_metadata(ctx.row, "ephemeralcontainers", old, new);
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
        if is_static(new) {
            let detail = "static pods do not support ephemeral containers";
            errors.push(FieldError::forbidden(&Path::root(), detail));
        }
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
                    errors.push(FieldError::forbidden(&path, detail));
                }
                Some(_) => {}
            }
        }
        errors
    }
}

/// Whether a pod is the image of one that a kubelet runs by itself.
fn is_static(pod: &Object) -> bool {
    pod.annotation(MIRROR).is_some()
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
