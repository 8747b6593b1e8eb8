//! Tokens in Secrets that belong to accounts by name (as Kubernetes made them itself before 1.24) go when nobody uses them.
//!
//! The API server writes down when each was last used, and since when it does ([`crate::service_account_token`] fills them). One
//! that was not used for a year, and no pod refers to, is first taken out of use by a label, and removed when another year has passed:
//! until then whoever misses it takes the label off. Secrets made by users are named by no account and stay.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use kminik_client::{Informer, Next, ObjectKey, Selection, WorkQueue};
use kube::api::{DeleteParams, Patch, Preconditions};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::Error;
use crate::service_account_token::{TYPE, account_of, belongs_to};

const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// Where the API server says since when it writes down uses.
const TRACKING: (&str, &str, &str) = ("kube-system", "kube-apiserver-legacy-service-account-token-tracking", "since");
/// Unused for so many days, a token is taken out of use, and after as many more it is removed.
const UNUSED_DAYS: i64 = 365;
/// Dates are all that is compared.
const RECHECK: Duration = Duration::from_secs(24 * 3600);

struct Controller {
    context: Context,
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
    pods: Informer<Pod>,
}

pub(crate) async fn run(context: Context) -> Result<(), Error> {
    let controller = Arc::new(Controller {
        secrets: context.informers.get_with(Selection::fields(TYPE)),
        accounts: context.informers.get(),
        pods: context.informers.get(),
        context: context.clone(),
    });
    let queue = WorkQueue::new();
    let _subscription = controller.secrets.enqueue(&queue);
    let synced = [
        controller.secrets.wait_synced().boxed(),
        controller.accounts.wait_synced().boxed(),
        controller.pods.wait_synced().boxed(),
    ];
    let worker = controller.clone();
    context.work(queue, 1, synced, move |key| reconcile(worker.clone(), key)).await
}

async fn reconcile(controller: Arc<Controller>, key: ObjectKey) -> Result<Next, Error> {
    let Controller { context, secrets, accounts, pods } = &*controller;
    let Some(secret) = secrets.get(&key) else { return Ok(Next::Done) };
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let named = |account: &ServiceAccount| {
        account.secrets.iter().flatten().any(|secret| secret.name.as_deref() == Some(key.name.as_str()))
    };
    let account = account_of(&secret).and_then(|account| accounts.get(&account));
    let made_for_it = account.is_some_and(|account| belongs_to(&secret, &account) && named(&account));
    let verdict = verdict(&secret, today);
    if verdict == Verdict::Keep
        || !made_for_it
        || !tracked_for_long(context, today).await?
        || pods.list_in(&key.namespace).iter().any(|pod| names_secret(pod, &key.name))
    {
        return Ok(Next::After(RECHECK));
    }
    let read = secret.metadata.resource_version.clone();
    if verdict == Verdict::Invalidate {
        // Whoever has used it meanwhile has changed its labels.
        let patch = json!({"metadata": {"uid": secret.metadata.uid, "resourceVersion": read,
            "labels": {INVALID_SINCE: today.to_string()}}});
        match context.patch(&key, secrets, &key, None, &Patch::Merge(patch)).await {
            Ok(_) => tracing::info!(secret = %key, "token not used for long is taken out of use"),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        return Ok(Next::After(RECHECK));
    }
    let preconditions = Preconditions { resource_version: read, ..Preconditions::default() };
    if context.delete(&key, secrets, secret.as_ref(), DeleteParams::default().preconditions(preconditions)).await? {
        tracing::info!(secret = %key, "token not used for long is removed");
    }
    Ok(Next::Done)
}

/// Whether uses have been written down for as long as counts.
async fn tracked_for_long(context: &Context, today: Date) -> Result<bool, Error> {
    let (namespace, name, member) = TRACKING;
    let map: Option<ConfigMap> = context.read(&ObjectKey::new(namespace, name)).await?;
    let since = map.and_then(|map| map.data?.get(member)?.parse::<Date>().ok());
    // The day it began does not count.
    Ok(since.is_some_and(|since| since < limit(today)))
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Keep,
    Invalidate,
    Remove,
}

fn limit(today: Date) -> Date {
    today.saturating_sub(UNUSED_DAYS.days())
}

/// What the Secret's own dates say.
fn verdict(secret: &Secret, today: Date) -> Verdict {
    let meta = &secret.metadata;
    let label = |name: &str| meta.labels.as_ref().and_then(|labels| labels.get(name)).map(String::as_str);
    let created = meta.creation_timestamp.as_ref().map(|time| time.0.to_zoned(TimeZone::UTC).date());
    let old = |date: Date| date < limit(today);
    // Never used since uses are written down, if it does not say; a date that cannot be read says nothing.
    let unused = label(LAST_USED).is_none_or(|used| used.parse::<Date>().is_ok_and(old));
    if meta.deletion_timestamp.is_some() || !created.is_some_and(old) || !unused {
        return Verdict::Keep;
    }
    match label(INVALID_SINCE).map(str::parse::<Date>) {
        Some(Ok(since)) if old(since) => Verdict::Remove,
        Some(Ok(_)) => Verdict::Keep,
        Some(Err(_)) | None => Verdict::Invalidate,
    }
}

/// Whether the pod names a Secret of this name anywhere.
fn names_secret(pod: &Pod, name: &str) -> bool {
    // In doubt it does: then the Secret stays.
    serde_json::to_value(&pod.spec).map_or(true, |spec| {
        let mut names = BTreeSet::new();
        collect(&spec, false, &mut names);
        names.contains(name)
    })
}

/// The texts below members that are about secrets.
fn collect<'a>(value: &'a Value, about_secrets: bool, names: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(members) => members
            .iter()
            .for_each(|(name, value)| collect(value, about_secrets || name.to_lowercase().contains("secret"), names)),
        Value::Array(items) => items.iter().for_each(|item| collect(item, about_secrets, names)),
        Value::String(text) if about_secrets => _ = names.insert(text),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_decide() {
        let today: Date = "2026-06-01".parse().unwrap();
        let verdict = |created: &str, labels: Value| {
            let created = format!("{created}T12:00:00Z");
            let secret = json!({"metadata": {"name": "t", "creationTimestamp": created, "labels": labels}});
            verdict(&serde_json::from_value(secret).unwrap(), today)
        };
        assert_eq!(verdict("2025-06-01", json!({})), Verdict::Keep, "a year old to the day");
        assert_eq!(verdict("2025-05-31", json!({})), Verdict::Invalidate);
        assert_eq!(verdict("2020-01-01", json!({LAST_USED: "2025-06-01"})), Verdict::Keep);
        assert_eq!(verdict("2020-01-01", json!({LAST_USED: "2025-05-31"})), Verdict::Invalidate);
        assert_eq!(verdict("2020-01-01", json!({LAST_USED: "yesterday"})), Verdict::Keep);
        assert_eq!(verdict("2020-01-01", json!({INVALID_SINCE: "2026-01-01"})), Verdict::Keep);
        assert_eq!(verdict("2020-01-01", json!({INVALID_SINCE: ""})), Verdict::Invalidate);
        let both = json!({LAST_USED: "2023-01-01", INVALID_SINCE: "2024-05-31"});
        assert_eq!(verdict("2020-01-01", both), Verdict::Remove);
    }

    #[test]
    fn pods_hold_the_secrets_they_name() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "imagePullSecrets": [{"name": "pull"}],
            "containers": [{"name": "plain", "envFrom": [{"secretRef": {"name": "from"}}]}],
            "volumes": [{"name": "v", "secret": {"secretName": "mounted"}},
                {"name": "p", "projected": {"sources": [{"secret": {"name": "projected"}}]}}],
        }}))
        .unwrap();
        for name in ["pull", "from", "mounted", "projected"] {
            assert!(names_secret(&pod, name), "{name}");
        }
        assert!(!names_secret(&pod, "plain") && !names_secret(&pod, "v"));
    }
}
