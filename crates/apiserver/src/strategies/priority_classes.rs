//! Priority classes: their generation never grows, and the system's own are not deleted.

use kminik_meta::{Object, StatusError};

use crate::registry::strategy::{Strategy, StrategyContext};

/// Names of the classes that the system needs.
const SYSTEM: [&str; 2] = ["system-cluster-critical", "system-node-critical"];

pub(crate) struct PriorityClasses;

impl Strategy for PriorityClasses {
    fn prepare_create(&self, _ctx: &StrategyContext<'_>, class: &mut Object) {
        class.set_generation(1);
    }

    fn check_delete(&self, ctx: &StrategyContext<'_>, class: &Object) -> Result<(), StatusError> {
        if SYSTEM.contains(&class.name()) {
            let why = "this is a system priority class and cannot be deleted";
            return Err(StatusError::forbidden(&ctx.row.group, &ctx.row.plural, class.name(), why));
        }
        Ok(())
    }
}
