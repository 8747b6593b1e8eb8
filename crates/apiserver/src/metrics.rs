//! Counters of requests under upstream's names, in Prometheus' text form.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::http::info::RequestInfo;

/// Upper bounds of the duration histogram, in seconds.
const BUCKETS: [f64; 8] = [0.005, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 60.0];

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
}

#[derive(Clone, Debug, Default)]
struct Durations {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

/// All metrics of a server.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<(Labels, u16), u64>>,
    durations: Mutex<BTreeMap<Labels, Durations>>,
    in_flight_reads: AtomicI64,
    in_flight_writes: AtomicI64,
    long_running: AtomicI64,
}

/// A request being measured; counts as in flight until dropped.
pub(crate) struct Measured<'a> {
    metrics: &'a Metrics,
    gauge: &'a AtomicI64,
    labels: Labels,
    long_running: bool,
}

impl Drop for Measured<'_> {
    fn drop(&mut self) {
        self.gauge.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Measured<'_> {
    /// The request was answered.
    pub(crate) fn end(self, code: u16, took: Duration) {
        *self.metrics.requests.lock().entry((self.labels.clone(), code)).or_default() += 1;
        if self.long_running {
            return;
        }
        let mut durations = self.metrics.durations.lock();
        let entry = durations.entry(self.labels.clone()).or_default();
        let seconds = took.as_secs_f64();
        for (bucket, bound) in entry.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= bound);
        }
        entry.count += 1;
        entry.seconds += seconds;
    }
}

impl Metrics {
    /// A request begins. Paths of unknown resources (`known` false) share one set of labels, so that clients cannot make
    /// the metrics grow.
    pub(crate) fn begin(&self, info: &RequestInfo, known: bool) -> Measured<'_> {
        let long_running = info.long_running();
        let gauge = match info.verb.as_str() {
            _ if long_running => &self.long_running,
            "get" | "list" | "head" => &self.in_flight_reads,
            _ => &self.in_flight_writes,
        };
        gauge.fetch_add(1, Ordering::Relaxed);
        let scope = match (info.is_resource, info.name.is_empty(), info.namespace.is_empty()) {
            (false, ..) => "",
            (true, false, _) => "resource",
            (true, true, false) => "namespace",
            (true, true, true) => "cluster",
        };
        let text = |text: &str| if known { text.to_owned() } else { String::new() };
        let labels = Labels {
            verb: info.verb.to_uppercase(),
            group: text(&info.group),
            version: text(&info.version),
            resource: text(&info.resource),
            subresource: text(&info.subresource),
            scope,
        };
        Measured { metrics: self, gauge, labels, long_running }
    }

    /// Everything, as a scraper reads it.
    pub(crate) fn exposition(&self) -> String {
        let mut out = String::new();
        let header = |out: &mut String, name: &str, kind: &str, help: &str| {
            // Writing into a string cannot fail.
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        };
        header(
            &mut out,
            "apiserver_request_total",
            "counter",
            "Counter of apiserver requests broken out for each verb, group, version, resource, scope and HTTP response code.",
        );
        for ((labels, code), count) in self.requests.lock().iter() {
            let _ = writeln!(out, "apiserver_request_total{{code=\"{code}\",{}}} {count}", labels.text());
        }
        header(
            &mut out,
            "apiserver_request_duration_seconds",
            "histogram",
            "Response latency distribution in seconds for each verb, group, version, resource, subresource and scope.",
        );
        for (labels, durations) in self.durations.lock().iter() {
            let labels = labels.text();
            for (bound, count) in BUCKETS.iter().zip(durations.buckets) {
                let _ = writeln!(out, "apiserver_request_duration_seconds_bucket{{{labels},le=\"{bound}\"}} {count}");
            }
            let Durations { count, seconds, .. } = durations;
            let _ = writeln!(out, "apiserver_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} {count}");
            let _ = writeln!(out, "apiserver_request_duration_seconds_sum{{{labels}}} {seconds}");
            let _ = writeln!(out, "apiserver_request_duration_seconds_count{{{labels}}} {count}");
        }
        header(
            &mut out,
            "apiserver_current_inflight_requests",
            "gauge",
            "Number of currently used inflight request limit of this apiserver per request kind.",
        );
        for (kind, gauge) in [("mutating", &self.in_flight_writes), ("readOnly", &self.in_flight_reads)] {
            let value = gauge.load(Ordering::Relaxed);
            let _ = writeln!(out, "apiserver_current_inflight_requests{{request_kind=\"{kind}\"}} {value}");
        }
        header(
            &mut out,
            "apiserver_longrunning_requests",
            "gauge",
            "Gauge of all active long-running apiserver requests.",
        );
        let _ = writeln!(out, "apiserver_longrunning_requests {}", self.long_running.load(Ordering::Relaxed));
        out
    }
}

impl Labels {
    fn text(&self) -> String {
        let Labels { verb, group, version, resource, subresource, scope } = self;
        format!(
            "component=\"apiserver\",group=\"{group}\",resource=\"{resource}\",scope=\"{scope}\",subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\""
        )
    }
}
