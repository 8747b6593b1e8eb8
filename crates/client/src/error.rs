//! What a failed request means to a control loop.

use kube::Error;

/// The object (or its namespace, or the kind) does not exist.
pub fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 404 || status.reason == "NotFound")
}

/// A create met an object of that name.
pub fn is_already_exists(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.reason == "AlreadyExists")
}

/// A precondition (resourceVersion or uid) did not hold.
pub fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.reason == "Conflict")
}

/// The API server refused the object's content.
pub fn is_invalid(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 422 || status.reason == "Invalid")
}

/// The identity may not do this, or admission refused it.
pub fn is_forbidden(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 403 || status.reason == "Forbidden")
}

/// A watch or a continued list starts at a revision that is no longer kept.
pub fn is_gone(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 410)
}

/// A create was refused because its namespace is being deleted.
pub fn is_terminating(error: &Error) -> bool {
    let Error::Api(status) = error else { return false };
    status
        .details
        .as_ref()
        .is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating"))
}
