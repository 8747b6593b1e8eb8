//! What is counted of requests and their turns.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::level::Reason;
use crate::metrics::Metrics;
use crate::metrics::family::{Counter, Family, Gauge, Histogram};

const REASONS: [Reason; 4] = [Reason::QueueFull, Reason::ConcurrencyLimit, Reason::TimeOut, Reason::Cancelled];

/// The series of one schema's requests at one level.
#[derive(Debug)]
pub(crate) struct FlowMeters {
    metrics: Arc<Metrics>,
    schema: String,
    level: String,
    dispatched: Arc<Counter>,
    rejected: [OnceLock<Arc<Counter>>; REASONS.len()],
    pub(super) waiting: Load,
    pub(super) executing: Load,
    waited: Arc<Histogram>,
    given_up: Arc<Histogram>,
    regular: Arc<Histogram>,
    watches: Arc<Histogram>,
    pub(super) queue_length: Arc<Histogram>,
    pub(super) seats: Arc<Histogram>,
    pub(super) watchers: Arc<Histogram>,
}

/// Requests, and the seats that they hold or wait for.
#[derive(Debug)]
pub(super) struct Load {
    requests: Arc<Gauge>,
    seats: Arc<Gauge>,
}

impl Load {
    fn of(requests: &Family<Gauge, 2>, seats: &Family<Gauge, 2>, flow: [&str; 2]) -> Self {
        Load { requests: requests.with(flow), seats: seats.with(flow) }
    }

    pub(super) fn enter(&self, seats: u32) {
        self.requests.add(1.0);
        self.seats.add(seats.into());
    }

    pub(super) fn leave(&self, seats: u32) {
        self.requests.add(-1.0);
        self.seats.add(-f64::from(seats));
    }
}

impl FlowMeters {
    pub(super) fn new(metrics: Arc<Metrics>, level: &str, schema: &str) -> Self {
        let (table, flow) = (&metrics.table.fairness, [schema, level]);
        FlowMeters {
            schema: schema.to_owned(),
            level: level.to_owned(),
            dispatched: table.dispatched.with(flow),
            rejected: Default::default(),
            waiting: Load::of(&table.in_queue_requests, &table.in_queue_seats, flow),
            executing: Load::of(&table.executing_requests, &table.executing_seats, flow),
            waited: table.wait.with(["true", schema, level]),
            given_up: table.wait.with(["false", schema, level]),
            regular: table.execution.with([schema, level, "regular"]),
            watches: table.execution.with([schema, level, "watch"]),
            queue_length: table.queue_length.with(flow),
            seats: table.seats.with(flow),
            watchers: table.watchers.with(flow),
            metrics,
        }
    }

    pub(super) fn dispatched(&self, waited: Duration) {
        self.dispatched.inc();
        self.waited.took(waited);
    }

    pub(super) fn rejected(&self, reason: Reason, waited: Duration) {
        let labels = [self.schema.as_str(), self.level.as_str(), reason.text()];
        if let Some((_, count)) = REASONS.iter().zip(&self.rejected).find(|(known, _)| **known == reason) {
            count.get_or_init(|| self.metrics.table.fairness.rejected.with(labels)).inc();
        }
        self.given_up.took(waited);
    }

    pub(super) fn executed(&self, watch: bool, took: Duration) {
        if watch { &self.watches } else { &self.regular }.took(took);
    }
}

/// What is counted of one level, for the dump.
#[derive(Debug, Default)]
pub(super) struct LevelMeters {
    pub(super) dispatched: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) timed_out: AtomicU64,
    pub(super) cancelled: AtomicU64,
}

impl LevelMeters {
    pub(super) fn note(&self, reason: Reason) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        match reason {
            Reason::TimeOut => self.timed_out.fetch_add(1, Ordering::Relaxed),
            Reason::Cancelled => self.cancelled.fetch_add(1, Ordering::Relaxed),
            Reason::QueueFull | Reason::ConcurrencyLimit => 0,
        };
    }
}

/// How the seats of a level stand after they were divided.
pub(super) struct Seats {
    pub(super) level: String,
    pub(super) nominal: f64,
    pub(super) lower: f64,
    pub(super) upper: f64,
    pub(super) current: f64,
    pub(super) high_watermark: f64,
    pub(super) average: f64,
    pub(super) deviation: f64,
    pub(super) smoothed: f64,
    pub(super) target: f64,
}

/// One of the numbers.
type Reading = fn(&Seats) -> f64;

/// The seats of all levels, and the fraction of what they want that each gets.
pub(super) fn divided(metrics: &Metrics, seats: &[Seats], fraction: f64) {
    let table = &metrics.table.fairness;
    let gauges: [(&Family<Gauge, 1>, Reading); 9] = [
        (&table.nominal_limit, |seats| seats.nominal),
        (&table.lower_limit, |seats| seats.lower),
        (&table.upper_limit, |seats| seats.upper),
        (&table.current_limit, |seats| seats.current),
        (&table.high_watermark, |seats| seats.high_watermark),
        (&table.average, |seats| seats.average),
        (&table.deviation, |seats| seats.deviation),
        (&table.smoothed, |seats| seats.smoothed),
        (&table.target, |seats| seats.target),
    ];
    for (gauge, value) in gauges {
        gauge.replace(seats.iter().map(|seats| ([seats.level.clone()], value(seats))));
    }
    table.fair_fraction.with([]).set(fraction);
}
