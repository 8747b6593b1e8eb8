//! Definitions as a source of rows.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::definition::Outline;
use crate::outbound::Outbound;
use crate::registry::compose::{Parts, Source};
use crate::registry::def::ResourceDef;
use crate::storage::cache::Cache;

/// Storage prefix of definitions.
const PREFIX: &str = "apiextensions.k8s.io/customresourcedefinitions";

/// The rows of all definitions that have their names. A definition is read once a change, and its row stays the same one while what
/// it says stays the same.
pub(crate) struct Definitions {
    outbound: Arc<Outbound>,
    known: Mutex<HashMap<Bytes, Known>>,
}

struct Known {
    revision: u64,
    row: Option<Arc<ResourceDef>>,
}

impl Definitions {
    /// Webhooks that convert are asked over `outbound`.
    pub(crate) fn new(outbound: Arc<Outbound>) -> Self {
        Definitions { outbound, known: Mutex::default() }
    }

    fn read(&self, definition: &Bytes, revision: u64, before: Option<Arc<ResourceDef>>) -> Option<Arc<ResourceDef>> {
        let outline = match Outline::read(definition) {
            Ok(outline) => outline,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a stored definition cannot be read");
                return None;
            }
        };
        if !outline.is_served() {
            return None;
        }
        match before {
            Some(row) if row.edition == outline.edition() => Some(row),
            _ => Some(Arc::new(outline.row(definition, revision, &self.outbound))),
        }
    }
}

impl Source for Definitions {
    fn reads(&self) -> &[&'static str] {
        &[PREFIX]
    }

    fn contribute(&self, cache: &Cache, parts: &mut Parts) {
        let snapshot = cache.snapshot(PREFIX);
        let mut known = self.known.lock();
        known.retain(|key, _| snapshot.entries.contains_key(key));
        for (key, entry) in &snapshot.entries {
            let before = known.remove(key);
            let now = match before {
                Some(same) if same.revision == entry.revision => same,
                before => Known {
                    revision: entry.revision,
                    row: self.read(&entry.value, entry.revision, before.and_then(|known| known.row)),
                },
            };
            if let Some(row) = &now.row
                && !parts.rows.iter().any(|other| other.group == row.group && other.plural == row.plural)
            {
                parts.rows.push(row.clone());
            }
            known.insert(key.clone(), now);
        }
    }
}
