//! Every namespace that is not being deleted has a ServiceAccount `default`.

use std::sync::Arc;

use futures::FutureExt;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kminik_client::{Informer, Next, ObjectKey, WorkQueue};

use crate::context::Context;
use crate::error::Error;

const NAME: &str = "default";

struct Controller {
    context: Context,
    namespaces: Informer<Namespace>,
    accounts: Informer<ServiceAccount>,
}

pub(crate) async fn run(context: Context) -> Result<(), Error> {
    let controller = Arc::new(Controller {
        namespaces: context.informers.get(),
        accounts: context.informers.get(),
        context: context.clone(),
    });
    let queue = WorkQueue::new();
    let _subscriptions = [
        controller.namespaces.enqueue(&queue),
        controller.accounts.enqueue_with(&queue, |account, keys| {
            if account.metadata.name.as_deref() == Some(NAME) {
                keys.push(ObjectKey::cluster(account.metadata.namespace.clone().unwrap_or_default()));
            }
        }),
    ];
    let synced = [controller.namespaces.wait_synced().boxed(), controller.accounts.wait_synced().boxed()];
    let worker = controller.clone();
    context.work(queue, 1, synced, move |key| reconcile(worker.clone(), key)).await
}

async fn reconcile(controller: Arc<Controller>, key: ObjectKey) -> Result<Next, Error> {
    let Some(namespace) = controller.namespaces.get(&key) else { return Ok(Next::Done) };
    if namespace.metadata.deletion_timestamp.is_some() {
        return Ok(Next::Done);
    }
    if controller.accounts.get(&ObjectKey::new(&key.name, NAME)).is_some() {
        return Ok(Next::Done);
    }
    let account = ServiceAccount {
        metadata: ObjectMeta { name: Some(NAME.into()), namespace: Some(key.name.clone()), ..ObjectMeta::default() },
        ..ServiceAccount::default()
    };
    match controller.context.create(&key, &controller.accounts, &account).await {
        Err(error) if !error.is_already_exists() && !error.is_terminating() => Err(error),
        _ => Ok(Next::Done),
    }
}
