//! Binds claims to volumes, one to one, and frees volumes whose claim is gone.
//!
//! A binding is a pair of references: the volume's `claimRef` (with uid) and the claim's `volumeName`. It is written in four steps (volume,
//! its status, claim, its status), each of which can be repeated; whichever came last before an interruption, the next
//! reconciliation of either side goes on from there. A claim is bound once in its life; one that has lost its volume is `Lost`.
//!
//! A claim that suits no volume gets one made by its class's provisioner: at once, or, for classes that wait for their first consumer, once
//! the scheduler has named a node. A volume whose claim is gone is `Released`; with the policy `Delete` whoever made it removes it.

mod claim;
mod volume;

use std::sync::Arc;

use futures::FutureExt;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kminik_client::{Informer, Next, ObjectKey, WorkQueue};

use crate::context::Context;
use crate::error::Error;
use crate::pods::claims_of;

/// One worker: binding is a match between two sets, and each match must see the one before.
const WORKERS: usize = 1;
const BY_CLAIM: &str = "claim";

struct Controller {
    context: Context,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    pods: Informer<Pod>,
}

pub(crate) async fn run(context: Context) -> Result<(), Error> {
    let controller = Arc::new(Controller {
        claims: context.informers.get(),
        volumes: context.informers.get(),
        classes: context.informers.get(),
        pods: context.informers.get(),
        context: context.clone(),
    });
    controller.pods.add_index(BY_CLAIM, |pod| {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        claims_of(pod).map(|claim| format!("{namespace}/{claim}")).collect()
    });
    // A claim's key has a namespace, a volume's has none.
    let queue = WorkQueue::new();
    let (claims, all) = (controller.claims.clone(), queue.clone());
    let waiting = {
        let (claims, queue) = (controller.claims.clone(), queue.clone());
        move || {
            for claim in claims.list() {
                if claim.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Bound") {
                    queue.add(ObjectKey::of(claim.as_ref()));
                }
            }
        }
    };
    let _subscriptions = [
        controller.claims.subscribe(move |change| {
            let claim = change.object();
            all.add(ObjectKey::of(claim.as_ref()));
            if let Some(volume) = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()) {
                all.add(ObjectKey::cluster(volume));
            }
        }),
        {
            let (queue, waiting) = (queue.clone(), waiting.clone());
            controller.volumes.subscribe(move |change| {
                let volume = change.object();
                queue.add(ObjectKey::of(volume.as_ref()));
                match claim_key(volume) {
                    Some(key) => queue.add(key),
                    // A free volume may suit any claim that waits.
                    None => waiting(),
                }
            })
        },
        controller.classes.subscribe(move |_| waiting()),
        // Who waits for a first consumer is told when there is one; nothing is bound by it.
        controller.pods.enqueue_with(&queue, move |pod, keys| {
            if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none()) {
                let namespace = pod.metadata.namespace.clone().unwrap_or_default();
                for key in claims_of(pod).map(|claim| ObjectKey::new(namespace.clone(), claim)) {
                    let unbound = claims
                        .get(&key)
                        .is_some_and(|claim| claim.spec.as_ref().is_some_and(|spec| spec.volume_name.is_none()));
                    if unbound {
                        keys.push(key);
                    }
                }
            }
        }),
    ];
    let synced = [
        controller.claims.wait_synced().boxed(),
        controller.volumes.wait_synced().boxed(),
        controller.classes.wait_synced().boxed(),
        controller.pods.wait_synced().boxed(),
    ];
    let worker = controller.clone();
    context.work(queue, WORKERS, synced, move |key| reconcile(worker.clone(), key)).await
}

async fn reconcile(controller: Arc<Controller>, key: ObjectKey) -> Result<Next, Error> {
    if key.namespace.is_empty() {
        controller.sync_volume(&key).await?
    } else {
        controller.sync_claim(&key).await?
    }
    Ok(Next::Done)
}

/// The claim that a volume names.
fn claim_key(volume: &PersistentVolume) -> Option<ObjectKey> {
    let claim = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some(ObjectKey::new(claim.namespace.clone().unwrap_or_default(), claim.name.clone().unwrap_or_default()))
}
