//! Creates and deletes pods for the controllers that keep numbers of them, and tells their owners' events.

use k8s_openapi::api::core::v1::Pod;
use kminik_client::{Informer, ObjectKey};
use kube::ResourceExt;
use kube::api::DeleteParams;

use crate::context::{Context, Kind};
use crate::error::Error;

/// Creates a pod for `owner`. A namespace that is being deleted takes none, which is no failure.
pub(crate) async fn create<O: Kind>(
    context: &Context,
    key: &ObjectKey,
    owner: &O,
    pods: &Informer<Pod>,
    pod: &Pod,
) -> Result<(), Error> {
    match context.create(key, pods, pod).await {
        Ok(created) => {
            context.recorder.normal(owner, "SuccessfulCreate", format!("Created pod: {}", created.name_any()));
            Ok(())
        }
        Err(error) if error.is_terminating() => Ok(()),
        Err(error) => {
            context.recorder.warning(owner, "FailedCreate", format!("Error creating: {}", reason(&error)));
            Err(error)
        }
    }
}

/// Deletes a pod of `owner`, with its own grace period.
pub(crate) async fn delete<O: Kind>(
    context: &Context,
    key: &ObjectKey,
    owner: &O,
    pods: &Informer<Pod>,
    pod: &Pod,
) -> Result<(), Error> {
    match context.delete(key, pods, pod, DeleteParams::default()).await {
        Ok(true) => {
            context.recorder.normal(owner, "SuccessfulDelete", format!("Deleted pod: {}", pod.name_any()));
            Ok(())
        }
        // Somebody else was faster.
        Ok(false) => Ok(()),
        Err(error) => {
            context.recorder.warning(owner, "FailedDelete", format!("Error deleting: {}", reason(&error)));
            Err(error)
        }
    }
}

/// What an event tells of a failed request: the API server's own words.
pub(crate) fn reason(error: &Error) -> String {
    match error.request() {
        Some(kube::Error::Api(status)) => status.message.clone(),
        Some(other) => other.to_string(),
        None => error.to_string(),
    }
}

/// The first failure of several requests.
pub(crate) fn several(results: Vec<Result<(), Error>>) -> Result<(), Error> {
    let attempted = results.len();
    let mut failures: Vec<Error> = results.into_iter().filter_map(Result::err).collect();
    match failures.len() {
        0 => Ok(()),
        1 => Err(failures.remove(0)),
        failed => Err(Error::Several { failed, attempted, first: Box::new(failures.remove(0)) }),
    }
}

/// A number of objects as the API counts them.
pub(crate) fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
