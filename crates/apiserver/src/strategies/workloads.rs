//! Deployments, replica sets, daemon sets, stateful sets: selectors stay, and match the pods they make.

use kminik_meta::{ErrorList, FieldError, LabelSelector, Object, Path};

use super::immutable;
use crate::registry::strategy::{Strategy, StrategyContext};

/// Whatever makes pods from a template and finds them by an immutable selector.
pub(crate) struct PodMakers;

impl Strategy for PodMakers {
    fn validate(&self, _ctx: &StrategyContext<'_>, object: &Object) -> ErrorList {
        selects_its_pods(object)
    }

    fn validate_update(&self, _ctx: &StrategyContext<'_>, old: &Object, new: &Object) -> ErrorList {
        immutable(old, new, &["spec", "selector"])
    }
}

/// Stateful sets: most of the spec stays as it was.
pub(crate) struct StatefulSets;

/// Fields of a stateful set's spec that may change.
const STATEFUL_MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

impl Strategy for StatefulSets {
    fn validate(&self, _ctx: &StrategyContext<'_>, object: &Object) -> ErrorList {
        selects_its_pods(object)
    }

    fn validate_update(&self, _ctx: &StrategyContext<'_>, old: &Object, new: &Object) -> ErrorList {
        let rest = |object: &Object| {
            let mut spec = object.get(&["spec"]).and_then(|spec| spec.as_object()).cloned().unwrap_or_default();
            for field in STATEFUL_MUTABLE {
                spec.remove(field);
            }
            spec
        };
        if rest(old) == rest(new) {
            return ErrorList::new();
        }
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                      'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                      'minReadySeconds' are forbidden";
        FieldError::forbidden(&Path::new("spec"), detail).into()
    }
}

fn selects_its_pods(object: &Object) -> ErrorList {
    let labels = object.get(&["spec", "template", "metadata", "labels"]);
    match LabelSelector::from_value(object.get(&["spec", "selector"])) {
        Ok(selector) if selector.is_everything() || selector.is_nothing() || selector.matches_labels(labels) => {
            ErrorList::new()
        }
        // What cannot be parsed is the schema's to refuse.
        Err(_) => ErrorList::new(),
        Ok(_) => {
            let path = Path::new("spec").children(&["template", "metadata", "labels"]);
            let found = labels.cloned().unwrap_or_default();
            FieldError::invalid(&path, found, "`selector` does not match template `labels`").into()
        }
    }
}
