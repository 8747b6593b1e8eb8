//! Whether the server is alive and ready: named checks, all of which must hold.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::HeaderValue;
use http::{Response, StatusCode};
use kminik_meta::field::quote;
use kminik_store::Store;

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

/// Name, what is checked, and the endpoints that have it; in the order in which they are listed.
const CHECKS: &[(&str, Check, &[&str])] = &[
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

    async fn holds(&self, check: Check, store: &dyn Store) -> bool {
        match check {
            Check::Answers => true,
            Check::Store => matches!(tokio::time::timeout(STORE_TIMEOUT, store.revision()).await, Ok(Ok(_))),
            Check::Bootstrapped => self.bootstrapped.load(Ordering::Acquire),
            Check::NotShuttingDown => !self.is_shutting_down(),
        }
    }

    /// Answers `/healthz`, `/livez`, `/readyz`, one of their checks, or `?verbose`, with `?exclude=NAME`.
    pub(crate) async fn answer(&self, parts: &[&str], query: &Query, store: &dyn Store) -> Response<ResponseBody> {
        let endpoint = parts.first().copied().unwrap_or_default();
        let checks = CHECKS.iter().filter(|(_, _, endpoints)| endpoints.contains(&endpoint));
        let wanted = parts.get(1..).unwrap_or_default().join("/");
        if !wanted.is_empty() {
            let Some((name, check, _)) = checks.into_iter().find(|(name, ..)| *name == wanted) else {
                return respond::text(StatusCode::NOT_FOUND, "404 page not found\n");
            };
            return match self.holds(*check, store).await {
                true => plain(StatusCode::OK, "ok".into()),
                false => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {name} failed\n")),
            };
        }
        let mut unknown: Vec<&str> = query.all("exclude").collect();
        let (mut text, mut passed) = (String::new(), true);
        for (name, check, _) in checks {
            if unknown.contains(name) || query.all("exclude").any(|excluded| excluded == *name) {
                unknown.retain(|excluded| excluded != name);
                text.push_str(&format!("[+]{name} excluded: ok\n"));
            } else if self.holds(*check, store).await {
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
