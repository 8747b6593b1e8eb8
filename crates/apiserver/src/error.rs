//! Failures of other layers as `Status` errors: the one place where they are translated.

use std::error::Error as _;

use kminik_meta::StatusError;
use kminik_store::StoreError;

/// What a client is told when the store fails.
pub(crate) fn from_store(error: StoreError) -> StatusError {
    match error {
        StoreError::Compacted { requested, oldest } => StatusError::expired(format!(
            "The provided continue parameter or resource version is too old: {requested} (the oldest kept is {oldest})"
        )),
        StoreError::Future { requested, current } => too_large_revision(requested, current),
        StoreError::TooLarge { size, limit } => {
            StatusError::too_large(format!("the object is {size} bytes, the limit is {limit}"))
        }
        StoreError::Closed => StatusError::service_unavailable("the server is shutting down"),
        error @ StoreError::Unreachable { .. } => StatusError::service_unavailable(error.to_string()),
        StoreError::SlowWatcher { .. }
        | StoreError::NewerFormat { .. }
        | StoreError::DuplicateKey { .. }
        | StoreError::InUse
        | StoreError::NoSpace(_)
        | StoreError::Io(_)
        | StoreError::Corrupt { .. }
        | StoreError::Endpoint { .. }
        | StoreError::Refused { .. } => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(inner) = source {
                text = format!("{text}: {inner}");
                source = inner.source();
            }
            StatusError::internal(text)
        }
    }
}

/// A client asks for a revision that has not happened.
pub(crate) fn too_large_revision(requested: u64, current: u64) -> StatusError {
    StatusError::timeout(format!("Too large resource version: {requested}, current: {current}"), 1).with_cause(
        "ResourceVersionTooLarge",
        "Too large resource version",
        "",
    )
}
