//! The nodes and their pods as the scheduler believes them to be: what the API tells, plus the decisions it does not know yet.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kminik_client::{Informer, ObjectKey};

use crate::info::{NamespaceLabels, NodeInfo, PodInfo};

/// What a decision is made on. Cheap to clone and to change one node of.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// By name.
    pub nodes: BTreeMap<String, Arc<NodeInfo>>,
    pub volumes: Arc<Volumes>,
    pub namespaces: Arc<NamespaceLabels>,
}

/// Claims and volumes at the time of a snapshot.
#[derive(Default)]
pub struct Volumes {
    pub claims: HashMap<ObjectKey, Arc<PersistentVolumeClaim>>,
    /// By name.
    pub volumes: BTreeMap<String, Arc<PersistentVolume>>,
    /// By name.
    pub classes: HashMap<String, Arc<StorageClass>>,
    /// Volumes that earlier decisions have given to claims.
    pub promised: HashSet<String>,
}

impl Volumes {
    /// Reads the informers' caches.
    pub fn read(
        claims: &Informer<PersistentVolumeClaim>,
        volumes: &Informer<PersistentVolume>,
        classes: &Informer<StorageClass>,
        promised: HashSet<String>,
    ) -> Self {
        let name =
            |meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta| meta.name.clone().unwrap_or_default();
        Self {
            claims: claims.list().into_iter().map(|claim| (ObjectKey::of(claim.as_ref()), claim)).collect(),
            volumes: volumes.list().into_iter().map(|volume| (name(&volume.metadata), volume)).collect(),
            classes: classes.list().into_iter().map(|class| (name(&class.metadata), class)).collect(),
            promised,
        }
    }
}

struct Placed {
    node: String,
    info: Arc<PodInfo>,
    assumed: bool,
}

/// Keeps node infos up to date from events, in time proportional to the change.
#[derive(Default)]
pub struct Cache {
    nodes: BTreeMap<String, Arc<NodeInfo>>,
    /// Pods of nodes that are not known (yet), by node.
    homeless: HashMap<String, Vec<Arc<PodInfo>>>,
    /// By uid.
    pods: HashMap<String, Placed>,
}

impl Cache {
    /// A node was added or changed.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        match self.nodes.get_mut(&name) {
            Some(info) => Arc::make_mut(info).set_node(node),
            None => {
                let mut info = NodeInfo::new(node);
                for pod in self.homeless.remove(&name).unwrap_or_default() {
                    info.add(pod);
                }
                self.nodes.insert(name, Arc::new(info));
            }
        }
    }

    /// A node was deleted; its pods stay known.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(info) = self.nodes.remove(name)
            && !info.pods.is_empty()
        {
            self.homeless.insert(name.to_string(), info.pods.clone());
        }
    }

    /// A pod was added or changed, as the API tells. One without a node keeps a decision made about it.
    pub fn set_pod(&mut self, pod: &Arc<Pod>) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|node| !node.is_empty());
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) {
            return self.remove_pod(&uid);
        }
        let Some(node) = node else { return };
        if let Some(placed) = self.pods.get(&uid)
            && placed.node == node
            && !placed.assumed
            && placed.info.pod.metadata.generation == pod.metadata.generation
            && placed.info.pod.metadata.labels == pod.metadata.labels
            && placed.info.pod.metadata.deletion_timestamp == pod.metadata.deletion_timestamp
        {
            // A change of status alone moves nothing.
            return;
        }
        self.place(uid, node, Arc::new(PodInfo::new(pod.clone())), false);
    }

    /// A pod is gone or has ended.
    pub fn remove_pod(&mut self, uid: &str) {
        let Some(placed) = self.pods.remove(uid) else { return };
        if let Some(info) = self.nodes.get_mut(&placed.node) {
            Arc::make_mut(info).remove(uid);
        } else if let Some(pods) = self.homeless.get_mut(&placed.node) {
            pods.retain(|pod| pod.uid() != uid);
            if pods.is_empty() {
                self.homeless.remove(&placed.node);
            }
        }
    }

    /// Counts a pod on a node before the API knows.
    pub fn assume(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.place(pod.uid().to_string(), node.to_string(), pod, true);
    }

    /// Takes back [`Cache::assume`], unless the API has confirmed it meanwhile.
    pub fn forget(&mut self, uid: &str) {
        if self.pods.get(uid).is_some_and(|placed| placed.assumed) {
            self.remove_pod(uid);
        }
    }

    /// The pod has been given a node.
    pub fn is_placed(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// The nodes as they are now; later changes do not show.
    pub fn snapshot(&self) -> BTreeMap<String, Arc<NodeInfo>> {
        self.nodes.clone()
    }

    fn place(&mut self, uid: String, node: String, info: Arc<PodInfo>, assumed: bool) {
        self.remove_pod(&uid);
        match self.nodes.get_mut(&node) {
            Some(node) => Arc::make_mut(node).add(info.clone()),
            None => self.homeless.entry(node.clone()).or_default().push(info.clone()),
        }
        self.pods.insert(uid, Placed { node, info, assumed });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::CPU;

    fn node(name: &str) -> Arc<Node> {
        let value = json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": "4"}}});
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn pod(uid: &str, node: Option<&str>, phase: &str) -> Arc<Pod> {
        let value = json!({
            "metadata": {"name": uid, "uid": uid},
            "spec": {"nodeName": node, "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": phase},
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn used(cache: &Cache) -> i64 {
        cache.snapshot()["a"].requested.get(CPU)
    }

    #[test]
    fn assumed_pods_count_until_confirmed_or_forgotten() {
        let mut cache = Cache::default();
        cache.set_node(node("a"));
        let waiting = pod("p", None, "Pending");
        cache.assume(Arc::new(PodInfo::new(waiting.clone())), "a");
        cache.set_pod(&waiting);
        assert_eq!(used(&cache), 1000, "an event from before the binding changes nothing");
        cache.set_pod(&pod("p", Some("a"), "Pending"));
        cache.forget("p");
        assert_eq!(used(&cache), 1000, "what the API confirmed is not forgotten");
        cache.set_pod(&pod("p", Some("a"), "Succeeded"));
        assert_eq!(used(&cache), 0);
        cache.assume(Arc::new(PodInfo::new(pod("q", None, "Pending"))), "a");
        cache.forget("q");
        assert_eq!(used(&cache), 0);
    }

    #[test]
    fn a_node_that_comes_later_has_its_pods() {
        let mut cache = Cache::default();
        cache.set_pod(&pod("p", Some("a"), "Running"));
        cache.set_node(node("a"));
        assert_eq!(used(&cache), 1000);
        cache.remove_node("a");
        cache.set_node(node("a"));
        assert_eq!(used(&cache), 1000);
    }
}
