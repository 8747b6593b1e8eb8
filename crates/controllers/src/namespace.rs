//! Empties a namespace that is being deleted, and lets it go.
//!
//! Pods go first: until they have ended nothing they may need (claims, secrets, accounts) is taken from them. Then every object of every
//! resource that discovery tells of is deleted. Once none is left the finalizer `kubernetes` is taken off. What remains, and why, stands
//! in the namespace's conditions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kminik_client::{Informer, Next, ObjectKey, WorkQueue, describe, is_not_found};
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::{ObjectList, PartialObjectMeta, Request};
use serde_json::Value;

use crate::context::Context;
use crate::discovery::{Served, deletable};
use crate::error::Error;

const FINALIZER: &str = "kubernetes";
/// Resources emptied at once.
const PARALLEL: usize = 8;
/// How often a namespace is looked at whose objects are held by finalizers of others.
const RECHECK: Duration = Duration::from_secs(5);
const WORKERS: usize = 4;

struct Controller {
    context: Context,
    namespaces: Informer<Namespace>,
    pods: Informer<Pod>,
}

pub(crate) async fn run(context: Context) -> Result<(), Error> {
    let controller = Arc::new(Controller {
        namespaces: context.informers.get(),
        pods: context.informers.get(),
        context: context.clone(),
    });
    let queue = WorkQueue::new();
    let deleted = controller.namespaces.clone();
    let ended = queue.clone();
    let _subscriptions = [
        controller.namespaces.enqueue(&queue),
        controller.pods.subscribe(move |change| {
            let key = ObjectKey::cluster(change.object().metadata.namespace.clone().unwrap_or_default());
            let gone = matches!(change, kminik_client::Change::Deleted(_));
            if gone && deleted.get(&key).is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some()) {
                ended.add(key);
            }
        }),
    ];
    let synced = [controller.namespaces.wait_synced().boxed(), controller.pods.wait_synced().boxed()];
    let worker = controller.clone();
    context.work(queue, WORKERS, synced, move |key| reconcile(worker.clone(), key)).await
}

/// What is left of a namespace, by resource and by finalizer.
#[derive(Debug, Default)]
struct Remaining {
    objects: BTreeMap<String, usize>,
    finalizers: BTreeMap<String, usize>,
    failures: Vec<String>,
    discovery: Option<String>,
}

async fn reconcile(controller: Arc<Controller>, key: ObjectKey) -> Result<Next, Error> {
    let Controller { context, namespaces, .. } = controller.as_ref();
    let Some(namespace) = namespaces.get(&key) else { return Ok(Next::Done) };
    let held = namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten()).any(|name| name == FINALIZER);
    if namespace.metadata.deletion_timestamp.is_none() || !held {
        return Ok(Next::Done);
    }
    let remaining = empty(context, &key.name).await;
    let clean = remaining.objects.is_empty() && remaining.failures.is_empty() && remaining.discovery.is_none();
    let mut updated = namespace.as_ref().clone();
    let status = updated.status.get_or_insert_default();
    status.phase = Some("Terminating".into());
    set_conditions(status.conditions.get_or_insert_default(), &remaining, Timestamp::now());
    if !clean {
        context.update_status(&key, namespaces, &namespace, &updated).await?;
        // The last pod's end brings the namespace back; what others hold is looked at from time to time.
        return Ok(Next::After(RECHECK));
    }
    finalize(context, &key, &namespace).await?;
    Ok(Next::Done)
}

/// Deletes what the namespace holds and counts what is left.
async fn empty(context: &Context, namespace: &str) -> Remaining {
    let mut remaining = Remaining::default();
    let served = match deletable(&context.client).await {
        Ok(found) => {
            // What the others hold is deleted all the same.
            remaining.discovery = found.failure();
            found.served
        }
        Err(error) => {
            remaining.discovery = Some(describe(&error));
            return remaining;
        }
    };
    let (pods, others): (Vec<_>, Vec<_>) =
        served.into_iter().filter(|served| served.namespaced).partition(|served| served.name() == "pods");
    for served in [pods, others] {
        if !remaining.objects.is_empty() || !remaining.failures.is_empty() {
            break;
        }
        let outcomes = stream::iter(served).map(|served| async move {
            let left = empty_resource(&context.client, namespace, &served).await;
            (served.name(), left)
        });
        let outcomes: Vec<_> = outcomes.buffer_unordered(PARALLEL).collect().await;
        for (name, left) in outcomes {
            match left {
                Ok(left) if left.is_empty() => {}
                Ok(left) => {
                    for object in &left {
                        for finalizer in object.metadata.finalizers.iter().flatten() {
                            *remaining.finalizers.entry(finalizer.clone()).or_insert(0) += 1;
                        }
                    }
                    remaining.objects.insert(name, left.len());
                }
                Err(error) => {
                    remaining.failures.push(format!("unexpected error deleting {name}: {}", describe(&error)))
                }
            }
        }
    }
    remaining
}

type Metadata = PartialObjectMeta<DynamicObject>;

async fn empty_resource(client: &kube::Client, namespace: &str, served: &Served) -> Result<Vec<Metadata>, kube::Error> {
    let request = Request::new(served.path(namespace));
    let list = ListParams::default();
    let mut left = list_metadata(client, &request, &list).await?;
    if left.is_empty() {
        return Ok(left);
    }
    if served.can("deletecollection") {
        let delete =
            request.delete_collection(&DeleteParams::background(), &list).map_err(kube::Error::BuildRequest)?;
        client.request::<Value>(delete).await?;
    } else {
        for object in left.iter().filter(|object| object.metadata.deletion_timestamp.is_none()) {
            let name = object.metadata.name.as_deref().unwrap_or_default();
            let delete = request.delete(name, &DeleteParams::background()).map_err(kube::Error::BuildRequest)?;
            match client.request::<Value>(delete).await {
                Err(error) if !is_not_found(&error) => return Err(error),
                _ => {}
            }
        }
    }
    left = list_metadata(client, &request, &list).await?;
    Ok(left)
}

async fn list_metadata(
    client: &kube::Client,
    request: &Request,
    list: &ListParams,
) -> Result<Vec<Metadata>, kube::Error> {
    let request = request.list_metadata(list).map_err(kube::Error::BuildRequest)?;
    match client.request::<ObjectList<Metadata>>(request).await {
        Ok(list) => Ok(list.items),
        Err(error) if is_not_found(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

async fn finalize(context: &Context, key: &ObjectKey, namespace: &Namespace) -> Result<(), Error> {
    let mut updated = namespace.clone();
    if let Some(finalizers) = updated.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
        finalizers.retain(|name| name != FINALIZER);
    }
    let failed = |source| Error::Request {
        verb: "finalize",
        kind: "Namespace".into(),
        key: key.clone(),
        source: Box::new(source),
    };
    let body = serde_json::to_vec(&updated).map_err(|source| Error::Encode {
        kind: "Namespace".into(),
        key: key.clone(),
        source,
    })?;
    let request = Request::new(<Namespace as kube::Resource>::url_path(&(), None));
    let request = request.replace_subresource("finalize", &key.name, &PostParams::default(), body);
    let answer = context.client.request::<Value>(request.map_err(kube::Error::BuildRequest).map_err(failed)?).await;
    match answer {
        Err(error) if !is_not_found(&error) => Err(failed(error)),
        _ => {
            tracing::info!(namespace = key.name, "namespace removed");
            Ok(())
        }
    }
}

fn set_conditions(conditions: &mut Vec<NamespaceCondition>, remaining: &Remaining, now: Timestamp) {
    let list = |counts: &BTreeMap<String, usize>, one: fn(&str, usize) -> String| {
        counts.iter().map(|(name, count)| one(name, *count)).collect::<Vec<_>>().join(", ")
    };
    let mut set = |kind: &str, bad: Option<(&str, String)>, good: (&str, &str)| {
        let status = if bad.is_some() { "True" } else { "False" };
        let (reason, message) = bad.unwrap_or((good.0, good.1.to_string()));
        let since = match conditions.iter().position(|own| own.type_ == kind) {
            Some(at) if conditions[at].status == status && conditions[at].message.as_deref() == Some(&message) => {
                return;
            }
            Some(at) => Some(conditions.remove(at)).filter(|own| own.status == status),
            None => None,
        };
        conditions.push(NamespaceCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: since.and_then(|own| own.last_transition_time).or(Some(Time(now))),
        });
    };
    set(
        "NamespaceDeletionDiscoveryFailure",
        remaining.discovery.as_ref().map(|error| ("DiscoveryFailed", error.clone())),
        ("ResourcesDiscovered", "All resources successfully discovered"),
    );
    set(
        "NamespaceDeletionGroupVersionParsingFailure",
        None,
        ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
    );
    let failures = &remaining.failures;
    set(
        "NamespaceDeletionContentFailure",
        (!failures.is_empty()).then(|| {
            (
                "ContentDeletionFailed",
                format!("Failed to delete all resource types, {} remaining: {}", failures.len(), failures.join(", ")),
            )
        }),
        ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
    );
    let objects = list(&remaining.objects, |name, count| format!("{name} has {count} resource instances"));
    set(
        "NamespaceContentRemaining",
        (!objects.is_empty()).then(|| ("SomeResourcesRemain", format!("Some resources are remaining: {objects}"))),
        ("ContentRemoved", "All content successfully removed"),
    );
    let finalizers = list(&remaining.finalizers, |name, count| format!("{name} in {count} resource instances"));
    set(
        "NamespaceFinalizersRemaining",
        (!finalizers.is_empty()).then(|| {
            ("SomeFinalizersRemain", format!("Some content in the namespace has finalizers remaining: {finalizers}"))
        }),
        ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_say_what_remains_and_keep_their_time() {
        let mut conditions = Vec::new();
        let remaining = Remaining { objects: [("pods".to_string(), 2)].into(), ..Remaining::default() };
        set_conditions(&mut conditions, &remaining, Timestamp::UNIX_EPOCH);
        let content = |conditions: &[NamespaceCondition]| {
            conditions.iter().find(|own| own.type_ == "NamespaceContentRemaining").cloned().unwrap()
        };
        assert_eq!(
            content(&conditions).message.as_deref(),
            Some("Some resources are remaining: pods has 2 resource instances")
        );
        let fewer = Remaining { objects: [("pods".to_string(), 1)].into(), ..Remaining::default() };
        set_conditions(&mut conditions, &fewer, Timestamp::now());
        assert_eq!(content(&conditions).last_transition_time.unwrap().0, Timestamp::UNIX_EPOCH);
        set_conditions(&mut conditions, &Remaining::default(), Timestamp::now());
        assert_eq!((content(&conditions).status.as_str(), conditions.len()), ("False", 5));
    }
}
