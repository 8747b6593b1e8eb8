//! Secrets of type `kubernetes.io/service-account-token` get a token of the account that their annotation names, with the
//! certificates and the namespace that go with it; they end with their account.
//!
//! The token is bound to the Secret and does not expire in practice: it is asked of the API server like any other.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kminik_client::{Informer, Next, ObjectKey, Selection, WorkQueue};
use kube::api::DeleteParams;

use crate::context::Context;
use crate::error::Error;

pub(crate) const TYPE: &str = "type=kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const BY_ACCOUNT: &str = "account";
/// The longest that may be asked for, some 136 years.
const LIFETIME_SECONDS: i64 = 1 << 32;

struct Controller {
    context: Context,
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
}

pub(crate) async fn run(context: Context) -> Result<(), Error> {
    let controller = Arc::new(Controller {
        secrets: context.informers.get_with(Selection::fields(TYPE)),
        accounts: context.informers.get(),
        context: context.clone(),
    });
    controller
        .secrets
        .add_index(BY_ACCOUNT, |secret| account_of(secret).map(|key| key.to_string()).into_iter().collect());
    let queue = WorkQueue::new();
    let secrets = controller.secrets.clone();
    let _subscriptions = [
        controller.secrets.enqueue(&queue),
        controller.accounts.enqueue_with(&queue, move |account, keys| {
            let of_account = secrets.by_index(BY_ACCOUNT, &ObjectKey::of(account).to_string());
            keys.extend(of_account.iter().map(|secret| ObjectKey::of(secret.as_ref())));
        }),
    ];
    let synced = [controller.secrets.wait_synced().boxed(), controller.accounts.wait_synced().boxed()];
    let worker = controller.clone();
    context.work(queue, 2, synced, move |key| reconcile(worker.clone(), key)).await
}

async fn reconcile(controller: Arc<Controller>, key: ObjectKey) -> Result<Next, Error> {
    let Controller { context, secrets, accounts } = &*controller;
    let Some(secret) = secrets.get(&key) else { return Ok(Next::Done) };
    let Some(account_key) = account_of(&secret) else { return Ok(Next::Done) };
    if secret.metadata.deletion_timestamp.is_some() {
        return Ok(Next::Done);
    }
    let account = match accounts.get(&account_key) {
        Some(account) => Some(account.as_ref().clone()),
        // The account may be newer than the cache.
        None => context.read(&account_key).await?,
    };
    let Some(account) = account.filter(|account| belongs_to(&secret, account)) else {
        context.delete(&key, secrets, secret.as_ref(), DeleteParams::default()).await?;
        return Ok(Next::Done);
    };
    let field = |name: &str| secret.data.as_ref().and_then(|data| data.get(name)).filter(|value| !value.0.is_empty());
    let mut wanted = BTreeMap::from([
        ("ca.crt".to_owned(), ByteString(context.config.root_ca.clone().into())),
        ("namespace".to_owned(), ByteString(key.namespace.clone().into())),
    ]);
    if field("token").is_none() {
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: Vec::new(),
                expiration_seconds: Some(LIFETIME_SECONDS),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("Secret".into()),
                    name: Some(key.name.clone()),
                    uid: secret.metadata.uid.clone(),
                }),
            },
            ..TokenRequest::default()
        };
        let granted = context.request_token(&account_key, &request).await?;
        let token = granted.status.map(|status| status.token).unwrap_or_default();
        wanted.insert("token".into(), ByteString(token.into()));
    }
    let mut new = secret.as_ref().clone();
    new.data.get_or_insert_default().extend(wanted);
    let uid = account.metadata.uid.clone().unwrap_or_default();
    new.metadata.annotations.get_or_insert_default().insert(ACCOUNT_UID.into(), uid);
    match context.update(&key, secrets, &secret, &new).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(Next::Done),
    }
}

fn annotation<'a>(secret: &'a Secret, name: &str) -> Option<&'a str> {
    secret.metadata.annotations.as_ref()?.get(name).map(String::as_str).filter(|value| !value.is_empty())
}

/// The account that the secret is for.
pub(crate) fn account_of(secret: &Secret) -> Option<ObjectKey> {
    Some(ObjectKey::new(secret.metadata.namespace.as_deref()?, annotation(secret, ACCOUNT)?))
}

/// Whether it is this account: another one of the same name is not.
pub(crate) fn belongs_to(secret: &Secret, account: &ServiceAccount) -> bool {
    annotation(secret, ACCOUNT_UID).is_none_or(|uid| account.metadata.uid.as_deref() == Some(uid))
}
