//! Pods and nodes as the plugins see them: parsed once, shared by snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, PodAffinityTerm, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kminik_client::ObjectKey;
use kube::core::{Selector, SelectorExt};

use crate::resources::{PODS, Resources, nonzero_requests, requests};

/// A port that a pod takes on its node: address (`0.0.0.0` is every one), protocol, number.
pub(crate) type HostPort = (String, String, i32);

/// A term of pod (anti-)affinity with its selectors read.
#[derive(Clone, Debug)]
pub(crate) struct AffinityTerm {
    pub(crate) topology_key: String,
    pub(crate) weight: i64,
    selector: Option<Selector>,
    namespaces: BTreeSet<String>,
    /// Namespaces by their labels; an empty selector means all.
    namespace_selector: Option<Selector>,
}

/// Labels of namespaces, for terms that select namespaces.
pub type NamespaceLabels = BTreeMap<String, BTreeMap<String, String>>;

impl AffinityTerm {
    fn read(term: &PodAffinityTerm, weight: i64, pod: &Pod) -> Self {
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.extend(pod.metadata.namespace.clone());
        }
        let selector = term.label_selector.clone().map(|mut selector| {
            add_label_keys(&mut selector, term.match_label_keys.as_deref(), pod, "In");
            add_label_keys(&mut selector, term.mismatch_label_keys.as_deref(), pod, "NotIn");
            selector
        });
        Self {
            topology_key: term.topology_key.clone(),
            weight,
            // A selector that cannot be read selects nothing, as none does.
            selector: selector.and_then(|selector| Selector::try_from(selector).ok()),
            namespaces,
            namespace_selector: term.namespace_selector.clone().and_then(|selector| Selector::try_from(selector).ok()),
        }
    }

    /// The term selects the pod.
    pub(crate) fn selects(&self, pod: &Pod, namespaces: &NamespaceLabels) -> bool {
        let Some(selector) = &self.selector else { return false };
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let in_namespace = self.namespaces.contains(namespace)
            || self.namespace_selector.as_ref().is_some_and(|selector| match namespaces.get(namespace) {
                Some(labels) => selector.matches(labels),
                None => selector.selects_all(),
            });
        in_namespace && matches(selector, pod)
    }
}

/// Whether a selector admits a pod's labels.
pub(crate) fn matches(selector: &Selector, pod: &Pod) -> bool {
    match &pod.metadata.labels {
        Some(labels) => selector.matches(labels),
        None => selector.matches(&BTreeMap::new()),
    }
}

/// Narrows a selector to pods that have (`In`) or have not (`NotIn`) the pod's own values of some labels.
pub(crate) fn add_label_keys(selector: &mut LabelSelector, keys: Option<&[String]>, pod: &Pod, operator: &str) {
    for key in keys.into_iter().flatten() {
        let value = pod.metadata.labels.as_ref().and_then(|labels| labels.get(key));
        if let Some(value) = value {
            selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
                key: key.clone(),
                operator: operator.into(),
                values: Some(vec![value.clone()]),
            });
        }
    }
}

/// A pod with what plugins ask of it.
#[derive(Debug)]
pub struct PodInfo {
    pub pod: Arc<Pod>,
    pub key: ObjectKey,
    pub(crate) requests: Resources,
    pub(crate) nonzero: Resources,
    pub(crate) ports: Vec<HostPort>,
    pub(crate) required_affinity: Vec<AffinityTerm>,
    pub(crate) required_anti_affinity: Vec<AffinityTerm>,
    pub(crate) preferred_affinity: Vec<AffinityTerm>,
    pub(crate) preferred_anti_affinity: Vec<AffinityTerm>,
}

impl PodInfo {
    pub fn new(pod: Arc<Pod>) -> Self {
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let affinity = spec.affinity.as_ref();
        let toward = affinity.and_then(|affinity| affinity.pod_affinity.as_ref());
        let apart = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
        let required = |terms: Option<&Vec<PodAffinityTerm>>| {
            terms.into_iter().flatten().map(|term| AffinityTerm::read(term, 1, &pod)).collect::<Vec<_>>()
        };
        let preferred = |terms: Option<&Vec<k8s_openapi::api::core::v1::WeightedPodAffinityTerm>>| {
            let terms = terms.into_iter().flatten();
            terms
                .map(|term| AffinityTerm::read(&term.pod_affinity_term, i64::from(term.weight), &pod))
                .collect::<Vec<_>>()
        };
        Self {
            key: ObjectKey::of(pod.as_ref()),
            requests: requests(spec),
            nonzero: nonzero_requests(spec),
            ports: host_ports(spec),
            required_affinity: required(
                toward.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
            ),
            required_anti_affinity: required(
                apart.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
            ),
            preferred_affinity: preferred(
                toward.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
            ),
            preferred_anti_affinity: preferred(
                apart.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
            ),
            pod,
        }
    }

    pub(crate) fn spec(&self) -> Option<&PodSpec> {
        self.pod.spec.as_ref()
    }

    /// Higher is scheduled first and may displace lower.
    pub(crate) fn priority(&self) -> i32 {
        self.spec().and_then(|spec| spec.priority).unwrap_or(0)
    }

    pub(crate) fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Names of the claims that the pod mounts, those made for it included.
    pub(crate) fn claims(&self) -> Vec<ObjectKey> {
        let volumes = self.spec().and_then(|spec| spec.volumes.as_ref());
        let names = volumes.into_iter().flatten().filter_map(|volume| {
            if let Some(claim) = &volume.persistent_volume_claim {
                return Some(claim.claim_name.clone());
            }
            volume.ephemeral.as_ref().map(|_| format!("{}-{}", self.key.name, volume.name))
        });
        names.map(|name| ObjectKey::new(self.key.namespace.clone(), name)).collect()
    }
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars =
        spec.init_containers.iter().flatten().filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            let address = port.host_ip.clone().filter(|address| !address.is_empty());
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
            Some((address.unwrap_or_else(|| "0.0.0.0".into()), protocol, number))
        })
        .collect()
}

/// A node with its pods, assumed ones included.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    pub node: Arc<Node>,
    pub pods: Vec<Arc<PodInfo>>,
    pub(crate) allocatable: Resources,
    pub(crate) requested: Resources,
    pub(crate) nonzero: Resources,
}

impl NodeInfo {
    pub fn new(node: Arc<Node>) -> Self {
        let allocatable = Resources::read(node.status.as_ref().and_then(|status| status.allocatable.as_ref()));
        Self { node, pods: Vec::new(), allocatable, requested: Resources::default(), nonzero: Resources::default() }
    }

    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.nonzero.add(&pod.nonzero);
        self.pods.push(pod);
    }

    /// Takes a pod off the node by uid.
    pub fn remove(&mut self, uid: &str) {
        if let Some(at) = self.pods.iter().position(|pod| pod.uid() == uid) {
            let pod = self.pods.swap_remove(at);
            self.requested.subtract(&pod.requests);
            self.nonzero.subtract(&pod.nonzero);
        }
    }

    /// Replaces the node object, keeping the pods.
    pub fn set_node(&mut self, node: Arc<Node>) {
        self.allocatable = Resources::read(node.status.as_ref().and_then(|status| status.allocatable.as_ref()));
        self.node = node;
    }

    pub fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        self.node.metadata.labels.as_ref()?.get(name).map(String::as_str)
    }

    pub(crate) fn pod_limit(&self) -> i64 {
        self.allocatable.get(PODS)
    }
}
