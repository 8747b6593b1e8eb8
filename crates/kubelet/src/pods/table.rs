//! The pods the kubelet knows, and the mailbox of each one's worker.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::memory::Verdicts;
use super::view::PodView;

/// What a worker is told; told twice before it looks is told once.
#[derive(Default)]
pub(crate) struct Inbox {
    letters: Mutex<Letters>,
    bell: Notify,
}

/// Everything that came since the worker last looked.
#[derive(Default)]
pub(crate) struct Letters {
    pub pod: Option<Arc<Pod>>,
    pub gone: bool,
    /// Objects that volumes or the environment come from have changed.
    pub objects_changed: bool,
    pub verdicts: HashMap<String, Verdicts>,
}

impl Inbox {
    pub(crate) fn put(&self, write: impl FnOnce(&mut Letters)) {
        write(&mut self.letters.lock());
        self.bell.notify_one();
    }

    /// Nothing but: look at the runtime again.
    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }

    pub(crate) fn take(&self) -> Letters {
        std::mem::take(&mut *self.letters.lock())
    }

    pub(crate) async fn rung(&self) {
        self.bell.notified().await;
    }
}

/// A pod with its worker.
pub(crate) struct Entry {
    pub inbox: Arc<Inbox>,
    pub view: ArcSwap<PodView>,
    /// As last computed, which the API may not have yet.
    pub status: ArcSwap<PodStatus>,
    /// The API no longer has the pod.
    gone: AtomicBool,
    /// Its worker has ended; the entry stays as a tombstone until the API tells that the pod is gone.
    finished: AtomicBool,
}

impl Entry {
    pub(crate) fn new(view: PodView) -> Self {
        let status = view.pod.status.clone().unwrap_or_default();
        Self {
            inbox: Arc::default(),
            view: ArcSwap::from_pointee(view),
            status: ArcSwap::from_pointee(status),
            gone: AtomicBool::new(false),
            finished: AtomicBool::new(false),
        }
    }

    /// Notes that the API no longer has the pod; true when nothing is left to do for it.
    pub(crate) fn note_gone(&self) -> bool {
        self.gone.store(true, Ordering::SeqCst);
        self.finished.load(Ordering::SeqCst)
    }

    /// Notes that the worker has ended; true when nothing is left to do for it.
    pub(crate) fn note_finished(&self) -> bool {
        self.finished.store(true, Ordering::SeqCst);
        self.gone.load(Ordering::SeqCst)
    }

    pub(crate) fn terminal(&self) -> bool {
        matches!(self.status.load().phase.as_deref(), Some("Failed" | "Succeeded"))
    }
}

/// By UID.
#[derive(Default)]
pub(crate) struct Table {
    pods: RwLock<HashMap<String, Arc<Entry>>>,
    /// Sandbox id to pod UID.
    sandboxes: RwLock<HashMap<String, String>>,
}

impl Table {
    pub(crate) fn get(&self, uid: &str) -> Option<Arc<Entry>> {
        self.pods.read().get(uid).cloned()
    }

    pub(crate) fn insert(&self, uid: &str, entry: Arc<Entry>) {
        self.pods.write().insert(uid.to_string(), entry);
    }

    pub(crate) fn remove(&self, uid: &str) {
        self.pods.write().remove(uid);
        self.sandboxes.write().retain(|_, owner| owner != uid);
    }

    /// Every pod that has a worker.
    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        let pods = self.pods.read();
        pods.values().filter(|entry| !entry.finished.load(Ordering::SeqCst)).cloned().collect()
    }

    /// The pods that a new one is measured against. As upstream's active pods: one that was deleted without grace takes no room
    /// any more, though its containers may still be stopping; the scheduler counts it as little.
    pub(crate) fn active(&self) -> Vec<Arc<Entry>> {
        let mut active = self.all();
        active.retain(|entry| !entry.terminal() && !entry.gone.load(Ordering::SeqCst));
        active
    }

    pub(crate) fn clear(&self) {
        self.pods.write().clear();
        self.sandboxes.write().clear();
    }

    /// The pod of a name; of several (one ending, one new) the newest.
    pub(crate) fn named(&self, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        let mut found: Vec<_> = self.all();
        found.retain(|entry| {
            let view = entry.view.load();
            view.namespace == namespace && view.name == name
        });
        found.into_iter().max_by_key(|entry| entry.view.load().pod.metadata.creation_timestamp.as_ref().map(|t| t.0))
    }

    /// Whose sandbox it is.
    pub(crate) fn note_sandbox(&self, sandbox: &str, uid: &str) {
        self.sandboxes.write().insert(sandbox.to_string(), uid.to_string());
    }

    pub(crate) fn of_sandbox(&self, sandbox: &str) -> Option<Arc<Entry>> {
        let uid = self.sandboxes.read().get(sandbox).cloned()?;
        self.get(&uid)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_that_are_over_or_gone_take_no_room() {
        let table = Table::default();
        for (uid, phase) in [("runs", "Running"), ("over", "Failed"), ("gone", "Running")] {
            let pod = json!({"metadata": {"name": uid, "namespace": "n", "uid": uid}, "status": {"phase": phase}});
            let view = PodView::new(Arc::new(serde_json::from_value(pod).unwrap()));
            table.insert(uid, Arc::new(Entry::new(view)));
        }
        assert!(!table.get("gone").unwrap().note_gone(), "its worker goes on");
        let active: Vec<_> = table.active().iter().map(|entry| entry.view.load().name.clone()).collect();
        assert_eq!(active, ["runs"]);
        assert_eq!(table.all().len(), 3, "each is still worked on");
    }
}
