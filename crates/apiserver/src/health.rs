//! Whether the server is alive and ready: named checks, all of which must hold.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::HeaderValue;
use http::{Response, StatusCode};
use kminik_meta::field::quote;
use kminik_store::Store;
use parking_lot::Mutex;

use crate::http::body::ResponseBody;
use crate::http::info::Query;
use crate::http::respond;

/// The store is asked for so long whether it answers.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the checks look at.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Objects are loaded and bootstrap objects written.
    bootstrapped: AtomicBool,
    shutting_down: AtomicBool,
    results: Mutex<BTreeMap<(&'static str, &'static str), Results>>,
}

/// What came of one check of one endpoint.
#[derive(Clone, Copy, Debug, Default)]
struct Results {
    last: bool,
    successes: u64,
    failures: u64,
}

/// The checks, under upstream's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// Holds for whoever is asked.
    Answers,
    Store,
    Bootstrapped,
    NotShuttingDown,
}

type Row = (&'static str, Check, &'static [&'static str]);

/// Name, what is checked, and the endpoints that have it; in the order in which they are listed.
const CHECKS: &[Row] = &[
    ("ping", Check::Answers, &["healthz", "livez", "readyz"]),
    ("log", Check::Answers, &["healthz", "livez", "readyz"]),
    ("etcd", Check::Store, &["healthz", "livez", "readyz"]),
    ("etcd-readiness", Check::Store, &["readyz"]),
    ("informer-sync", Check::Bootstrapped, &["readyz"]),
    ("poststarthook/bootstrap-controller", Check::Bootstrapped, &["healthz", "livez", "readyz"]),
    ("poststarthook/rbac/bootstrap-roles", Check::Bootstrapped, &["healthz", "livez", "readyz"]),
    ("shutdown", Check::NotShuttingDown, &["readyz"]),
];

impl Health {
    pub(crate) fn set_bootstrapped(&self) {
        self.bootstrapped.store(true, Ordering::Release);
    }

    pub(crate) fn set_shutting_down(&self) {
        self.shutting_down.store(true, Ordering::Release);
    }

    pub(crate) fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Acquire)
    }

    /// Whether a check of an endpoint holds now; it is counted.
    async fn holds(&self, (name, check, endpoints): &Row, endpoint: &str, store: &dyn Store) -> bool {
        let holds = match check {
            Check::Answers => true,
            Check::Store => matches!(tokio::time::timeout(STORE_TIMEOUT, store.revision()).await, Ok(Ok(_))),
            Check::Bootstrapped => self.bootstrapped.load(Ordering::Acquire),
            Check::NotShuttingDown => !self.is_shutting_down(),
        };
        if let Some(endpoint) = endpoints.iter().find(|known| **known == endpoint) {
            let mut results = self.results.lock();
            let results = results.entry((*name, *endpoint)).or_default();
            results.last = holds;
            *(if holds { &mut results.successes } else { &mut results.failures }) += 1;
        }
        holds
    }

    /// `/metrics/slis`: what came of the checks.
    pub(crate) fn exposition(&self) -> String {
        let results = self.results.lock();
        let mut text = String::from(
            "# HELP kubernetes_healthcheck [STABLE] This metric records the result of a single healthcheck.\n\
             # TYPE kubernetes_healthcheck gauge\n",
        );
        for ((name, endpoint), found) in &*results {
            let value = u8::from(found.last);
            text.push_str(&format!("kubernetes_healthcheck{{name=\"{name}\",type=\"{endpoint}\"}} {value}\n"));
        }
        text.push_str(
            "# HELP kubernetes_healthchecks_total [STABLE] This metric records the results of all healthcheck.\n\
             # TYPE kubernetes_healthchecks_total counter\n",
        );
        for ((name, endpoint), found) in &*results {
            for (status, count) in [("error", found.failures), ("success", found.successes)] {
                if count > 0 {
                    text.push_str(&format!(
                        "kubernetes_healthchecks_total{{name=\"{name}\",status=\"{status}\",type=\"{endpoint}\"}} {count}\n"
                    ));
                }
            }
        }
        text
    }

    /// Answers `/healthz`, `/livez`, `/readyz`, one of their checks, or `?verbose`, with `?exclude=NAME`.
    pub(crate) async fn answer(&self, parts: &[&str], query: &Query, store: &dyn Store) -> Response<ResponseBody> {
        let endpoint = parts.first().copied().unwrap_or_default();
        let checks = CHECKS.iter().filter(|(_, _, endpoints)| endpoints.contains(&endpoint));
        let wanted = parts.get(1..).unwrap_or_default().join("/");
        if !wanted.is_empty() {
            let Some(row) = checks.into_iter().find(|(name, ..)| *name == wanted) else {
                return respond::text(StatusCode::NOT_FOUND, "404 page not found\n");
            };
            return match self.holds(row, endpoint, store).await {
                true => plain(StatusCode::OK, "ok".into()),
                false => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {wanted} failed\n")),
            };
        }
        let mut unknown: Vec<&str> = query.all("exclude").collect();
        let (mut text, mut passed) = (String::new(), true);
        for row in checks {
            let (name, ..) = row;
            if unknown.contains(name) || query.all("exclude").any(|excluded| excluded == *name) {
                unknown.retain(|excluded| excluded != name);
                text.push_str(&format!("[+]{name} excluded: ok\n"));
            } else if self.holds(row, endpoint, store).await {
                text.push_str(&format!("[+]{name} ok\n"));
            } else {
                // Everybody may read this; the reason is in the log.
                text.push_str(&format!("[-]{name} failed: reason withheld\n"));
                tracing::warn!(check = name, endpoint, "health check failed");
                passed = false;
            }
        }
        if !unknown.is_empty() {
            unknown.sort_unstable();
            unknown.dedup();
            let names: Vec<String> = unknown.into_iter().map(quote).collect();
            text.push_str(&format!(
                "warn: some health checks cannot be excluded: no matches for {}\n",
                names.join(", ")
            ));
        }
        match (passed, query.all("verbose").next().is_some()) {
            (true, false) => plain(StatusCode::OK, "ok".into()),
            (true, true) => plain(StatusCode::OK, format!("{text}{endpoint} check passed\n")),
            (false, _) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{text}{endpoint} check failed\n")),
        }
    }
}

fn plain(code: StatusCode, text: String) -> Response<ResponseBody> {
    let mut response = respond::text(code, text);
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}
