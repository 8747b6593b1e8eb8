//! Watches over nodes: which have stopped reporting, and what that and their other conditions mean for pods, as taints.
//!
//! A node reports by renewing its Lease (and by its status). What counts is when a renewal was *seen here*, not the time written in it: so a
//! clock that differs, or a control plane that was down itself, makes no node look lost. A node not heard of for the grace period
//! becomes `Unknown`. Not ready and unknown nodes get `NoExecute` taints, by which [`crate::taint_eviction`] removes pods; conditions that
//! only warn keep new pods away.

use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, ObjectReference, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kminik_client::{EventType, Informer, Next, ObjectKey, Recorder, Selection, WorkQueue, reference};
use kube::api::Patch;
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use crate::context::Context;
use crate::error::Error;
use crate::pods::{condition, node_of};

const LEASES: &str = "kube-node-lease";
const BY_NODE: &str = "node";
/// Conditions that a node which stopped reporting no longer vouches for.
const REPORTED: &[&str] = &["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
/// Taints that this controller adds and removes: key and effect.
const OWN: &[(&str, &str)] = &[
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/not-ready", "NoSchedule"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/network-unavailable", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

struct Controller {
    context: Context,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    /// When a sign of life of each node was last seen here.
    heard: Arc<Mutex<HashMap<String, Instant>>>,
    /// The nodes that there are, told of when they came.
    known: Mutex<HashMap<String, ObjectReference>>,
    /// Speaks as upstream's controllers of nodes do, by one name.
    recorder: Recorder,
}

pub(crate) async fn run(context: Context) -> Result<(), Error> {
    let controller = Arc::new(Controller {
        nodes: context.informers.get(),
        pods: context.informers.get(),
        heard: Arc::default(),
        known: Mutex::default(),
        recorder: Recorder::new(context.client.clone(), "node-controller", "", context.stop.clone()),
        context: context.clone(),
    });
    let leases = context.informers.get_with::<Lease>(Selection::namespace(LEASES));
    index_by_node(&controller.pods);
    let queue = WorkQueue::new();
    let (by_lease, by_status) = (controller.heard.clone(), controller.heard.clone());
    let changed = queue.clone();
    let _subscriptions = [
        controller.nodes.subscribe(move |change| {
            let node = change.object();
            let heartbeat = |node: &Node| of_kind(node, "Ready").and_then(|ready| ready.last_heartbeat_time.clone());
            // Our own writes of `Unknown` leave the heartbeat as it was. Another node of that name has a time of its own.
            let another = |old: &Node| old.metadata.uid != node.metadata.uid || heartbeat(old) != heartbeat(node);
            if change.old().is_none_or(|old| another(old)) {
                by_status.lock().insert(node.metadata.name.clone().unwrap_or_default(), Instant::now());
            }
            changed.add(ObjectKey::of(node.as_ref()));
        }),
        leases.subscribe(move |change| {
            if !matches!(change, kminik_client::Change::Deleted(_)) {
                let name = change.object().metadata.name.clone().unwrap_or_default();
                by_lease.lock().insert(name, Instant::now());
            }
        }),
    ];
    let synced =
        [controller.nodes.wait_synced().boxed(), controller.pods.wait_synced().boxed(), leases.wait_synced().boxed()];
    let worker = controller.clone();
    context.work(queue, 2, synced, move |key| reconcile(worker.clone(), key)).await
}

/// Makes `pods.by_index("node", name)` give the pods of a node.
pub(crate) fn index_by_node(pods: &Informer<Pod>) {
    pods.add_index(BY_NODE, |pod| Some(node_of(pod).to_string()).filter(|node| !node.is_empty()).into_iter().collect());
}

/// The pods of a node; needs [`index_by_node`].
pub(crate) fn pods_on(pods: &Informer<Pod>, node: &str) -> Vec<Arc<Pod>> {
    pods.by_index(BY_NODE, node)
}

fn of_kind<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

async fn reconcile(controller: Arc<Controller>, key: ObjectKey) -> Result<Next, Error> {
    let Controller { context, nodes, heard, .. } = controller.as_ref();
    let Some(node) = nodes.get(&key) else {
        heard.lock().remove(&key.name);
        if let Some(gone) = controller.known.lock().remove(&key.name) {
            controller.tell(gone, "RemovingNode", &format!("Removing Node {} from Controller", key.name));
        }
        return Ok(Next::Done);
    };
    let about = reference(node.as_ref());
    let before = controller.known.lock().insert(key.name.clone(), about.clone());
    // Made anew under its name before this looked, it is another node.
    if let Some(gone) = before.as_ref().filter(|before| before.uid != about.uid) {
        controller.tell(gone.clone(), "RemovingNode", &format!("Removing Node {} from Controller", key.name));
    }
    if before.is_none_or(|before| before.uid != about.uid) {
        controller.tell(about, "RegisteredNode", &format!("Registered Node {} in Controller", key.name));
    }
    let last = heard.lock().get(&key.name).copied().unwrap_or_else(Instant::now);
    let left = context.config.node_grace.checked_sub(last.elapsed()).filter(|left| !left.is_zero());
    let mut current = node.as_ref().clone();
    if left.is_none() && of_kind(&node, "Ready").is_none_or(|ready| ready.status != "Unknown") {
        current = controller.mark_unknown(&key, &node).await?;
    }
    controller.set_taints(&key, &current).await?;
    if of_kind(&current, "Ready").is_some_and(|ready| ready.status != "True") {
        controller.mark_pods_not_ready(&key).await?;
    }
    Ok(left.map_or(Next::Done, Next::After))
}

impl Controller {
    fn tell(&self, about: ObjectReference, reason: &str, what: &str) {
        let name = about.name.clone().unwrap_or_default();
        self.recorder.event(about, EventType::Normal, reason, format!("Node {name} event: {what}"));
    }

    async fn mark_unknown(&self, key: &ObjectKey, node: &Node) -> Result<Node, Error> {
        let mut updated = node.clone();
        let now = Time(Timestamp::now());
        let conditions = updated.status.get_or_insert_default().conditions.get_or_insert_default();
        for kind in REPORTED {
            let (reason, message) = match conditions.iter().any(|own| own.type_ == *kind) {
                true => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
                false => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
            };
            let position = conditions.iter().position(|own| own.type_ == *kind);
            let before = position.map(|at| conditions.remove(at));
            conditions.push(NodeCondition {
                type_: (*kind).into(),
                status: "Unknown".into(),
                reason: Some(reason.into()),
                message: Some(message.into()),
                last_heartbeat_time: before.as_ref().and_then(|before| before.last_heartbeat_time.clone()),
                last_transition_time: match before {
                    Some(before) if before.status == "Unknown" => before.last_transition_time,
                    _ => Some(now.clone()),
                },
            });
        }
        // Conditions are merged by type: whatever the node itself writes meanwhile is not undone.
        let conditions = updated.status.as_ref().and_then(|status| status.conditions.as_ref());
        let own: Vec<_> =
            conditions.into_iter().flatten().filter(|own| REPORTED.contains(&own.type_.as_str())).collect();
        let patch = json!({"metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version}, "status": {"conditions": own}});
        let patched = self.context.patch(key, &self.nodes, key, Some("status"), &Patch::Strategic(patch)).await?;
        let message = format!("Node {} status is now: NodeNotReady", key.name);
        self.recorder.normal(node, "NodeNotReady", message);
        tracing::warn!(node = key.name, "node stopped reporting");
        Ok(patched)
    }

    async fn set_taints(&self, key: &ObjectKey, node: &Node) -> Result<(), Error> {
        let current = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
        let taints = taints(node, &current, Timestamp::now());
        if taints == current {
            return Ok(());
        }
        let mut updated = node.clone();
        updated.spec.get_or_insert_default().taints = Some(taints).filter(|taints| !taints.is_empty());
        self.context.update(key, &self.nodes, node, &updated).await.map(|_| ())
    }

    /// Endpoints must not lead to pods of a node that cannot say how they are.
    async fn mark_pods_not_ready(&self, key: &ObjectKey) -> Result<(), Error> {
        for pod in pods_on(&self.pods, &key.name) {
            if condition(&pod, "Ready").is_none_or(|ready| ready.status != "True") {
                continue;
            }
            let now = Time(Timestamp::now());
            let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [
                {"type": "Ready", "status": "False", "lastTransitionTime": now},
            ]}});
            let target = ObjectKey::of(pod.as_ref());
            match self.context.patch(key, &self.pods, &target, Some("status"), &Patch::Strategic(patch)).await {
                Ok(_) => self.recorder.warning(pod.as_ref(), "NodeNotReady", "Node is not ready"),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The node's taints as its conditions want them; those of others, and the times of ours, stay.
fn taints(node: &Node, current: &[Taint], now: Timestamp) -> Vec<Taint> {
    let is = |kind: &str, status: &str| of_kind(node, kind).is_some_and(|condition| condition.status == status);
    let never_reported = of_kind(node, "Ready").is_none();
    let wanted = |key: &str| match key.trim_start_matches("node.kubernetes.io/") {
        "not-ready" => is("Ready", "False") || never_reported,
        "unreachable" => is("Ready", "Unknown"),
        "memory-pressure" => is("MemoryPressure", "True"),
        "disk-pressure" => is("DiskPressure", "True"),
        "pid-pressure" => is("PIDPressure", "True"),
        "network-unavailable" => is("NetworkUnavailable", "True"),
        _ => node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false),
    };
    let is_own = |taint: &Taint| OWN.contains(&(taint.key.as_str(), taint.effect.as_str()));
    let mut taints: Vec<Taint> = current.iter().filter(|taint| !is_own(taint) || wanted(&taint.key)).cloned().collect();
    for (key, effect) in OWN {
        // A node that has just been made and not spoken yet keeps new pods away, but none has to leave.
        let wanted = wanted(key) && !(never_reported && *effect == "NoExecute");
        if wanted && !taints.iter().any(|taint| taint.key == *key && taint.effect == *effect) {
            taints.push(Taint {
                key: (*key).into(),
                effect: (*effect).into(),
                time_added: Some(Time(now)),
                value: None,
            });
        }
    }
    taints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(conditions: serde_json::Value, unschedulable: bool) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "a"}, "spec": {"unschedulable": unschedulable}, "status": {"conditions": conditions},
        }))
        .unwrap()
    }

    fn names(taints: &[Taint]) -> Vec<String> {
        taints
            .iter()
            .map(|taint| format!("{}:{}", taint.key.trim_start_matches("node.kubernetes.io/"), taint.effect))
            .collect()
    }

    #[test]
    fn conditions_become_taints_and_others_stay() {
        let foreign = Taint { key: "mine".into(), effect: "NoSchedule".into(), ..Taint::default() };
        let now = Timestamp::UNIX_EPOCH;
        let unknown = node(json!([{"type": "Ready", "status": "Unknown"}]), true);
        let after = taints(&unknown, std::slice::from_ref(&foreign), now);
        assert_eq!(
            names(&after),
            ["mine:NoSchedule", "unreachable:NoExecute", "unreachable:NoSchedule", "unschedulable:NoSchedule"]
        );
        assert_eq!(taints(&unknown, &after, Timestamp::now()), after, "times stay");
        let ready =
            node(json!([{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "True"}]), false);
        assert_eq!(names(&taints(&ready, &after, now)), ["mine:NoSchedule", "disk-pressure:NoSchedule"]);
        assert_eq!(names(&taints(&node(json!([]), false), &[], now)), ["not-ready:NoSchedule"]);
    }
}
