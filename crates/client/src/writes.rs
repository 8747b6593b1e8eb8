//! What a control loop wrote for each of its keys, so that it never decides on a cache older than its own writes.
//!
//! A loop notes each write under the key it reconciles. Before it reconciles that key again it waits until the informers of the
//! kinds it wrote have seen those writes. With that, creating too many children because the cache lags is impossible, and
//! no counting of expected events is needed.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use kube::Resource;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::informer::{Informer, Progress};
use crate::key::{ObjectKey, revision_of};

/// The informers did not see a key's own writes in time; reconcile it later.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the cache has not seen this controller's own writes for {0:?}")]
pub struct Unsettled(pub Duration);

struct Pending {
    seen: Box<dyn Fn() -> bool + Send + Sync>,
    progress: watch::Receiver<Progress>,
}

/// The writes not yet seen, by key.
pub struct Writes<Q>(Mutex<HashMap<Q, Vec<Pending>>>);

impl<Q: Clone + Eq + Hash> Default for Writes<Q> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<Q: Clone + Eq + Hash> Writes<Q> {
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes that `object` (as the API server answered it) was created or changed while `key` was reconciled.
    pub fn wrote<K: Resource + Send + Sync + 'static>(&self, key: &Q, informer: &Informer<K>, object: &K) {
        let revision = revision_of(object.meta());
        let cache = informer.clone();
        self.note(key, informer.progress(), move || cache.seen_revision() >= revision);
    }

    /// Notes that the object of that name and uid was deleted: seen once the cache has lost it or shows it terminating.
    pub fn deleted<K: Resource + Send + Sync + 'static>(&self, key: &Q, informer: &Informer<K>, object: &K) {
        let (name, uid) = (ObjectKey::of(object), object.meta().uid.clone());
        let cache = informer.clone();
        self.note(key, informer.progress(), move || match cache.get(&name) {
            Some(kept) => kept.meta().uid != uid || kept.meta().deletion_timestamp.is_some(),
            None => true,
        });
    }

    /// Waits until everything noted for `key` has been seen, and forgets it. Gives up after `limit`.
    pub async fn settled(&self, key: &Q, limit: Duration) -> Result<(), Unsettled> {
        let Some(pending) = self.0.lock().remove(key) else { return Ok(()) };
        let deadline = tokio::time::Instant::now() + limit;
        let mut pending = pending.into_iter();
        while let Some(mut write) = pending.next() {
            while !(write.seen)() {
                match tokio::time::timeout_at(deadline, write.progress.changed()).await {
                    Ok(Ok(())) => {}
                    // The informer has ended: nothing more will be seen, and nothing more will be reconciled either.
                    Ok(Err(_)) => return Err(Unsettled(limit)),
                    Err(_) => {
                        let mut noted = self.0.lock();
                        let noted = noted.entry(key.clone()).or_default();
                        noted.push(write);
                        noted.extend(pending);
                        return Err(Unsettled(limit));
                    }
                }
            }
        }
        Ok(())
    }

    fn note(&self, key: &Q, progress: watch::Receiver<Progress>, seen: impl Fn() -> bool + Send + Sync + 'static) {
        if seen() {
            return;
        }
        self.0.lock().entry(key.clone()).or_default().push(Pending { seen: Box::new(seen), progress });
    }
}
