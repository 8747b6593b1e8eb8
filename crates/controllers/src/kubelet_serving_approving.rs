//! A kubelet's request for a serving certificate is approved if it asks for itself: by its own certificate, for the name of its
//! node, and for one address of the network of nodes, which no other node has. Upstream leaves this to people, as it cannot know
//! which addresses a machine has; here the machines are the cluster's own.

use std::net::IpAddr;
use std::sync::Arc;

use futures::FutureExt;
use ipnet::Ipv4Net;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::api::core::v1::Node;
use kminik_base::pki::Request;
use kminik_client::{Informer, Next, ObjectKey, WorkQueue};

use crate::certificates::{KUBELET_SERVING_SIGNER, NODE_PREFIX, NODES, approve, is_decided, kubelet_serving};
use crate::context::Context;
use crate::error::Error;

const MESSAGE: &str = "Auto approving kubelet serving certificate for the node's own name and addresses.";

struct Controller {
    context: Context,
    requests: Informer<CertificateSigningRequest>,
    nodes: Informer<Node>,
}

pub(crate) async fn run(context: Context) -> Result<(), Error> {
    let (requests, nodes): (Informer<CertificateSigningRequest>, Informer<Node>) =
        (context.informers.get(), context.informers.get());
    let controller =
        Arc::new(Controller { requests: requests.clone(), nodes: nodes.clone(), context: context.clone() });
    let queue = WorkQueue::new();
    let (again, waiting) = (queue.clone(), requests.clone());
    let _subscriptions = [
        requests.enqueue(&queue),
        // An address that another node had may be free now: machines change theirs when they are started in another order.
        nodes.subscribe(move |_| {
            for request in waiting.list().iter().filter(|request| !is_decided(request)) {
                again.add(ObjectKey::of(request.as_ref()));
            }
        }),
    ];
    let synced = [requests.wait_synced().boxed(), nodes.wait_synced().boxed()];
    context.work(queue, 1, synced, move |key| reconcile(controller.clone(), key)).await
}

async fn reconcile(controller: Arc<Controller>, key: ObjectKey) -> Result<Next, Error> {
    let (Some(request), Some(network)) = (controller.requests.get(&key), controller.context.config.node_network) else {
        return Ok(Next::Done);
    };
    if is_decided(&request) || request.spec.signer_name != KUBELET_SERVING_SIGNER {
        return Ok(Next::Done);
    }
    let Ok(asked) = Request::parse(&request.spec.request.0) else { return Ok(Next::Done) };
    let nodes = controller.nodes.list();
    match is_for_itself(&asked, &request.spec, network, nodes.iter().map(AsRef::as_ref)) {
        true => approve(&controller.context, &controller.requests, &request, MESSAGE).await,
        false => Ok(Next::Done),
    }
}

fn is_for_itself<'n>(
    asked: &Request,
    spec: &CertificateSigningRequestSpec,
    network: Ipv4Net,
    nodes: impl Iterator<Item = &'n Node>,
) -> bool {
    let Some(name) = asked.common_name.strip_prefix(NODE_PREFIX) else { return false };
    let is_node = spec.groups.iter().flatten().any(|group| group == NODES);
    let others: Vec<String> = nodes
        .filter(|node| node.metadata.name.as_deref() != Some(name))
        .filter_map(|node| node.status.as_ref()?.addresses.clone())
        .flatten()
        .map(|address| address.address)
        .collect();
    let may_have = |address: &IpAddr| match address {
        IpAddr::V4(v4) => {
            let is_host = network.contains(v4) && *v4 != network.network() && *v4 != network.broadcast();
            is_host && !others.contains(&v4.to_string())
        }
        IpAddr::V6(_) => false,
    };
    kubelet_serving(asked, spec.usages.as_deref().unwrap_or_default()).is_ok()
        && is_node
        && spec.username.as_deref() == Some(&asked.common_name)
        && !is_of_the_api(name)
        && asked.dns_names.iter().all(|own| own == name)
        && asked.addresses.len() <= 1
        && asked.addresses.iter().all(may_have)
}

/// Names by which everybody reaches the API server. They could be a node's too, and who has a bootstrap token chooses its node's
/// name: a certificate for one, by the cluster's own authority, would be the API server's.
fn is_of_the_api(name: &str) -> bool {
    name == "localhost" || name == "kubernetes" || name.starts_with("kubernetes.")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_gets_its_own_name_and_a_free_address() {
        let network: Ipv4Net = "192.168.49.0/24".parse().unwrap();
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "first"},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.168.49.2"}]}}))
        .unwrap();
        let decide = |user: &str, names: &[&str], addresses: &[&str]| {
            let asked = Request {
                common_name: "system:node:second".into(),
                organizations: vec!["system:nodes".into()],
                dns_names: names.iter().map(ToString::to_string).collect(),
                addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
                ..Request::default()
            };
            let spec = CertificateSigningRequestSpec {
                username: Some(user.into()),
                groups: Some(vec!["system:nodes".into(), "system:authenticated".into()]),
                usages: Some(vec!["digital signature".into(), "server auth".into()]),
                ..CertificateSigningRequestSpec::default()
            };
            is_for_itself(&asked, &spec, network, [&node].into_iter())
        };
        let own = "system:node:second";
        assert!(decide(own, &["second"], &["192.168.49.3"]));
        assert!(!decide(own, &["second"], &["192.168.49.3", "192.168.49.4"]), "addresses of nodes to come");
        assert!(!decide("system:node:first", &["second"], &["192.168.49.3"]), "another asks");
        assert!(!decide(own, &["first"], &["192.168.49.3"]), "another's name");
        assert!(!decide(own, &["second"], &["192.168.49.2"]), "another's address");
        assert!(!decide(own, &["second"], &["10.96.0.1"]), "not a node's address");
        assert!(!decide(own, &["second"], &["192.168.49.255"]), "nobody's address");
        assert!(!decide(own, &["second"], &["::1"]), "not a node's address");
    }

    #[test]
    fn no_node_is_called_as_the_api_is() {
        assert!(["localhost", "kubernetes", "kubernetes.default.svc"].into_iter().all(is_of_the_api));
        assert!(!["kubernetes-2", "second"].into_iter().any(is_of_the_api));
    }
}
