//! Config maps and secrets: `immutable` means it, and a secret keeps its type.

use kminik_meta::{ErrorList, FieldError, Object, Path};

use super::immutable;
use crate::registry::strategy::{Strategy, StrategyContext};

/// Config maps.
pub(crate) struct ConfigMaps;

impl Strategy for ConfigMaps {
    fn validate_update(&self, _ctx: &StrategyContext<'_>, old: &Object, new: &Object) -> ErrorList {
        frozen(old, new, &["data", "binaryData"])
    }
}

/// Secrets.
pub(crate) struct Secrets;

impl Strategy for Secrets {
    fn validate_update(&self, _ctx: &StrategyContext<'_>, old: &Object, new: &Object) -> ErrorList {
        let mut errors = immutable(old, new, &["type"]);
        errors.append(frozen(old, new, &["data"]));
        errors
    }
}

fn frozen(old: &Object, new: &Object, data: &[&str]) -> ErrorList {
    let mut errors = ErrorList::new();
    if old.bool(&["immutable"]) != Some(true) {
        return errors;
    }
    let detail = "field is immutable when `immutable` is set";
    if new.bool(&["immutable"]) != Some(true) {
        errors.push(FieldError::forbidden(&Path::new("immutable"), detail));
    }
    for field in data {
        if old.get(&[field]) != new.get(&[field]) {
            errors.push(FieldError::forbidden(&Path::new(field), detail));
        }
    }
    errors
}
