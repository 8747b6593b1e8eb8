//! The node authorizer: a kubelet reads what the pods on its node need, and little else.

pub mod references;

use std::sync::Arc;

use async_trait::async_trait;
use kminik_meta::{FieldSelector, Object};

use self::references::References;
use super::rbac::{NODE_RULES, Rule};
use super::{Attributes, Authorizer, Decision, UserInfo};
use crate::storage::cache::Cache;
use crate::storage::key;

const NODES_GROUP: &str = "system:nodes";
const NODE_USER_PREFIX: &str = "system:node:";
const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The node whose kubelet the user is, if it is one.
pub fn node_of(user: &UserInfo) -> Option<&str> {
    user.name.strip_prefix(NODE_USER_PREFIX).filter(|name| !name.is_empty() && user.in_group(NODES_GROUP))
}

/// Decides about requests of kubelets, by the pods that are bound to their nodes.
pub struct NodeAuthorizer {
    cache: Arc<Cache>,
    rules: Vec<Rule>,
}

impl NodeAuthorizer {
    pub fn new(cache: Arc<Cache>) -> Self {
        NodeAuthorizer { cache, rules: NODE_RULES.iter().map(super::rbac::RuleRow::rule).collect() }
    }

    /// Why the node may not do it; `None` if it may.
    async fn objection(&self, node: &str, request: &Attributes) -> Option<String> {
        let verb = request.verb.as_str();
        let reads = matches!(verb, "get" | "list" | "watch");
        match (request.group.as_str(), request.resource.as_str(), request.subresource.as_str()) {
            ("", "secrets" | "configmaps", "") if reads => self.objection_to_reading(node, request).await,
            ("", "secrets" | "configmaps", _) => Some("can only read resources of this type".into()),
            ("", "persistentvolumeclaims" | "persistentvolumes", "") if verb == "get" => {
                self.objection_to_reading(node, request).await
            }
            ("", "persistentvolumes", _) => Some("can only get individual resources of this type".into()),
            ("", "persistentvolumeclaims", "status") if matches!(verb, "get" | "update" | "patch") => {
                self.objection_to_reading(node, request).await
            }
            ("", "persistentvolumeclaims", _) => Some("can only get individual resources of this type".into()),
            ("", "serviceaccounts", "token") if verb == "create" => self.objection_to_reading(node, request).await,
            ("", "serviceaccounts", "") if verb == "get" => self.objection_to_reading(node, request).await,
            ("", "serviceaccounts", _) => Some("can only create tokens for individual service accounts".into()),
            ("", "pods", "") if matches!(verb, "list" | "watch") => {
                let selected = FieldSelector::parse(&request.field_selector).ok();
                let own = selected.as_ref().and_then(|selector| selector.exact("spec.nodeName")) == Some(node);
                (!own && request.name.is_empty())
                    .then(|| format!("can only list/watch pods with spec.nodeName field selector '{node}'"))
            }
            ("", "pods", "") if verb == "get" => self.objection_to_reading(node, request).await,
            ("", "nodes", "") if reads && request.name != node => {
                Some(format!("node '{node}' cannot read '{}', only its own Node object", request.name))
            }
            ("coordination.k8s.io", "leases", "") => {
                if request.namespace != LEASE_NAMESPACE {
                    return Some(format!("can only access leases in the \"{LEASE_NAMESPACE}\" system namespace"));
                }
                (verb != "create" && request.name != node)
                    .then(|| "can only access node lease with the same name as the requesting node".into())
            }
            ("storage.k8s.io", "csinodes", "") => (verb != "create" && request.name != node)
                .then(|| "can only access CSINode with the same name as the requesting node".into()),
            _ => None,
        }
    }

    async fn objection_to_reading(&self, node: &str, request: &Attributes) -> Option<String> {
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

    /// Whether a pod on the node needs the object.
    fn related(&self, node: &str, request: &Attributes) -> bool {
        let name = request.name.as_str();
        match request.resource.as_str() {
            "persistentvolumes" => {
                let volume = self.object("core/persistentvolumes", "", name);
                let claim = |key: &str| {
                    let volume = volume.as_deref()?;
                    volume.str(&["spec", "claimRef", key]).map(str::to_owned)
                };
                let (Some(namespace), Some(claim)) = (claim("namespace"), claim("name")) else { return false };
                self.pods_on(node, &namespace).iter().any(|pod| References::of(pod).claims.contains(&claim))
            }
            resource => self.pods_on(node, &request.namespace).iter().any(|pod| match resource {
                "pods" => pod.name() == name,
                "secrets" => References::of(pod).secrets.contains(name),
                "configmaps" => References::of(pod).config_maps.contains(name),
                "persistentvolumeclaims" => References::of(pod).claims.contains(name),
                "serviceaccounts" => References::of(pod).service_account == name,
                _ => false,
            }),
        }
    }

    fn pods_on(&self, node: &str, namespace: &str) -> Vec<Arc<Object>> {
        let snapshot = self.cache.snapshot("core/pods");
        let mark = format!("\"nodeName\":{}", serde_json::Value::from(node));
        let prefix = key::namespace("core/pods", namespace);
        snapshot
            .range(&prefix, None)
            .take_while(|entry| entry.key.starts_with(prefix.as_bytes()))
            // Stored bytes are canonical, so other nodes' pods need not be decoded.
            .filter(|entry| contains(&entry.value, mark.as_bytes()))
            .filter_map(|entry| entry.object().ok())
            .filter(|pod| pod.str(&["spec", "nodeName"]) == Some(node))
            .collect()
    }

    fn object(&self, prefix: &str, namespace: &str, name: &str) -> Option<Arc<Object>> {
        self.cache.snapshot(prefix).get(&key::object(prefix, namespace, name))?.object().ok()
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
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
