//! Upstream's `apiserver_flowcontrol_*` metrics.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::level::Reason;

/// Upper bounds of the durations, in seconds.
const SECONDS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const SEATS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0];
const LENGTHS: [f64; 8] = [0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];
const WATCHES: [f64; 6] = [0.0, 1.0, 10.0, 100.0, 1000.0, 10000.0];

const REASONS: [Reason; 4] = [Reason::QueueFull, Reason::ConcurrencyLimit, Reason::TimeOut, Reason::Cancelled];

/// A histogram without locks.
#[derive(Debug)]
pub(super) struct Histogram {
    bounds: &'static [f64],
    buckets: Box<[AtomicU64]>,
    /// In thousandths of a unit (milliseconds, for seconds: microseconds are below what is measured here).
    sum: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, buckets, sum: AtomicU64::new(0) }
    }

    pub(super) fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        // Negative values do not occur; the fraction is not worth keeping.
        self.sum.fetch_add((value * 1e6) as u64, Ordering::Relaxed);
    }

    pub(super) fn write(&self, out: &mut String, name: &str, labels: &str) {
        let mut total = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            total += count.load(Ordering::Relaxed);
            let bound = self.bounds.get(bucket).map_or("+Inf".to_owned(), f64::to_string);
            // Writing into a string cannot fail.
            let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {total}");
        }
        let sum = self.sum.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = writeln!(out, "{name}_sum{{{labels}}} {sum}\n{name}_count{{{labels}}} {total}");
    }
}

/// What is counted of one schema's requests at one level.
#[derive(Debug)]
pub(crate) struct FlowMeters {
    /// Their labels, as they stand in the exposition.
    labels: String,
    dispatched: AtomicU64,
    rejected: [AtomicU64; REASONS.len()],
    pub(super) waiting: Gauge,
    pub(super) executing: Gauge,
    waited: Histogram,
    given_up: Histogram,
    regular: Histogram,
    watches: Histogram,
    pub(super) queue_length: Histogram,
    pub(super) seats: Histogram,
    pub(super) watchers: Histogram,
}

/// Requests, and the seats that they hold or wait for.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    requests: AtomicI64,
    seats: AtomicI64,
}

impl Gauge {
    pub(super) fn enter(&self, seats: u32) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.seats.fetch_add(seats.into(), Ordering::Relaxed);
    }

    pub(super) fn leave(&self, seats: u32) {
        self.requests.fetch_sub(1, Ordering::Relaxed);
        self.seats.fetch_sub(seats.into(), Ordering::Relaxed);
    }
}

impl FlowMeters {
    pub(super) fn new(level: &str, schema: &str) -> Self {
        FlowMeters {
            labels: format!("flow_schema=\"{schema}\",priority_level=\"{level}\""),
            dispatched: AtomicU64::new(0),
            rejected: Default::default(),
            waiting: Gauge::default(),
            executing: Gauge::default(),
            waited: Histogram::new(&SECONDS),
            given_up: Histogram::new(&SECONDS),
            regular: Histogram::new(&SECONDS),
            watches: Histogram::new(&SECONDS),
            queue_length: Histogram::new(&LENGTHS),
            seats: Histogram::new(&SEATS),
            watchers: Histogram::new(&WATCHES),
        }
    }

    pub(super) fn dispatched(&self, waited: Duration) {
        self.dispatched.fetch_add(1, Ordering::Relaxed);
        self.waited.observe(waited.as_secs_f64());
    }

    pub(super) fn rejected(&self, reason: Reason, waited: Duration) {
        if let Some(at) = REASONS.iter().position(|known| *known == reason) {
            self.rejected[at].fetch_add(1, Ordering::Relaxed);
        }
        self.given_up.observe(waited.as_secs_f64());
    }

    pub(super) fn executed(&self, watch: bool, took: Duration) {
        if watch { &self.watches } else { &self.regular }.observe(took.as_secs_f64());
    }
}

/// What is counted of one level.
#[derive(Debug, Default)]
pub(super) struct LevelMeters {
    pub(super) dispatched: AtomicU64,
    pub(super) rejected: AtomicU64,
    pub(super) timed_out: AtomicU64,
    pub(super) cancelled: AtomicU64,
    /// By name of the metric without its prefix; set when seats are divided.
    pub(super) gauges: Mutex<Vec<(&'static str, f64)>>,
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

/// The gauges of a level, with upstream's words for them.
const LEVEL_GAUGES: [(&str, &str); 9] = [
    ("nominal_limit_seats", "Nominal number of execution seats configured for each priority level"),
    ("lower_limit_seats", "Configured lower bound on number of execution seats available to each priority level"),
    ("upper_limit_seats", "Configured upper bound on number of execution seats available to each priority level"),
    ("current_limit_seats", "current derived number of execution seats available to each priority level"),
    ("demand_seats_high_watermark", "High watermark, over last adjustment period, of demand_seats"),
    ("demand_seats_average", "Time-weighted average, over last adjustment period, of demand_seats"),
    ("demand_seats_stdev", "Time-weighted standard deviation, over last adjustment period, of demand_seats"),
    ("demand_seats_smoothed", "Smoothed seat demands"),
    ("target_seats", "Seat allocation targets"),
];

type Count = fn(&FlowMeters) -> i64;

/// The gauges of a schema at a level.
const FLOW_GAUGES: [(&str, &str, Count); 4] = [
    (
        "current_inqueue_requests",
        "Number of requests currently pending in queues of the API Priority and Fairness subsystem",
        |flow| flow.waiting.requests.load(Ordering::Relaxed),
    ),
    (
        "current_inqueue_seats",
        "Number of seats currently pending in queues of the API Priority and Fairness subsystem",
        |flow| flow.waiting.seats.load(Ordering::Relaxed),
    ),
    (
        "current_executing_requests",
        "Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem",
        |flow| flow.executing.requests.load(Ordering::Relaxed),
    ),
    (
        "current_executing_seats",
        "Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem",
        |flow| flow.executing.seats.load(Ordering::Relaxed),
    ),
];

type Samples = fn(&FlowMeters) -> Vec<(&'static str, &Histogram)>;

/// The histograms of a schema at a level, each with the label that tells its parts apart.
const FLOW_HISTOGRAMS: [(&str, &str, Samples); 5] = [
    ("request_wait_duration_seconds", "Length of time a request spent waiting in its queue", |flow| {
        vec![(",execute=\"true\"", &flow.waited), (",execute=\"false\"", &flow.given_up)]
    }),
    (
        "request_execution_seconds",
        "Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem",
        |flow| vec![(",type=\"regular\"", &flow.regular), (",type=\"watch\"", &flow.watches)],
    ),
    (
        "request_queue_length_after_enqueue",
        "Length of queue in the API Priority and Fairness subsystem, as seen by each request after it is enqueued",
        |flow| vec![("", &flow.queue_length)],
    ),
    (
        "work_estimated_seats",
        "Number of estimated seats (maximum of initial and final seats) associated with requests in API Priority and Fairness",
        |flow| vec![("", &flow.seats)],
    ),
    ("watch_count_samples", "count of watchers for mutating requests in API Priority and Fairness", |flow| {
        vec![("", &flow.watchers)]
    }),
];

/// Writes all metrics in Prometheus' text form.
pub(super) fn write<'a>(
    out: &mut String,
    flows: &[std::sync::Arc<FlowMeters>],
    levels: impl Iterator<Item = (&'a str, &'a LevelMeters)>,
    fair_fraction: f64,
) {
    // Writing into a string cannot fail.
    let head = |out: &mut String, name: &str, kind: &str, help: &str| {
        let _ = writeln!(out, "# HELP apiserver_flowcontrol_{name} {help}\n# TYPE apiserver_flowcontrol_{name} {kind}");
    };
    head(
        out,
        "dispatched_requests_total",
        "counter",
        "Number of requests executed by API Priority and Fairness subsystem",
    );
    for flow in flows {
        let (labels, count) = (&flow.labels, flow.dispatched.load(Ordering::Relaxed));
        let _ = writeln!(out, "apiserver_flowcontrol_dispatched_requests_total{{{labels}}} {count}");
    }
    head(
        out,
        "rejected_requests_total",
        "counter",
        "Number of requests rejected by API Priority and Fairness subsystem",
    );
    for flow in flows {
        for (reason, count) in REASONS.iter().zip(&flow.rejected) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                let (labels, reason) = (&flow.labels, reason.text());
                let _ = writeln!(
                    out,
                    "apiserver_flowcontrol_rejected_requests_total{{{labels},reason=\"{reason}\"}} {count}"
                );
            }
        }
    }
    for (name, help, value) in FLOW_GAUGES {
        head(out, name, "gauge", help);
        for flow in flows {
            let _ = writeln!(out, "apiserver_flowcontrol_{name}{{{}}} {}", flow.labels, value(flow));
        }
    }
    for (name, help, samples) in FLOW_HISTOGRAMS {
        head(out, name, "histogram", help);
        for flow in flows {
            for (label, histogram) in samples(flow) {
                histogram.write(out, &format!("apiserver_flowcontrol_{name}"), &format!("{}{label}", flow.labels));
            }
        }
    }
    let levels: Vec<_> = levels.collect();
    for (name, help) in LEVEL_GAUGES {
        head(out, name, "gauge", help);
        for (level, meters) in &levels {
            if let Some((_, value)) = meters.gauges.lock().iter().find(|(known, _)| *known == name) {
                let _ = writeln!(out, "apiserver_flowcontrol_{name}{{priority_level=\"{level}\"}} {value}");
            }
        }
    }
    head(
        out,
        "seat_fair_frac",
        "gauge",
        "Fair fraction of server's concurrency to allocate to each priority level that can use it",
    );
    let _ = writeln!(out, "apiserver_flowcontrol_seat_fair_frac {fair_fraction}");
}
