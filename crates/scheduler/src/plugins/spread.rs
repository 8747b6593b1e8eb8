//! Spreads pods over zones, nodes or whatever a node label tells apart (`topologySpreadConstraints`).
//!
//! A pod without constraints is spread over nodes and zones among the pods of its own controller, as a preference.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use kminik_client::placement::{admits, untolerated};
use kube::core::Selector;

use crate::cache::Snapshot;
use crate::info::{NodeInfo, PodInfo, add_label_keys, matches};
use crate::plugin::{Cycle, Unfit};

struct Constraint {
    key: String,
    max_skew: i64,
    min_domains: usize,
    /// The pod is among those it counts.
    counts_itself: bool,
    /// Matching pods by value of the key, over the nodes that count.
    domains: BTreeMap<String, i64>,
}

#[derive(Default)]
pub(crate) struct State {
    hard: Vec<Constraint>,
    soft: Vec<Constraint>,
}

/// Which pods a constraint counts.
enum Counted {
    Selector(Option<Selector>),
    /// Those of the same controller.
    Siblings(String),
}

impl Counted {
    fn holds(&self, pod: &PodInfo, namespace: &str) -> bool {
        if pod.key.namespace != namespace || pod.pod.metadata.deletion_timestamp.is_some() {
            return false;
        }
        match self {
            Counted::Selector(selector) => selector.as_ref().is_some_and(|selector| matches(selector, &pod.pod)),
            Counted::Siblings(uid) => controller_uid(pod) == Some(uid),
        }
    }
}

pub(crate) fn prepare(pod: &PodInfo, snapshot: &Snapshot) -> State {
    let mut state = State::default();
    let constraints = pod.spec().and_then(|spec| spec.topology_spread_constraints.as_deref()).unwrap_or_default();
    for constraint in constraints {
        let mut selector = constraint.label_selector.clone();
        if let Some(selector) = &mut selector {
            add_label_keys(selector, constraint.match_label_keys.as_deref(), &pod.pod, "In");
        }
        let counted = Counted::Selector(selector.and_then(|selector| Selector::try_from(selector).ok()));
        let read = read(pod, snapshot, constraint, &counted);
        if constraint.when_unsatisfiable == "DoNotSchedule" { &mut state.hard } else { &mut state.soft }.push(read);
    }
    if constraints.is_empty()
        && let Some(uid) = controller_uid(pod)
    {
        let siblings = Counted::Siblings(uid.to_string());
        for (key, max_skew) in [("kubernetes.io/hostname", 3), ("topology.kubernetes.io/zone", 5)] {
            let constraint =
                TopologySpreadConstraint { topology_key: key.into(), max_skew, ..TopologySpreadConstraint::default() };
            state.soft.push(read(pod, snapshot, &constraint, &siblings));
        }
    }
    state
}

fn controller_uid(pod: &PodInfo) -> Option<&str> {
    let owners = pod.pod.metadata.owner_references.iter().flatten();
    owners.filter(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str()).next()
}

fn read(pod: &PodInfo, snapshot: &Snapshot, constraint: &TopologySpreadConstraint, counted: &Counted) -> Constraint {
    let mut domains = BTreeMap::new();
    for node in snapshot.nodes.values() {
        let Some(value) = node.label(&constraint.topology_key) else { continue };
        if !node_counts(pod, constraint, node) {
            continue;
        }
        let matching = node.pods.iter().filter(|other| counted.holds(other, &pod.key.namespace)).count();
        *domains.entry(value.to_string()).or_insert(0) += i64::try_from(matching).unwrap_or(i64::MAX);
    }
    Constraint {
        key: constraint.topology_key.clone(),
        max_skew: i64::from(constraint.max_skew),
        min_domains: usize::try_from(constraint.min_domains.unwrap_or(1)).unwrap_or(1),
        counts_itself: counted.holds(pod, &pod.key.namespace),
        domains,
    }
}

/// Whether the pods of a node count: as the constraint says, only nodes the pod may be on.
fn node_counts(pod: &PodInfo, constraint: &TopologySpreadConstraint, node: &NodeInfo) -> bool {
    let Some(spec) = pod.spec() else { return true };
    let honor_affinity = constraint.node_affinity_policy.as_deref() != Some("Ignore");
    let honor_taints = constraint.node_taints_policy.as_deref() == Some("Honor");
    (!honor_affinity || admits(spec, &node.node))
        && (!honor_taints || untolerated(spec, &node.node, &["NoSchedule", "NoExecute"]).is_none())
}

pub(crate) fn filter(cycle: &Cycle, node: &NodeInfo) -> Result<(), Unfit> {
    for constraint in &cycle.spread.hard {
        let Some(value) = node.label(&constraint.key) else {
            return Err(Unfit::unresolvable(
                "node(s) didn't match pod topology spread constraints (missing required label)",
            ));
        };
        let least = if constraint.domains.len() < constraint.min_domains {
            0
        } else {
            constraint.domains.values().copied().min().unwrap_or(0)
        };
        let here = constraint.domains.get(value).copied().unwrap_or(0);
        if here + i64::from(constraint.counts_itself) - least > constraint.max_skew {
            return Err(Unfit::resolvable("node(s) didn't match pod topology spread constraints"));
        }
    }
    Ok(())
}

pub(crate) fn score(cycle: &Cycle, node: &NodeInfo) -> i64 {
    let mut score = 0.0;
    for constraint in &cycle.spread.soft {
        if let Some(value) = node.label(&constraint.key) {
            let here = constraint.domains.get(value).copied().unwrap_or(0);
            let domains: BTreeSet<_> = constraint.domains.keys().collect();
            // Few domains hold many pods each: their counts weigh less.
            let weight = ((domains.len() + 2) as f64).ln();
            score += here as f64 * weight + (constraint.max_skew - 1) as f64;
        }
    }
    score.round() as i64
}
