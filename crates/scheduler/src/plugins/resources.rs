//! Whether a node has room for what a pod asks, and how evenly it would then be used.

use crate::info::NodeInfo;
use crate::plugin::{Cycle, MAX_SCORE, Unfit};
use crate::resources::{CPU, MEMORY};

pub(crate) fn fit(cycle: &Cycle, node: &NodeInfo) -> Result<(), Unfit> {
    let mut reasons = Vec::new();
    let mut unresolvable = false;
    let limit = node.pod_limit();
    if i64::try_from(node.pods.len()).unwrap_or(i64::MAX) >= limit {
        reasons.push("Too many pods".to_string());
        unresolvable |= limit < 1;
    }
    for (name, wanted) in cycle.pod.requests.positive() {
        let allocatable = node.allocatable.get(name);
        if wanted > allocatable - node.requested.get(name) {
            reasons.push(format!("Insufficient {name}"));
            // More than the whole node has: no pod that leaves makes it enough.
            unresolvable |= wanted > allocatable;
        }
    }
    if reasons.is_empty() { Ok(()) } else { Err(Unfit { reasons, unresolvable }) }
}

/// Prefers nodes with much left: the mean free share of CPU and memory.
pub(crate) fn least_allocated(cycle: &Cycle, node: &NodeInfo) -> i64 {
    let (mut sum, mut count) = (0, 0);
    for name in [CPU, MEMORY] {
        let (used, allocatable) = used_after(cycle, node, name);
        if allocatable > 0 {
            sum += (allocatable - used).max(0).saturating_mul(MAX_SCORE) / allocatable;
            count += 1;
        }
    }
    if count == 0 { 0 } else { sum / count }
}

/// Prefers nodes whose CPU and memory would be used to like degrees.
pub(crate) fn balanced(cycle: &Cycle, node: &NodeInfo) -> i64 {
    let share = |name| {
        let used = node.requested.get(name) + cycle.pod.requests.get(name);
        let allocatable = node.allocatable.get(name);
        if allocatable == 0 { 1.0 } else { (used as f64 / allocatable as f64).min(1.0) }
    };
    // Of two values the standard deviation is half their distance.
    let deviation = (share(CPU) - share(MEMORY)).abs() / 2.0;
    ((1.0 - deviation) * MAX_SCORE as f64) as i64
}

fn used_after(cycle: &Cycle, node: &NodeInfo, name: &str) -> (i64, i64) {
    (node.nonzero.get(name) + cycle.pod.nonzero.get(name), node.allocatable.get(name))
}
