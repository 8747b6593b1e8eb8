//! Pods that must or would rather be near to, or apart from, other pods.
//!
//! Near is the same value of a node label (the topology key). What pods ask of each other is counted once over all nodes, by
//! (key, value); a node is then looked up by its labels.

use std::collections::HashMap;

use crate::cache::Snapshot;
use crate::info::{AffinityTerm, NodeInfo, PodInfo};
use crate::plugin::{Cycle, Unfit};

/// Counts by topology key and value.
type Counts = HashMap<(String, String), i64>;

#[derive(Default)]
pub(crate) struct State {
    /// Existing pods whose required anti-affinity the pod would break.
    repelled: Counts,
    /// Existing pods that satisfy all of the pod's required affinity terms.
    attracted: Counts,
    /// Existing pods that the pod's required anti-affinity selects.
    avoided: Counts,
    /// The pod satisfies its own affinity terms, so that the first of a group may start it.
    first_of_group: bool,
    preference: Counts,
}

pub(crate) fn prepare(pod: &PodInfo, snapshot: &Snapshot) -> State {
    let mut state = State::default();
    let namespaces = &snapshot.namespaces;
    for node in snapshot.nodes.values() {
        for other in &node.pods {
            for term in &other.required_anti_affinity {
                if term.selects(&pod.pod, namespaces) {
                    count(&mut state.repelled, node, term, 1);
                }
            }
            let terms = &pod.required_affinity;
            if !terms.is_empty() && terms.iter().all(|term| term.selects(&other.pod, namespaces)) {
                for term in terms {
                    count(&mut state.attracted, node, term, 1);
                }
            }
            for term in &pod.required_anti_affinity {
                if term.selects(&other.pod, namespaces) {
                    count(&mut state.avoided, node, term, 1);
                }
            }
            // Preferences hold both ways: of the pod about others, and of others about the pod.
            for (owner, about) in [(pod, other.as_ref()), (other.as_ref(), pod)] {
                for term in owner.preferred_affinity.iter().filter(|term| term.selects(&about.pod, namespaces)) {
                    count(&mut state.preference, node, term, term.weight);
                }
                for term in owner.preferred_anti_affinity.iter().filter(|term| term.selects(&about.pod, namespaces)) {
                    count(&mut state.preference, node, term, -term.weight);
                }
            }
            for term in other.required_affinity.iter().filter(|term| term.selects(&pod.pod, namespaces)) {
                count(&mut state.preference, node, term, 1);
            }
        }
    }
    state.first_of_group = pod.required_affinity.iter().all(|term| term.selects(&pod.pod, namespaces));
    state
}

fn count(counts: &mut Counts, node: &NodeInfo, term: &AffinityTerm, by: i64) {
    if let Some(value) = node.label(&term.topology_key) {
        *counts.entry((term.topology_key.clone(), value.to_string())).or_insert(0) += by;
    }
}

fn near(counts: &Counts, node: &NodeInfo, key: &str) -> i64 {
    if counts.is_empty() {
        return 0;
    }
    let value = node.label(key).map(str::to_string);
    value.and_then(|value| counts.get(&(key.to_string(), value)).copied()).unwrap_or(0)
}

pub(crate) fn filter(cycle: &Cycle, node: &NodeInfo) -> Result<(), Unfit> {
    let state = &cycle.affinity;
    let terms = &cycle.pod.required_affinity;
    if !terms.is_empty() {
        if terms.iter().any(|term| node.label(&term.topology_key).is_none()) {
            return Err(Unfit::unresolvable("node(s) didn't match pod affinity rules"));
        }
        // Where nothing matches anywhere, a pod that matches its own terms may be the first.
        let may_start = state.attracted.is_empty() && state.first_of_group;
        if !may_start && terms.iter().any(|term| near(&state.attracted, node, &term.topology_key) == 0) {
            return Err(Unfit::unresolvable("node(s) didn't match pod affinity rules"));
        }
    }
    if cycle.pod.required_anti_affinity.iter().any(|term| near(&state.avoided, node, &term.topology_key) > 0) {
        return Err(Unfit::resolvable("node(s) didn't match pod anti-affinity rules"));
    }
    let repelled = state.repelled.iter().any(|((key, value), count)| *count > 0 && node.label(key) == Some(value));
    if repelled {
        return Err(Unfit::resolvable("node(s) didn't satisfy existing pods anti-affinity rules"));
    }
    Ok(())
}

pub(crate) fn score(cycle: &Cycle, node: &NodeInfo) -> i64 {
    let counts = cycle.affinity.preference.iter();
    counts.filter(|((key, value), _)| node.label(key) == Some(value)).map(|(_, weight)| weight).sum()
}
