//! A claim in use by a pod, and a volume bound to a claim, outlive their deletion until they are free.
//!
//! Each carries a finalizer from its start; it is taken off a deleted claim once no pod that has a node (and has not ended) mounts it,
//! off a deleted volume once it is not `Bound`. Before a claim is let go the API is asked for pods, since the cache may not
//! know the newest.

use std::sync::Arc;

use futures::FutureExt;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kminik_client::{Informer, Next, ObjectKey, WorkQueue};

use crate::context::{Context, Kind};
use crate::error::Error;
use crate::pods::{claims_of, is_terminal, node_of};

const CLAIM: &str = "kubernetes.io/pvc-protection";
const VOLUME: &str = "kubernetes.io/pv-protection";

struct Claims {
    context: Context,
    claims: Informer<PersistentVolumeClaim>,
    pods: Informer<Pod>,
}

pub(crate) async fn run_claims(context: Context) -> Result<(), Error> {
    let controller =
        Arc::new(Claims { claims: context.informers.get(), pods: context.informers.get(), context: context.clone() });
    let queue = WorkQueue::new();
    let deleted = controller.claims.clone();
    let _subscriptions = [
        controller.claims.enqueue(&queue),
        controller.pods.enqueue_with(&queue, move |pod, keys| {
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            for claim in claims_of(pod) {
                let key = ObjectKey::new(namespace.clone(), claim);
                // Pods change often; what matters is only whether they still hold a claim on its way out.
                if deleted.get(&key).is_some_and(|claim| claim.metadata.deletion_timestamp.is_some()) {
                    keys.push(key);
                }
            }
        }),
    ];
    let synced = [controller.claims.wait_synced().boxed(), controller.pods.wait_synced().boxed()];
    let worker = controller.clone();
    let reconcile = move |key| {
        let controller = worker.clone();
        async move {
            if let Some(claim) = controller.claims.get(&key) {
                let Claims { context, claims, .. } = controller.as_ref();
                protect(context, &key, claims, claim.as_ref(), CLAIM, controller.is_used(&key)).await?;
            }
            Ok(Next::Done)
        }
    };
    context.work(queue, 1, synced, reconcile).await
}

pub(crate) async fn run_volumes(context: Context) -> Result<(), Error> {
    let volumes = context.informers.get::<PersistentVolume>();
    let queue = WorkQueue::new();
    let _subscription = volumes.enqueue(&queue);
    let (worker, cache) = (context.clone(), volumes.clone());
    let reconcile = move |key| {
        let (context, volumes) = (worker.clone(), cache.clone());
        async move {
            if let Some(volume) = volumes.get(&key) {
                let bound = volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
                protect(&context, &key, &volumes, volume.as_ref(), VOLUME, async { Ok(bound) }).await?;
            }
            Ok(Next::Done)
        }
    };
    context.work(queue, 1, [volumes.wait_synced().boxed()], reconcile).await
}

/// Puts the finalizer on a living object and takes it off a deleted one that is not in use.
async fn protect<K: Kind>(
    context: &Context,
    key: &ObjectKey,
    informer: &Informer<K>,
    object: &K,
    finalizer: &str,
    in_use: impl Future<Output = Result<bool, Error>>,
) -> Result<(), Error> {
    let held = object.meta().finalizers.iter().flatten().any(|name| name == finalizer);
    let deleted = object.meta().deletion_timestamp.is_some();
    let mut updated = object.clone();
    let finalizers = updated.meta_mut().finalizers.get_or_insert_default();
    if !held && !deleted {
        finalizers.push(finalizer.to_string());
    } else if held && deleted && !in_use.await? {
        finalizers.retain(|name| name != finalizer);
    } else {
        return Ok(());
    }
    match context.update(key, informer, object, &updated).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

impl Claims {
    async fn is_used(&self, key: &ObjectKey) -> Result<bool, Error> {
        let uses =
            |pod: &Pod| !node_of(pod).is_empty() && !is_terminal(pod) && claims_of(pod).any(|claim| claim == key.name);
        if self.pods.list_in(&key.namespace).iter().any(|pod| uses(pod)) {
            return Ok(true);
        }
        Ok(self.context.list::<Pod>(&key.namespace).await?.iter().any(uses))
    }
}
