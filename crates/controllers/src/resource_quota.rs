//! Computes what of each quota is used, and lowers it when objects go or pods end.
//!
//! Admission raises `status.used` before an object is stored, so the caches are behind what it says. Therefore objects are
//! counted by fresh lists, and the result is written only over the very state of the quota that was read before them. A
//! sum lower than what is written may come from an object that is charged and not yet stored: it is counted once more
//! after a moment.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use k8s_openapi::jiff::Timestamp;
use kminik_client::{Change, Informer, Next, ObjectKey, Selection, Subscription, WorkQueue};
use kminik_meta::Object;
use kminik_meta::pod_resources::{Amounts, add, amounts};
use kminik_meta::quota::{Counted, counted_by};
use kube::api::Patch;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::context::Context;
use crate::discovery::{Discovered, Served, deletable};
use crate::error::Error;
use crate::pods::is_terminal;
use crate::slim::Slim;

const WORKERS: usize = 5;
/// A create is charged and then stored; it takes no longer.
const IN_FLIGHT: Duration = Duration::from_millis(100);
/// What a refused write was charged with is given back at the latest then.
const RESYNC: Duration = Duration::from_secs(300);

struct Controller {
    context: Context,
    quotas: Informer<ResourceQuota>,
    queue: WorkQueue<ObjectKey>,
    /// The resources that quotas name, by name, each watched since a quota first named it.
    followed: Mutex<HashMap<String, Followed>>,
}

/// A resource whose deletions are followed.
struct Followed {
    served: Arc<Served>,
    _subscription: Option<Subscription>,
}

pub(crate) async fn run(context: Context) -> Result<(), Error> {
    let controller = Arc::new(Controller {
        quotas: context.informers.get(),
        queue: WorkQueue::new(),
        followed: Mutex::default(),
        context: context.clone(),
    });
    let (pods, services, claims) = (
        context.informers.get::<Pod>(),
        context.informers.get::<Service>(),
        context.informers.get::<PersistentVolumeClaim>(),
    );
    let queue = controller.queue.clone();
    let _subscriptions = [
        controller.quotas.subscribe(move |change| {
            // What admission charges is no reason to count again.
            let settled = change.old().is_some_and(|old| old.spec == change.object().spec);
            if !settled || has_stale_status(change.object()) {
                queue.add(ObjectKey::of(&**change.object()));
            }
        }),
        {
            let controller = controller.clone();
            pods.subscribe(move |change| {
                let ended = change.old().is_some_and(|old| !is_terminal(old) && is_terminal(change.object()));
                if ended || matches!(change, Change::Deleted(_)) {
                    controller.replenish(change.object().metadata.namespace.as_deref());
                }
            })
        },
        {
            let controller = controller.clone();
            services.subscribe(move |change| {
                if change.old().is_some() || matches!(change, Change::Deleted(_)) {
                    controller.replenish(change.object().metadata.namespace.as_deref());
                }
            })
        },
        {
            let controller = controller.clone();
            claims.subscribe(move |change| {
                if change.old().is_some() || matches!(change, Change::Deleted(_)) {
                    controller.replenish(change.object().metadata.namespace.as_deref());
                }
            })
        },
    ];
    let synced = [controller.quotas.wait_synced().boxed(), pods.wait_synced().boxed()];
    let worker = controller.clone();
    context.work(controller.queue.clone(), WORKERS, synced, move |key| reconcile(worker.clone(), key)).await
}

/// The bounds that admission goes by are not those of the quota.
fn has_stale_status(quota: &ResourceQuota) -> bool {
    let wanted = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
    wanted != quota.status.as_ref().and_then(|status| status.hard.as_ref())
}

async fn reconcile(controller: Arc<Controller>, key: ObjectKey) -> Result<Next, Error> {
    let Some(quota) = controller.quotas.get(&key) else { return Ok(Next::Done) };
    let object = serde_json::to_value(&*quota).ok().and_then(|value| Object::try_from(value).ok());
    let Some(object) = object else { return Ok(Next::Done) };
    let before = amounts(object.get(&["status", "used"]));
    let (mut used, mut unknown) = controller.count(&key, &object, &before).await?;
    if used.iter().any(|(name, amount)| before.get(name).is_some_and(|before| amount < before)) {
        tokio::time::sleep(IN_FLIGHT).await;
        (used, unknown) = controller.count(&key, &object, &before).await?;
    }
    let hard = object.get(&["spec", "hard"]).cloned().unwrap_or_else(|| json!({}));
    let status = json!({
        "hard": replacing(object.get(&["status", "hard"]), &hard),
        "used": replacing(object.get(&["status", "used"]), &printed(&used)),
    });
    // What could be counted is told all the same.
    let outcome = || unknown.map_or(Ok(Next::After(RESYNC)), Err);
    if before == used && object.get(&["status", "hard"]) == Some(&hard) {
        return outcome();
    }
    let metadata = json!({"uid": object.uid(), "resourceVersion": object.resource_version()});
    let patch = Patch::Merge(json!({"metadata": metadata, "status": status}));
    match controller.context.patch(&key, &controller.quotas, &key, Some("status"), &patch).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => outcome(),
    }
}

fn printed(amounts: &Amounts) -> Value {
    amounts
        .iter()
        .map(|(name, amount)| (name.clone(), Value::from(amount.to_string())))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// A merge patch that makes `new` of the map that is there.
fn replacing(present: Option<&Value>, new: &Value) -> Value {
    let mut patch = new.clone();
    let gone = present.and_then(Value::as_object).into_iter().flat_map(|present| present.keys());
    for name in gone.filter(|name| new.get(name.as_str()).is_none()) {
        patch[name.as_str()] = Value::Null;
    }
    patch
}

impl Controller {
    /// Counts the quotas of a namespace again.
    fn replenish(&self, namespace: Option<&str>) {
        for quota in self.quotas.list_in(namespace.unwrap_or_default()) {
            self.queue.add(ObjectKey::of(&*quota));
        }
    }

    /// What objects take of each thing that the quota bounds. What is not known stays as it was `before`, and why it is not is told.
    async fn count(
        self: &Arc<Self>,
        key: &ObjectKey,
        quota: &Object,
        before: &Amounts,
    ) -> Result<(Amounts, Option<Error>), Error> {
        let hard = amounts(quota.get(&["spec", "hard"]));
        let resources: BTreeSet<(&str, &str)> = hard.keys().filter_map(|name| counted_by(name)).collect();
        let (mut used, mut unknown) = (Amounts::new(), None);
        for (group, plural) in resources {
            let counted = Counted::new(group, plural);
            let own = || hard.keys().filter(|name| counted.counts(name));
            let served = match self.follow(group, plural).await {
                Err(error @ Error::Unanswered { .. }) => {
                    used.extend(own().filter_map(|name| Some((name.clone(), *before.get(name)?))));
                    unknown = Some(error);
                    continue;
                }
                served => served?,
            };
            used.extend(own().map(|name| (name.clone(), Default::default())));
            let Some(served) = served else { continue };
            for object in self.list(&served, &key.namespace).await? {
                if counted.in_scope(quota, &object) {
                    let mut usage = counted.usage(&object, Timestamp::now());
                    usage.retain(|name, _| hard.contains_key(name));
                    add(&mut used, &usage);
                }
            }
        }
        Ok((used, unknown))
    }

    /// The resource of this name, followed from now on; `None` while there is none.
    async fn follow(self: &Arc<Self>, group: &str, plural: &str) -> Result<Option<Arc<Served>>, Error> {
        let name = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
        if let Some(followed) = self.followed.lock().get(&name) {
            return Ok(Some(followed.served.clone()));
        }
        let Some(served) = find(deletable(&self.context.client).await?, group, &name)?.map(Arc::new) else {
            return Ok(None);
        };
        // Pods, services and claims are followed by more than their end, from the start.
        let typed = group.is_empty() && matches!(plural, "pods" | "services" | "persistentvolumeclaims");
        let subscription = (!typed && served.can("watch")).then(|| {
            let (resource, stop) = (&served.resource, &self.context.stop);
            let informer = self.context.informers.start_dynamic::<Slim>(resource, &Selection::default(), stop);
            // The subscription is the controller's own, so it must not hold it.
            let controller = Arc::downgrade(self);
            informer.subscribe(move |change| {
                if let (Change::Deleted(_), Some(controller)) = (change, controller.upgrade()) {
                    controller.replenish(change.object().metadata.namespace.as_deref());
                }
            })
        });
        let mut followed = self.followed.lock();
        followed.entry(name).or_insert(Followed { served: served.clone(), _subscription: subscription });
        Ok(Some(served))
    }

    /// The objects of a namespace as the store has them now.
    async fn list(&self, served: &Served, namespace: &str) -> Result<Vec<Object>, Error> {
        let failed = |source: kube::Error| Error::Request {
            verb: "list",
            kind: served.resource.kind.clone(),
            key: ObjectKey::new(namespace, ""),
            source: Box::new(source),
        };
        let request = kube::core::Request::new(served.path(namespace)).list(&Default::default());
        let request = request.map_err(|error| failed(kube::Error::BuildRequest(error)))?;
        let list: Value = self.context.client.request(request).await.map_err(failed)?;
        let items = match list {
            Value::Object(mut list) => list.remove("items"),
            _ => None,
        };
        let items = match items {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        };
        Ok(items.into_iter().filter_map(|item| Object::try_from(item).ok()).collect())
    }
}

/// The resource of this name. An error while its group's server does not answer: what is not known is not nothing.
fn find(found: Discovered, group: &str, name: &str) -> Result<Option<Served>, Error> {
    let served = found.served.into_iter().find(|served| served.name() == name);
    let is_of_group = |version: &&String| version.split_once('/').is_some_and(|(of, _)| of == group);
    match (served, found.stale.iter().find(is_of_group)) {
        (None, Some(version)) => Err(Error::Unanswered { version: version.clone() }),
        (served, _) => Ok(served.filter(|served| served.namespaced)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_not_nothing() {
        let found = |stale: &[&str]| Discovered {
            served: vec![Served::test("pods", true)],
            stale: stale.iter().map(|version| (*version).to_owned()).collect(),
        };
        assert!(find(found(&["x.io/v1"]), "", "pods").unwrap().is_some());
        assert!(find(found(&["x.io/v1"]), "y.io", "things.y.io").unwrap().is_none());
        assert!(find(found(&["x.io/v1"]), "x.io", "things.x.io").is_err());
    }

    #[test]
    fn names_that_are_gone_are_taken_out() {
        let patch = replacing(Some(&json!({"pods": "1", "cpu": "2"})), &json!({"pods": "3"}));
        assert_eq!(patch, json!({"pods": "3", "cpu": null}));
    }
}
