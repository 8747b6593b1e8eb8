//! Runs a reconciler over a work queue: so many keys at once, back-off for those that fail.

use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::error::{describe, stems_from_conflict};
use crate::queue::WorkQueue;

/// What follows a successful reconciliation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing, until an event adds the key again.
    Done,
    /// Look again after this time, unless an event comes first.
    After(Duration),
}

/// A queue with the number of its keys that may be reconciled at once.
pub struct Worker<Q> {
    name: &'static str,
    queue: WorkQueue<Q>,
    concurrency: usize,
}

impl<Q: Clone + Ord + Hash + Debug + Display + Send + Sync + 'static> Worker<Q> {
    /// `name` stands in the logs.
    pub fn new(name: &'static str, queue: WorkQueue<Q>, concurrency: usize) -> Self {
        Self { name, queue, concurrency: concurrency.max(1) }
    }

    /// Reconciles keys until `stop`, then waits for those that run. A failed key is retried with its own exponential
    /// back-off; a panic counts as a failure of its key and hurts no other.
    pub async fn run<F, R, E>(self, stop: &CancellationToken, reconcile: F)
    where
        F: Fn(Q) -> R,
        R: Future<Output = Result<Next, E>> + Send + 'static,
        E: std::error::Error + Send + 'static,
    {
        let permits = Arc::new(Semaphore::new(self.concurrency));
        let mut tasks = JoinSet::new();
        loop {
            let Some(Ok(permit)) = stop.run_until_cancelled(permits.clone().acquire_owned()).await else { break };
            let Some(key) = stop.run_until_cancelled(self.queue.next()).await else { break };
            while tasks.try_join_next().is_some() {}
            let (name, queue) = (self.name, self.queue.clone());
            let work = reconcile(key.clone());
            tasks.spawn(async move {
                match AssertUnwindSafe(work).catch_unwind().await {
                    Ok(Ok(next)) => {
                        queue.finish(key.clone(), true);
                        if let Next::After(delay) = next {
                            queue.add_after(key, delay);
                        }
                    }
                    Ok(Err(error)) => {
                        let retry = queue.finish(key.clone(), false);
                        let (text, conflict) = (describe(&error), stems_from_conflict(&error));
                        // Others write too: losing a race is no news.
                        if conflict {
                            tracing::debug!(worker = name, key = %key, error = text, ?retry, "reconciliation lost a race");
                        } else {
                            tracing::info!(worker = name, key = %key, error = text, ?retry, "reconciliation failed");
                        }
                    }
                    Err(_) => {
                        let retry = queue.finish(key.clone(), false);
                        tracing::error!(worker = name, key = %key, ?retry, "reconciliation panicked");
                    }
                }
                drop(permit);
            });
        }
        while tasks.join_next().await.is_some() {}
    }
}
