//! Persistent volumes and claims: their phase begins as Pending, and what was promised stays.

use kminik_meta::{ErrorList, FieldError, Object, Path, Quantity};
use serde_json::{Value, json};

use crate::registry::strategy::{Strategy, StrategyContext, default_prepare_update};

/// Persistent volumes.
pub(crate) struct Volumes;

/// What of a volume's spec may change; all else says where the data is.
const VOLUME_MUTABLE: [&str; 9] = [
    "capacity",
    "accessModes",
    "claimRef",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "mountOptions",
    "nodeAffinity",
    "volumeAttributesClassName",
    "volumeMode",
];

impl Strategy for Volumes {
    fn prepare_create(&self, ctx: &StrategyContext<'_>, volume: &mut Object) {
        let since = kminik_meta::time::format(ctx.now);
        volume.set(&["status"], json!({ "phase": "Pending", "lastPhaseTransitionTime": since }));
    }

    fn validate_update(&self, _ctx: &StrategyContext<'_>, old: &Object, new: &Object) -> ErrorList {
        let mut errors = super::immutable(old, new, &["spec", "volumeMode"]);
        let source = |object: &Object| without(object, &VOLUME_MUTABLE);
        if source(old) != source(new) {
            let detail = "spec.persistentvolumesource is immutable after creation";
            errors.push(FieldError::forbidden(&Path::new("spec").child("persistentvolumesource"), detail));
        }
        if old.get(&["spec", "nodeAffinity"]).is_some() {
            errors.append(super::immutable(old, new, &["spec", "nodeAffinity"]));
        }
        errors
    }
}

/// `persistentvolumes/status`: tells when the phase changed.
pub(crate) struct VolumeStatus;

impl Strategy for VolumeStatus {
    fn prepare_update(&self, ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        crate::registry::strategy::keep_all_but_status(old, new);
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
    }

    fn prepare_update(&self, ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        default_prepare_update(ctx, old, new);
    }

    fn validate_update(&self, _ctx: &StrategyContext<'_>, old: &Object, new: &Object) -> ErrorList {
        let bound = old.str(&["status", "phase"]) == Some("Bound");
        let mut mutable = vec!["volumeAttributesClassName"];
        if bound {
            mutable.push("resources");
        }
        // The binder names the volume, once; a class may be given later to a claim that has none.
        for once in ["volumeName", "storageClassName"] {
            if old.str(&["spec", once]).unwrap_or_default().is_empty() && !bound {
                mutable.push(once);
            }
        }
        let mut errors = ErrorList::new();
        if without(old, &mutable) != without(new, &mutable) {
            let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for \
                          bound claims";
            errors.push(FieldError::forbidden(&Path::new("spec"), detail));
        }
        let size = |object: &Object| {
            let size = object.get(&["spec", "resources", "requests", "storage"]).and_then(Quantity::from_value)?;
            size.ok()
        };
        let granted = old.get(&["status", "capacity", "storage"]).and_then(Quantity::from_value).and_then(Result::ok);
        if let (Some(before), Some(after)) = (size(old), size(new))
            && after < before
            && granted.is_none_or(|granted| after < granted)
        {
            let path = Path::new("spec").children(&["resources", "requests", "storage"]);
            errors.push(FieldError::forbidden(&path, "field can not be less than status.capacity"));
        }
        errors
    }
}

/// The spec without some of its fields.
fn without(object: &Object, fields: &[&str]) -> Value {
    let mut spec = object.get(&["spec"]).and_then(Value::as_object).cloned().unwrap_or_default();
    for field in fields {
        spec.remove(*field);
    }
    Value::Object(spec)
}
