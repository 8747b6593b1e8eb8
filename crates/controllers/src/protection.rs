//! A claim in use by a pod, a volume bound to a claim, and a class of attributes that volumes have or are to have, outlive their
//! deletion until they are free.
//!
//! Each carries a finalizer from its start; it is taken off a deleted claim once no pod that has a node (and has not ended) mounts it,
//! off a deleted volume once it is not `Bound`, off a deleted class once no claim and no volume names it. Before a claim is let go the
//! API is asked for pods, since the cache may not know the newest.

use std::sync::Arc;

use futures::FutureExt;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kminik_client::{Informer, Next, ObjectKey, WorkQueue};

use crate::context::{Context, Kind};
use crate::error::Error;
use crate::pods::{claims_of, is_terminal, node_of};

const CLAIM: &str = "kubernetes.io/pvc-protection";
const VOLUME: &str = "kubernetes.io/pv-protection";
const CLASS: &str = "kubernetes.io/vac-protection";

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

pub(crate) async fn run_classes(context: Context) -> Result<(), Error> {
    let classes = context.informers.get::<VolumeAttributesClass>();
    let claims = context.informers.get::<PersistentVolumeClaim>();
    let volumes = context.informers.get::<PersistentVolume>();
    let queue = WorkQueue::new();
    let leaving = || {
        let classes = classes.clone();
        move |keys: &mut Vec<ObjectKey>| {
            let deleted = |class: &&Arc<VolumeAttributesClass>| class.metadata.deletion_timestamp.is_some();
            keys.extend(classes.list().iter().filter(deleted).map(|class| ObjectKey::of(class.as_ref())));
        }
    };
    let (of_claims, of_volumes) = (leaving(), leaving());
    let _subscriptions = [
        classes.enqueue(&queue),
        claims.enqueue_with(&queue, move |_, keys| of_claims(keys)),
        volumes.enqueue_with(&queue, move |_, keys| of_volumes(keys)),
    ];
    let synced = [classes.wait_synced().boxed(), claims.wait_synced().boxed(), volumes.wait_synced().boxed()];
    let (worker, classes, claims, volumes) = (context.clone(), classes.clone(), claims.clone(), volumes.clone());
    let reconcile = move |key: ObjectKey| {
        let (context, classes, claims, volumes) = (worker.clone(), classes.clone(), claims.clone(), volumes.clone());
        async move {
            if let Some(class) = classes.get(&key) {
                let used = claims.list().iter().any(|claim| classes_of(claim).any(|name| name == key.name))
                    || volumes.list().iter().any(|volume| class_of(volume) == Some(key.name.as_str()));
                protect(&context, &key, &classes, class.as_ref(), CLASS, async { Ok(used) }).await?;
            }
            Ok(Next::Done)
        }
    };
    context.work(queue, 1, synced, reconcile).await
}

/// The classes of attributes that a claim asks for, has, and is on its way to.
fn classes_of(claim: &PersistentVolumeClaim) -> impl Iterator<Item = &str> {
    let (spec, status) = (claim.spec.as_ref(), claim.status.as_ref());
    [
        spec.and_then(|spec| spec.volume_attributes_class_name.as_deref()),
        status.and_then(|status| status.current_volume_attributes_class_name.as_deref()),
        status.and_then(|status| status.modify_volume_status.as_ref()?.target_volume_attributes_class_name.as_deref()),
    ]
    .into_iter()
    .flatten()
}

fn class_of(volume: &PersistentVolume) -> Option<&str> {
    volume.spec.as_ref()?.volume_attributes_class_name.as_deref()
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
