//! What a scraper reads: requests, the store, what is stored, the process; under upstream's names, in Prometheus' text form.

mod process;
pub(crate) mod store;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use http::{Method, Response};
use kminik_meta::patch::PatchType;
use parking_lot::Mutex;

use self::store::StoreMetrics;
use crate::http::body::ResponseBody;
use crate::http::info::{Query, RequestInfo};
use crate::registry::Registry;
use crate::registry::def::Storage;
use crate::version;

/// Upper bounds of the histograms of durations, in seconds.
const BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];

/// Subresources that are connections.
const CONNECTS: [&str; 5] = ["log", "exec", "portforward", "attach", "proxy"];

/// What tells requests apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Labels {
    verb: &'static str,
    dry_run: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
}

/// How often, and how long.
#[derive(Clone, Debug, Default)]
pub(crate) struct Durations {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

impl Durations {
    pub(crate) fn add(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        // A bucket counts what is not above its bound; the text form sums them up.
        if let Some(bucket) = BUCKETS.iter().position(|bound| seconds <= *bound)
            && let Some(count) = self.buckets.get_mut(bucket)
        {
            *count += 1;
        }
        self.count += 1;
        self.seconds += seconds;
    }

    fn write(&self, out: &mut String, name: &str, labels: &str) {
        let mut sum = 0;
        for (bound, count) in BUCKETS.iter().zip(self.buckets) {
            sum += count;
            line(out, format_args!("{name}_bucket{{{labels},le=\"{bound}\"}} {sum}"));
        }
        line(out, format_args!("{name}_bucket{{{labels},le=\"+Inf\"}} {}", self.count));
        line(out, format_args!("{name}_sum{{{labels}}} {}", self.seconds));
        line(out, format_args!("{name}_count{{{labels}}} {}", self.count));
    }
}

/// What became of the requests of one kind.
#[derive(Debug, Default)]
struct Series {
    codes: BTreeMap<u16, u64>,
    durations: Durations,
    /// Under way, if they are long-running.
    running: u64,
}

/// All metrics of a server.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: Mutex<HashMap<Labels, Series>>,
    in_flight_reads: AtomicI64,
    in_flight_writes: AtomicI64,
    store: Arc<StoreMetrics>,
}

/// A request being measured; counts as under way until dropped.
pub(crate) struct Measured {
    metrics: Arc<Metrics>,
    kind: Kind,
    labels: Labels,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Reading,
    Writing,
    LongRunning,
}

impl Drop for Measured {
    fn drop(&mut self) {
        match self.metrics.in_flight(self.kind) {
            Some(gauge) => drop(gauge.fetch_sub(1, Ordering::Relaxed)),
            None => {
                if let Some(series) = self.metrics.requests.lock().get_mut(&self.labels) {
                    series.running = series.running.saturating_sub(1);
                }
            }
        }
    }
}

impl Measured {
    /// The request was answered; a long-running one runs until the answer's body has ended.
    pub(crate) fn end(self, response: Response<ResponseBody>, took: Duration) -> Response<ResponseBody> {
        {
            let mut requests = self.metrics.requests.lock();
            let series = requests.entry(self.labels.clone()).or_default();
            *series.codes.entry(response.status().as_u16()).or_default() += 1;
            if self.kind != Kind::LongRunning {
                series.durations.add(took);
            }
        }
        if self.kind != Kind::LongRunning {
            return response;
        }
        response.map(|body| match body {
            ResponseBody::Stream(stream) => ResponseBody::stream(stream.inspect(move |_| {
                let _running = &self;
            })),
            chunks => chunks,
        })
    }
}

impl Metrics {
    /// Where the store's answers are counted.
    pub(crate) fn store(&self) -> Arc<StoreMetrics> {
        self.store.clone()
    }

    /// A request begins. Paths of unknown resources (`known` false) share one set of labels, so that clients cannot make
    /// the metrics grow.
    pub(crate) fn begin(self: &Arc<Self>, info: &RequestInfo, request: &Request<'_>, known: bool) -> Measured {
        let text = |text: &str| if known { text.to_owned() } else { String::new() };
        let scope = match (info.is_resource, info.name.is_empty(), info.namespace.is_empty()) {
            (false, ..) => "",
            (true, false, _) => "resource",
            _ if info.verb == "create" => "resource",
            (true, true, false) => "namespace",
            (true, true, true) => "cluster",
        };
        let labels = Labels {
            verb: verb(info, request),
            dry_run: dry_run(request.query),
            group: text(&info.group),
            version: text(&info.version),
            resource: text(&info.resource),
            subresource: text(&info.subresource),
            scope,
        };
        let kind = match (info.long_running(), info.verb.as_str()) {
            (true, _) => Kind::LongRunning,
            (false, "get" | "list" | "head") => Kind::Reading,
            _ => Kind::Writing,
        };
        match self.in_flight(kind) {
            Some(gauge) => drop(gauge.fetch_add(1, Ordering::Relaxed)),
            None => self.requests.lock().entry(labels.clone()).or_default().running += 1,
        }
        Measured { metrics: self.clone(), kind, labels }
    }

    fn in_flight(&self, kind: Kind) -> Option<&AtomicI64> {
        match kind {
            Kind::Reading => Some(&self.in_flight_reads),
            Kind::Writing => Some(&self.in_flight_writes),
            Kind::LongRunning => None,
        }
    }

    /// Everything, as a scraper reads it.
    pub(crate) fn exposition(&self, registry: &Registry) -> String {
        let mut out = String::new();
        self.write_requests(&mut out);
        self.store.write(&mut out);
        write_objects(&mut out, registry);
        process::write(&mut out);
        header(
            &mut out,
            "kubernetes_build_info",
            "gauge",
            "A metric with a constant '1' value labeled by major, minor, git version.",
        );
        let version = version::GIT_VERSION;
        line(&mut out, format_args!("kubernetes_build_info{{git_version=\"{version}\",major=\"1\",minor=\"35\"}} 1"));
        out
    }

    fn write_requests(&self, out: &mut String) {
        let requests = self.requests.lock();
        let mut sorted: Vec<(&Labels, &Series)> = requests.iter().collect();
        sorted.sort_by_key(|(labels, _)| *labels);
        header(
            out,
            "apiserver_request_total",
            "counter",
            "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
        );
        for (labels, series) in &sorted {
            for (code, count) in &series.codes {
                let labels = labels.text(true);
                line(out, format_args!("apiserver_request_total{{code=\"{code}\",{labels}}} {count}"));
            }
        }
        header(
            out,
            "apiserver_request_duration_seconds",
            "histogram",
            "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
        );
        for (labels, series) in sorted.iter().filter(|(_, series)| series.durations.count > 0) {
            series.durations.write(out, "apiserver_request_duration_seconds", &labels.text(true));
        }
        header(
            out,
            "apiserver_longrunning_requests",
            "gauge",
            "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.",
        );
        for (labels, series) in sorted.iter().filter(|(_, series)| series.running > 0) {
            line(out, format_args!("apiserver_longrunning_requests{{{}}} {}", labels.text(false), series.running));
        }
        header(
            out,
            "apiserver_current_inflight_requests",
            "gauge",
            "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
        );
        for (kind, gauge) in [("mutating", &self.in_flight_writes), ("readOnly", &self.in_flight_reads)] {
            let value = gauge.load(Ordering::Relaxed);
            line(out, format_args!("apiserver_current_inflight_requests{{request_kind=\"{kind}\"}} {value}"));
        }
    }
}

/// What of a request is not in its [`RequestInfo`].
pub(crate) struct Request<'a> {
    pub(crate) method: &'a Method,
    pub(crate) query: &'a Query,
    pub(crate) content_type: Option<&'a str>,
}

/// The verb as upstream reports it: the method, but for what has a name of its own.
fn verb(info: &RequestInfo, request: &Request<'_>) -> &'static str {
    if info.is_resource && CONNECTS.contains(&info.subresource.as_str()) {
        return "CONNECT";
    }
    match *request.method {
        _ if info.verb == "watch" => "WATCH",
        Method::GET | Method::HEAD if info.is_resource && info.name.is_empty() => "LIST",
        Method::GET | Method::HEAD => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH if request.content_type == Some(PatchType::Apply.content_type()) => "APPLY",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

fn dry_run(query: &Query) -> &'static str {
    let mut asked = query.all("dryRun").filter(|value| !value.is_empty()).peekable();
    match (asked.peek().is_some(), asked.all(|value| value == "All")) {
        (false, _) => "",
        (true, true) => "All",
        (true, false) => "invalid",
    }
}

impl Labels {
    fn text(&self, dry_run: bool) -> String {
        let Labels { verb, group, version, resource, subresource, scope, .. } = self;
        let dry_run = if dry_run { format!("dry_run=\"{}\",", self.dry_run) } else { String::new() };
        format!(
            "component=\"apiserver\",{dry_run}group=\"{group}\",resource=\"{resource}\",scope=\"{scope}\",subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\""
        )
    }
}

fn write_objects(out: &mut String, registry: &Registry) {
    let table = registry.table();
    let mut counts: Vec<(String, String, String, usize)> = table
        .rows()
        .iter()
        .filter_map(|row| match &row.storage {
            Storage::Stored { prefix, .. } => {
                let count = registry.cache().snapshot(prefix).entries.len();
                Some((row.qualified(), row.group.to_string(), row.plural.to_string(), count))
            }
            Storage::Virtual(_) | Storage::Computed(_) => None,
        })
        .collect();
    counts.sort();
    header(
        out,
        "apiserver_storage_objects",
        "gauge",
        "[DEPRECATED, consider using apiserver_resource_objects instead] Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.",
    );
    for (name, _, _, count) in &counts {
        line(out, format_args!("apiserver_storage_objects{{resource=\"{name}\"}} {count}"));
    }
    header(
        out,
        "apiserver_resource_objects",
        "gauge",
        "Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.",
    );
    for (_, group, resource, count) in &counts {
        line(out, format_args!("apiserver_resource_objects{{group=\"{group}\",resource=\"{resource}\"}} {count}"));
    }
}

fn header(out: &mut String, name: &str, kind: &str, help: &str) {
    line(out, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing into a string cannot fail.
    let _ = writeln!(out, "{text}");
}
