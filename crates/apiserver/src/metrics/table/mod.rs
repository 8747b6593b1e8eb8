//! The table of all metrics, a part a file: a row says what a metric is called and what it is, and gives it a field of that
//! type. Adding a metric is a row here, and a line where what it measures happens.
//!
//! Names, types, labels, bounds and help are upstream's of the release that [`crate::version`] names.

mod admission;
mod aggregation;
mod auth;
mod fairness;
mod process;
mod requests;
mod storage;
mod watches;

pub(crate) use self::admission::Admissions;
pub(crate) use self::aggregation::{Aggregations, Customs};
pub(crate) use self::auth::{Audits, Auths};
pub(crate) use self::fairness::Fairness;
pub(crate) use self::process::{Checks, Process};
pub(crate) use self::requests::Requests;
pub(crate) use self::storage::Storages;
pub(crate) use self::watches::Watches;
use super::family::{Descriptor, Exposed};

/// Of Prometheus' clients, where nothing else is said.
const DEFAULT: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// From a millisecond to a quarter of a minute.
const DOUBLING: [f64; 15] = exponential(0.001, 2.0);

const fn exponential<const N: usize>(start: f64, factor: f64) -> [f64; N] {
    let mut bounds = [start; N];
    let mut at = 1;
    while at < N {
        bounds[at] = bounds[at - 1] * factor;
        at += 1;
    }
    bounds
}

const fn linear<const N: usize>(start: f64, width: f64) -> [f64; N] {
    let mut bounds = [start; N];
    let mut at = 1;
    while at < N {
        bounds[at] = bounds[at - 1] + width;
        at += 1;
    }
    bounds
}

/// All parts that `/metrics` shows.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub(crate) requests: Requests,
    pub(crate) watches: Watches,
    pub(crate) storage: Storages,
    pub(crate) admission: Admissions,
    pub(crate) auth: Auths,
    pub(crate) audit: Audits,
    pub(crate) aggregation: Aggregations,
    pub(crate) custom: Customs,
    pub(crate) fairness: Fairness,
    pub(crate) process: Process,
}

impl Table {
    /// In the order of their names.
    pub(crate) fn all(&self) -> Vec<&dyn Exposed> {
        let mut all: Vec<&dyn Exposed> = [
            self.requests.all(),
            self.watches.all(),
            self.storage.all(),
            self.admission.all(),
            self.auth.all(),
            self.audit.all(),
            self.aggregation.all(),
            self.custom.all(),
            self.fairness.all(),
            self.process.all(),
        ]
        .concat();
        all.sort_by_key(|family| family.descriptor().name);
        all
    }
}

/// The rows of all metrics in the order of their names, those of `/metrics/slis` among them.
pub fn descriptors() -> Vec<&'static Descriptor> {
    let (table, checks) = (Table::default(), Checks::default());
    let mut rows: Vec<&Descriptor> =
        table.all().into_iter().chain(checks.all()).map(|family| family.descriptor()).collect();
    rows.sort_by_key(|row| row.name);
    rows
}
