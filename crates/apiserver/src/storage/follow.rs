//! Tasks that keep something in the store as it follows from what else is there.

use std::future::Future;
use std::time::Duration;

use kminik_meta::StatusError;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Pause before a failed pass is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Makes a pass at once and after every change until cancelled, or until there is nobody left who could tell of changes.
/// `what` names in the log what a failed pass leaves undone.
pub(crate) async fn follow<T, F, P>(
    what: &'static str,
    mut changes: watch::Receiver<T>,
    stop: CancellationToken,
    pass: P,
) where
    P: Fn() -> F,
    F: Future<Output = Result<(), StatusError>>,
{
    changes.mark_changed();
    loop {
        match stop.run_until_cancelled(changes.changed()).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => return,
        }
        if let Err(error) = pass().await {
            tracing::warn!(error = &error as &dyn std::error::Error, what, "will be tried again");
            changes.mark_changed();
            if stop.run_until_cancelled(tokio::time::sleep(RETRY)).await.is_none() {
                return;
            }
        }
    }
}
