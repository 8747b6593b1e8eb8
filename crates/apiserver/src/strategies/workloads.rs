//! Workloads whose generation counts more than their specification, and daemon sets, which also count their templates.

use kminik_meta::Object;

use crate::registry::strategy::{Status, Strategy, StrategyContext, default_prepare_create, default_prepare_update};

/// How often a daemon set's template changed, which clients of older versions read.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
const TEMPLATE: &[&str] = &["spec", "template"];

/// Deployments: their annotations are copied to their replica sets, so that a change of them is one to act on.
pub(crate) struct Deployments;

impl Strategy for Deployments {
    fn prepare_update(&self, ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        default_prepare_update(ctx, old, new);
        if new.annotations() != old.annotations() {
            new.set_generation(old.generation() + 1);
        }
    }
}

/// Slices of endpoints: their labels say what they are for.
pub(crate) struct EndpointSlices;

impl Strategy for EndpointSlices {
    fn prepare_update(&self, ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        default_prepare_update(ctx, old, new);
        let labels = &["metadata", "labels"];
        if new.get(labels) != old.get(labels) {
            new.set_generation(old.generation() + 1);
        }
    }
}

/// Daemon sets.
pub(crate) struct DaemonSets;

impl Strategy for DaemonSets {
    fn prepare_create(&self, ctx: &StrategyContext<'_>, set: &mut Object) {
        default_prepare_create(ctx, set);
        count(set, template_generation(set));
    }

    fn prepare_update(&self, ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        default_prepare_update(ctx, old, new);
        let changed = new.get(TEMPLATE) != old.get(TEMPLATE);
        count(new, template_generation(old).saturating_add(i64::from(changed)));
    }
}

/// `daemonsets/status`.
pub(crate) struct DaemonSetStatus;

impl Strategy for DaemonSetStatus {
    fn prepare_update(&self, ctx: &StrategyContext<'_>, old: &Object, new: &mut Object) {
        Status.prepare_update(ctx, old, new);
        count(new, template_generation(old));
    }
}

fn template_generation(set: &Object) -> i64 {
    let counted = set.annotation(TEMPLATE_GENERATION).and_then(|text| text.parse().ok());
    counted.filter(|count| *count > 0).unwrap_or(1)
}

fn count(set: &mut Object, generation: i64) {
    set.set_annotation(TEMPLATE_GENERATION, &generation.to_string());
}
