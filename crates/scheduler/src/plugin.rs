//! The table of plugins: each filters nodes, scores them, or both, and says which events may help a pod it rejected.

use crate::cache::Snapshot;
use crate::info::{NodeInfo, PodInfo};
use crate::plugins::{affinity, image, node, resources, spread, volumes};

/// Highest score a plugin gives a node, before its weight.
pub(crate) const MAX_SCORE: i64 = 100;

/// Kinds of events, as bits.
pub(crate) type Events = u16;
pub(crate) const NODE_ADD: Events = 1;
/// Allocatable resources, labels, taints, or whether the node is schedulable.
pub(crate) const NODE_UPDATE: Events = 1 << 1;
/// A pod was given a node, or the labels of one that has a node changed.
pub(crate) const POD_ADD: Events = 1 << 2;
/// A pod has left its node.
pub(crate) const POD_DELETE: Events = 1 << 3;
pub(crate) const CLAIM: Events = 1 << 4;
pub(crate) const VOLUME: Events = 1 << 5;
pub(crate) const CLASS: Events = 1 << 6;
pub(crate) const ALL_EVENTS: [Events; 7] = [NODE_ADD, NODE_UPDATE, POD_ADD, POD_DELETE, CLAIM, VOLUME, CLASS];

/// Why a node does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unfit {
    /// In upstream's words; each is counted over all nodes.
    pub(crate) reasons: Vec<String>,
    /// Removing pods from the node would not help.
    pub(crate) unresolvable: bool,
}

impl Unfit {
    /// A reason that may go away when pods leave the node.
    pub(crate) fn resolvable(reason: &str) -> Self {
        Self { reasons: vec![reason.to_string()], unresolvable: false }
    }

    /// A reason that stays whatever runs on the node.
    pub(crate) fn unresolvable(reason: &str) -> Self {
        Self { reasons: vec![reason.to_string()], unresolvable: true }
    }
}

/// A pod that no node can take, found out before looking at nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) plugin: &'static str,
    pub(crate) message: String,
}

/// A pod, what it is decided on, and what plugins computed once for all nodes.
pub(crate) struct Cycle<'a> {
    pub(crate) pod: &'a PodInfo,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) affinity: affinity::State,
    pub(crate) spread: spread::State,
    pub(crate) volumes: volumes::State,
}

impl<'a> Cycle<'a> {
    pub(crate) fn new(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Result<Self, Rejection> {
        Ok(Self {
            volumes: volumes::prepare(pod, snapshot)?,
            affinity: affinity::prepare(pod, snapshot),
            spread: spread::prepare(pod, snapshot),
            pod,
            snapshot,
        })
    }
}

/// How raw scores become 0 to [`MAX_SCORE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Normalize {
    /// They are already.
    Done,
    /// In proportion to the highest.
    ByMax,
    /// In proportion to the highest, low being good.
    ByMaxReversed,
    /// The lowest is 0, the highest is the maximum.
    MinMax,
    /// Low is good, relative to the highest and the lowest; all zero is best.
    FewestFirst,
}

pub(crate) struct Score {
    pub(crate) weight: i64,
    pub(crate) of: fn(&Cycle, &NodeInfo) -> i64,
    pub(crate) normalize: Normalize,
}

/// Whether a pod may be on a node.
pub(crate) type Filter = fn(&Cycle, &NodeInfo) -> Result<(), Unfit>;

pub(crate) struct Plugin {
    /// Upstream's name.
    pub(crate) name: &'static str,
    pub(crate) filter: Option<Filter>,
    pub(crate) score: Option<Score>,
    /// Events after which a pod that this plugin rejected is tried again.
    pub(crate) wakes: Events,
}

const fn score(weight: i64, of: fn(&Cycle, &NodeInfo) -> i64, normalize: Normalize) -> Option<Score> {
    Some(Score { weight, of, normalize })
}

const NODE: Events = NODE_ADD | NODE_UPDATE;

/// In the order in which filters run: the first that rejects a node gives its reason. Weights are those of upstream's default profile.
pub(crate) static PLUGINS: &[Plugin] = &[
    Plugin { name: "NodeUnschedulable", filter: Some(node::unschedulable), score: None, wakes: NODE },
    Plugin { name: "NodeName", filter: Some(node::name), score: None, wakes: NODE },
    Plugin {
        name: "TaintToleration",
        filter: Some(node::taints),
        score: score(3, node::taint_score, Normalize::ByMaxReversed),
        wakes: NODE,
    },
    Plugin {
        name: "NodeAffinity",
        filter: Some(node::affinity),
        score: score(2, node::affinity_score, Normalize::ByMax),
        wakes: NODE,
    },
    Plugin { name: "NodePorts", filter: Some(node::ports), score: None, wakes: NODE | POD_DELETE },
    Plugin {
        name: "NodeResourcesFit",
        filter: Some(resources::fit),
        score: score(1, resources::least_allocated, Normalize::Done),
        wakes: NODE | POD_DELETE,
    },
    Plugin {
        name: "VolumeRestrictions",
        filter: Some(volumes::restrictions),
        score: None,
        wakes: NODE_ADD | POD_DELETE | CLAIM,
    },
    Plugin { name: "VolumeBinding", filter: Some(volumes::binding), score: None, wakes: NODE | CLAIM | VOLUME | CLASS },
    Plugin {
        name: "PodTopologySpread",
        filter: Some(spread::filter),
        score: score(2, spread::score, Normalize::FewestFirst),
        wakes: NODE | POD_ADD | POD_DELETE,
    },
    Plugin {
        name: "InterPodAffinity",
        filter: Some(affinity::filter),
        score: score(2, affinity::score, Normalize::MinMax),
        wakes: NODE | POD_ADD | POD_DELETE,
    },
    Plugin {
        name: "NodeResourcesBalancedAllocation",
        filter: None,
        score: score(1, resources::balanced, Normalize::Done),
        wakes: 0,
    },
    Plugin { name: "ImageLocality", filter: None, score: score(1, image::score, Normalize::Done), wakes: 0 },
];

/// Events after which pods rejected by these plugins are tried again.
pub(crate) fn wakes(rejected_by: &[&str]) -> Events {
    PLUGINS.iter().filter(|plugin| rejected_by.contains(&plugin.name)).fold(0, |bits, plugin| bits | plugin.wakes)
}

/// Brings one plugin's raw scores, one a node, into 0 to [`MAX_SCORE`].
pub(crate) fn normalize(scores: &mut [i64], how: Normalize) {
    let max = scores.iter().copied().max().unwrap_or(0);
    let min = scores.iter().copied().min().unwrap_or(0);
    for score in scores {
        *score = match how {
            Normalize::Done => *score,
            Normalize::ByMax if max == 0 => 0,
            Normalize::ByMax => *score * MAX_SCORE / max,
            Normalize::ByMaxReversed if max == 0 => MAX_SCORE,
            Normalize::ByMaxReversed => MAX_SCORE - *score * MAX_SCORE / max,
            Normalize::MinMax if max == min => 0,
            Normalize::MinMax => (*score - min) * MAX_SCORE / (max - min),
            Normalize::FewestFirst if max == 0 => MAX_SCORE,
            Normalize::FewestFirst => MAX_SCORE * (max + min - *score) / max,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn rows_are_unique_and_do_something() {
        let names: BTreeSet<_> = PLUGINS.iter().map(|plugin| plugin.name).collect();
        assert_eq!(names.len(), PLUGINS.len());
        for plugin in PLUGINS {
            assert!(plugin.filter.is_some() || plugin.score.is_some(), "{}", plugin.name);
            assert_eq!(plugin.filter.is_some(), plugin.wakes != 0, "{} rejects, so it must wake", plugin.name);
        }
    }

    #[test]
    fn scores_are_brought_into_range() {
        let after = |mut scores: Vec<i64>, how| {
            normalize(&mut scores, how);
            scores
        };
        assert_eq!(after(vec![0, 5, 10], Normalize::ByMax), [0, 50, 100]);
        assert_eq!(after(vec![0, 5, 10], Normalize::ByMaxReversed), [100, 50, 0]);
        assert_eq!(after(vec![-10, 0, 10], Normalize::MinMax), [0, 50, 100]);
        assert_eq!(after(vec![1, 3], Normalize::FewestFirst), [100, 33]);
        assert_eq!(after(vec![0, 0], Normalize::ByMax), [0, 0]);
    }
}
