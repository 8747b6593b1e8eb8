//! The table of resources, put together from everywhere that rows come from, and put together again whenever one of these changes.
//!
//! ```text
//!  built-in rows ─┐
//!  definitions ───┼──► Composer ──► ResourceTable ──► swapped in; requests under way keep the one they began with
//!  …              ┘        ▲
//!                 changes of the objects that sources read, from the cache
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio_util::sync::CancellationToken;

use super::Registry;
use super::def::ResourceDef;
use super::table::{ResourceTable, TableError};
use crate::Server;
use crate::aggregation::{Priority, Remote};
use crate::health::Step;
use crate::storage::cache::Cache;

/// What a table is made of.
#[derive(Default)]
pub struct Parts {
    /// Group versions that other servers serve; rows of them are hidden.
    pub remotes: Vec<Arc<Remote>>,
    /// Where group versions (group, version) stand in discovery, if an object says it.
    pub priorities: HashMap<(String, String), Priority>,
    /// The rows in the order of discovery. A later row of a name that is taken makes the table contradict itself, so a source looks
    /// at what is there before it adds.
    pub rows: Vec<Arc<ResourceDef>>,
}

/// Somewhere that rows come from.
pub trait Source: Send + Sync + 'static {
    /// Storage prefixes (`apiextensions.k8s.io/customresourcedefinitions`) of the objects that it reads: the table is composed again
    /// after each of their changes.
    fn reads(&self) -> &[&'static str];

    /// Adds what it has, from what the cache holds now. Called again and again: what is costly to make should be kept for as long as
    /// the object it was made from stays the same.
    fn contribute(&self, cache: &Cache, parts: &mut Parts);
}

/// Rows that never change.
pub struct Fixed(Vec<Arc<ResourceDef>>);

impl Fixed {
    pub fn new(rows: Vec<ResourceDef>) -> Self {
        Fixed(rows.into_iter().map(Arc::new).collect())
    }
}

impl Source for Fixed {
    fn reads(&self) -> &[&'static str] {
        &[]
    }

    fn contribute(&self, _cache: &Cache, parts: &mut Parts) {
        parts.rows.extend(self.0.iter().cloned());
    }
}

/// Makes tables of what its sources have.
pub struct Composer {
    sources: Vec<Box<dyn Source>>,
}

impl Composer {
    /// Over sources in the order of their precedence: what a later one has of the same name does not count.
    pub fn new(sources: Vec<Box<dyn Source>>) -> Self {
        Composer { sources }
    }

    /// The table as of what the cache holds now.
    ///
    /// # Errors
    /// When rows contradict each other: a mistake in a source.
    pub fn compose(&self, cache: &Cache) -> Result<ResourceTable, TableError> {
        let mut parts = Parts::default();
        for source in &self.sources {
            source.contribute(cache, &mut parts);
        }
        Ok(ResourceTable::new(parts.rows)?.arranged(parts.remotes, &parts.priorities))
    }
}

/// Composes the table anew after each change of what the sources read, until cancelled.
pub(crate) async fn follow(server: Arc<Server>, stop: CancellationToken) {
    let cache = server.registry().cache().clone();
    let reads = server.registry().composer().sources.iter().flat_map(|source| source.reads().iter().copied());
    let mut changes: Vec<_> = reads.map(|prefix| cache.resource(prefix).subscribe()).collect();
    server.health().reached(Step::Composition);
    if changes.is_empty() {
        return;
    }
    // What changed between the first table and these subscriptions.
    recompose(&server);
    loop {
        let mut any: FuturesUnordered<_> = changes.iter_mut().map(|changed| changed.changed().boxed()).collect();
        let woken = tokio::select! {
            () = stop.cancelled() => return,
            woken = any.next() => woken,
        };
        if !matches!(woken, Some(Ok(()))) {
            return;
        }
        drop(any);
        recompose(&server);
    }
}

fn recompose(server: &Server) {
    match server.registry().recompose() {
        Ok(table) => server.openapi().retain(&table),
        Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "the old table of resources stays"),
    }
}

impl Registry {
    /// Composes the table anew and makes it the present one.
    ///
    /// # Errors
    /// As [`Composer::compose`]; the present table stays.
    pub fn recompose(&self) -> Result<Arc<ResourceTable>, TableError> {
        let _one = self.composing.lock();
        let table = Arc::new(self.composer().compose(self.cache())?);
        self.swap_table(table.clone());
        Ok(table)
    }
}
