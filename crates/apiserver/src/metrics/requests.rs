//! Requests, measured from their arrival until their answer is made; a stream's, to its last byte. Those that become a connection are
//! done with when it is theirs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures::StreamExt;
use http::{Method, Response};
use kminik_meta::decode::FieldValidation;
use kminik_meta::patch::PatchType;
use parking_lot::Mutex;

use super::Metrics;
use super::family::{Counter, Gauge, Histogram};
use super::table::Requests;
use crate::http::body::ResponseBody;
use crate::http::info::{Query, RequestInfo};

/// Subresources that are connections.
const CONNECTS: [&str; 5] = ["log", "exec", "portforward", "attach", "proxy"];
/// Paths that are no resources and are told apart.
const PATHS: [&str; 3] = ["/healthz", "/livez", "/readyz"];
/// Who answers.
const APISERVER: &str = "apiserver";

/// What tells requests apart: dry run, group, resource, scope, subresource, verb, version.
type KindLabels<'a> = [&'a str; 7];

/// The series of all requests of one kind, as far as there are any.
#[derive(Debug)]
pub(super) struct Kind {
    labels: [Box<str>; 7],
    component: &'static str,
    codes: Mutex<Vec<(u16, Arc<Counter>)>>,
    duration: OnceLock<Arc<Histogram>>,
    objective: OnceLock<Arc<Histogram>>,
    sizes: OnceLock<Arc<Histogram>>,
    running: OnceLock<Arc<Gauge>>,
    own: OnceLock<Arc<Counter>>,
}

impl Kind {
    fn new(labels: KindLabels<'_>) -> Self {
        let [.., subresource, _, _] = labels;
        Kind {
            labels: labels.map(Into::into),
            component: if PATHS.contains(&subresource) { "" } else { APISERVER },
            codes: Mutex::default(),
            duration: OnceLock::new(),
            objective: OnceLock::new(),
            sizes: OnceLock::new(),
            running: OnceLock::new(),
            own: OnceLock::new(),
        }
    }

    /// The labels of most metrics.
    fn common<'a>(&'a self, component: &'a str) -> [&'a str; 7] {
        let [_, group, resource, scope, subresource, verb, version] = self.labels.each_ref().map(AsRef::as_ref);
        [component, group, resource, scope, subresource, verb, version]
    }

    fn answered(&self, table: &Requests, code: u16) {
        let mut codes = self.codes.lock();
        if let Some((_, count)) = codes.iter().find(|(known, _)| *known == code) {
            return count.inc();
        }
        let [dry_run, group, resource, scope, subresource, verb, version] = self.labels.each_ref().map(AsRef::as_ref);
        let text = code.to_string();
        let count =
            table.total.with([&text, self.component, dry_run, group, resource, scope, subresource, verb, version]);
        count.inc();
        codes.push((code, count));
    }

    fn running(&self, table: &Requests) -> &Gauge {
        self.running.get_or_init(|| table.long_running.with(self.common(self.component)))
    }

    fn took(&self, table: &Requests, took: Duration, waited: Duration) {
        let [dry_run, ..] = self.labels.each_ref().map(AsRef::as_ref);
        let duration = self.duration.get_or_init(|| {
            let [component, group, resource, scope, subresource, verb, version] = self.common(self.component);
            table.duration.with([component, dry_run, group, resource, scope, subresource, verb, version])
        });
        duration.took(took);
        if dry_run.is_empty() {
            let objective = self.objective.get_or_init(|| table.objective.with(self.common(self.component)));
            objective.took(took.saturating_sub(waited));
        }
    }

    fn sent(&self, table: &Requests, bytes: u64) {
        let [.., verb, _] = self.labels.each_ref().map(AsRef::as_ref);
        if matches!(verb, "GET" | "LIST") {
            let sizes = self.sizes.get_or_init(|| table.response_sizes.with(self.common(self.component)));
            sizes.observe(bytes as f64);
        }
    }

    fn asked_by_ourselves(&self, table: &Requests) {
        let [_, group, resource, _, subresource, verb, _] = self.labels.each_ref().map(AsRef::as_ref);
        self.own.get_or_init(|| table.own.with([group, resource, subresource, verb])).inc();
    }
}

/// How long a request waited for its turn and for webhooks, which is no time of this server's.
#[derive(Debug, Default)]
pub(crate) struct Waited(AtomicU64);

impl Waited {
    pub(crate) fn add(&self, duration: Duration) {
        self.0.fetch_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// How far a request came, for what is counted of it.
#[derive(Debug, Default)]
pub(crate) struct Way {
    /// It was let in: what is refused before is counted by those who refuse it.
    pub(crate) reached: bool,
    /// Who ended it in self-defence.
    pub(crate) terminated: Option<&'static str>,
    /// It is from this server itself.
    pub(crate) own: bool,
    pub(crate) waited: Arc<Waited>,
}

/// An answer in the place of one from another server, which cannot be reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unreached;

/// Who ends requests that other servers should have answered.
pub(crate) const AGGREGATOR: &str = "aggregator";

impl Way {
    /// Ended in self-defence, by the chain itself.
    pub(crate) fn terminate(&mut self) {
        self.terminated = Some(APISERVER);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Reading,
    Writing,
    LongRunning,
}

/// A request being measured; it counts as under way until dropped.
pub(crate) struct Measured {
    metrics: Arc<Metrics>,
    started: Instant,
    class: Class,
    kind: Arc<Kind>,
    field_validation: &'static str,
    /// Once it is answered, and then the bytes of the answer.
    answer: Option<(u16, Way, u64)>,
}

impl Drop for Measured {
    fn drop(&mut self) {
        let table = &self.metrics.table.requests;
        match self.metrics.peak(self.class) {
            Some(peak) => peak.leave(),
            None => self.kind.running(table).add(-1.0),
        }
        let Some((code, way, bytes)) = &self.answer else { return };
        if way.reached || way.terminated.is_some() {
            self.kind.answered(table, *code);
        }
        if let Some(component) = way.terminated {
            let [component, group, resource, scope, subresource, verb, version] = self.kind.common(component);
            let code = code.to_string();
            table.terminations.with([&code, component, group, resource, scope, subresource, verb, version]).inc();
        }
        if way.reached {
            let took = self.started.elapsed();
            self.kind.took(table, took, way.waited.get());
            self.kind.sent(table, *bytes);
            table.field_validation.with([self.field_validation]).took(took);
            if way.own {
                self.kind.asked_by_ourselves(table);
            }
        }
    }
}

impl Measured {
    /// The request was answered; one that is answered by a stream is under way until that has ended.
    pub(crate) fn end(mut self, response: Response<ResponseBody>, way: Way) -> Response<ResponseBody> {
        let bytes = match response.body() {
            ResponseBody::Chunks { remaining, .. } => *remaining,
            ResponseBody::Stream(_) => 0,
        };
        self.answer = Some((response.status().as_u16(), way, bytes));
        response.map(|body| match body {
            ResponseBody::Stream(stream) => ResponseBody::stream(stream.inspect(move |slice| match slice {
                Ok(slice) => {
                    if let Some((.., bytes)) = &mut self.answer {
                        *bytes += slice.len() as u64;
                    }
                }
                Err(_) => {
                    let [_, labels @ ..] = self.kind.common("");
                    self.metrics.table.requests.aborts.with(labels).inc();
                }
            })),
            chunks => chunks,
        })
    }
}

/// How much of a request's path is of what is served, so that clients cannot make the metrics grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// All of it.
    Here,
    /// Its group and version.
    Elsewhere,
    Nowhere,
}

impl Metrics {
    /// A request begins.
    pub(crate) fn begin(self: &Arc<Self>, info: &RequestInfo, request: &Request<'_>, served: Served) -> Measured {
        let group = |text| if served == Served::Nowhere { "" } else { text };
        let resource = |text| if served == Served::Here { text } else { "" };
        let subresource = match PATHS.iter().find(|path| !info.is_resource && **path == info.path) {
            Some(path) => path,
            None => resource(info.subresource.as_str()),
        };
        let kind = self.kinds.get(
            [
                dry_run(request.query),
                group(&info.group),
                resource(&info.resource),
                scope(info),
                subresource,
                verb(info, request),
                group(&info.version),
            ],
            Kind::new,
        );
        let class = match (info.long_running(), info.verb.as_str()) {
            (true, _) => Class::LongRunning,
            (false, verb) if reads(verb) => Class::Reading,
            _ => Class::Writing,
        };
        match self.peak(class) {
            Some(peak) => peak.enter(),
            None => kind.running(&self.table.requests).add(1.0),
        }
        Measured {
            metrics: self.clone(),
            started: Instant::now(),
            class,
            kind,
            field_validation: field_validation(request.query),
            answer: None,
        }
    }

    fn peak(&self, class: Class) -> Option<&Peak> {
        match class {
            Class::Reading => Some(&self.reading),
            Class::Writing => Some(&self.writing),
            Class::LongRunning => None,
        }
    }
}

/// Whether a request of this verb changes nothing.
pub(crate) fn reads(verb: &str) -> bool {
    matches!(verb, "get" | "list" | "head")
}

/// What of a request is not in its [`RequestInfo`].
pub(crate) struct Request<'a> {
    pub(crate) method: &'a Method,
    pub(crate) query: &'a Query,
    pub(crate) content_type: Option<&'a str>,
}

/// Whether a request is of one object, of a namespace's, or of all.
pub(crate) fn scope(info: &RequestInfo) -> &'static str {
    match (info.is_resource, info.name.is_empty(), info.namespace.is_empty()) {
        (false, ..) => "",
        (true, false, _) => "resource",
        _ if info.verb == "create" => "resource",
        (true, true, false) => "namespace",
        (true, true, true) => "cluster",
    }
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

fn field_validation(query: &Query) -> &'static str {
    let mut asked = query.all("fieldValidation");
    match (asked.next().map(|text| (text, FieldValidation::parse(text))), asked.next()) {
        (None | Some(("", _)), None) => "",
        (Some((_, Some(FieldValidation::Ignore))), None) => "Ignore",
        (Some((_, Some(FieldValidation::Warn))), None) => "Warn",
        (Some((_, Some(FieldValidation::Strict))), None) => "Strict",
        _ => "invalid",
    }
}

/// How many there are at once, and the most that there were in the last second.
#[derive(Debug)]
pub(crate) struct Peak {
    begun: Instant,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    now: u32,
    second: u64,
    highest: u32,
    /// In the second before that one.
    before: u32,
}

impl Default for Peak {
    fn default() -> Self {
        Peak { begun: Instant::now(), window: Mutex::default() }
    }
}

/// Counts as one while it lives.
pub(crate) struct During<'a>(&'a Peak);

impl Drop for During<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Window {
    fn at(&mut self, second: u64) {
        if second != self.second {
            self.before = if second == self.second + 1 { self.highest } else { self.now };
            (self.second, self.highest) = (second, self.now);
        }
    }

    fn change(&mut self, second: u64, now: u32) {
        self.at(second);
        self.now = now;
        self.highest = self.highest.max(now);
    }
}

impl Peak {
    pub(crate) fn enter(&self) {
        let second = self.begun.elapsed().as_secs();
        let mut window = self.window.lock();
        let now = window.now.saturating_add(1);
        window.change(second, now);
    }

    pub(crate) fn leave(&self) {
        let second = self.begun.elapsed().as_secs();
        let mut window = self.window.lock();
        let now = window.now.saturating_sub(1);
        window.change(second, now);
    }

    /// One more until the guard is dropped.
    pub(crate) fn during(&self) -> During<'_> {
        self.enter();
        During(self)
    }

    pub(super) fn highest(&self) -> f64 {
        let second = self.begun.elapsed().as_secs();
        let mut window = self.window.lock();
        window.at(second);
        window.highest.max(window.before).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_of_the_last_second_is_told() {
        let mut window = Window::default();
        let highest = |window: &Window| window.highest.max(window.before);
        window.change(0, 1);
        window.change(0, 2);
        window.change(0, 1);
        assert_eq!(highest(&window), 2);
        window.at(1);
        assert_eq!(highest(&window), 2, "a moment ago");
        window.at(2);
        assert_eq!(highest(&window), 1);
        window.change(2, 0);
        window.at(9);
        assert_eq!(highest(&window), 0);
    }

    #[test]
    fn field_validation_is_one_of_few() {
        let of = |query: &str| field_validation(&Query::parse(query));
        let found = ["", "fieldValidation=Strict", "fieldValidation=x", "fieldValidation=Warn&fieldValidation=Warn"];
        assert_eq!(found.map(of), ["", "Strict", "invalid", "invalid"]);
    }
}
