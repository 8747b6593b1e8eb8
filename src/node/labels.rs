//! The labels that a kubelet may not give its node: the control plane's role, and minikube's. Each node gets them when it comes.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Node;
use kminik_base::component::{BoxError, Component, Ready};
use kminik_client::{Change, Informer, Next, ObjectKey, WorkQueue, Worker};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::config::NodeConfig;
use crate::version;

/// Labels the nodes of this cluster's machines.
pub struct NodeLabels {
    /// May change every node.
    client: Client,
    nodes: Informer<Node>,
    profile: String,
    /// The node of the control plane.
    primary: String,
}

impl NodeLabels {
    pub fn new(client: Client, nodes: Informer<Node>, config: &NodeConfig) -> Self {
        Self { client, nodes, profile: config.profile.clone(), primary: config.node_name.clone() }
    }

    fn wanted(&self, name: &str) -> BTreeMap<&'static str, String> {
        let is_primary = name == self.primary;
        let mut labels = BTreeMap::from([
            ("minikube.k8s.io/name", self.profile.clone()),
            ("minikube.k8s.io/primary", is_primary.to_string()),
            ("minikube.k8s.io/version", format!("v{}", version::KMINIK)),
        ]);
        if is_primary {
            labels.insert("node-role.kubernetes.io/control-plane", String::new());
        }
        labels
    }

    async fn label(self: Arc<Self>, key: ObjectKey) -> Result<Next, kube::Error> {
        let Some(node) = self.nodes.get(&key).filter(|node| is_machine(node, &self.profile)) else {
            return Ok(Next::Done);
        };
        let wanted = self.wanted(&key.name);
        let present = node.metadata.labels.clone().unwrap_or_default();
        if wanted.iter().all(|(label, value)| present.get(*label) == Some(value)) {
            return Ok(Next::Done);
        }
        let patch = json!({"metadata": {"uid": node.metadata.uid, "labels": wanted}});
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes.patch(&key.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(Next::Done)
    }
}

/// Whether the node is a machine of the cluster's, and not an object that somebody made.
pub fn is_machine(node: &Node, cluster: &str) -> bool {
    let id = node.spec.as_ref().and_then(|spec| spec.provider_id.as_deref()).unwrap_or_default();
    id.strip_prefix("kminik://").and_then(|rest| rest.split('/').next()) == Some(cluster)
}

impl Component for NodeLabels {
    fn name(&self) -> &'static str {
        "node-labels"
    }

    fn run(self: Arc<Self>, stop: CancellationToken, ready: Ready) -> BoxFuture<'static, Result<(), BoxError>> {
        Box::pin(async move {
            let queue = WorkQueue::new();
            let added = queue.clone();
            // Once: what the user changes afterwards stays.
            let _subscription = self.nodes.subscribe(move |change| {
                if let Change::Added(node) = change {
                    added.add(ObjectKey::of(node.as_ref()));
                }
            });
            ready.set_ready();
            let worker = Worker::new("node-labels", queue, 1);
            worker.run(&stop, move |key| self.clone().label(key)).await;
            Ok(())
        })
    }
}
