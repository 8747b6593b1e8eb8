//! Whether the server is alive and ready: named checks, all of which must hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::HeaderValue;
use http::{Response, StatusCode};
use kminik_meta::field::quote;
use kminik_store::Store;

use crate::http::body::ResponseBody;
use crate::http::info::Query;
use crate::http::respond;
use crate::metrics::Metrics;

/// The store is asked for so long whether it answers.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the checks look at.
#[derive(Debug)]
pub(crate) struct Health {
    steps: [AtomicBool; STEPS],
    shutting_down: AtomicBool,
    metrics: Arc<Metrics>,
}

/// What a server does before it is ready. One that keeps something from then on has begun to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// All objects are in the cache, which follows the store.
    Cache,
    /// The table of resources is composed, custom ones among them.
    Table,
    /// The table follows what it is composed of.
    Composition,
    /// The plugins of admission are made over the cache.
    Admission,
    /// Requests wait for their turn.
    Turns,
    /// By the cluster's own configuration.
    TurnsConfigured,
    /// The objects of that configuration are there.
    TurnsWritten,
    /// Custom resources' definitions are kept.
    Definitions,
    Namespaces,
    /// What extension servers must know of this one.
    AuthenticationInfo,
    /// The uses of tokens of Secrets are kept.
    TokenUses,
    /// IPAddresses are made to agree with services.
    ServiceAddresses,
    Roles,
    PriorityClasses,
    /// The Service of this server and its endpoints.
    Service,
    ServiceRange,
    /// What is served here has its APIServices.
    Registrations,
    /// Extension servers are asked whether they are there, and what they serve.
    Availability,
}

/// How many there are.
const STEPS: usize = Step::Availability as usize + 1;

/// The checks, under upstream's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// Holds for whoever is asked.
    Answers,
    Store,
    Reached(Step),
    NotShuttingDown,
}

type Row = (&'static str, Check, &'static [&'static str]);

const EVERYWHERE: &[&str] = &["healthz", "livez", "readyz"];
const READINESS: &[&str] = &["readyz"];

/// Name, what is checked, and the endpoints that have it; in the order in which upstream lists them. Left out are those of
/// upstream's for which nothing here does their job: this server has no Lease of its own (`start-kube-apiserver-identity-…`), and
/// does not read its proxy certificate again (`aggregator-reload-proxy-client-cert`).
const CHECKS: &[Row] = &[
    ("ping", Check::Answers, EVERYWHERE),
    ("log", Check::Answers, EVERYWHERE),
    ("etcd", Check::Store, EVERYWHERE),
    ("etcd-readiness", Check::Store, READINESS),
    ("informer-sync", Check::Reached(Step::Cache), READINESS),
    ("poststarthook/start-apiserver-admission-initializer", Check::Reached(Step::Admission), EVERYWHERE),
    ("poststarthook/generic-apiserver-start-informers", Check::Reached(Step::Cache), EVERYWHERE),
    ("poststarthook/priority-and-fairness-config-consumer", Check::Reached(Step::TurnsConfigured), EVERYWHERE),
    ("poststarthook/priority-and-fairness-filter", Check::Reached(Step::Turns), EVERYWHERE),
    // The cache knows at any time how many objects there are.
    ("poststarthook/storage-object-count-tracker-hook", Check::Reached(Step::Cache), EVERYWHERE),
    ("poststarthook/start-apiextensions-informers", Check::Reached(Step::Cache), EVERYWHERE),
    ("poststarthook/start-apiextensions-controllers", Check::Reached(Step::Definitions), EVERYWHERE),
    ("poststarthook/crd-informer-synced", Check::Reached(Step::Table), EVERYWHERE),
    ("poststarthook/start-system-namespaces-controller", Check::Reached(Step::Namespaces), EVERYWHERE),
    (
        "poststarthook/start-cluster-authentication-info-controller",
        Check::Reached(Step::AuthenticationInfo),
        EVERYWHERE,
    ),
    ("poststarthook/start-legacy-token-tracking-controller", Check::Reached(Step::TokenUses), EVERYWHERE),
    ("poststarthook/start-service-ip-repair-controllers", Check::Reached(Step::ServiceAddresses), EVERYWHERE),
    ("poststarthook/rbac/bootstrap-roles", Check::Reached(Step::Roles), EVERYWHERE),
    ("poststarthook/scheduling/bootstrap-system-priority-classes", Check::Reached(Step::PriorityClasses), EVERYWHERE),
    ("poststarthook/priority-and-fairness-config-producer", Check::Reached(Step::TurnsWritten), EVERYWHERE),
    ("poststarthook/bootstrap-controller", Check::Reached(Step::Service), EVERYWHERE),
    ("poststarthook/start-kubernetes-service-cidr-controller", Check::Reached(Step::ServiceRange), EVERYWHERE),
    ("poststarthook/start-kube-aggregator-informers", Check::Reached(Step::Cache), EVERYWHERE),
    ("poststarthook/apiservice-status-local-available-controller", Check::Reached(Step::Registrations), EVERYWHERE),
    ("poststarthook/apiservice-status-remote-available-controller", Check::Reached(Step::Availability), EVERYWHERE),
    ("poststarthook/apiservice-registration-controller", Check::Reached(Step::Composition), EVERYWHERE),
    ("poststarthook/apiservice-discovery-controller", Check::Reached(Step::Availability), EVERYWHERE),
    ("poststarthook/kube-apiserver-autoregistration", Check::Reached(Step::Registrations), EVERYWHERE),
    ("autoregister-completion", Check::Reached(Step::Registrations), EVERYWHERE),
    ("poststarthook/apiservice-openapi-controller", Check::Reached(Step::Availability), EVERYWHERE),
    ("poststarthook/apiservice-openapiv3-controller", Check::Reached(Step::Availability), EVERYWHERE),
    ("shutdown", Check::NotShuttingDown, READINESS),
];

impl Health {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Health { steps: Default::default(), shutting_down: AtomicBool::new(false), metrics }
    }

    pub(crate) fn reached(&self, step: Step) {
        if let Some(reached) = self.steps.get(step as usize) {
            reached.store(true, Ordering::Release);
        }
    }

    pub(crate) fn set_shutting_down(&self) {
        self.shutting_down.store(true, Ordering::Release);
    }

    pub(crate) fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Acquire)
    }

    /// Whether a check of an endpoint holds now; it is counted.
    async fn holds(&self, (name, check, _): &Row, endpoint: &str, store: &dyn Store) -> bool {
        let holds = match check {
            Check::Answers => true,
            Check::Store => matches!(tokio::time::timeout(STORE_TIMEOUT, store.revision()).await, Ok(Ok(_))),
            Check::Reached(step) => {
                self.steps.get(*step as usize).is_some_and(|reached| reached.load(Ordering::Acquire))
            }
            Check::NotShuttingDown => !self.is_shutting_down(),
        };
        let checks = &self.metrics.checks;
        checks.last.with([name, endpoint]).set(f64::from(u8::from(holds)));
        checks.results.with([name, if holds { "success" } else { "error" }, endpoint]).inc();
        holds
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

#[cfg(test)]
mod tests {
    use kminik_store::{EmbeddedStore, Options};

    use super::*;

    #[tokio::test]
    async fn each_step_is_missed_by_the_checks_that_need_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(&directory.path().join("s"), Options::default()).unwrap();
        let health = Health::new(Arc::default());
        let failing = async || {
            let mut failing = Vec::new();
            for row in CHECKS {
                if !health.holds(row, "readyz", &store).await {
                    failing.push(row.1);
                }
            }
            failing
        };
        let steps: Vec<Check> = CHECKS.iter().map(|(_, check, _)| *check).collect();
        let steps: Vec<Check> = steps.into_iter().filter(|check| matches!(check, Check::Reached(_))).collect();
        assert_eq!(failing().await, steps, "nothing is reached");
        for check in &steps {
            let Check::Reached(step) = check else { continue };
            health.reached(*step);
            assert!(!failing().await.contains(check), "{step:?}");
        }
        assert!(failing().await.is_empty());
        assert!(health.steps.iter().all(|step| step.load(Ordering::Acquire)), "no step is without a check");
    }
}
