//! Taking a node's pods away before it goes, as `kubectl drain` does.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kminik_client::{Selection, until};
use kube::api::{EvictParams, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use super::answered;
use crate::printer::Printer;
use crate::reason::{Failure, Outcome};

/// Bound on all of it; what is still there then goes with the node.
const BOUND: Duration = Duration::from_secs(60);
/// After an eviction that a disruption budget forbids: nothing tells when it would be allowed. As kubectl's.
const AGAIN: Duration = Duration::from_secs(5);
/// On pods that the kubelet has from its own files.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Cordons the node and evicts its pods. Those of DaemonSets stay.
///
/// # Errors
/// `K8S_NOT_RESPONDING`; that pods are left is a warning.
pub async fn run(client: &Client, node: &str, printer: &Printer) -> Outcome<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let cordon = Patch::Merge(json!({ "spec": { "unschedulable": true } }));
    match answered(nodes.patch(node, &PatchParams::default(), &cordon)).await {
        Ok(_) => {}
        // It never joined.
        Err(failure) if answered(nodes.get_opt(node)).await?.is_some() => return Err(failure),
        Err(_) => return Ok(()),
    }
    let selector = format!("spec.nodeName={node}");
    let leave = async {
        while !evict(client, &selector).await? {
            tokio::time::sleep(AGAIN).await;
        }
        let gone = |pods: &[Arc<Pod>]| !pods.iter().any(|pod| is_to_leave(pod));
        let theirs = Selection::fields(&selector);
        until(client, &(), &theirs, gone).await;
        Ok::<(), Failure>(())
    };
    let Ok(outcome) = tokio::time::timeout(BOUND, leave).await else {
        printer.warning(&format!("Pods of {node} have not ended within {} s: they end with it", BOUND.as_secs()));
        return Ok(());
    };
    outcome
}

/// Evicts what is to leave; whether none was refused.
async fn evict(client: &Client, selector: &str) -> Outcome<bool> {
    let all: Api<Pod> = Api::all(client.clone());
    let listed = answered(all.list(&ListParams::default().fields(selector))).await?;
    let mut done = true;
    for pod in listed.items.iter().filter(|pod| is_to_leave(pod) && pod.metadata.deletion_timestamp.is_none()) {
        let (Some(namespace), Some(name)) = (&pod.metadata.namespace, &pod.metadata.name) else { continue };
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        // One that is gone meanwhile is seen so by the next look.
        done &= answered(pods.evict(name, &EvictParams::default())).await.is_ok();
    }
    Ok(done)
}

fn is_to_leave(pod: &Pod) -> bool {
    let metadata = &pod.metadata;
    let of_daemon_set = metadata.owner_references.iter().flatten().any(|owner| owner.kind == "DaemonSet");
    let is_mirror = metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(MIRROR));
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !of_daemon_set && !is_mirror && !matches!(phase, Some("Succeeded" | "Failed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_to_leave() {
        let pod = |pod: serde_json::Value| -> Pod { serde_json::from_value(pod).unwrap() };
        let owned = |kind: &str| {
            let owner = json!({"apiVersion": "apps/v1", "kind": kind, "name": "x", "uid": "u"});
            pod(json!({"metadata": {"ownerReferences": [owner]}}))
        };
        assert!(is_to_leave(&pod(json!({"metadata": {}}))) && is_to_leave(&owned("ReplicaSet")));
        assert!(!is_to_leave(&owned("DaemonSet")));
        assert!(!is_to_leave(&pod(json!({"metadata": {"annotations": {MIRROR: "x"}}}))));
        assert!(!is_to_leave(&pod(json!({"metadata": {}, "status": {"phase": "Succeeded"}}))));
    }
}
