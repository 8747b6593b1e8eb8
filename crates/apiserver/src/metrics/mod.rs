//! What a scraper reads, under upstream's names in Prometheus' text form.
//!
//! [`table`] says which metrics there are, [`family`] is what all of them are made of. Most are counted where what they measure
//! happens; what is cheaper to look at than to follow is looked at when somebody reads ([`collect`]).

mod collect;
pub(crate) mod family;
pub(crate) mod requests;
pub(crate) mod store;
pub(crate) mod table;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::family::{Descriptor, Stability};
use self::family::{Exposed, Histogram, Interned};
use self::requests::{Kind, Peak};
pub use self::table::descriptors;
use self::table::{Checks, Table};
use crate::Server;

/// All metrics of a server.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) table: Table,
    pub(crate) checks: Checks,
    kinds: Interned<Kind, 7>,
    stored: Interned<store::Stored, 2>,
    filters: [Arc<Histogram>; FILTERS.len()],
    pub(crate) reading: Peak,
    pub(crate) writing: Peak,
    pub(crate) waiting_reads: Peak,
    pub(crate) waiting_writes: Peak,
}

/// A part of the way of every request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Filter {
    Authentication,
    Audit,
    Impersonation,
    Fairness,
    Authorization,
}

/// As upstream calls them, in the order of [`Filter`].
const FILTERS: [&str; 5] = ["authentication", "audit", "impersonation", "priorityandfairness", "authorization"];

impl Default for Metrics {
    fn default() -> Self {
        let table = Table::default();
        Metrics {
            filters: FILTERS.map(|filter| table.requests.filter_duration.with([filter])),
            table,
            checks: Checks::default(),
            kinds: Interned::default(),
            stored: Interned::default(),
            reading: Peak::default(),
            writing: Peak::default(),
            waiting_reads: Peak::default(),
            waiting_writes: Peak::default(),
        }
    }
}

impl Metrics {
    /// A request has passed a filter; how long that took.
    pub(crate) fn passed(&self, filter: Filter, since: Instant) -> Duration {
        let took = since.elapsed();
        if let Some(durations) = self.filters.get(filter as usize) {
            durations.took(took);
        }
        took
    }

    /// Everything, as a scraper reads it.
    pub(crate) fn exposition(&self, server: &Server) -> String {
        collect::all(self, server);
        text(&self.table.all())
    }

    /// What came of the checks of health.
    pub(crate) fn indicators(&self) -> String {
        text(&self.checks.all())
    }
}

fn text(families: &[&dyn Exposed]) -> String {
    let mut out = String::new();
    families.iter().for_each(|family| family.write(&mut out));
    out
}

/// Group and resource of a storage prefix (`core/pods`); empty for what concerns no resource.
pub(crate) fn group_resource(prefix: &str) -> (&str, &str) {
    let (group, resource) = prefix.split_once('/').unwrap_or_default();
    (if group == "core" { "" } else { group }, resource)
}

/// Text of a flag.
pub(crate) fn flag(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}
