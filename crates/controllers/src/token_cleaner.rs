//! Bootstrap tokens are removed when they have expired.
//!
//! A token is a Secret of kube-system; a date that cannot be read counts as passed, as the API server counts it.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kminik_client::{Informer, Informers, Next, ObjectKey, Selection, WorkQueue};
use kube::api::DeleteParams;

use crate::context::Context;
use crate::error::Error;

const NAMESPACE: &str = "kube-system";
/// A timer runs this much longer, so that it never ends before the date.
const SLACK: Duration = Duration::from_millis(10);

/// The Secrets that are bootstrap tokens.
pub(crate) fn tokens(informers: &Informers) -> Informer<Secret> {
    informers.get_with(Selection::fields("type=bootstrap.kubernetes.io/token"))
}

/// A field of a token, if it is text.
pub(crate) fn text<'a>(token: &'a Secret, field: &str) -> Option<&'a str> {
    std::str::from_utf8(&token.data.as_ref()?.get(field)?.0).ok()
}

/// How long the token is still valid: zero once it has expired, `None` if it never will.
pub(crate) fn remaining(token: &Secret, now: Timestamp) -> Option<Duration> {
    let end = text(token, "expiration")?.parse::<Timestamp>().ok();
    Some(end.map_or(Duration::ZERO, |end| Duration::try_from(end.duration_since(now)).unwrap_or(Duration::ZERO)))
}

pub(crate) async fn run(context: Context) -> Result<(), Error> {
    let tokens = tokens(&context.informers);
    let queue = WorkQueue::new();
    let _subscription = tokens.enqueue_with(&queue, |token, keys| {
        if token.metadata.namespace.as_deref() == Some(NAMESPACE) {
            keys.push(ObjectKey::of(token));
        }
    });
    let synced = [tokens.wait_synced().boxed()];
    let shared = Arc::new((context.clone(), tokens.clone()));
    context.work(queue, 1, synced, move |key| reconcile(shared.clone(), key)).await
}

async fn reconcile(shared: Arc<(Context, Informer<Secret>)>, key: ObjectKey) -> Result<Next, Error> {
    let (context, tokens) = &*shared;
    let Some(token) = tokens.get(&key) else { return Ok(Next::Done) };
    match remaining(&token, Timestamp::now()) {
        None => Ok(Next::Done),
        Some(Duration::ZERO) => {
            context.delete(&key, tokens, token.as_ref(), DeleteParams::default()).await?;
            Ok(Next::Done)
        }
        Some(left) => Ok(Next::After(left + SLACK)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_decide() {
        let token = |expiration: &str| -> Secret {
            serde_json::from_value(serde_json::json!({"stringData": {}, "data": {
                "expiration": serde_json::to_value(k8s_openapi::ByteString(expiration.into())).unwrap()}}))
            .unwrap()
        };
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(remaining(&token("2026-01-01T00:01:00Z"), now), Some(Duration::from_secs(60)));
        assert_eq!(remaining(&token("2025-01-01T00:00:00Z"), now), Some(Duration::ZERO));
        assert_eq!(remaining(&token("tomorrow"), now), Some(Duration::ZERO));
        assert_eq!(remaining(&Secret::default(), now), None);
    }
}
