//! The decision: which node a pod gets, or why none.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cache::Snapshot;
use crate::info::{NodeInfo, PodInfo};
use crate::plugin::{Cycle, PLUGINS, Unfit, normalize};
use crate::plugins::volumes::{Bindings, plan};

/// What became of a pod.
#[derive(Debug)]
pub enum Decision {
    /// It fits here best; its claims are to be bound so.
    Node {
        name: String,
        bindings: Bindings,
    },
    Unschedulable(Unschedulable),
}

/// Why no node takes a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unschedulable {
    nodes: usize,
    /// Said before any node was looked at.
    rejection: Option<String>,
    /// How many nodes gave each reason.
    reasons: BTreeMap<String, usize>,
    /// Nodes on which removing pods could help.
    pub(crate) resolvable: Vec<String>,
    /// The plugins that rejected it.
    pub rejected_by: Vec<&'static str>,
}

impl Unschedulable {
    /// Upstream's text: how many nodes there are, and how many have which reason, sorted.
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".into();
        }
        let mut message = format!("0/{} nodes are available:", self.nodes);
        match &self.rejection {
            Some(rejection) => message.push_str(&format!(" {rejection}.")),
            None => {
                let mut reasons: Vec<String> =
                    self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
                reasons.sort();
                if !reasons.is_empty() {
                    message.push_str(&format!(" {}.", reasons.join(", ")));
                }
            }
        }
        message
    }

    /// [`Self::message`] with what preemption found, as the pod's condition and event say it.
    pub fn message_with(&self, preemption: &str) -> String {
        if self.nodes == 0 {
            return self.message();
        }
        format!("{} no new claims to deallocate, preemption: {preemption}", self.message())
    }

    /// Text of a rejection for the reasons given by nodes that preemption looked at.
    pub(crate) fn of_nodes(nodes: usize, reasons: BTreeMap<String, usize>) -> Self {
        Self { nodes, reasons, ..Self::default() }
    }

    pub(crate) fn nodes(&self) -> usize {
        self.nodes
    }
}

/// Chooses a node for `pod`. `nominated` is tried first, if it still fits: a pod has made room for itself there.
pub fn decide(pod: &PodInfo, snapshot: &Snapshot, nominated: Option<&str>) -> Decision {
    let mut refusal = Unschedulable { nodes: snapshot.nodes.len(), ..Unschedulable::default() };
    let cycle = match Cycle::new(pod, snapshot) {
        Ok(cycle) => cycle,
        Err(rejection) => {
            refusal.rejected_by.push(rejection.plugin);
            refusal.rejection = Some(rejection.message);
            return Decision::Unschedulable(refusal);
        }
    };
    if let Some(node) = nominated.and_then(|name| snapshot.nodes.get(name))
        && fits(&cycle, node).is_ok()
    {
        return placed(&cycle, node);
    }
    let mut feasible: Vec<&Arc<NodeInfo>> = Vec::new();
    for (name, node) in &snapshot.nodes {
        match fits(&cycle, node) {
            Ok(()) => feasible.push(node),
            Err((plugin, unfit)) => {
                if !unfit.unresolvable {
                    refusal.resolvable.push(name.clone());
                }
                for reason in unfit.reasons {
                    *refusal.reasons.entry(reason).or_insert(0) += 1;
                }
                if !refusal.rejected_by.contains(&plugin) {
                    refusal.rejected_by.push(plugin);
                }
            }
        }
    }
    match best(&cycle, &feasible) {
        Some(node) => placed(&cycle, node),
        None => Decision::Unschedulable(refusal),
    }
}

fn placed(cycle: &Cycle, node: &NodeInfo) -> Decision {
    // The filter has planned the same, so an error cannot come.
    Decision::Node { name: node.name().to_string(), bindings: plan(cycle, node).unwrap_or_default() }
}

/// Runs the filters; the first that rejects the node speaks.
pub(crate) fn fits(cycle: &Cycle, node: &NodeInfo) -> Result<(), (&'static str, Unfit)> {
    for plugin in PLUGINS {
        if let Some(filter) = plugin.filter {
            filter(cycle, node).map_err(|unfit| (plugin.name, unfit))?;
        }
    }
    Ok(())
}

/// The node with the highest weighted score; among equals one picked by the pod's uid, so that pods spread.
fn best<'a>(cycle: &Cycle, nodes: &[&'a Arc<NodeInfo>]) -> Option<&'a Arc<NodeInfo>> {
    if nodes.len() <= 1 {
        return nodes.first().copied();
    }
    let mut totals = vec![0i64; nodes.len()];
    for plugin in PLUGINS {
        let Some(score) = &plugin.score else { continue };
        let mut scores: Vec<i64> = nodes.iter().map(|node| (score.of)(cycle, node)).collect();
        normalize(&mut scores, score.normalize);
        for (total, score_here) in totals.iter_mut().zip(scores) {
            *total += score_here * score.weight;
        }
    }
    let best = totals.iter().copied().max()?;
    let equals: Vec<_> = nodes.iter().zip(totals).filter(|(_, total)| *total == best).map(|(node, _)| *node).collect();
    let seed: usize =
        cycle.pod.uid().bytes().map(usize::from).fold(0, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
    equals.get(seed % equals.len().max(1)).copied()
}

#[cfg(test)]
pub(crate) use tests::{pod as test_pod, snapshot as test_snapshot};

#[cfg(test)]
mod tests {
    use kminik_client::ObjectKey;
    use serde_json::{Value, json};

    use super::*;
    use crate::cache::Volumes;

    pub(crate) fn snapshot(nodes: Value, pods: Value) -> Snapshot {
        let mut infos = BTreeMap::new();
        for node in nodes.as_array().unwrap() {
            let mut node = node.clone();
            let name = node["metadata"]["name"].as_str().unwrap().to_string();
            node["metadata"]["labels"]["kubernetes.io/hostname"] = json!(name);
            let mut allocatable = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
            if let Some(given) = node["status"]["allocatable"].as_object() {
                for (name, amount) in given {
                    allocatable[name] = amount.clone();
                }
            }
            node["status"]["allocatable"] = allocatable;
            infos.insert(name, NodeInfo::new(Arc::new(serde_json::from_value(node).unwrap())));
        }
        for value in pods.as_array().unwrap() {
            let info = pod(value.clone());
            let node = info.spec().unwrap().node_name.clone().unwrap();
            infos.get_mut(&node).unwrap().add(Arc::new(info));
        }
        Snapshot {
            nodes: infos.into_iter().map(|(name, info)| (name, Arc::new(info))).collect(),
            ..Snapshot::default()
        }
    }

    pub(crate) fn pod(mut value: Value) -> PodInfo {
        if value["spec"]["containers"].is_null() {
            value["spec"]["containers"] = json!([{"name": "c"}]);
        }
        if value["metadata"]["namespace"].is_null() {
            value["metadata"]["namespace"] = json!("default");
        }
        PodInfo::new(Arc::new(serde_json::from_value(value).unwrap()))
    }

    fn asks(amounts: Value) -> Value {
        json!({"metadata": {"name": "p", "uid": "p"}, "spec": {"containers": [{"name": "c", "resources": {"requests": amounts}}]}})
    }

    fn chosen(value: Value, snapshot: &Snapshot) -> String {
        match decide(&pod(value), snapshot, None) {
            Decision::Node { name, .. } => name,
            Decision::Unschedulable(refusal) => panic!("{}", refusal.message()),
        }
    }

    fn refused(value: Value, snapshot: &Snapshot) -> Unschedulable {
        match decide(&pod(value), snapshot, None) {
            Decision::Node { name, .. } => panic!("placed on {name}"),
            Decision::Unschedulable(refusal) => refusal,
        }
    }

    #[test]
    fn reasons_are_counted_and_sorted_as_upstream_says_them() {
        let nodes = json!([
            {"metadata": {"name": "a"}, "status": {"allocatable": {"cpu": "1"}}},
            {"metadata": {"name": "b"}, "spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}},
            {"metadata": {"name": "c"}, "status": {"allocatable": {"cpu": "1", "memory": "1Mi"}}},
        ]);
        let refusal = refused(asks(json!({"cpu": "2", "memory": "1Gi"})), &snapshot(nodes, json!([])));
        assert_eq!(
            refusal.message(),
            "0/3 nodes are available: 1 Insufficient memory, 1 node(s) had untolerated taint(s), 2 Insufficient cpu."
        );
        assert_eq!(refusal.rejected_by, ["NodeResourcesFit", "TaintToleration"]);
        assert!(refusal.resolvable.is_empty(), "no node is large enough even when empty");
        let none = refused(asks(json!({})), &snapshot(json!([]), json!([])));
        assert_eq!(none.message_with("x"), "no nodes available to schedule pods");
    }

    #[test]
    fn the_emptier_node_is_preferred() {
        let nodes = json!([{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]);
        let pods = json!([{
            "metadata": {"name": "x", "uid": "x"},
            "spec": {"nodeName": "a", "containers": [{"name": "c", "resources": {"requests": {"cpu": "2", "memory": "4Gi"}}}]},
        }]);
        assert_eq!(chosen(asks(json!({"cpu": "1"})), &snapshot(nodes, pods)), "b");
    }

    #[test]
    fn anti_affinity_holds_both_ways() {
        let term = json!({"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "kubernetes.io/hostname"});
        let apart = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
        let nodes = json!([{"metadata": {"name": "a"}}]);
        let with = |affinity: Value| json!({"metadata": {"name": "p", "uid": "p", "labels": {"app": "x"}}, "spec": {"affinity": affinity}});
        let existing = |affinity: Value| json!([{"metadata": {"name": "e", "uid": "e", "labels": {"app": "x"}}, "spec": {"nodeName": "a", "affinity": affinity}}]);
        let refusal = refused(with(apart.clone()), &snapshot(nodes.clone(), existing(json!({}))));
        assert_eq!(refusal.message(), "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules.");
        let refusal = refused(with(json!({})), &snapshot(nodes.clone(), existing(apart.clone())));
        assert_eq!(
            refusal.message(),
            "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules."
        );
        assert_eq!(chosen(with(apart), &snapshot(nodes, json!([]))), "a");
    }

    #[test]
    fn affinity_lets_the_first_of_a_group_start() {
        let term = json!({"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "kubernetes.io/hostname"});
        let near = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
        let nodes = json!([{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]);
        let of = |app: &str| json!({"metadata": {"name": "p", "uid": "p", "labels": {"app": app}}, "spec": {"affinity": near}});
        chosen(of("x"), &snapshot(nodes.clone(), json!([])));
        let refusal = refused(of("y"), &snapshot(nodes.clone(), json!([])));
        assert_eq!(refusal.message(), "0/2 nodes are available: 2 node(s) didn't match pod affinity rules.");
        let existing =
            json!([{"metadata": {"name": "e", "uid": "e", "labels": {"app": "x"}}, "spec": {"nodeName": "b"}}]);
        assert_eq!(chosen(of("y"), &snapshot(nodes, existing)), "b");
    }

    #[test]
    fn hard_spread_keeps_the_skew() {
        let nodes = json!([{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]);
        let existing =
            json!([{"metadata": {"name": "e", "uid": "e", "labels": {"app": "x"}}, "spec": {"nodeName": "a"}}]);
        let spread = json!([{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "x"}},
        }]);
        let value = json!({
            "metadata": {"name": "p", "uid": "p", "labels": {"app": "x"}}, "spec": {"topologySpreadConstraints": spread},
        });
        assert_eq!(chosen(value.clone(), &snapshot(nodes.clone(), existing.clone())), "b");
        let mut closed = nodes;
        closed[1]["spec"]["unschedulable"] = json!(true);
        let refusal = refused(value, &snapshot(closed, existing));
        assert_eq!(
            refusal.message(),
            "0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) were unschedulable."
        );
    }

    #[test]
    fn claims_bind_pods_to_nodes() {
        let claim = |name: &str, class: &str, volume: Option<&str>| {
            let annotations = volume.map(|_| json!({"pv.kubernetes.io/bind-completed": "yes"})).unwrap_or(json!({}));
            let value = json!({
                "metadata": {"name": name, "namespace": "default", "annotations": annotations},
                "spec": {"storageClassName": class, "volumeName": volume, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
            });
            (ObjectKey::new("default", name), Arc::new(serde_json::from_value(value).unwrap()))
        };
        let class = |name: &str, mode: &str| {
            let value = json!({"metadata": {"name": name}, "provisioner": "p", "volumeBindingMode": mode});
            (name.to_string(), Arc::new(serde_json::from_value(value).unwrap()))
        };
        let volume = json!({
            "metadata": {"name": "v"},
            "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": ["b"]}]}]}}},
        });
        let mut all = snapshot(json!([{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]), json!([]));
        all.volumes = Arc::new(Volumes {
            claims: [claim("bound", "late", Some("v")), claim("late", "late", None), claim("now", "now", None)].into(),
            volumes: [("v".to_string(), Arc::new(serde_json::from_value(volume).unwrap()))].into(),
            classes: [class("late", "WaitForFirstConsumer"), class("now", "Immediate")].into(),
            promised: Default::default(),
        });
        let mounts = |claim: &str| json!({"metadata": {"name": "p", "uid": "p"}, "spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]}});
        assert_eq!(chosen(mounts("bound"), &all), "b");
        match decide(&pod(mounts("late")), &all, Some("a")) {
            Decision::Node { name, bindings } => {
                assert_eq!(name, "a");
                assert_eq!(bindings.provision, [ObjectKey::new("default", "late")]);
            }
            Decision::Unschedulable(refusal) => panic!("{}", refusal.message()),
        }
        assert_eq!(
            refused(mounts("now"), &all).message(),
            "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims."
        );
        assert_eq!(
            refused(mounts("absent"), &all).message(),
            "0/2 nodes are available: persistentvolumeclaim \"absent\" not found."
        );
    }
}
