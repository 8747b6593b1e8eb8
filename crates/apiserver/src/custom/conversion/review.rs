//! ConversionReview, the question put to a webhook and its answer. Texts and checks are those of apiextensions-apiserver's
//! `webhook_converter.go`.

use kminik_meta::{Object, StatusError, go, validate};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::outbound::review::{Answered, BadEnvelope, Review, ReviewVersion, check_uid};

const REVIEW: Review = Review { group: "apiextensions.k8s.io", kind: "ConversionReview" };

#[derive(Serialize)]
struct Request<'a> {
    uid: &'a str,
    #[serde(rename = "desiredAPIVersion")]
    desired: &'a str,
    objects: &'a [&'a Object],
}

/// The question as bytes.
///
/// # Errors
/// 500 for an object that cannot be written.
pub(super) fn question(
    version: ReviewVersion,
    uid: &str,
    desired: &str,
    objects: &[&Object],
) -> Result<Vec<u8>, StatusError> {
    REVIEW.question(version, Request { uid, desired, objects })
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Response {
    uid: String,
    result: Outcome,
    converted_objects: Option<Vec<Value>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Outcome {
    status: String,
    message: String,
}

/// Why an answer converts nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadAnswer {
    #[error(transparent)]
    Envelope(#[from] BadEnvelope),
    #[error("no response provided")]
    Absent,
    /// In the webhook's own words.
    #[error("{0}")]
    Failed(String),
    #[error("response.result.status was '{0}', not 'Success'")]
    Status(String),
}

/// The objects of an answer; its kind and UID count in v1 only.
///
/// # Errors
/// What is wrong with it, or what the webhook says is.
pub(super) fn answer(version: ReviewVersion, uid: &str, bytes: &[u8]) -> Result<Vec<Value>, BadAnswer> {
    let answered = Answered::<Response>::read(bytes)?;
    let strict = version == ReviewVersion::V1;
    if strict {
        REVIEW.check_kind(version, &answered)?;
    }
    let response = answered.response.ok_or(BadAnswer::Absent)?;
    if strict {
        check_uid(uid, &response.uid)?;
    }
    match (response.result.status.as_str(), response.result.message.as_str()) {
        ("Success", _) => Ok(response.converted_objects.unwrap_or_default()),
        (status, "") => Err(BadAnswer::Status(status.to_owned())),
        (_, message) => Err(BadAnswer::Failed(message.to_owned())),
    }
}

/// Why converted objects cannot be taken; the name of the object's kind comes before it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadObjects {
    #[error("{found} objects, expected {wanted}")]
    Count { wanted: usize, found: usize },
    #[error("invalid object: {0}")]
    One(BadObject),
    #[error("invalid converted object at index {0}: {1}")]
    OfMany(usize, BadObject),
}

/// What is wrong with one of them.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadObject {
    #[error("Object 'Kind' is missing in '{0}'")]
    NoKind(Value),
    #[error("invalid groupVersion (expected {wanted}, received {found})")]
    Version { wanted: String, found: String },
    #[error("invalid kind (expected {wanted}, received {found})")]
    Kind { wanted: String, found: String },
    #[error("must have the same {member}: {before} != {after}")]
    Identity { member: &'static str, before: String, after: String },
    #[error("missing metadata in converted object")]
    NoMetadata,
    #[error("invalid metadata{member} of type {found} in converted object")]
    Metadata { member: &'static str, found: &'static str },
    #[error("metadata.{member}[{key}] must be a string, but is {found} in converted object")]
    Text { member: &'static str, key: String, found: &'static str },
    /// Labels or annotations that no object may have.
    #[error("{0}")]
    Invalid(String),
}

/// Puts converted objects in the places of those that were sent, each with the metadata that it had but for labels and
/// annotations.
///
/// # Errors
/// What is wrong with one of them; none may be used then.
pub(super) fn take(objects: &mut [&mut Object], converted: Vec<Value>, api_version: &str) -> Result<(), BadObjects> {
    let wanted = objects.len();
    if converted.len() != wanted {
        return Err(BadObjects::Count { wanted, found: converted.len() });
    }
    for (index, (object, converted)) in objects.iter_mut().zip(converted).enumerate() {
        let taken = take_one(object, converted, api_version);
        **object = taken.map_err(|error| match wanted {
            1 => BadObjects::One(error),
            _ => BadObjects::OfMany(index, error),
        })?;
    }
    Ok(())
}

fn take_one(object: &Object, converted: Value, api_version: &str) -> Result<Object, BadObject> {
    let has_kind = converted.get("kind").and_then(Value::as_str).is_some_and(|kind| !kind.is_empty());
    let Some(mut converted) = Object::try_from(converted.clone()).ok().filter(|_| has_kind) else {
        return Err(BadObject::NoKind(converted));
    };
    if converted.api_version() != api_version {
        let found = converted.api_version().to_owned();
        return Err(BadObject::Version { wanted: api_version.to_owned(), found });
    }
    if converted.kind() != object.kind() {
        return Err(BadObject::Kind { wanted: object.kind().to_owned(), found: converted.kind().to_owned() });
    }
    for (member, before, after) in [
        ("name", object.name(), converted.name()),
        ("namespace", object.namespace(), converted.namespace()),
        ("UID", object.uid(), converted.uid()),
    ] {
        if before != after {
            return Err(BadObject::Identity { member, before: before.to_owned(), after: after.to_owned() });
        }
    }
    let said = match converted.map_mut().remove("metadata") {
        None => return Err(BadObject::NoMetadata),
        Some(Value::Object(said)) => said,
        Some(other) => return Err(BadObject::Metadata { member: "", found: go::type_name(&other) }),
    };
    let kept = object.map().get("metadata").cloned().unwrap_or_else(|| Value::Object(Map::new()));
    converted.map_mut().insert("metadata".into(), kept);
    for (member, path) in [("labels", ".labels"), ("annotations", ".annotations")] {
        match said.get(member) {
            None | Some(Value::Null) => drop(converted.remove(&["metadata", member])),
            Some(Value::Object(texts)) => {
                if let Some((key, other)) = texts.iter().find(|(_, text)| !text.is_string()) {
                    return Err(BadObject::Text { member, key: key.clone(), found: go::type_name(other) });
                }
                let changed = converted.get(&["metadata", member]).and_then(Value::as_object) != Some(texts);
                converted.set(&["metadata", member], texts.clone());
                if changed {
                    check(&converted, &format!("metadata{path}"))?;
                }
            }
            Some(other) => return Err(BadObject::Metadata { member: path, found: go::type_name(other) }),
        }
    }
    Ok(converted)
}

/// Whether labels or annotations are such as an object may have.
fn check(object: &Object, path: &str) -> Result<(), BadObject> {
    let errors = validate::object_meta(object, |_| Vec::new());
    let texts: Vec<String> =
        errors.iter().filter(|error| error.field.starts_with(path)).map(ToString::to_string).collect();
    if texts.is_empty() { Ok(()) } else { Err(BadObject::Invalid(texts.join(", "))) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        Object::try_from(value).unwrap()
    }

    #[test]
    fn answers_are_checked_as_upstream_checks_them() {
        let read =
            |version, value: Value| answer(version, "u", value.to_string().as_bytes()).map_err(|e| e.to_string());
        let v1 = |response: Value| json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": response});
        for (value, text) in [
            (json!({}), "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got /, Kind="),
            (json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview"}), "no response provided"),
            (v1(json!({"uid": "x"})), "expected response.uid=\"u\", got \"x\""),
            (v1(json!({"uid": "u"})), "response.result.status was '', not 'Success'"),
            (v1(json!({"uid": "u", "result": {"status": "Failure", "message": "not me"}})), "not me"),
        ] {
            assert_eq!(read(ReviewVersion::V1, value).unwrap_err(), text);
        }
        let old = json!({"response": {"result": {"status": "Success"}, "convertedObjects": [{}]}});
        assert_eq!(read(ReviewVersion::V1Beta1, old).unwrap(), [json!({})], "the old version looks at neither");
    }

    #[test]
    fn a_webhook_changes_no_metadata_but_labels_and_annotations() {
        let before = || {
            object(json!({"apiVersion": "g/v1", "kind": "K", "spec": {"a": 1}, "metadata": {"name": "n",
            "uid": "u", "finalizers": ["f/x"], "labels": {"old": "1"}}}))
        };
        let take = |converted: Value| {
            let mut object = before();
            take(&mut [&mut object], vec![converted], "g/v2").map(|()| object).map_err(|error| error.to_string())
        };
        let with = |metadata: Value| json!({"apiVersion": "g/v2", "kind": "K", "metadata": metadata});
        let taken =
            take(with(json!({"name": "n", "uid": "u", "finalizers": [], "annotations": {"new": "1"}}))).unwrap();
        assert_eq!(
            taken.get(&["metadata"]),
            Some(&json!({"name": "n", "uid": "u", "finalizers": ["f/x"], "annotations": {"new": "1"}}))
        );
        for (converted, text) in [
            (json!({"apiVersion": "g/v2"}), "Object 'Kind' is missing in '{\"apiVersion\":\"g/v2\"}'"),
            (json!({"apiVersion": "g/v3", "kind": "K"}), "invalid groupVersion (expected g/v2, received g/v3)"),
            (json!({"apiVersion": "g/v2", "kind": "L"}), "invalid kind (expected K, received L)"),
            (with(json!({"name": "m", "uid": "u"})), "must have the same name: n != m"),
            (with(json!({"name": "n"})), "must have the same UID: u != "),
            (
                with(json!({"name": "n", "uid": "u", "labels": []})),
                "invalid metadata.labels of type []interface {} in converted object",
            ),
            (
                with(json!({"name": "n", "uid": "u", "labels": {"a": 1}})),
                "metadata.labels[a] must be a string, but is int64 in converted object",
            ),
        ] {
            assert_eq!(take(converted).unwrap_err(), format!("invalid object: {text}"));
        }
        let refused = take(with(json!({"name": "n", "uid": "u", "labels": {"a b": ""}}))).unwrap_err();
        assert!(refused.starts_with("invalid object: metadata.labels: Invalid value: \"a b\""), "{refused}");
        let (mut one, mut two) = (before(), before());
        let few = super::take(&mut [&mut one, &mut two], vec![with(json!({}))], "g/v2").unwrap_err();
        assert_eq!(few.to_string(), "1 objects, expected 2");
    }
}
