//! Whether the server is alive and ready: named checks, all of which must hold.

use std::sync::atomic::{AtomicBool, Ordering};

use http::{Response, StatusCode};

use crate::http::body::ResponseBody;
use crate::http::info::Query;
use crate::http::respond;

/// The checks in the order in which they are listed.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Objects are loaded and bootstrap objects written.
    bootstrapped: AtomicBool,
    shutting_down: AtomicBool,
}

impl Health {
    pub(crate) fn set_bootstrapped(&self) {
        self.bootstrapped.store(true, Ordering::Release);
    }

    pub(crate) fn set_shutting_down(&self) {
        self.shutting_down.store(true, Ordering::Release);
    }

    fn checks(&self, endpoint: &str) -> Vec<(&'static str, bool)> {
        let mut checks = vec![("ping", true), ("log", true)];
        if endpoint != "livez" {
            checks.push(("poststarthook/bootstrap", self.bootstrapped.load(Ordering::Acquire)));
        }
        if endpoint == "readyz" {
            checks.push(("shutdown", !self.shutting_down.load(Ordering::Acquire)));
        }
        checks
    }

    /// Answers `/healthz`, `/livez`, `/readyz`, one of their checks, or `?verbose`, with `?exclude=NAME`.
    pub(crate) fn answer(&self, parts: &[&str], query: Option<&str>) -> Response<ResponseBody> {
        let endpoint = parts.first().copied().unwrap_or_default();
        let query = Query::parse(query.unwrap_or_default());
        let wanted = parts.get(1..).unwrap_or_default().join("/");
        let mut checks = self.checks(endpoint);
        if !wanted.is_empty() {
            checks.retain(|(name, _)| *name == wanted);
            if checks.is_empty() {
                return respond::text(StatusCode::NOT_FOUND, "404 page not found\n");
            }
        }
        checks.retain(|(name, _)| !query.all("exclude").any(|excluded| excluded == *name));
        let passed = checks.iter().all(|(_, passed)| *passed);
        let code = if passed { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
        let verbose = query.all("verbose").next().is_some();
        if passed && !verbose {
            return respond::text(code, "ok");
        }
        let mut text: String = checks
            .iter()
            .map(
                |(name, passed)| {
                    if *passed { format!("[+]{name} ok\n") } else { format!("[-]{name} failed: reason withheld\n") }
                },
            )
            .collect();
        text.push_str(&format!("{endpoint} check {}\n", if passed { "passed" } else { "failed" }));
        respond::text(code, text)
    }
}
