//! What is counted of identities and rights.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use kminik_meta::StatusError;

use super::{Attributes, Authorizer, Decision, RuleSummary, UserInfo};
use crate::metrics::Metrics;
use crate::metrics::family::Counter;

/// Names that are told; there may be any number of others.
const TOLD: [&str; 5] = ["admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default"];

/// Whom a request was found to be from, and how long that took.
pub(crate) fn authenticated(metrics: &Metrics, found: &Result<Option<UserInfo>, StatusError>, took: Duration) {
    let result = match found {
        Ok(Some(user)) => {
            metrics.table.auth.users.with([told(&user.name)]).inc();
            "success"
        }
        Ok(None) => "failure",
        Err(_) => "error",
    };
    metrics.table.auth.attempts.with([result]).inc();
    metrics.table.auth.duration.with([result]).took(took);
}

fn told(name: &str) -> &str {
    match name {
        name if TOLD.contains(&name) => name,
        name if name.contains('@') => "email_id",
        _ => "other",
    }
}

/// What came of asking whether a request may be, and how long that took.
pub(crate) fn authorized(metrics: &Metrics, decision: &Decision, took: Duration) {
    let result = match decision {
        Decision::Allow { .. } => "allowed",
        Decision::NoOpinion { .. } => "no-opinion",
        Decision::Deny { .. } => "denied",
    };
    metrics.table.auth.authorizations.with([result]).inc();
    metrics.table.auth.authorization_duration.with([result]).took(took);
}

/// An authorizer whose decisions are counted.
pub(super) struct Counted {
    inner: Arc<dyn Authorizer>,
    metrics: Arc<Metrics>,
    /// Its type and its name.
    labels: [&'static str; 2],
    allowed: OnceLock<Arc<Counter>>,
    denied: OnceLock<Arc<Counter>>,
}

impl Counted {
    pub(super) fn new(inner: Arc<dyn Authorizer>, metrics: Arc<Metrics>, labels: [&'static str; 2]) -> Self {
        Counted { inner, metrics, labels, allowed: OnceLock::new(), denied: OnceLock::new() }
    }
}

#[async_trait]
impl Authorizer for Counted {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        let decision = self.inner.authorize(attributes).await;
        let (count, text) = match &decision {
            Decision::Allow { .. } => (&self.allowed, "allowed"),
            Decision::Deny { .. } => (&self.denied, "denied"),
            Decision::NoOpinion { .. } => return decision,
        };
        let [kind, name] = self.labels;
        count.get_or_init(|| self.metrics.table.auth.decisions.with([text, name, kind])).inc();
        decision
    }

    async fn rules(&self, user: &UserInfo, namespace: &str) -> Vec<RuleSummary> {
        self.inner.rules(user, namespace).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_users_are_told_by_name() {
        assert_eq!(["kubelet", "a@b", "system:node:n1"].map(told), ["kubelet", "email_id", "other"]);
    }
}
