//! One webhook and one request: the question is put, the answer taken.

use std::borrow::Cow;
use std::fmt;

use kminik_meta::{Object, StatusError, names, patch};
use serde_json::{Value, json};

use super::super::Attributes;
use super::super::matching::Sighting;
use super::hooks::Hook;
use super::review::{self, Answer};
use crate::outbound::{AskError, Bounds, Outbound};
use crate::schema;

/// Longest answer: an object's limit once more for base64, and room for what stands around it.
const ANSWER_LIMIT: usize = 2 * schema::BODY_LIMIT;
/// Prefixes of audit annotations: whether a webhook changed the object, and how.
const MUTATION: &str = "mutation.webhook.admission.k8s.io/";
const PATCH: &str = "patch.webhook.admission.k8s.io/";

/// The status of a webhook that does not answer, or not so that it can be understood.
const UNAVAILABLE: u16 = 503;

/// Why a webhook did not say yes.
pub(super) enum Denied {
    /// It could not be asked, or what it said makes no sense; its failure policy decides. `code` is the status that this
    /// stands for.
    NoAnswer { why: String, code: u16 },
    /// It said no.
    Rejected(StatusError),
    /// The request is one that it cannot be asked about.
    Refused(StatusError),
}

impl From<StatusError> for Denied {
    fn from(status: StatusError) -> Self {
        Denied::Refused(status)
    }
}

pub(super) struct Question<'a> {
    pub(super) outbound: &'a Outbound,
    pub(super) hook: &'a Hook,
    pub(super) attributes: &'a Attributes<'a>,
    pub(super) sighting: &'a Sighting,
    /// Which pass over the webhooks this is, and the webhook's place in it, as keys of audit annotations end.
    pub(super) turn: Turn,
}

/// A webhook's turn in a request.
#[derive(Clone, Copy)]
pub(super) struct Turn {
    pub(super) round: usize,
    pub(super) index: usize,
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "round_{}_index_{}", self.round, self.index)
    }
}

impl Question<'_> {
    /// Asks whether the request may be.
    pub(super) async fn validate(&self, object: Option<&Object>) -> Result<(), Denied> {
        let seen = self.sighting.seen_if_any(object).await?;
        self.ask(seen.as_deref(), false).await?.verdict.map_err(Denied::Rejected)
    }

    /// Asks what the object should be; tells whether it was changed. `object` is in the version that the row works in before
    /// and after.
    pub(super) async fn mutate(&self, object: Option<&mut Object>) -> Result<bool, Denied> {
        let answer = self.apply(object).await;
        let Question { hook, attributes, turn, .. } = self;
        let mutated = matches!(answer, Ok(true));
        attributes.audit.annotate(&format!("{MUTATION}{turn}"), || {
            format!(
                "{{\"configuration\":{},\"webhook\":{},\"mutated\":{mutated}}}",
                json!(hook.configuration),
                json!(hook.name)
            )
        });
        answer
    }

    async fn apply(&self, object: Option<&mut Object>) -> Result<bool, Denied> {
        let seen = self.sighting.seen_if_any(object.as_deref()).await?.map(Cow::into_owned);
        let answer = self.ask(seen.as_ref(), true).await?;
        answer.verdict.map_err(Denied::Rejected)?;
        if review::is_empty_patch(&answer.patch) {
            return Ok(false);
        }
        let (Some(object), Some(seen)) = (object, seen) else {
            return Err(Denied::Refused(StatusError::internal(format!(
                "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
                self.hook.name
            ))));
        };
        let patched = match patch::json(&seen, &answer.patch) {
            Ok(patched) => patched.object,
            Err(patch::PatchError::Decode(why)) => {
                let why = format!("received undecodable patch in webhook response: {why}");
                return Err(Denied::NoAnswer { why, code: UNAVAILABLE });
            }
            Err(error) => return Err(Denied::Refused(StatusError::internal(error))),
        };
        let changed = self.take(object, &seen, patched).await?;
        let Question { hook, attributes, turn, .. } = self;
        attributes.audit.annotate_with_body(&format!("{PATCH}{turn}"), || {
            let patch: Value = serde_json::from_slice(&answer.patch).unwrap_or_default();
            format!(
                "{{\"configuration\":{},\"webhook\":{},\"patch\":{patch},\"patchType\":\"JSONPatch\"}}",
                json!(hook.configuration),
                json!(hook.name)
            )
        });
        Ok(changed)
    }

    /// Puts the patched object, in normal form with defaults, in the place of the other.
    async fn take(&self, object: &mut Object, seen: &Object, mut patched: Object) -> Result<bool, Denied> {
        self.sighting.normalize(&mut patched)?;
        let changed = patched != *seen;
        if changed {
            *object = self.sighting.taken_back(patched).await?;
        }
        Ok(changed)
    }

    async fn ask(&self, object: Option<&Object>, mutating: bool) -> Result<Answer, Denied> {
        let Question { hook, attributes, sighting, .. } = self;
        if attributes.dry_run && !hook.harmless {
            let why = format!("admission webhook {:?} does not support dry run", hook.name);
            return Err(Denied::Refused(StatusError::bad_request(why)));
        }
        let unasked = |why: &dyn std::fmt::Display, code| Denied::NoAnswer { why: why.to_string(), code };
        let version = hook.review.ok_or_else(|| {
            unasked(
                &"could not create admission objects: webhook does not accept known AdmissionReview versions (v1, v1beta1)",
                400,
            )
        })?;
        let target =
            hook.target.as_ref().map_err(|error| unasked(&format!("could not get REST client: {error}"), 500))?;
        let uid = uuid::Uuid::new_v4().to_string();
        let old = sighting.seen_if_any(attributes.old).await?;
        let body = review::question(version, &uid, attributes, sighting, object, old.as_deref())?;
        let bounds = Bounds { timeout: hook.timeout, body: ANSWER_LIMIT };
        let response = self.outbound.ask(target, body, bounds).await.map_err(|error| match error {
            error @ AskError::Url(_) => unasked(&format!("could not get REST client: {error}"), 500),
            AskError::Refused(code, why) => unasked(&format!("failed to call webhook: {why}"), code.as_u16()),
            error => unasked(&format!("failed to call webhook: {error}"), UNAVAILABLE),
        })?;
        let answer = review::answer(version, &uid, &hook.name, mutating, &response);
        let answer = answer.map_err(|error| unasked(&error, UNAVAILABLE))?;
        attributes.warnings.lock().extend(answer.warnings.iter().cloned());
        for (key, value) in &answer.audit_annotations {
            let key = format!("{}/{key}", hook.name);
            if names::qualified_name(&key).is_empty() {
                attributes.audit.annotate(&key, || value.clone());
            }
        }
        Ok(answer)
    }
}
