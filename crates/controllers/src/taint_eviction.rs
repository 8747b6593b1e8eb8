//! Removes pods from nodes with `NoExecute` taints that they do not bear, or bear only for a time.
//!
//! The time runs from when the taint was added, but not from before this process started: a taint that stems from an outage of the
//! control plane itself must not remove pods before their node had the chance to report. A pod is deleted gracefully; if the taint goes before the time
//! has passed, nothing happens.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::api::core::v1::{Node, Pod, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kminik_client::placement::tolerates;
use kminik_client::{Informer, Next, ObjectKey, WorkQueue};
use kube::api::{DeleteParams, Patch};
use serde_json::json;

use crate::context::Context;
use crate::error::Error;
use crate::node_lifecycle::{index_by_node, pods_on};
use crate::pods::{elapsed, is_terminal, is_terminating, node_of};

struct Controller {
    context: Context,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    started: Timestamp,
}

pub(crate) async fn run(context: Context) -> Result<(), Error> {
    let controller = Arc::new(Controller {
        nodes: context.informers.get(),
        pods: context.informers.get(),
        started: Timestamp::now(),
        context: context.clone(),
    });
    index_by_node(&controller.pods);
    let queue = WorkQueue::new();
    let (nodes, pods) = (controller.nodes.clone(), controller.pods.clone());
    let evicting = queue.clone();
    let _subscriptions = [
        controller.pods.enqueue_with(&queue, move |pod, keys| {
            let node = nodes.get(&ObjectKey::cluster(node_of(pod)));
            if node.is_some_and(|node| executing(&node).next().is_some()) {
                keys.push(ObjectKey::of(pod));
            }
        }),
        controller.nodes.subscribe(move |change| {
            let taints = |node: &Node| executing(node).cloned().collect::<Vec<_>>();
            let now = taints(change.object());
            if change.old().map(|old| taints(old)).unwrap_or_default() != now {
                let name = change.object().metadata.name.as_deref().unwrap_or_default();
                for pod in pods_on(&pods, name) {
                    let key = ObjectKey::of(pod.as_ref());
                    // The time starts anew from what holds now.
                    evicting.cancel_delay(&key);
                    evicting.add(key);
                }
            }
        }),
    ];
    let synced = [controller.nodes.wait_synced().boxed(), controller.pods.wait_synced().boxed()];
    let worker = controller.clone();
    context.work(queue, 4, synced, move |key| reconcile(worker.clone(), key)).await
}

fn executing(node: &Node) -> impl Iterator<Item = &Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == "NoExecute")
}

async fn reconcile(controller: Arc<Controller>, key: ObjectKey) -> Result<Next, Error> {
    let Controller { context, nodes, pods, started } = controller.as_ref();
    let Some(pod) = pods.get(&key).filter(|pod| !is_terminating(pod) && !is_terminal(pod)) else {
        return Ok(Next::Done);
    };
    let Some(node) = nodes.get(&ObjectKey::cluster(node_of(&pod))) else { return Ok(Next::Done) };
    let taints: Vec<&Taint> = executing(&node).collect();
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    match stay(&taints, tolerations, *started, Timestamp::now()) {
        Stay::ForEver => Ok(Next::Done),
        Stay::For(left) => Ok(Next::After(left)),
        Stay::Over => {
            let message = format!("Marking for deletion Pod {key}");
            context.recorder.normal(pod.as_ref(), "TaintManagerEviction", message);
            let patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [{
                "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
                "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": Time(Timestamp::now()),
            }]}});
            match context.patch(&key, pods, &key, Some("status"), &Patch::Strategic(patch)).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
            context.delete(&key, pods, pod.as_ref(), DeleteParams::default()).await?;
            Ok(Next::Done)
        }
    }
}

/// How long a pod may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stay {
    ForEver,
    For(Duration),
    Over,
}

fn stay(taints: &[&Taint], tolerations: &[Toleration], started: Timestamp, now: Timestamp) -> Stay {
    let mut least: Option<Duration> = None;
    for taint in taints {
        let bearing: Vec<_> = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).collect();
        if bearing.is_empty() {
            return Stay::Over;
        }
        let Some(seconds) = bearing.iter().filter_map(|toleration| toleration.toleration_seconds).min() else {
            continue;
        };
        let since = taint.time_added.as_ref().map_or(started, |time| time.0.max(started));
        let allowed = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let left = allowed.saturating_sub(elapsed(since, now));
        least = Some(least.map_or(left, |least| least.min(left)));
    }
    match least {
        None => Stay::ForEver,
        Some(left) if left.is_zero() => Stay::Over,
        Some(left) => Stay::For(left),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_give_time_from_the_taint_or_the_start() {
        let taint: Taint =
            serde_json::from_value(json!({"key": "k", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}))
                .unwrap();
        let bears = |seconds: Option<i64>| Toleration {
            key: Some("k".into()),
            operator: Some("Exists".into()),
            toleration_seconds: seconds,
            ..Toleration::default()
        };
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (early, now) = (at("2025-12-01T00:00:00Z"), at("2026-01-01T00:01:00Z"));
        assert_eq!(stay(&[&taint], &[], early, now), Stay::Over);
        assert_eq!(stay(&[&taint], &[bears(None)], early, now), Stay::ForEver);
        assert_eq!(stay(&[&taint], &[bears(Some(300))], early, now), Stay::For(Duration::from_secs(240)));
        assert_eq!(stay(&[&taint], &[bears(Some(30))], early, now), Stay::Over);
        assert_eq!(stay(&[&taint], &[bears(Some(30))], now, now), Stay::For(Duration::from_secs(30)));
        assert_eq!(stay(&[], &[], early, now), Stay::ForEver);
    }
}
