//! Every namespace that is not being deleted has a ConfigMap `kube-root-ca.crt` with the certificates by which its pods verify the
//! API server. It is put back when deleted or edited.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kminik_client::{Informer, Next, ObjectKey, Selection, WorkQueue};

use crate::context::Context;
use crate::error::Error;

const NAME: &str = "kube-root-ca.crt";
const FIELD: &str = "ca.crt";
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service \
     IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.",
);

struct Controller {
    context: Context,
    namespaces: Informer<Namespace>,
    maps: Informer<ConfigMap>,
}

pub(crate) async fn run(context: Context) -> Result<(), Error> {
    let controller = Arc::new(Controller {
        namespaces: context.informers.get(),
        // Only the published maps are kept in memory, not every ConfigMap of the cluster.
        maps: context.informers.get_with(Selection::fields(format!("metadata.name={NAME}"))),
        context: context.clone(),
    });
    let queue = WorkQueue::new();
    let _subscriptions = [
        controller.namespaces.enqueue(&queue),
        controller.maps.enqueue_with(&queue, |map, keys| {
            keys.push(ObjectKey::cluster(map.metadata.namespace.clone().unwrap_or_default()));
        }),
    ];
    let synced = [controller.namespaces.wait_synced().boxed(), controller.maps.wait_synced().boxed()];
    let worker = controller.clone();
    context.work(queue, 1, synced, move |key| reconcile(worker.clone(), key)).await
}

async fn reconcile(controller: Arc<Controller>, key: ObjectKey) -> Result<Next, Error> {
    let Some(namespace) = controller.namespaces.get(&key) else { return Ok(Next::Done) };
    if namespace.metadata.deletion_timestamp.is_some() {
        return Ok(Next::Done);
    }
    let context = &controller.context;
    let data = BTreeMap::from([(FIELD.to_string(), context.config.root_ca.clone())]);
    let description = (DESCRIPTION.0.to_string(), DESCRIPTION.1.to_string());
    match controller.maps.get(&ObjectKey::new(&key.name, NAME)) {
        Some(map) => {
            let mut new = map.as_ref().clone();
            new.data = Some(data);
            new.metadata.annotations.get_or_insert_default().extend([description]);
            match context.update(&key, &controller.maps, &map, &new).await {
                // Deleted in between: its event brings the namespace back.
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
        None => {
            let map = ConfigMap {
                metadata: ObjectMeta {
                    name: Some(NAME.into()),
                    namespace: Some(key.name.clone()),
                    annotations: Some(BTreeMap::from([description])),
                    ..ObjectMeta::default()
                },
                data: Some(data),
                ..ConfigMap::default()
            };
            match context.create(&key, &controller.maps, &map).await {
                Err(error) if !error.is_already_exists() && !error.is_terminating() => return Err(error),
                _ => {}
            }
        }
    }
    Ok(Next::Done)
}
