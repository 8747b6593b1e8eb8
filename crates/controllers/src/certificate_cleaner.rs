//! Certificate signing requests go when nobody needs them any more: an hour after they were decided or issued, a day after they were
//! made if nobody decides, and when the certificate has ended.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kminik_base::pki::Validity;
use kminik_client::{Informer, Next, ObjectKey};
use kube::api::DeleteParams;

use crate::certificates::{condition, issued};
use crate::context::Context;
use crate::error::Error;

const DECIDED: Duration = Duration::from_secs(3600);
const PENDING: Duration = Duration::from_secs(24 * 3600);

pub(crate) async fn run(context: Context) -> Result<(), Error> {
    let requests: Informer<CertificateSigningRequest> = context.informers.get();
    let (cleaner, objects) = (context.clone(), requests.clone());
    let reconcile = move |key: ObjectKey| {
        let (context, requests) = (cleaner.clone(), objects.clone());
        async move {
            let Some(request) = requests.get(&key) else { return Ok(Next::Done) };
            let left = remaining(&request, Timestamp::now());
            if !left.is_zero() {
                return Ok(Next::After(left));
            }
            context.delete(&key, &requests, request.as_ref(), DeleteParams::default()).await?;
            Ok(Next::Done)
        }
    };
    context.work_on(&requests, reconcile).await
}

/// How long the request stays still; zero if it should go now.
fn remaining(request: &CertificateSigningRequest, now: Timestamp) -> Duration {
    let until = |since: Timestamp, stay: Duration| {
        let end = since.checked_add(stay).unwrap_or(since);
        Duration::try_from(end.duration_since(now)).unwrap_or_default()
    };
    let created = request.metadata.creation_timestamp.as_ref().map_or(now, |time| time.0);
    if let Some(certificate) = issued(request) {
        let pem = String::from_utf8_lossy(certificate);
        let ends = Validity::of(&pem).ok().and_then(|validity| Timestamp::from_second(validity.not_after).ok());
        if ends.is_some_and(|ends| ends <= now) {
            return Duration::ZERO;
        }
    }
    let since = |kind: &str| {
        let condition = condition(request, kind)?;
        Some(condition.last_update_time.as_ref().map_or(created, |time| time.0))
    };
    // Approved and not issued: somebody may still be about to sign.
    let decided = ["Approved", "Denied", "Failed"].iter().filter_map(|kind| since(kind)).min();
    decided.map_or_else(|| until(created, PENDING), |decided| until(decided, DECIDED))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn requests_stay_for_a_while() {
        let now: Timestamp = "2024-01-01T12:00:00Z".parse().unwrap();
        let left = |status: Value| {
            let request = json!({
                "metadata": {"name": "r", "creationTimestamp": "2024-01-01T00:00:00Z"},
                "spec": {"request": "", "signerName": "a.b/c"}, "status": status,
            });
            remaining(&serde_json::from_value(request).unwrap(), now)
        };
        assert_eq!(left(json!({})), Duration::from_secs(12 * 3600));
        let decided =
            |kind: &str, at: &str| json!({"conditions": [{"type": kind, "status": "True", "lastUpdateTime": at}]});
        assert_eq!(left(decided("Approved", "2024-01-01T11:30:00Z")), Duration::from_secs(1800));
        assert_eq!(left(decided("Denied", "2024-01-01T10:30:00Z")), Duration::ZERO);
    }
}
