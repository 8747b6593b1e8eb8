//! Makes room for a pod by removing pods of lower priority, where that helps.
//!
//! On each node where it may help all lower pods are taken away; if the pod then fits, as many as possible are put back, highest
//! first. The cheapest node is chosen: the lowest highest victim, then the smallest sum of priorities, then the fewest victims,
//! then the victim that started last.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use crate::cache::Snapshot;
use crate::decide::{Unschedulable, fits};
use crate::info::{NodeInfo, PodInfo};
use crate::plugin::Cycle;

/// Outcome of a preemption attempt.
#[derive(Debug)]
pub enum Preemption {
    /// These pods are to be deleted, and the pod waits for this node.
    Victims { node: String, pods: Vec<Arc<PodInfo>> },
    /// Nothing helps; the text follows "preemption: " in the pod's condition.
    Nothing { message: String },
}

/// Looks for pods whose removal lets `pod` run, after `refusal` by all nodes.
pub fn preempt(pod: &PodInfo, snapshot: &Snapshot, refusal: &Unschedulable) -> Preemption {
    if pod.spec().and_then(|spec| spec.preemption_policy.as_deref()) == Some("Never") {
        return Preemption::Nothing { message: "not eligible due to preemptionPolicy=Never.".into() };
    }
    if waits_for_victims(pod, snapshot) {
        return Preemption::Nothing { message: "not eligible due to a terminating pod on the nominated node.".into() };
    }
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut candidates = Vec::new();
    for name in snapshot.nodes.keys() {
        let outcome = match snapshot.nodes.get(name).filter(|_| refusal.resolvable.contains(name)) {
            Some(node) => victims_on(pod, snapshot, node),
            None => Err(vec!["Preemption is not helpful for scheduling".to_string()]),
        };
        match outcome {
            Ok(victims) => candidates.push((name.clone(), victims)),
            Err(own) => {
                for reason in own {
                    *reasons.entry(reason).or_insert(0) += 1;
                }
            }
        }
    }
    match candidates.into_iter().min_by_key(|(name, victims)| (cost(victims), name.clone())) {
        Some((node, pods)) => Preemption::Victims { node, pods },
        None => Preemption::Nothing { message: Unschedulable::of_nodes(refusal.nodes(), reasons).message() },
    }
}

/// The pod has removed others before, and they are still leaving.
fn waits_for_victims(pod: &PodInfo, snapshot: &Snapshot) -> bool {
    let nominated = pod.pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref());
    let node = nominated.and_then(|name| snapshot.nodes.get(name));
    node.is_some_and(|node| {
        node.pods.iter().any(|other| {
            other.pod.metadata.deletion_timestamp.is_some()
                && other.priority() < pod.priority()
                && is_victim(&other.pod)
        })
    })
}

fn is_victim(pod: &k8s_openapi::api::core::v1::Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| {
        condition.type_ == "DisruptionTarget"
            && condition.status == "True"
            && condition.reason.as_deref() == Some("PreemptionByScheduler")
    })
}

fn victims_on(pod: &PodInfo, snapshot: &Snapshot, node: &Arc<NodeInfo>) -> Result<Vec<Arc<PodInfo>>, Vec<String>> {
    let mut lower: Vec<Arc<PodInfo>> =
        node.pods.iter().filter(|other| other.priority() < pod.priority()).cloned().collect();
    if lower.is_empty() {
        return Err(vec!["No preemption victims found for incoming pod".to_string()]);
    }
    let mut emptied = node.as_ref().clone();
    for victim in &lower {
        emptied.remove(victim.uid());
    }
    fits_with(pod, snapshot, &emptied)?;
    // Those most worth keeping are put back first.
    lower.sort_by_key(|victim| (Reverse(victim.priority()), started(victim)));
    let mut victims = Vec::new();
    for victim in lower {
        let mut tried = emptied.clone();
        tried.add(victim.clone());
        if fits_with(pod, snapshot, &tried).is_ok() {
            emptied = tried;
        } else {
            victims.push(victim);
        }
    }
    Ok(victims)
}

fn fits_with(pod: &PodInfo, snapshot: &Snapshot, node: &NodeInfo) -> Result<(), Vec<String>> {
    let mut changed = snapshot.clone();
    let node = Arc::new(node.clone());
    changed.nodes.insert(node.name().to_string(), node.clone());
    let cycle = Cycle::new(pod, &changed).map_err(|rejection| vec![rejection.message])?;
    fits(&cycle, &node).map_err(|(_, unfit)| unfit.reasons)
}

/// Orders candidates: less is better.
fn cost(victims: &[Arc<PodInfo>]) -> (i32, i64, usize, Reverse<Option<Timestamp>>) {
    let highest = victims.iter().map(|victim| victim.priority()).max().unwrap_or(i32::MIN);
    let sum = victims.iter().map(|victim| i64::from(victim.priority()) + i64::from(i32::MAX) + 1).sum();
    let earliest =
        victims.iter().filter(|victim| victim.priority() == highest).filter_map(|victim| started(victim)).min();
    (highest, sum, victims.len(), Reverse(earliest))
}

fn started(pod: &PodInfo) -> Option<Timestamp> {
    pod.pod.status.as_ref()?.start_time.as_ref().map(|time| time.0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::decide::{Decision, decide, test_pod, test_snapshot};

    fn running(name: &str, node: &str, cpu: &str, priority: i32) -> Value {
        json!({
            "metadata": {"name": name, "uid": name},
            "spec": {"nodeName": node, "priority": priority, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
        })
    }

    fn attempt(pod: Value, nodes: Value, pods: Value) -> (Unschedulable, Preemption) {
        let (pod, snapshot) = (test_pod(pod), test_snapshot(nodes, pods));
        match decide(&pod, &snapshot, None) {
            Decision::Unschedulable(refusal) => {
                let preemption = preempt(&pod, &snapshot, &refusal);
                (refusal, preemption)
            }
            Decision::Node { name, .. } => panic!("placed on {name}"),
        }
    }

    fn wants(cpu: &str, priority: i32) -> Value {
        json!({"metadata": {"name": "p", "uid": "p"}, "spec": {"priority": priority, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
    }

    #[test]
    fn the_fewest_and_lowest_pods_go() {
        let nodes = json!([{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]);
        let pods = json!([running("a1", "a", "2", 5), running("a2", "a", "2", 1), running("b1", "b", "4", 3)]);
        let (_, preemption) = attempt(wants("2", 10), nodes, pods);
        match preemption {
            Preemption::Victims { node, pods } => {
                let names: Vec<_> = pods.iter().map(|pod| pod.key.name.as_str()).collect();
                assert_eq!((node.as_str(), names), ("a", vec!["a2"]));
            }
            Preemption::Nothing { message } => panic!("{message}"),
        }
    }

    #[test]
    fn what_does_not_help_is_told_as_upstream_does() {
        let nodes = json!([{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}, "spec": {"unschedulable": true}}]);
        let (refusal, preemption) = attempt(wants("2", 0), nodes, json!([running("a1", "a", "3", 0)]));
        let Preemption::Nothing { message } = preemption else { panic!("victims") };
        assert_eq!(
            refusal.message_with(&message),
            "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable. no new claims to deallocate, preemption: 0/2 \
             nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling."
        );
        let mut never = wants("2", 10);
        never["spec"]["preemptionPolicy"] = json!("Never");
        let (_, preemption) = attempt(never, json!([{"metadata": {"name": "a"}}]), json!([running("a1", "a", "3", 0)]));
        assert!(
            matches!(preemption, Preemption::Nothing { message } if message == "not eligible due to preemptionPolicy=Never.")
        );
    }
}
