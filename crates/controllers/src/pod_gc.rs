//! Removes pods that nobody else will: those of nodes that are gone, those deleted before they had a node, and the oldest of very
//! many that have ended.
//!
//! A node must have been gone for a while, and be gone from the API itself, before its pods are taken for lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kminik_client::{Change, Informer, Next, ObjectKey, WorkQueue};
use kube::api::{DeleteParams, Patch};
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::Instant;

use crate::context::Context;
use crate::error::Error;
use crate::node_lifecycle::{index_by_node, pods_on};
use crate::pods::{is_terminal, is_terminating, node_of};

/// How long a node is missed before its pods are removed.
const QUARANTINE: Duration = Duration::from_secs(40);
/// Ended pods that are kept.
const KEPT: usize = 12_500;

struct Controller {
    context: Context,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    missed: Mutex<HashMap<String, Instant>>,
}

pub(crate) async fn run(context: Context) -> Result<(), Error> {
    let controller = Arc::new(Controller {
        nodes: context.informers.get(),
        pods: context.informers.get(),
        missed: Mutex::default(),
        context: context.clone(),
    });
    index_by_node(&controller.pods);
    let queue = WorkQueue::new();
    let (nodes, pods, orphans) = (controller.nodes.clone(), controller.pods.clone(), queue.clone());
    let _subscriptions = [
        controller.pods.enqueue_with(&queue, move |pod, keys| {
            let node = node_of(pod);
            let lost =
                if node.is_empty() { is_terminating(pod) } else { nodes.get(&ObjectKey::cluster(node)).is_none() };
            if lost || is_terminal(pod) {
                keys.push(ObjectKey::of(pod));
            }
        }),
        controller.nodes.subscribe(move |change| {
            if let Change::Deleted(node) = change {
                for pod in pods_on(&pods, node.metadata.name.as_deref().unwrap_or_default()) {
                    orphans.add(ObjectKey::of(pod.as_ref()));
                }
            }
        }),
    ];
    let synced = [controller.nodes.wait_synced().boxed(), controller.pods.wait_synced().boxed()];
    let worker = controller.clone();
    context.work(queue, 1, synced, move |key| reconcile(worker.clone(), key)).await
}

async fn reconcile(controller: Arc<Controller>, key: ObjectKey) -> Result<Next, Error> {
    let Controller { context, nodes, pods, missed } = controller.as_ref();
    let Some(pod) = pods.get(&key) else { return Ok(Next::Done) };
    let node = node_of(&pod).to_string();
    if node.is_empty() {
        if is_terminating(&pod) {
            controller.remove(&key, &pod, None).await?;
        }
    } else if nodes.get(&ObjectKey::cluster(node.clone())).is_some() {
        missed.lock().remove(&node);
        if is_terminal(&pod) && controller.is_surplus(&pod) {
            controller.remove(&key, &pod, None).await?;
        }
    } else {
        let since = *missed.lock().entry(node.clone()).or_insert_with(Instant::now);
        if let Some(left) = QUARANTINE.checked_sub(since.elapsed()).filter(|left| !left.is_zero()) {
            return Ok(Next::After(left));
        }
        if context.read::<Node>(&ObjectKey::cluster(node)).await?.is_none() {
            controller.remove(&key, &pod, Some("PodGC: node no longer exists")).await?;
        }
    }
    Ok(Next::Done)
}

impl Controller {
    /// The pod is among the oldest of more ended pods than are kept.
    fn is_surplus(&self, pod: &Pod) -> bool {
        if self.pods.len() <= KEPT {
            return false;
        }
        let age = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let younger = self.pods.list().iter().filter(|other| is_terminal(other) && age(other) > age(pod)).count();
        younger >= KEPT
    }

    /// Deletes a pod at once; if it had not ended it is marked failed first, so that its controller sees what happened.
    async fn remove(&self, key: &ObjectKey, pod: &Pod, message: Option<&str>) -> Result<(), Error> {
        let Self { context, pods, .. } = self;
        if let Some(message) = message.filter(|_| !is_terminal(pod)) {
            let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"phase": "Failed", "conditions": [{
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC", "message": message,
                "lastTransitionTime": Time(Timestamp::now()),
            }]}});
            match context.patch(key, pods, key, Some("status"), &Patch::Strategic(patch)).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        context.delete(key, pods, pod, DeleteParams::default().grace_period(0)).await?;
        Ok(())
    }
}
