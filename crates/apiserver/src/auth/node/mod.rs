//! The node authorizer: a kubelet reads what the pods on its node need, and little else.

mod pods;
pub mod references;

use std::sync::Arc;

use async_trait::async_trait;
use kminik_meta::{FieldSelector, Object};

use self::pods::{BoundPod, PodsByNode};
use self::references::volume_needs_secret;
use super::rbac::{NODE_RULES, Rule};
use super::{Attributes, Authorizer, Decision, UserInfo};
use crate::storage::cache::Cache;
use crate::storage::key;

pub(crate) const NODES_GROUP: &str = "system:nodes";
const NODE_USER_PREFIX: &str = "system:node:";
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The node whose kubelet the user is, if it is one.
pub fn node_of(user: &UserInfo) -> Option<&str> {
    user.name.strip_prefix(NODE_USER_PREFIX).filter(|name| !name.is_empty() && user.in_group(NODES_GROUP))
}

/// Decides about requests of kubelets, by the pods that are bound to their nodes.
pub struct NodeAuthorizer {
    cache: Arc<Cache>,
    pods: PodsByNode,
    rules: Vec<Rule>,
}

impl NodeAuthorizer {
    pub fn new(cache: Arc<Cache>) -> Self {
        NodeAuthorizer {
            pods: PodsByNode::new(cache.clone()),
            cache,
            rules: NODE_RULES.iter().map(super::rbac::RuleRow::rule).collect(),
        }
    }

    /// Why the node may not do it; `None` if it may, as far as its rules allow it.
    async fn objection(&self, node: &str, request: &Attributes) -> Option<String> {
        let verb = request.verb.as_str();
        let reads = matches!(verb, "get" | "list" | "watch");
        let selects = |field: &str| {
            let selector = FieldSelector::parse(&request.field_selector).ok();
            selector.as_ref().and_then(|selector| selector.exact(field)) == Some(node)
        };
        match (request.group.as_str(), request.resource.as_str(), request.subresource.as_str()) {
            ("", "secrets" | "configmaps", _) if !reads => Some("can only read resources of this type".into()),
            ("", "secrets" | "configmaps", "") if request.namespace.is_empty() => {
                Some("can only read namespaced object of this type".into())
            }
            ("", "secrets" | "configmaps", "") => self.unrelated(node, request).await,
            ("", "secrets" | "configmaps", _) => Some("cannot read subresource".into()),
            ("", "persistentvolumeclaims", "status") if matches!(verb, "get" | "update" | "patch") => {
                self.unrelated(node, request).await
            }
            ("", "persistentvolumeclaims" | "persistentvolumes", sub)
            | ("resource.k8s.io", "resourceclaims", sub)
            | ("storage.k8s.io", "volumeattachments", sub) => match (verb, sub) {
                ("get", "") => self.unrelated(node, request).await,
                ("get", _) => Some("cannot get subresource".into()),
                _ => Some("can only get individual resources of this type".into()),
            },
            ("", "serviceaccounts", "token") if verb == "create" && !request.name.is_empty() => {
                self.unrelated(node, request).await
            }
            ("", "serviceaccounts", "") if verb == "get" => self.unrelated(node, request).await,
            ("", "serviceaccounts", _) => Some("can only create tokens for individual service accounts".into()),
            ("", "pods", "") if matches!(verb, "list" | "watch") && selects("spec.nodeName") => None,
            ("", "pods", "") if matches!(verb, "list" | "watch") && request.name.is_empty() => {
                Some("can only list/watch pods with spec.nodeName field selector".into())
            }
            ("", "pods", "") if reads => self.unrelated(node, request).await,
            ("", "nodes", "") if reads && request.name.is_empty() => {
                Some(format!("node '{node}' cannot read all nodes, only its own Node object"))
            }
            ("", "nodes", "") if reads && request.name != node => {
                Some(format!("node '{node}' cannot read '{}', only its own Node object", request.name))
            }
            ("coordination.k8s.io", "leases", _) => objection_to_lease(node, request),
            ("storage.k8s.io", "csinodes", "") => (verb != "create" && request.name != node)
                .then(|| "can only access CSINode with the same name as the requesting node".into()),
            ("storage.k8s.io", "csinodes", _) => Some("cannot authorize CSINode subresources".into()),
            ("resource.k8s.io", "resourceslices", "") => match verb {
                "create" => None,
                "list" | "watch" | "deletecollection" if selects("spec.nodeName") => None,
                "list" | "watch" | "deletecollection" => {
                    Some("can only list/watch/deletecollection resourceslices with nodeName field selector".into())
                }
                _ => self.unrelated(node, request).await,
            },
            ("resource.k8s.io", "resourceslices", _) => Some("cannot authorize ResourceSlice subresources".into()),
            _ => None,
        }
    }

    async fn unrelated(&self, node: &str, request: &Attributes) -> Option<String> {
        if request.name.is_empty() {
            return Some("No Object name found".into());
        }
        // A pod that was just bound may not have reached the cache when its kubelet already asks.
        if self.related(node, request) || (self.refresh().await && self.related(node, request)) {
            return None;
        }
        Some(format!("no relationship found between node '{node}' and this object"))
    }

    async fn refresh(&self) -> bool {
        self.cache.fresh("core/pods").await.is_ok()
    }

    /// Whether a pod on the node needs the object, or the object names the node.
    fn related(&self, node: &str, request: &Attributes) -> bool {
        let (namespace, name) = (request.namespace.as_str(), request.name.as_str());
        let pods = |test: &dyn Fn(&BoundPod) -> bool| self.pods.on(node, namespace).iter().any(|pod| test(pod));
        match request.resource.as_str() {
            "pods" => pods(&|pod| pod.name == name),
            "configmaps" => pods(&|pod| pod.references.config_maps.contains(name)),
            "secrets" => {
                pods(&|pod| pod.references.secrets.contains(name)) || self.volume_needs_secret(node, namespace, name)
            }
            "persistentvolumeclaims" => pods(&|pod| pod.references.claims.contains(name)),
            "resourceclaims" => pods(&|pod| pod.references.resource_claims.contains(name)),
            "serviceaccounts" => pods(&|pod| pod.references.service_account == name),
            "persistentvolumes" => self.object("core/persistentvolumes", "", name).is_some_and(|volume| {
                let claim = |key: &str| volume.str(&["spec", "claimRef", key]).unwrap_or_default();
                let on_node = self.pods.on(node, claim("namespace"));
                on_node.iter().any(|pod| pod.references.claims.contains(claim("name")))
            }),
            "volumeattachments" => self.names_node("storage.k8s.io/volumeattachments", name, node),
            "resourceslices" => self.names_node("resource.k8s.io/resourceslices", name, node),
            _ => false,
        }
    }

    /// Whether the secret is needed to mount a volume of a pod on the node.
    fn volume_needs_secret(&self, node: &str, namespace: &str, name: &str) -> bool {
        self.pods.on(node, "").iter().any(|pod| {
            pod.references.claims.iter().any(|claim| {
                let claim = self.object("core/persistentvolumeclaims", &pod.namespace, claim);
                let volume = claim.as_deref().and_then(|claim| claim.str(&["spec", "volumeName"])).map(str::to_owned);
                let volume = volume.and_then(|volume| self.object("core/persistentvolumes", "", &volume));
                volume.is_some_and(|volume| volume_needs_secret(&volume, namespace, name))
            })
        })
    }

    fn names_node(&self, prefix: &str, name: &str, node: &str) -> bool {
        self.object(prefix, "", name).is_some_and(|object| object.str(&["spec", "nodeName"]) == Some(node))
    }

    fn object(&self, prefix: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.cache.snapshot(prefix).get(&key::object(prefix, namespace, name))?.object().ok()
    }
}

fn objection_to_lease(node: &str, request: &Attributes) -> Option<String> {
    if !matches!(request.verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
        return Some("can only get, create, update, patch, or delete a node lease".into());
    }
    if request.namespace != LEASE_NAMESPACE {
        return Some(format!("can only access leases in the {LEASE_NAMESPACE:?} system namespace"));
    }
    (request.verb != "create" && request.name != node)
        .then(|| "can only access node lease with the same name as the requesting node".into())
}

#[async_trait]
impl Authorizer for NodeAuthorizer {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        if !attributes.user.in_group(NODES_GROUP) {
            return Decision::NoOpinion { reason: String::new() };
        }
        let Some(node) = node_of(&attributes.user) else {
            let reason = format!("unknown node for user {:?}", attributes.user.name);
            return Decision::NoOpinion { reason };
        };
        if attributes.resource_request
            && let Some(reason) = self.objection(node, attributes).await
        {
            return Decision::NoOpinion { reason };
        }
        let reads_account = attributes.resource == "serviceaccounts" && attributes.subresource.is_empty();
        match reads_account || self.rules.iter().any(|rule| rule.allows(attributes)) {
            true => Decision::Allow { reason: String::new() },
            false => Decision::NoOpinion { reason: String::new() },
        }
    }
}
