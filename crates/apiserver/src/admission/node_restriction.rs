//! NodeRestriction: a kubelet writes its own node and the pods on it, and asks for these pods' tokens, nothing else.

use std::sync::Arc;

use async_trait::async_trait;
use kminik_meta::pod_annotations::MIRROR;
use kminik_meta::{Object, StatusError};

use super::{Admission, Attributes, Operation, node_tokens};
use crate::auth::Authorizer;
use crate::auth::node::node_of;
use crate::auth::node::references::References;

const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Labels of these domains say what a node is; most of them are not the kubelet's to set.
const RESERVED_DOMAINS: [&str; 2] = ["kubernetes.io", "k8s.io"];
const RESTRICTED_DOMAIN: &str = "node-restriction.kubernetes.io";
const KUBELET_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
const KUBELET_LABELS: [&str; 13] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.kubernetes.io/zone",
    "failure-domain.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];

pub(super) struct NodeRestriction {
    authorizer: Arc<dyn Authorizer>,
}

impl NodeRestriction {
    pub(super) fn new(authorizer: Arc<dyn Authorizer>) -> Self {
        NodeRestriction { authorizer }
    }
}

#[async_trait]
impl Admission for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn may_mutate(&self) -> bool {
        false
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        node_of(attributes.user).is_some() && attributes.operation != Operation::Connect
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), StatusError> {
        let Some(node) = node_of(attributes.user) else { return Ok(()) };
        let row = (attributes.row.group.as_ref(), attributes.row.plural.as_ref(), attributes.subresource);
        if let (("", "serviceaccounts", "token"), Some(request)) = (row, object) {
            return node_tokens::check(node, attributes, request, self.authorizer.as_ref()).await;
        }
        match objection(node, attributes, object) {
            Some(why) => Err(attributes.forbidden(why)),
            None => Ok(()),
        }
    }
}

fn objection(node: &str, attributes: &Attributes<'_>, object: Option<&Object>) -> Option<String> {
    let on_node = |pod: Option<&Object>| pod.is_some_and(|pod| pod.str(&["spec", "nodeName"]) == Some(node));
    match (attributes.row.group.as_ref(), attributes.row.plural.as_ref(), attributes.subresource) {
        ("", "pods", "") => match attributes.operation {
            Operation::Create => object.and_then(|pod| objection_to_mirror(node, attributes, pod)),
            Operation::Delete => (!on_node(attributes.old))
                .then(|| format!("node {node:?} can only delete pods with spec.nodeName set to itself")),
            Operation::Update | Operation::Connect => Some(format!(
                "unexpected operation \"{}\", node {node:?} can only create and delete mirror pods",
                attributes.operation.as_str()
            )),
        },
        ("", "pods", "status") => {
            if !on_node(attributes.old) {
                return Some(format!(
                    "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
                ));
            }
            let differs = |path: &[&str]| {
                let member = |pod: Option<&Object>| pod.and_then(|pod| pod.get(path)).cloned();
                member(attributes.old) != member(object)
            };
            if differs(&["metadata", "labels"]) {
                return Some(format!("node {node:?} cannot update labels through pod status"));
            }
            differs(&["status", "resourceClaimStatuses"])
                .then(|| format!("node {node:?} cannot update resource claim statues"))
        }
        ("", "pods", "eviction") => {
            let pod = attributes.registry.cached_object("", "pods", attributes.namespace, attributes.name);
            (!on_node(pod.as_deref()))
                .then(|| format!("node {node} can only evict pods with spec.nodeName set to itself"))
        }
        ("", "pods", subresource) => {
            Some(format!("unexpected pod subresource {subresource:?}, only 'status' and 'eviction' are allowed"))
        }
        ("", "persistentvolumeclaims", "status") => objection_to_claim_status(node, attributes.old, object),
        ("", "persistentvolumeclaims", _) => Some("may only update PVC status".to_owned()),
        ("", "nodes", _) => objection_to_node(node, attributes, object),
        ("coordination.k8s.io", "leases", _) => {
            let named = object.map_or(attributes.name, Object::name);
            if attributes.namespace != LEASE_NAMESPACE {
                return Some(format!("can only access leases in the \"{LEASE_NAMESPACE}\" system namespace"));
            }
            (named != node).then(|| "can only access node lease with the same name as the requesting node".to_owned())
        }
        ("storage.k8s.io", "csinodes", _) => {
            let named = object.map_or(attributes.name, Object::name);
            (named != node).then(|| "can only access CSINode with the same name as the requesting node".to_owned())
        }
        _ => None,
    }
}

fn objection_to_mirror(node: &str, attributes: &Attributes<'_>, pod: &Object) -> Option<String> {
    if pod.annotation(MIRROR).is_none() {
        return Some(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"));
    }
    if pod.str(&["spec", "nodeName"]) != Some(node) {
        return Some(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let owners = pod.owner_references();
    let owner = match owners.as_slice() {
        [owner] => owner,
        [] => return Some(format!("node {node:?} can only create pods with an owner reference set to itself")),
        _ => return Some(format!("node {node:?} can only create pods with a single owner reference set to itself")),
    };
    if owner.kind != "Node" || owner.api_version != "v1" || owner.name != node {
        return Some(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if !owner.controller {
        return Some(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
    }
    if owner.block_owner_deletion {
        return Some(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let known = attributes.registry.cached_object("", "nodes", "", node);
    if let Some(known) = known.filter(|known| known.uid() != owner.uid) {
        return Some(format!("node {node} UID mismatch: expected {} got {}", owner.uid, known.uid()));
    }
    let References { secrets, config_maps, claims, resource_claims, service_account } = References::of(pod);
    let uses = [
        (!service_account.is_empty(), "a service account"),
        (!secrets.is_empty(), "secrets"),
        (!config_maps.is_empty(), "configmaps"),
        (!claims.is_empty(), "persistentvolumeclaims"),
        (!resource_claims.is_empty(), "resourceclaims"),
    ];
    let used = uses.iter().find(|(used, _)| *used)?.1;
    Some(format!("node {node:?} can not create pods that reference {used}"))
}

/// A kubelet reports how far the growth of a volume is; all else of a claim is not its own.
fn objection_to_claim_status(node: &str, old: Option<&Object>, new: Option<&Object>) -> Option<String> {
    const OWN: [&[&str]; 6] = [
        &["metadata", "resourceVersion"],
        &["metadata", "managedFields"],
        &["status", "capacity"],
        &["status", "conditions"],
        &["status", "allocatedResources"],
        &["status", "allocatedResourceStatuses"],
    ];
    let rest = |claim: Option<&Object>| {
        claim.map(|claim| {
            let mut claim = claim.clone();
            OWN.iter().for_each(|path| drop(claim.remove(path)));
            claim
        })
    };
    (rest(old) != rest(new)).then(|| {
        format!("node {node:?} is not allowed to update fields other than status.capacity and status.conditions")
    })
}

fn objection_to_node(node: &str, attributes: &Attributes<'_>, object: Option<&Object>) -> Option<String> {
    let name = object.map_or(attributes.name, Object::name);
    if name != node {
        return Some(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let object = object?;
    match attributes.old {
        None => {
            let labels = object.labels();
            let wrong = labels.keys().find(|label| !may_label(label))?;
            Some(format!("is not allowed to set the following node labels: {wrong}"))
        }
        Some(old) => {
            if old.get(&["spec", "taints"]) != object.get(&["spec", "taints"]) {
                return Some(format!("node {node:?} is not allowed to modify taints"));
            }
            if old.get(&["metadata", "ownerReferences"]) != object.get(&["metadata", "ownerReferences"]) {
                return Some(format!("node {node:?} is not allowed to modify ownerReferences"));
            }
            let (before, after) = (old.labels(), object.labels());
            let changed = before.keys().chain(after.keys()).filter(|label| before.get(*label) != after.get(*label));
            let wrong = changed.into_iter().find(|label| !may_label(label))?;
            Some(format!("is not allowed to modify labels: {wrong}"))
        }
    }
}

/// Whether a kubelet may set the label on its node.
fn may_label(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else { return true };
    let within = |of: &str| domain == of || domain.strip_suffix(of).is_some_and(|rest| rest.ends_with('.'));
    if within(RESTRICTED_DOMAIN) {
        return false;
    }
    !RESERVED_DOMAINS.iter().any(|domain| within(domain))
        || KUBELET_LABELS.contains(&label)
        || KUBELET_DOMAINS.iter().any(|domain| within(domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubelets_label_their_nodes_within_bounds() {
        for label in [
            "kubernetes.io/hostname",
            "example.com/x",
            "zone",
            "node.kubernetes.io/exclude",
            "x.kubelet.kubernetes.io/y",
        ] {
            assert!(may_label(label), "{label}");
        }
        for label in [
            "node-role.kubernetes.io/control-plane",
            "kubernetes.io/x",
            "a.k8s.io/x",
            "node-restriction.kubernetes.io/x",
        ] {
            assert!(!may_label(label), "{label}");
        }
    }
}
