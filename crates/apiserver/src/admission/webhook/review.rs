//! AdmissionReview, the question put to a webhook and its answer.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kminik_meta::status::{Details, StatusError};
use kminik_meta::{Gvk, Object};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::Attributes;
use super::super::matching::Sighting;
use crate::outbound::review::{Answered, BadEnvelope, Review, ReviewVersion, check_uid};

const REVIEW: Review = Review { group: "admission.k8s.io", kind: "AdmissionReview" };
const JSON_PATCH: &str = "JSONPatch";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    uid: &'a str,
    kind: Kind,
    resource: Resource<'a>,
    #[serde(skip_serializing_if = "str::is_empty")]
    sub_resource: &'a str,
    request_kind: Kind,
    request_resource: Resource<'a>,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_sub_resource: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    namespace: &'a str,
    operation: &'static str,
    user_info: User<'a>,
    object: Option<&'a Object>,
    old_object: Option<&'a Object>,
    dry_run: bool,
    options: Option<Object>,
}

#[derive(Serialize)]
struct Kind {
    group: String,
    version: String,
    kind: String,
}

impl From<Gvk> for Kind {
    fn from(gvk: Gvk) -> Self {
        Kind { group: gvk.group, version: gvk.version, kind: gvk.kind }
    }
}

#[derive(Serialize)]
struct Resource<'a> {
    group: &'a str,
    version: &'a str,
    resource: &'a str,
}

#[derive(Serialize)]
struct User<'a> {
    username: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    groups: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: &'a BTreeMap<String, Vec<String>>,
}

/// The question as bytes. The objects are in the version of the sighting.
///
/// # Errors
/// 500 for an object that cannot be written.
pub(super) fn question(
    version: ReviewVersion,
    uid: &str,
    attributes: &Attributes<'_>,
    sighting: &Sighting,
    object: Option<&Object>,
    old: Option<&Object>,
) -> Result<Vec<u8>, StatusError> {
    let (row, user) = (attributes.row, attributes.user);
    let request = Request {
        uid,
        kind: sighting.kind.clone().into(),
        resource: Resource {
            group: &sighting.row.group,
            version: &sighting.version.name,
            resource: &sighting.row.plural,
        },
        sub_resource: attributes.subresource,
        request_kind: attributes.kind().into(),
        request_resource: Resource { group: &row.group, version: &attributes.version.name, resource: &row.plural },
        request_sub_resource: attributes.subresource,
        name: attributes.name,
        namespace: attributes.effective_namespace(),
        operation: attributes.operation.as_str(),
        user_info: User { username: &user.name, uid: &user.uid, groups: &user.groups, extra: &user.extra },
        object,
        old_object: old,
        dry_run: attributes.dry_run,
        options: attributes.options_object(),
    };
    REVIEW.question(version, request)
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Response {
    uid: String,
    allowed: bool,
    status: Option<Status>,
    patch: Option<String>,
    patch_type: Option<String>,
    warnings: Option<Vec<String>>,
    audit_annotations: Option<BTreeMap<String, String>>,
}

/// The members of a Status that a refusal relays.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    message: String,
    reason: String,
    code: u16,
    details: Option<Details>,
}

/// What a webhook says.
#[derive(Debug)]
pub(super) struct Answer {
    /// `Err` holds the refusal.
    pub(super) verdict: Result<(), StatusError>,
    /// A JSON patch; empty changes nothing.
    pub(super) patch: Vec<u8>,
    pub(super) warnings: Vec<String>,
    /// For the audit log, under keys that the webhook's name comes before.
    pub(super) audit_annotations: BTreeMap<String, String>,
}

/// Why an answer cannot be taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadAnswer {
    #[error("failed to call webhook: {0}")]
    Unreadable(BadEnvelope),
    #[error("received invalid webhook response: {0}")]
    Invalid(String),
}

/// Reads and checks an answer as upstream does: version, UID and the pairing of patch and its type only in v1.
///
/// # Errors
/// What is wrong with it.
pub(super) fn answer(
    version: ReviewVersion,
    uid: &str,
    hook: &str,
    mutating: bool,
    bytes: &[u8],
) -> Result<Answer, BadAnswer> {
    let invalid = |what: String| Err(BadAnswer::Invalid(what));
    let answered = Answered::<Response>::read(bytes).map_err(BadAnswer::Unreadable)?;
    let of_kind = REVIEW.check_kind(version, &answered);
    let Some(response) = answered.response else { return invalid("webhook response was absent".to_owned()) };
    let patch = response.patch.unwrap_or_default();
    if version == ReviewVersion::V1 {
        check_uid(uid, &response.uid).and(of_kind).map_err(|error| BadAnswer::Invalid(error.to_string()))?;
        match (mutating, patch.is_empty(), response.patch_type.as_deref()) {
            (false, false, _) => return invalid("validating webhook may not return response.patch".to_owned()),
            (false, true, Some(_)) => {
                return invalid("validating webhook may not return response.patchType".to_owned());
            }
            (true, false, None) => {
                return invalid("webhook returned response.patch but not response.patchType".to_owned());
            }
            (true, true, Some(_)) => {
                return invalid("webhook returned response.patchType but not response.patch".to_owned());
            }
            (true, false, Some("")) => {
                return invalid("webhook returned invalid response.patchType of \"\"".to_owned());
            }
            (true, false, Some(kind)) if kind != JSON_PATCH && response.allowed => {
                return invalid(format!("unsupported patch type {kind:?}"));
            }
            _ => {}
        }
    }
    let patch = BASE64_STANDARD
        .decode(patch)
        .map_err(|error| BadAnswer::Unreadable(BadEnvelope::Json(format!("illegal base64 data: {error}"))))?;
    let verdict = if response.allowed { Ok(()) } else { Err(refusal(hook, response.status.unwrap_or_default())) };
    Ok(Answer {
        verdict,
        patch: if mutating { patch } else { Vec::new() },
        warnings: response.warnings.unwrap_or_default(),
        audit_annotations: response.audit_annotations.unwrap_or_default(),
    })
}

fn refusal(hook: &str, status: Status) -> StatusError {
    let denied = format!("admission webhook {hook:?} denied the request");
    let message = match (status.message.as_str(), status.reason.as_str()) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    StatusError::relayed(status.code.max(400), &status.reason, message, status.details)
}

/// Whether a patch, already decoded from base64, has no operations.
pub(super) fn is_empty_patch(patch: &[u8]) -> bool {
    patch.is_empty() || serde_json::from_slice::<Vec<Value>>(patch).is_ok_and(|operations| operations.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(version: ReviewVersion, mutating: bool, review: &Value) -> Result<Answer, String> {
        answer(version, "u", "h", mutating, review.to_string().as_bytes()).map_err(|error| error.to_string())
    }

    fn v1(response: Value) -> Value {
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
    }

    #[test]
    fn answers_are_checked_as_upstream_checks_them() {
        let bad = |mutating, review: Value| read(ReviewVersion::V1, mutating, &review).unwrap_err();
        let invalid = "received invalid webhook response: ";
        for (mutating, review, text) in [
            (true, json!({}), "webhook response was absent"),
            (true, v1(json!({"uid": "x"})), "expected response.uid=\"u\", got \"x\""),
            (
                true,
                json!({"response": {"uid": "u"}}),
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /, Kind=",
            ),
            (
                true,
                v1(json!({"uid": "u", "patch": "W10="})),
                "webhook returned response.patch but not response.patchType",
            ),
            (
                true,
                v1(json!({"uid": "u", "patchType": "JSONPatch"})),
                "webhook returned response.patchType but not response.patch",
            ),
            (false, v1(json!({"uid": "u", "patch": "W10="})), "validating webhook may not return response.patch"),
        ] {
            assert_eq!(bad(mutating, review), format!("{invalid}{text}"));
        }
        // The old version takes an answer without UID, and knows only one kind of patch.
        let old = read(ReviewVersion::V1Beta1, true, &json!({"response": {"allowed": true, "patch": "W10="}})).unwrap();
        assert_eq!((old.verdict, old.patch), (Ok(()), b"[]".to_vec()));
    }

    #[test]
    fn refusals_relay_code_and_reason() {
        let refused = |status: Value| {
            let answer = read(ReviewVersion::V1, false, &v1(json!({"uid": "u", "status": status}))).unwrap();
            let status = answer.verdict.unwrap_err().to_value();
            (status["code"].as_u64().unwrap(), status["reason"].clone(), status["message"].as_str().unwrap().to_owned())
        };
        let denied = "admission webhook \"h\" denied the request";
        assert_eq!(refused(json!(null)), (400, Value::Null, format!("{denied} without explanation")));
        assert_eq!(refused(json!({"reason": "no"})), (400, json!("no"), format!("{denied}: no")));
        assert_eq!(
            refused(json!({"code": 403, "reason": "Forbidden", "message": "never"})),
            (403, json!("Forbidden"), format!("{denied}: never"))
        );
    }
}
