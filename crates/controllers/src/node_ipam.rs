//! Every node has a pod network of its own: a free /24 of the cluster's /16, given once and kept for the node's life.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use futures::FutureExt;
use k8s_openapi::api::core::v1::Node;
use kminik_client::{Informer, Next, ObjectKey, WorkQueue};
use kube::api::Patch;
use serde_json::json;

use crate::context::Context;
use crate::error::Error;

struct Controller {
    context: Context,
    nodes: Informer<Node>,
    /// One allocation at a time, over what the nodes hold and what was given but may not be in the cache yet.
    given: tokio::sync::Mutex<BTreeSet<(u8, String)>>,
}

pub(crate) async fn run(context: Context) -> Result<(), Error> {
    let controller = Arc::new(Controller {
        nodes: context.informers.get(),
        given: tokio::sync::Mutex::default(),
        context: context.clone(),
    });
    let queue = WorkQueue::new();
    // Heartbeats need no look: only a node without a network does, and one that is gone frees its own.
    let subscription = {
        let queue = queue.clone();
        controller.nodes.subscribe(move |change| {
            let node = change.object();
            let has_network = node.spec.as_ref().is_some_and(|spec| spec.pod_cidr.is_some());
            if !has_network || matches!(change, kminik_client::Change::Deleted(_)) {
                queue.add(ObjectKey::of(node.as_ref()));
            }
        })
    };
    let worker = controller.clone();
    let result = context
        .work(queue, 1, [controller.nodes.wait_synced().boxed()], move |key| reconcile(worker.clone(), key))
        .await;
    drop(subscription);
    result
}

async fn reconcile(controller: Arc<Controller>, key: ObjectKey) -> Result<Next, Error> {
    let mut given = controller.given.lock().await;
    let Some(node) = controller.nodes.get(&key) else {
        given.retain(|(_, name)| *name != key.name);
        return Ok(Next::Done);
    };
    let network = controller.context.config.pod_network;
    if node.spec.as_ref().is_some_and(|spec| spec.pod_cidr.is_some()) {
        return Ok(Next::Done);
    }
    given.retain(|(_, name)| *name != key.name);
    let mut taken: BTreeSet<u8> = given.iter().map(|(index, _)| *index).collect();
    for node in controller.nodes.list() {
        let cidrs = node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_deref());
        taken.extend(cidrs.and_then(|cidr| index_of(network, cidr)));
    }
    let Some(index) = (0..=u8::MAX).find(|index| !taken.contains(index)) else {
        controller.context.recorder.normal(
            node.as_ref(),
            "CIDRNotAvailable",
            format!("Node {} status is now: CIDRNotAvailable", key.name),
        );
        return Err(Error::NoPodNetwork { node: key.name });
    };
    let cidr = format_cidr(network, index);
    // Whatever else is written to the node meanwhile does not matter: a network, once given, cannot be changed.
    let patch = json!({"metadata": {"uid": node.metadata.uid}, "spec": {"podCIDR": cidr, "podCIDRs": [cidr]}});
    controller.context.patch(&key, &controller.nodes, &key, None, &Patch::Merge(patch)).await?;
    given.insert((index, key.name.clone()));
    tracing::info!(node = key.name, cidr, "pod network given");
    Ok(Next::Done)
}

/// The third octet of `a.b.N.0/24` in the network `a.b.0.0/16`.
fn index_of(network: Ipv4Addr, cidr: &str) -> Option<u8> {
    let (address, length) = cidr.split_once('/')?;
    let address: Ipv4Addr = address.parse().ok()?;
    let ([a, b, ..], [x, y, index, _]) = (network.octets(), address.octets());
    (length == "24" && (a, b) == (x, y)).then_some(index)
}

fn format_cidr(network: Ipv4Addr, index: u8) -> String {
    let [a, b, ..] = network.octets();
    format!("{}/24", Ipv4Addr::new(a, b, index, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_back_as_given() {
        let network = Ipv4Addr::new(10, 244, 0, 0);
        assert_eq!(format_cidr(network, 7), "10.244.7.0/24");
        assert_eq!(index_of(network, "10.244.7.0/24"), Some(7));
        assert_eq!(index_of(network, "10.245.7.0/24"), None);
        assert_eq!(index_of(network, "10.244.0.0/16"), None);
    }
}
