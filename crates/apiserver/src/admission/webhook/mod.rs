//! MutatingAdmissionWebhook and ValidatingAdmissionWebhook: other servers have a say in what is written.
//!
//! The configurations are read from the cache and compiled again whenever one has changed, so they hold from the moment
//! the cache has seen them. Mutating webhooks are asked one after the other, in the order of their configurations' names;
//! validating ones all at once.

mod ask;
mod hooks;
mod review;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kminik_meta::{Object, StatusError};

use self::ask::{Denied, Question, Turn};
use self::hooks::{Hook, Hooks};
use super::expressions::{Owner, Subject, Verdict};
use super::matching::{self, Sighting};
use super::{Admission, Attributes, Phase};
use crate::auth::Authorizer;
use crate::metrics::flag;
use crate::outbound::Outbound;
use crate::storage::cache::Cache;

const MUTATING: &str = "MutatingAdmissionWebhook";
const VALIDATING: &str = "ValidatingAdmissionWebhook";

/// Higher statuses are counted as this one.
const HIGHEST_CODE: u16 = 600;

/// Asks the webhooks that may change the object.
pub(super) struct MutatingWebhooks {
    hooks: Hooks,
    outbound: Arc<Outbound>,
    authorizer: Arc<dyn Authorizer>,
}

/// Asks the webhooks that may only refuse.
pub(super) struct ValidatingWebhooks {
    hooks: Hooks,
    outbound: Arc<Outbound>,
    authorizer: Arc<dyn Authorizer>,
}

impl MutatingWebhooks {
    pub(super) fn new(cache: &Cache, outbound: Arc<Outbound>, authorizer: Arc<dyn Authorizer>) -> Self {
        MutatingWebhooks { hooks: Hooks::new(cache, "mutatingwebhookconfigurations"), outbound, authorizer }
    }

    async fn ask_all(&self, attributes: &Attributes<'_>, mut object: Option<&mut Object>) -> Result<(), StatusError> {
        let hooks = self.hooks.current();
        attributes.reinvocation.enter(MUTATING, object.as_deref());
        let round = usize::from(attributes.reinvocation.is_second());
        for (index, hook) in hooks.iter().enumerate() {
            let Some(sighting) = hook.criteria.matches(attributes, object.as_deref()).await? else { continue };
            if !attributes.reinvocation.is_due(MUTATING, &hook.id)
                || !conditions_hold(hook, Phase::Admit, attributes, &sighting, object.as_deref(), &self.authorizer)
                    .await?
            {
                continue;
            }
            let turn = Turn { round, index };
            let question = Question { outbound: &self.outbound, hook, attributes, sighting: &sighting, turn };
            let started = Instant::now();
            let answer = question.mutate(object.as_deref_mut()).await;
            attributes.waited.add(started.elapsed());
            if matches!(answer, Ok(true)) {
                attributes.reinvocation.changed(MUTATING);
            }
            if hook.reinvoke {
                attributes.reinvocation.asked(MUTATING, &hook.id);
            }
            settle(&question, Phase::Admit, started, answer.map(drop))?;
        }
        attributes.reinvocation.leave(MUTATING, object.as_deref());
        Ok(())
    }
}

impl ValidatingWebhooks {
    pub(super) fn new(cache: &Cache, outbound: Arc<Outbound>, authorizer: Arc<dyn Authorizer>) -> Self {
        ValidatingWebhooks { hooks: Hooks::new(cache, "validatingwebhookconfigurations"), outbound, authorizer }
    }
}

#[async_trait]
impl Admission for MutatingWebhooks {
    fn name(&self) -> &'static str {
        MUTATING
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        !self.hooks.current().is_empty() && !matching::is_exempt(attributes)
    }

    async fn mutate(&self, attributes: &Attributes<'_>, object: &mut Object) -> Result<(), StatusError> {
        self.ask_all(attributes, Some(object)).await
    }

    async fn admit_delete(&self, attributes: &Attributes<'_>) -> Result<(), StatusError> {
        self.ask_all(attributes, None).await
    }
}

#[async_trait]
impl Admission for ValidatingWebhooks {
    fn name(&self) -> &'static str {
        VALIDATING
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        !self.hooks.current().is_empty() && !matching::is_exempt(attributes)
    }

    fn may_mutate(&self) -> bool {
        false
    }

    async fn validate(&self, attributes: &Attributes<'_>, object: Option<&Object>) -> Result<(), StatusError> {
        let hooks = self.hooks.current();
        let mut relevant: Vec<(&Hook, Sighting)> = Vec::new();
        for hook in hooks.iter() {
            if let Some(sighting) = hook.criteria.matches(attributes, object).await?
                && conditions_hold(hook, Phase::Validate, attributes, &sighting, object, &self.authorizer).await?
            {
                relevant.push((hook, sighting));
            }
        }
        let started = Instant::now();
        let mut answers: FuturesUnordered<_> = relevant
            .iter()
            .enumerate()
            .map(|(index, (hook, sighting))| async move {
                let turn = Turn { round: 0, index };
                let question = Question { outbound: &self.outbound, hook, attributes, sighting, turn };
                settle(&question, Phase::Validate, started, question.validate(object).await)
            })
            .collect();
        // All are heard; of several refusals the first counts.
        let mut verdict = Ok(());
        while let Some(answer) = answers.next().await {
            verdict = verdict.and(answer);
        }
        if !relevant.is_empty() {
            attributes.waited.add(started.elapsed());
        }
        verdict
    }
}

/// Whether the webhook's match conditions hold of the request.
///
/// # Errors
/// 403 if they fail and the webhook does not say that failures are to be ignored.
async fn conditions_hold(
    hook: &Hook,
    phase: Phase,
    attributes: &Attributes<'_>,
    sighting: &Sighting,
    object: Option<&Object>,
    authorizer: &Arc<dyn Authorizer>,
) -> Result<bool, StatusError> {
    if hook.conditions.is_empty() {
        return Ok(true);
    }
    let subject = Subject::new(attributes, sighting, object, authorizer.clone()).await?;
    let owner = Owner { kind: "webhook", name: &hook.name, phase: phase.as_str() };
    match hook.conditions.judge(&owner, attributes, &subject.activation(None)) {
        Verdict::Match => Ok(true),
        Verdict::Skip => Ok(false),
        Verdict::Failed(_) if hook.fails_open => Ok(false),
        Verdict::Failed(why) => Err(attributes.forbidden(why)),
    }
}

/// What an answer means for the request: a webhook that cannot be asked may be ignored, if it says so. The audit log has
/// that under a key that tells the phase.
fn settle(
    question: &Question<'_>,
    phase: Phase,
    started: Instant,
    answer: Result<(), Denied>,
) -> Result<(), StatusError> {
    let Question { hook, attributes, turn, .. } = question;
    count(question, phase, started.elapsed(), &answer);
    match answer {
        Ok(()) => Ok(()),
        Err(Denied::NoAnswer { why, .. }) => {
            let failure = format!("failed calling webhook {:?}: {why}", hook.name);
            if hook.fails_open {
                tracing::warn!(webhook = hook.name, error = failure, "webhook ignored");
                let phase = match phase {
                    Phase::Admit => "mutation",
                    Phase::Validate => "validating",
                };
                let key = format!("failed-open.{phase}.webhook.admission.k8s.io/{turn}");
                attributes.audit.annotate(&key, || hook.name.clone());
                return Ok(());
            }
            Err(StatusError::internal(failure))
        }
        Err(Denied::Rejected(status) | Denied::Refused(status)) => Err(status),
    }
}

/// Counts what came of asking a webhook.
fn count(question: &Question<'_>, phase: Phase, took: Duration, answer: &Result<(), Denied>) {
    let Question { hook, attributes, .. } = question;
    let table = &attributes.metrics().table.admission;
    let phase = match phase {
        Phase::Admit => "admit",
        Phase::Validate => "validating",
    };
    let (name, operation) = (hook.name.as_str(), attributes.operation.as_str());
    let (code, error) = match answer {
        Ok(()) => (200, None),
        Err(Denied::NoAnswer { code, .. }) if hook.fails_open => {
            table.webhooks_failed_open.with([name, phase]).inc();
            (*code, None)
        }
        Err(Denied::NoAnswer { code, .. }) => (*code, Some("calling_webhook_error")),
        Err(Denied::Rejected(status)) => (status.code(), Some("no_error")),
        Err(Denied::Refused(_)) => (0, Some("apiserver_internal_error")),
    };
    let code = code.min(HIGHEST_CODE).to_string();
    let rejected = flag(error.is_some());
    if let Some(error) = error {
        table.webhook_rejections.with([error, name, operation, &code, phase]).inc();
    }
    table.webhook_requests.with([&code, name, operation, rejected, phase]).inc();
    table.webhooks.with([name, operation, rejected, phase]).took(took);
}
