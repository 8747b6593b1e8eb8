//! Nodes: a kubelet registers with its status.

use kminik_meta::Object;

use crate::registry::strategy::{Strategy, StrategyContext, copy_member};

pub(crate) struct Nodes;

impl Strategy for Nodes {
    /// The status stays: it is how a kubelet introduces its node.
    fn prepare_create(&self, _ctx: &StrategyContext<'_>, _node: &mut Object) {}

    fn prepare_update(&self, _ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        copy_member(old, new, "status");
    }
}
