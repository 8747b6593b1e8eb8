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

/// The request that failed, somewhere in an error's chain of sources.
fn request_in<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) =
            error.downcast_ref::<Error>().or_else(|| Some(error.downcast_ref::<Box<Error>>()?.as_ref()))
        {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The error is, or stems from, a precondition that did not hold: someone else wrote first.
pub fn stems_from_conflict(error: &(dyn std::error::Error + 'static)) -> bool {
    request_in(error).is_some_and(is_conflict)
}

/// An error and its sources in one line; what the API server said stands there once, in its own words.
pub fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut parts = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(Error::Api(status)) =
            error.downcast_ref().or_else(|| Some(error.downcast_ref::<Box<Error>>()?.as_ref()))
        {
            parts.push(status.message.clone());
            break;
        }
        parts.push(error.to_string());
        next = error.source();
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot do it")]
    struct Step(#[source] Box<Error>);

    #[test]
    fn the_servers_words_stand_once() {
        let status = kube::core::Status::failure("the object has been modified", "Conflict").with_code(409);
        let step = Step(Box::new(Error::Api(status.boxed())));
        assert_eq!(describe(&step), "cannot do it: the object has been modified");
        assert!(stems_from_conflict(&step));
        assert!(!stems_from_conflict(&Step(Box::new(Error::LinesCodecMaxLineLengthExceeded))));
    }
}
