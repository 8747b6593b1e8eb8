//! Which pods are on which node, with what they refer to: kept up to date from the cache's changes, never rebuilt for a request.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use kminik_meta::Object;
use kminik_meta::pod_annotations::MIRROR;
use parking_lot::Mutex;

use super::references::References;
use crate::storage::cache::{Advance, Cache, Cursor};
use crate::storage::entry::Entry;

const PODS: &str = "core/pods";
/// Changes taken from the log at once.
const BATCH: usize = 1024;

/// A pod on a node.
pub(super) struct BoundPod {
    pub(super) namespace: String,
    pub(super) name: String,
    /// Empty for a mirror pod: a kubelet that makes it must gain nothing by it.
    pub(super) references: References,
}

/// The index.
pub(super) struct PodsByNode {
    cache: Arc<Cache>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Where the log was read to; `None` before the first question.
    cursor: Option<Cursor>,
    by_node: HashMap<String, HashMap<Bytes, Arc<BoundPod>>>,
    node_of: HashMap<Bytes, String>,
}

impl PodsByNode {
    pub(super) fn new(cache: Arc<Cache>) -> Self {
        PodsByNode { cache, state: Mutex::default() }
    }

    /// The pods on the node, in all namespaces (`""`) or in one.
    pub(super) fn on(&self, node: &str, namespace: &str) -> Vec<Arc<BoundPod>> {
        let mut state = self.state.lock();
        self.advance(&mut state);
        let pods = state.by_node.get(node).into_iter().flat_map(HashMap::values);
        pods.filter(|pod| namespace.is_empty() || pod.namespace == namespace).cloned().collect()
    }

    fn advance(&self, state: &mut State) {
        let resource = self.cache.resource(PODS);
        while let Some(cursor) = &mut state.cursor {
            match resource.advance(cursor, BATCH) {
                Advance::Changes(changes) if changes.is_empty() => return,
                Advance::Changes(changes) => {
                    for change in changes {
                        match (&change.now, &change.before) {
                            (Some(now), _) => state.put(now),
                            (None, Some(before)) => state.remove(&before.key),
                            (None, None) => {}
                        }
                    }
                }
                Advance::Behind => state.cursor = None,
            }
        }
        let snapshot = self.cache.snapshot(PODS);
        *state = State { cursor: resource.cursor(snapshot.revision), ..State::default() };
        for entry in snapshot.entries.values() {
            state.put(entry);
        }
    }
}

impl State {
    fn put(&mut self, entry: &Arc<Entry>) {
        self.remove(&entry.key);
        let Ok(pod) = entry.decode() else { return };
        let node = pod.str(&["spec", "nodeName"]).unwrap_or_default().to_owned();
        if node.is_empty() {
            return;
        }
        self.by_node.entry(node.clone()).or_default().insert(entry.key.clone(), Arc::new(BoundPod::of(&pod)));
        self.node_of.insert(entry.key.clone(), node);
    }

    fn remove(&mut self, key: &Bytes) {
        let Some(node) = self.node_of.remove(key) else { return };
        if let Some(pods) = self.by_node.get_mut(&node) {
            pods.remove(key);
            if pods.is_empty() {
                self.by_node.remove(&node);
            }
        }
    }
}

impl BoundPod {
    fn of(pod: &Object) -> Self {
        let mirror = pod.annotation(MIRROR).is_some();
        BoundPod {
            namespace: pod.namespace().to_owned(),
            name: pod.name().to_owned(),
            references: if mirror { References::default() } else { References::of(pod) },
        }
    }
}
