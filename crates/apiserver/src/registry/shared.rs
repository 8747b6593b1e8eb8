//! Conversions that many wait for: each change of an object is converted once for all watchers of a version, also while the
//! webhook has not answered yet.
//!
//! ```text
//!  watcher ──change──► known? ──yes──► its future, shared
//!                        └─no──► a task converts all that are new together ──► all futures end
//! ```
//!
//! What failed is forgotten, so that the next watcher asks again.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt, Shared};
use futures::stream::{self, StreamExt};
use kminik_meta::StatusError;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::def::ResourceDef;
use crate::storage::entry::Entry;

/// Bytes of converted objects that are kept for each version of a resource.
const KEPT_BYTES: usize = 4 << 20;
/// Objects of a batch that failed that are asked about by themselves at a time.
const ALONE: usize = 8;

type Outcome = Result<Arc<Entry>, StatusError>;
type Pending = Shared<BoxFuture<'static, Outcome>>;
/// An object as of one of its revisions.
type Identity = (Bytes, u64);

/// The newest conversions into one version of a resource.
#[derive(Default)]
pub(super) struct Conversions(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    known: HashMap<Identity, Pending>,
    /// Oldest first, with what each counts as.
    order: VecDeque<(Identity, usize)>,
    bytes: usize,
}

/// Who is to be told of an object that nobody has converted yet.
struct Wanted {
    entry: Arc<Entry>,
    done: oneshot::Sender<Outcome>,
}

impl Kept {
    fn insert(&mut self, entry: &Entry, pending: Pending) {
        let (identity, cost) = (identity(entry), entry.value.len() + entry.key.len());
        self.known.insert(identity.clone(), pending);
        self.order.push_back((identity, cost));
        self.bytes += cost;
        while self.bytes > KEPT_BYTES
            && let Some((oldest, cost)) = self.order.pop_front()
        {
            self.known.remove(&oldest);
            self.bytes -= cost;
        }
    }

    fn forget(&mut self, entry: &Entry) {
        let identity = identity(entry);
        self.known.remove(&identity);
        if let Some(at) = self.order.iter().position(|(known, _)| *known == identity)
            && let Some((_, cost)) = self.order.remove(at)
        {
            self.bytes -= cost;
        }
    }
}

fn identity(entry: &Entry) -> Identity {
    (entry.key.clone(), entry.revision)
}

impl Conversions {
    /// The conversions of these, and those of them that somebody must begin.
    fn find(&self, entries: &[&Arc<Entry>]) -> (Vec<Pending>, Vec<Wanted>) {
        let mut kept = self.0.lock();
        let mut wanted = Vec::new();
        let pending = entries.iter().map(|entry| {
            if let Some(known) = kept.known.get(&identity(entry)) {
                return known.clone();
            }
            let (done, outcome) = oneshot::channel();
            let pending = async move {
                outcome.await.unwrap_or_else(|_| Err(StatusError::internal("a conversion was given up")))
            };
            let pending = pending.boxed().shared();
            kept.insert(entry, pending.clone());
            wanted.push(Wanted { entry: Arc::clone(entry), done });
            pending
        });
        (pending.collect(), wanted)
    }
}

impl ResourceDef {
    /// As [`ResourceDef::shown_all`], for changes that others want to see, too.
    ///
    /// # Errors
    /// 500 for a conversion that fails.
    pub async fn shown_to_many(self: &Arc<Self>, mut entries: Vec<Arc<Entry>>) -> Result<Vec<Arc<Entry>>, StatusError> {
        let Some(hub) = &self.hub else { return Ok(entries) };
        let foreign: Vec<usize> = (0..entries.len()).filter(|at| !hub.is_own(&entries[*at])).collect();
        let (pending, wanted) = hub.conversions.find(&foreign.iter().map(|at| &entries[*at]).collect::<Vec<_>>());
        if !wanted.is_empty() {
            // Whoever began it may leave before the others have what they wait for.
            tokio::spawn(self.clone().convert_for_many(wanted));
        }
        for (at, pending) in foreign.into_iter().zip(pending) {
            entries[at] = pending.await?;
        }
        Ok(entries)
    }

    async fn convert_for_many(self: Arc<Self>, wanted: Vec<Wanted>) {
        let entries: Vec<Arc<Entry>> = wanted.iter().map(|wanted| wanted.entry.clone()).collect();
        match self.shown_all(entries).await {
            Ok(shown) => wanted.into_iter().zip(shown).for_each(|(wanted, shown)| drop(wanted.done.send(Ok(shown)))),
            // Not all who wait want to see the one that cannot be converted.
            Err(_) if wanted.len() > 1 => {
                let row = &self;
                let alone = wanted.into_iter().map(|wanted| async move {
                    let outcome = row.shown(wanted.entry.clone()).await;
                    row.tell(wanted, outcome);
                });
                stream::iter(alone).buffer_unordered(ALONE).collect::<()>().await;
            }
            Err(error) => wanted.into_iter().for_each(|wanted| self.tell(wanted, Err(error.clone()))),
        }
    }

    fn tell(&self, wanted: Wanted, outcome: Outcome) {
        if let (Err(_), Some(hub)) = (&outcome, &self.hub) {
            hub.conversions.0.lock().forget(&wanted.entry);
        }
        drop(wanted.done.send(outcome));
    }
}

#[cfg(test)]
mod tests {
    use kminik_store::Record;

    use super::*;

    fn entry(name: &str, size: usize) -> Arc<Entry> {
        let value = Bytes::from(vec![b' '; size]);
        Arc::new(Entry::new(Record {
            key: Bytes::from(name.to_owned()),
            value,
            create_revision: 1,
            mod_revision: 1,
            version: 1,
        }))
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_failed_is_forgotten() {
        let conversions = Conversions::default();
        let (first, second) = (entry("a", KEPT_BYTES / 2), entry("b", KEPT_BYTES / 2));
        assert_eq!(conversions.find(&[&first, &first]).1.len(), 1);
        assert!(conversions.find(&[&first]).1.is_empty(), "somebody has begun");
        conversions.find(&[&second]);
        assert_eq!(conversions.find(&[&first]).1.len(), 1, "the oldest is gone");
        conversions.0.lock().forget(&first);
        let kept = conversions.0.lock();
        assert!(kept.bytes <= KEPT_BYTES && kept.order.len() == kept.known.len());
    }
}
