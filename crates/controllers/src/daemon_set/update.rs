//! One step of replacing pods of an earlier template: which go, and where a second one is started first.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use super::Plan;
use crate::deployment::scaled;
use crate::pod_control::count;
use crate::pods::{Availability, availability};
use crate::revisions::HASH_LABEL;

/// The living pods of one node.
#[derive(Default)]
pub(super) struct Pods<'a> {
    pub(super) new: Option<&'a Arc<Pod>>,
    pub(super) old: Option<&'a Arc<Pod>>,
    /// More than one of a template: all but the oldest.
    pub(super) surplus: Vec<&'a Arc<Pod>>,
}

impl<'a> Pods<'a> {
    pub(super) fn sort(pods: &[&'a Arc<Pod>], hash: &str) -> Self {
        let mut sorted = Self::default();
        let mut pods = pods.to_vec();
        pods.sort_by_key(|pod| (pod.metadata.creation_timestamp.as_ref().map(|time| time.0), pod.name_any()));
        for pod in pods {
            let is_new = pod.labels().get(HASH_LABEL).map(String::as_str) == Some(hash);
            let place = if is_new { &mut sorted.new } else { &mut sorted.old };
            match place {
                Some(_) => sorted.surplus.push(pod),
                None => *place = Some(pod),
            }
        }
        sorted
    }
}

/// A node's name, its pod of the new template, its pod of an earlier one, and whether one is on its way out.
pub(super) type OnNode = (String, Option<Arc<Pod>>, Option<Arc<Pod>>, bool);

pub(super) fn step(set: &DaemonSet, spec: &DaemonSetSpec, nodes: Vec<OnNode>, plan: &mut Plan, now: Timestamp) {
    let strategy = spec.update_strategy.as_ref();
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete")
        || set.metadata.deletion_timestamp.is_some()
    {
        return;
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let desired = count(nodes.len());
    let bound = |value: Option<&IntOrString>, default: i32| value.map_or(default, |value| scaled(value, desired, true));
    let surge = bound(rolling.and_then(|rolling| rolling.max_surge.as_ref()), 0);
    let unavailable = bound(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), i32::from(surge == 0));
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let serves = |pod: &Arc<Pod>| availability(pod, min_ready, now) == Availability::Available;
    if surge > 0 {
        replace_after(nodes, surge, plan, serves);
    } else {
        replace_before(nodes, unavailable, plan, serves);
    }
}

/// The old pod goes, then the new one comes.
fn replace_before(nodes: Vec<OnNode>, unavailable: i32, plan: &mut Plan, serves: impl Fn(&Arc<Pod>) -> bool) {
    let mut room = unavailable;
    let mut candidates = Vec::new();
    for (_, new, old, leaving) in nodes {
        match (new, old) {
            (Some(new), None) if serves(&new) => {}
            (None, Some(old)) if serves(&old) && !leaving => candidates.push(old),
            (None, Some(old)) => {
                room -= 1;
                plan.delete.push(old);
            }
            _ => room -= 1,
        }
    }
    plan.delete.extend(candidates.into_iter().take(usize::try_from(room).unwrap_or(0)));
}

/// The new pod comes and serves, then the old one goes.
fn replace_after(nodes: Vec<OnNode>, surge: i32, plan: &mut Plan, serves: impl Fn(&Arc<Pod>) -> bool) {
    let mut room = surge;
    let mut candidates = Vec::new();
    for (name, new, old, _) in nodes {
        match (new, old) {
            (Some(new), Some(old)) => {
                if serves(&new) {
                    plan.delete.push(old);
                } else {
                    room -= 1;
                }
            }
            // One that does not serve needs no second beside it.
            (None, Some(old)) if !serves(&old) => plan.delete.push(old),
            (None, Some(_)) => candidates.push(name),
            _ => {}
        }
    }
    plan.create.extend(candidates.into_iter().take(usize::try_from(room).unwrap_or(0)));
}
