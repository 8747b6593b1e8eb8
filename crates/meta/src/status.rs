//! The `Status` object and the closed set of errors that become one, in upstream's words and codes.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::field::{ErrorList, quote};
use crate::gvk::qualified;

/// Why a request failed; upstream's `metav1.StatusReason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// 401: the request carries no valid credentials.
    Unauthorized,
    /// 403: the user may not do this.
    Forbidden,
    /// 404: the object or resource does not exist.
    NotFound,
    /// 409: an object of this name exists.
    AlreadyExists,
    /// 409: the change collides with another one.
    Conflict,
    /// 410: the thing is gone for good.
    Gone,
    /// 410: the revision has been compacted.
    Expired,
    /// 422: the object fails validation.
    Invalid,
    /// 400: the request is malformed.
    BadRequest,
    /// 405: the resource does not have this verb.
    MethodNotAllowed,
    /// 406: none of the accepted media types can be given.
    NotAcceptable,
    /// 413: the body is too large.
    RequestEntityTooLarge,
    /// 415: the body's media type is not understood.
    UnsupportedMediaType,
    /// 429: the client should slow down.
    TooManyRequests,
    /// 500: the operation could not be completed in time; try again.
    ServerTimeout,
    /// 504: the request's time ran out.
    Timeout,
    /// 500: something unexpected.
    InternalError,
    /// 503: the server cannot serve this at present.
    ServiceUnavailable,
    /// 500: a failure that upstream gives no reason for; none is sent.
    Unknown,
}

impl Reason {
    /// The HTTP status code.
    pub fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotAcceptable => 406,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::Gone | Self::Expired => 410,
            Self::RequestEntityTooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::Invalid => 422,
            Self::TooManyRequests => 429,
            Self::InternalError | Self::ServerTimeout | Self::Unknown => 500,
            Self::ServiceUnavailable => 503,
            Self::Timeout => 504,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One cause in a status' details.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Cause {
    /// Machine-readable cause, such as `FieldValueInvalid`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Text for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Path of the field, where there is one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// What a status is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Details {
    /// Name of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// API group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Resource name, or the kind in validation errors.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// UID of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// The causes, such as one a field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// Seconds after which to try again; 0 for none. Also sent as the Retry-After header.
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// A failed request: what is sent as a `Status` of `Failure`.
///
/// The constructors are the closed set of failures; each has upstream's reason, code and wording. `group` is `""` for the core
/// group, `resource` the plural name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusError {
    /// Machine-readable reason, which also gives the code.
    pub reason: Reason,
    /// Text for people.
    pub message: String,
    /// What the failure is about.
    pub details: Option<Box<Details>>,
    /// Token by which an expired list can be continued inconsistently; empty for none.
    pub list_continue: String,
    /// Code and reason where another server has said no in words of its own, which stand before those of `reason`.
    relayed: Option<Box<(u16, String)>>,
}

impl std::error::Error for StatusError {}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

fn about(group: &str, kind: &str, name: &str) -> Details {
    Details { group: group.into(), kind: kind.into(), name: name.into(), ..Details::default() }
}

impl StatusError {
    fn plain(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), details: None, list_continue: String::new(), relayed: None }
    }

    fn detailed(reason: Reason, message: String, details: Details) -> Self {
        Self { reason, message, details: Some(Box::new(details)), list_continue: String::new(), relayed: None }
    }

    /// The object does not exist.
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {} not found", qualified(resource, group), quote(name));
        Self::detailed(Reason::NotFound, message, about(group, resource, name))
    }

    /// The path names no resource of this server.
    pub fn resource_not_found() -> Self {
        Self::detailed(Reason::NotFound, "the server could not find the requested resource".into(), Details::default())
    }

    /// An object of this name exists.
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {} already exists", qualified(resource, group), quote(name));
        Self::detailed(Reason::AlreadyExists, message, about(group, resource, name))
    }

    /// No free name was found for a `generateName`.
    pub fn generate_name_conflict(group: &str, resource: &str, name: &str, retry_after_seconds: u32) -> Self {
        let message = format!(
            "{} {} already exists, the server was not able to generate a unique name for the object",
            qualified(resource, group),
            quote(name)
        );
        Self::detailed(Reason::AlreadyExists, message, Details { retry_after_seconds, ..about(group, resource, name) })
    }

    /// The request carries no valid credentials.
    pub fn unauthorized() -> Self {
        Self::plain(Reason::Unauthorized, "Unauthorized")
    }

    /// The user may not do this, or an admission rule forbids it. An empty resource gives `forbidden: why`.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: impl fmt::Display) -> Self {
        let message = match (resource.is_empty() && group.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{} is forbidden: {why}", qualified(resource, group)),
            (false, false) => format!("{} {} is forbidden: {why}", qualified(resource, group), quote(name)),
        };
        Self::detailed(Reason::Forbidden, message, about(group, resource, name))
    }

    /// The change collides with another one for the reason given.
    pub fn conflict(group: &str, resource: &str, name: &str, why: impl fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {}: {why}", qualified(resource, group), quote(name));
        Self::detailed(Reason::Conflict, message, about(group, resource, name))
    }

    /// The object was changed since the caller read it.
    pub fn modified(group: &str, resource: &str, name: &str) -> Self {
        Self::conflict(
            group,
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// The object of that name is not the one that a write is for. The words are those of upstream's store, by which clients tell
    /// this from other conflicts; `namespace` is empty for an object of the cluster.
    pub fn another_object(group: &str, resource: &str, namespace: &str, name: &str, want: &str, found: &str) -> Self {
        let within = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        // Upstream's keys have the groups of custom resources only.
        let custom = group.contains('.') && !group.ends_with(".k8s.io");
        let of_group = if custom { format!("{group}/") } else { String::new() };
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: /registry/{of_group}{resource}/{within}{name}, ResourceVersion: 0, \
             AdditionalErrorMsg: Precondition failed: UID in precondition: {want}, UID in object meta: {found}"
        );
        Self::conflict(group, resource, name, why)
    }

    /// A server-side apply collides with other managers.
    pub fn apply_conflict(causes: Vec<Cause>, message: impl Into<String>) -> Self {
        Self::detailed(Reason::Conflict, message.into(), Details { causes, ..Details::default() })
    }

    /// The revision has been compacted; list again.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::plain(Reason::Expired, message)
    }

    /// The thing is gone for good.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::plain(Reason::Gone, message)
    }

    /// The object fails validation.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &ErrorList) -> Self {
        let mut message = format!("{} {} is invalid", qualified(kind, group), quote(name));
        if !errors.is_empty() {
            message = format!("{message}: {errors}");
        }
        let causes = errors
            .iter()
            .map(|e| Cause { reason: e.kind.cause().into(), message: e.body(), field: e.field.clone() })
            .collect();
        Self::detailed(Reason::Invalid, message, Details { causes, ..about(group, kind, name) })
    }

    /// The request is malformed.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::plain(Reason::BadRequest, message)
    }

    /// The client should slow down.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::detailed(Reason::TooManyRequests, message.into(), Details { retry_after_seconds, ..Details::default() })
    }

    /// The server cannot serve this at present.
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::plain(Reason::ServiceUnavailable, message)
    }

    /// The resource does not have this verb.
    pub fn method_not_supported(group: &str, resource: &str, action: &str) -> Self {
        let message = format!("{action} is not supported on resources of kind {}", quote(&qualified(resource, group)));
        Self::detailed(Reason::MethodNotAllowed, message, about(group, resource, ""))
    }

    /// The path does not take this method at all.
    pub fn method_not_allowed() -> Self {
        Self::plain(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource")
    }

    /// The operation could not be completed; try again.
    pub fn server_timeout(group: &str, resource: &str, operation: &str, retry_after_seconds: u32) -> Self {
        let message = format!(
            "The {operation} operation against {} could not be completed at this time, please try again.",
            qualified(resource, group)
        );
        Self::detailed(
            Reason::ServerTimeout,
            message,
            Details { retry_after_seconds, ..about(group, resource, operation) },
        )
    }

    /// The request's time ran out.
    pub fn timeout(message: impl fmt::Display, retry_after_seconds: u32) -> Self {
        Self::detailed(
            Reason::Timeout,
            format!("Timeout: {message}"),
            Details { retry_after_seconds, ..Details::default() },
        )
    }

    /// The request is well formed but cannot be carried out, such as a JSON patch that does not fit the object. Upstream does
    /// not say why.
    pub fn unprocessable() -> Self {
        let message = "the server rejected our request due to an error in our request";
        Self::detailed(Reason::Invalid, message.into(), Details::default())
    }

    /// A failure that upstream answers with its bare text.
    pub fn unknown(message: impl Into<String>) -> Self {
        Self::plain(Reason::Unknown, message)
    }

    /// Something unexpected; the text is the error's with all its sources.
    pub fn internal(error: impl fmt::Display) -> Self {
        let cause = Cause { message: error.to_string(), ..Cause::default() };
        Self::detailed(
            Reason::InternalError,
            format!("Internal error occurred: {error}"),
            Details { causes: vec![cause], ..Details::default() },
        )
    }

    /// What another server, asked for its consent, has answered; any code and reason (which may be empty).
    pub fn relayed(code: u16, reason: &str, message: impl Into<String>, details: Option<Details>) -> Self {
        let mut status = Self::plain(Reason::InternalError, message);
        status.details = details.map(Box::new);
        status.relayed = Some(Box::new((code, reason.to_owned())));
        status
    }

    /// The body is larger than the limit.
    pub fn too_large(message: impl fmt::Display) -> Self {
        Self::plain(Reason::RequestEntityTooLarge, format!("Request entity too large: {message}"))
    }

    /// The body's media type is none of those accepted.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        Self::plain(
            Reason::UnsupportedMediaType,
            format!(
                "the body of the request was in an unknown format - accepted media types include: {}",
                accepted.join(", ")
            ),
        )
    }

    /// None of the media types the client accepts can be given.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        Self::plain(
            Reason::NotAcceptable,
            format!("only the following media types are accepted: {}", accepted.join(", ")),
        )
    }

    /// Adds a cause.
    #[must_use]
    pub fn with_cause(mut self, reason: &str, message: impl Into<String>, field: &str) -> Self {
        let cause = Cause { reason: reason.into(), message: message.into(), field: field.into() };
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    /// Adds the token by which the list can be continued inconsistently.
    #[must_use]
    pub fn with_continue(mut self, token: String) -> Self {
        self.list_continue = token;
        self
    }

    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        self.relayed.as_ref().map_or_else(|| self.reason.code(), |relayed| relayed.0)
    }

    /// Seconds for the Retry-After header.
    pub fn retry_after_seconds(&self) -> Option<u32> {
        self.details.as_ref().map(|d| d.retry_after_seconds).filter(|s| *s > 0)
    }

    /// The `Status` object of this failure.
    pub fn to_value(&self) -> Value {
        let mut status = json!({
            "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code(),
        });
        let reason = match self.relayed.as_deref() {
            Some((_, reason)) => reason.clone(),
            None if self.reason == Reason::Unknown => String::new(),
            None => self.reason.to_string(),
        };
        if !reason.is_empty() {
            status["reason"] = Value::from(reason);
        }
        if let Some(details) = &self.details {
            status["details"] = serde_json::to_value(details).unwrap_or_else(|_| json!({}));
        }
        if !self.list_continue.is_empty() {
            status["metadata"]["continue"] = Value::from(self.list_continue.as_str());
        }
        status
    }
}

/// The `Status` of a success, such as a finished delete.
pub fn success(details: Option<&Details>) -> Value {
    let mut status = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Success"});
    if let Some(details) = details {
        status["details"] = serde_json::to_value(details).unwrap_or_else(|_| json!({}));
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::{FieldError, Path};

    #[test]
    fn messages_are_upstreams() {
        let cases = [
            (StatusError::not_found("", "pods", "x"), 404, "pods \"x\" not found"),
            (StatusError::already_exists("apps", "deployments", "x"), 409, "deployments.apps \"x\" already exists"),
            (
                StatusError::modified("", "pods", "x"),
                409,
                "Operation cannot be fulfilled on pods \"x\": the object has been modified; please apply your changes to the latest version and try again",
            ),
            (StatusError::forbidden("", "pods", "", "no"), 403, "pods is forbidden: no"),
            (StatusError::forbidden("", "", "", "no"), 403, "forbidden: no"),
            (
                StatusError::method_not_supported("", "pods", "patch"),
                405,
                "patch is not supported on resources of kind \"pods\"",
            ),
            (StatusError::internal("boom"), 500, "Internal error occurred: boom"),
            (StatusError::timeout("slow", 1), 504, "Timeout: slow"),
        ];
        for (error, code, message) in cases {
            assert_eq!((error.code(), error.message.as_str()), (code, message));
        }
    }

    #[test]
    fn invalid_lists_causes() {
        let errors = ErrorList::from(FieldError::required(&Path::new("spec").child("selector"), ""));
        let status = StatusError::invalid("apps", "Deployment", "web", &errors).to_value();
        assert_eq!(status["message"], "Deployment.apps \"web\" is invalid: spec.selector: Required value");
        assert_eq!(
            status["details"],
            json!({"group": "apps", "kind": "Deployment", "name": "web",
                "causes": [{"reason": "FieldValueRequired", "message": "Required value", "field": "spec.selector"}]})
        );
        assert_eq!(status["reason"], "Invalid");
    }
}
