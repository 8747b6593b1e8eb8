//! Where pods come from: a watch of the pods bound to this node, one worker for each UID.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kminik_client::{Change, EventType, Informer, ObjectKey};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission;
use super::events::about;
use super::memory::Rejection;
use super::table::Entry;
use super::view::PodView;
use super::worker::Worker;
use crate::node_context::NodeContext;

/// Pause before a worker that panicked is started again.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// Turns changes of pods into letters and workers.
pub(crate) struct Source {
    pub node: Arc<NodeContext>,
    /// This node's object.
    pub own: Informer<Node>,
    /// UIDs of pods that had a sandbox when the kubelet started; they were admitted before.
    pub adopted: HashSet<String>,
    pub workers: TaskTracker,
    pub stop: CancellationToken,
}

impl Source {
    /// Handles one change; called in the order of the watch.
    pub(crate) fn handle(self: &Arc<Self>, change: &Change<Pod>) {
        let pod = change.object();
        let Some(uid) = pod.metadata.uid.as_deref() else { return };
        let gone = matches!(change, Change::Deleted(_));
        match self.node.table.get(uid) {
            Some(entry) => {
                entry.inbox.put(|letters| {
                    letters.pod = Some(pod.clone());
                    letters.gone |= gone;
                });
                if gone && entry.note_gone() {
                    self.node.table.remove(uid);
                }
            }
            None if gone => {}
            None => self.begin(uid, pod),
        }
    }

    fn begin(self: &Arc<Self>, uid: &str, pod: &Arc<Pod>) {
        let view = PodView::new(pod.clone());
        let rejected = self.admit(&view);
        if let Some(rejection) = &rejected {
            self.node.recorder.event(
                about(&view, None),
                EventType::Warning,
                rejection.reason.clone(),
                rejection.message.clone(),
            );
        }
        let entry = Arc::new(Entry::new(view));
        self.node.table.insert(uid, entry.clone());
        let source = self.clone();
        let uid = uid.to_string();
        self.workers.spawn(async move {
            loop {
                let worker = Worker::new(source.node.clone(), entry.clone(), rejected.clone(), source.stop.clone());
                match AssertUnwindSafe(worker.run()).catch_unwind().await {
                    Ok(()) => break,
                    Err(_) => tracing::error!(uid, "pod worker panicked"),
                }
                if source.stop.run_until_cancelled(tokio::time::sleep(AFTER_PANIC)).await.is_none() {
                    break;
                }
            }
            if !source.stop.is_cancelled() && entry.note_finished() {
                source.node.table.remove(&uid);
            }
        });
    }

    fn admit(&self, view: &PodView) -> Option<Rejection> {
        let phase = view.pod.status.as_ref().and_then(|s| s.phase.as_deref());
        let over = matches!(phase, Some("Failed" | "Succeeded"));
        if over || view.deleting() || self.adopted.contains(&view.uid) {
            return None;
        }
        let others: Vec<_> = self.node.table.active().iter().map(|entry| entry.view.load_full()).collect();
        let config = &self.node.config;
        let own = self.own.get(&ObjectKey::cluster(&config.node_name));
        let labels = own.and_then(|node| node.metadata.labels.clone()).unwrap_or_else(|| config.node_labels.clone());
        let node = admission::Node {
            name: &config.node_name,
            labels: &labels,
            allocatable: self.node.capacity,
            max_pods: config.max_pods,
        };
        admission::check(view, &others, &node)
    }
}
