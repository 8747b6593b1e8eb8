//! Nodes: a kubelet registers with its status; what a node was given stays its own.

use kminik_meta::{ErrorList, FieldError, Object, Path};

use crate::registry::strategy::{Strategy, StrategyContext, copy_member};

pub(crate) struct Nodes;

/// Fields of the spec that are given once.
const GIVEN_ONCE: [&str; 3] = ["podCIDR", "podCIDRs", "providerID"];

impl Strategy for Nodes {
    /// The status stays: it is how a kubelet introduces its node.
    fn prepare_create(&self, _ctx: &StrategyContext<'_>, _node: &mut Object) {}

    fn prepare_update(&self, _ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        copy_member(old, new, "status");
    }

    fn validate_update(&self, _ctx: &StrategyContext<'_>, old: &Object, new: &Object) -> ErrorList {
        let mut errors = ErrorList::new();
        for field in GIVEN_ONCE {
            let given = old.get(&["spec", field]).filter(|value| !value.as_str().is_some_and(str::is_empty));
            if given.is_some() && given != new.get(&["spec", field]) {
                let detail = format!("node updates may not change {field} except from \"\" to valid");
                errors.push(FieldError::forbidden(&Path::new("spec").child(field), detail));
            }
        }
        errors
    }
}
