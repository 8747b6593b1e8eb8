//! Deletes objects whose owners are all gone, and carries out foreground and orphaning deletion.
//!
//! Every resource that can be listed, watched and deleted is followed by a watch of its metadata; [`graph`] keeps who owns whom by uid. The
//! graph only says what to look at: before anything is deleted the object and each owner that counts are read live, because a cache may
//! be behind (an owner just created looks like one that is gone). An object is deleted with a precondition on its uid and revision.

mod graph;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kminik_client::{Change, Next, ObjectKey, Selection, Subscription, WorkQueue};
use kube::api::{DeleteParams, DynamicObject, GetParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::discovery::ApiResource;
use kube::core::{PartialObjectMeta, Request};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::context::Context;
use crate::discovery::{Served, deletable};
use crate::error::Error;
use crate::slim::Slim;
use graph::{FOREGROUND, Graph, Member, ORPHAN};

const WORKERS: usize = 8;
/// Resources whose objects are many, own nothing and are owned by nothing.
const IGNORED: &[&str] = &["events", "events.events.k8s.io"];

struct Controller {
    context: Context,
    graph: Arc<Mutex<Graph>>,
    /// By group and kind, for owner references.
    kinds: HashMap<(String, String), Arc<Served>>,
    queue: WorkQueue<ObjectKey>,
}

pub(crate) async fn run(context: Context) -> Result<(), Error> {
    let served = deletable(&context.client).await?;
    let served: Vec<Arc<Served>> = served.into_iter().map(Arc::new).collect();
    let kinds = served.iter().map(|served| {
        let ApiResource { group, kind, .. } = &served.resource;
        ((group.clone(), kind.clone()), served.clone())
    });
    let controller = Arc::new(Controller {
        kinds: kinds.collect(),
        graph: Arc::default(),
        queue: WorkQueue::new(),
        context: context.clone(),
    });
    let mut informers = Vec::new();
    let mut subscriptions: Vec<Subscription> = Vec::new();
    for served in served.iter().filter(|served| served.can("watch") && !IGNORED.contains(&served.name().as_str())) {
        let informer = context.informers.start_dynamic::<Slim>(&served.resource, &Selection::default(), &context.stop);
        let (graph, queue, resource) = (controller.graph.clone(), controller.queue.clone(), served.clone());
        subscriptions.push(informer.subscribe(move |change| {
            let meta = &change.object().metadata;
            let uid = meta.uid.clone().unwrap_or_default();
            let look = match change {
                Change::Deleted(_) => graph.lock().remove(&uid),
                _ => graph.lock().set(uid, Member::new(resource.clone(), meta)),
            };
            for uid in look {
                queue.add(ObjectKey::cluster(uid));
            }
        }));
        informers.push(informer);
    }
    let synced: Vec<BoxFuture<bool>> = informers.iter().map(|informer| informer.wait_synced().boxed()).collect();
    let worker = controller.clone();
    // What the first lists put on the queue may name owners of kinds listed later: the live reads decide.
    context.work(controller.queue.clone(), WORKERS, synced, move |key| reconcile(worker.clone(), key)).await
}

async fn reconcile(controller: Arc<Controller>, key: ObjectKey) -> Result<Next, Error> {
    controller.look_at(&key.name).await?;
    Ok(Next::Done)
}

/// How an owner stands to an object that names it.
enum Owner {
    There,
    Gone,
    /// It is to be deleted once its dependents are.
    Waiting,
}

impl Controller {
    async fn look_at(&self, uid: &str) -> Result<(), Error> {
        let Some(member) = self.graph.lock().get(uid).cloned() else { return Ok(()) };
        // With every owner in sight there is nothing to ask the API for; an owner's end brings the object back.
        let owned = {
            let graph = self.graph.lock();
            let stays = |owner: &OwnerReference| graph.get(&owner.uid).is_some_and(|owner| !owner.foreground);
            member.owners.iter().all(stays)
        };
        if owned && !member.foreground && !member.orphan {
            return Ok(());
        }
        let live = self.read(&member.resource, &member.key).await?;
        let Some(live) = live.filter(|live| live.uid.as_deref() == Some(uid)) else {
            // Gone before its event came; the event does the rest.
            return Ok(());
        };
        let fresh = Member::new(member.resource.clone(), &live);
        if fresh.orphan {
            return self.orphan(uid, &fresh, &live).await;
        }
        if fresh.foreground {
            return self.finish_foreground(uid, &fresh, &live).await;
        }
        if fresh.deleting || fresh.owners.is_empty() {
            return Ok(());
        }
        let mut remove = HashSet::new();
        let (mut there, mut waiting) = (false, false);
        for owner in &fresh.owners {
            match self.stands(owner, &fresh).await? {
                Owner::There => there = true,
                Owner::Gone => _ = remove.insert(owner.uid.as_str()),
                Owner::Waiting => {
                    waiting = true;
                    remove.insert(owner.uid.as_str());
                }
            }
        }
        if there {
            if remove.is_empty() {
                return Ok(());
            }
            let keep: Vec<_> = fresh.owners.iter().filter(|owner| !remove.contains(owner.uid.as_str())).collect();
            return self.patch(&fresh, &live, json!({"ownerReferences": keep})).await;
        }
        if waiting && !self.graph.lock().dependents(uid).is_empty() {
            if self.in_cycle(uid) {
                // Dependents that wait for each other would wait for ever.
                let unblocked: Vec<_> = fresh
                    .owners
                    .iter()
                    .map(|owner| OwnerReference { block_owner_deletion: Some(false), ..owner.clone() })
                    .collect();
                self.patch(&fresh, &live, json!({"ownerReferences": unblocked})).await?;
            }
            return self.delete(uid, &fresh, None, PropagationPolicy::Foreground).await;
        }
        let has = |finalizer: &str| live.finalizers.iter().flatten().any(|own| own == finalizer);
        let policy = if has(ORPHAN) {
            PropagationPolicy::Orphan
        } else if has(FOREGROUND) {
            PropagationPolicy::Foreground
        } else {
            PropagationPolicy::Background
        };
        self.delete(uid, &fresh, live.resource_version.clone(), policy).await
    }

    async fn stands(&self, owner: &OwnerReference, dependent: &Member) -> Result<Owner, Error> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let Some(resource) = self.kinds.get(&(group.to_string(), owner.kind.clone())) else {
            // A kind that is not served (any more) says nothing about its objects: deleting on it could be wrong.
            tracing::debug!(kind = owner.kind, name = %dependent.key, "owner of a kind that is not served");
            return Ok(Owner::There);
        };
        let namespace = if resource.namespaced { dependent.key.namespace.as_str() } else { "" };
        if resource.namespaced && namespace.is_empty() {
            // An object without a namespace cannot be owned by one that has one.
            return Ok(Owner::There);
        }
        let live = self.read(resource, &ObjectKey::new(namespace, owner.name.clone())).await?;
        Ok(match live.filter(|live| live.uid.as_ref() == Some(&owner.uid)) {
            None => Owner::Gone,
            Some(live) if Member::new(resource.clone(), &live).foreground => Owner::Waiting,
            Some(_) => Owner::There,
        })
    }

    /// One of the dependents is itself waiting for its dependents.
    fn in_cycle(&self, uid: &str) -> bool {
        let graph = self.graph.lock();
        graph.dependents(uid).iter().any(|dependent| graph.get(dependent).is_some_and(|member| member.foreground))
    }

    /// Lets an object go whose blocking dependents are gone, or looks at those that are not.
    async fn finish_foreground(&self, uid: &str, member: &Member, live: &ObjectMeta) -> Result<(), Error> {
        let blocking: Vec<String> = {
            let graph = self.graph.lock();
            let blocks = |dependent: &String| {
                let owners = graph.get(dependent).map(|member| member.owners.as_slice()).unwrap_or_default();
                owners.iter().any(|owner| owner.uid == uid && owner.block_owner_deletion == Some(true))
            };
            graph.dependents(uid).into_iter().filter(blocks).collect()
        };
        if blocking.is_empty() {
            return self.drop_finalizer(member, live, FOREGROUND).await;
        }
        for dependent in blocking {
            if self.graph.lock().get(&dependent).is_some_and(|member| !member.deleting) {
                self.queue.add(ObjectKey::cluster(dependent));
            }
        }
        Ok(())
    }

    /// Takes the owner out of its dependents, then lets it go.
    async fn orphan(&self, uid: &str, member: &Member, live: &ObjectMeta) -> Result<(), Error> {
        let dependents = self.graph.lock().dependents(uid);
        let released = dependents.into_iter().map(|dependent| async move {
            let Some(member) = self.graph.lock().get(&dependent).cloned() else { return Ok(()) };
            let Some(live) = self.read(&member.resource, &member.key).await? else { return Ok(()) };
            let owners = live.owner_references.clone().unwrap_or_default();
            let keep: Vec<_> = owners.iter().filter(|owner| owner.uid != uid).collect();
            if keep.len() == owners.len() || live.uid.as_deref() != Some(dependent.as_str()) {
                return Ok(());
            }
            self.patch(&member, &live, json!({"ownerReferences": keep})).await
        });
        crate::pod_control::several(join_all(released).await)?;
        self.drop_finalizer(member, live, ORPHAN).await
    }

    async fn drop_finalizer(&self, member: &Member, live: &ObjectMeta, finalizer: &str) -> Result<(), Error> {
        let keep: Vec<_> = live.finalizers.iter().flatten().filter(|own| *own != finalizer).collect();
        self.patch(member, live, json!({"finalizers": keep})).await
    }

    async fn read(&self, resource: &Served, key: &ObjectKey) -> Result<Option<ObjectMeta>, Error> {
        let request = Request::new(resource.path(&key.namespace)).get_metadata(&key.name, &GetParams::default());
        match self.send::<PartialObjectMeta<DynamicObject>>("get", resource, key, request).await {
            Ok(object) => Ok(Some(object.metadata)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Patches metadata if the object is still as read.
    async fn patch(&self, member: &Member, live: &ObjectMeta, mut metadata: Value) -> Result<(), Error> {
        metadata["uid"] = json!(live.uid);
        metadata["resourceVersion"] = json!(live.resource_version);
        let patch = Patch::Merge(json!({"metadata": metadata}));
        let Member { resource, key, .. } = member;
        let request = Request::new(resource.path(&key.namespace)).patch(&key.name, &PatchParams::default(), &patch);
        match self.send::<Value>("patch", resource, key, request).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    async fn delete(
        &self,
        uid: &str,
        member: &Member,
        revision: Option<String>,
        policy: PropagationPolicy,
    ) -> Result<(), Error> {
        let params = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(Preconditions { uid: Some(uid.to_string()), resource_version: revision }),
            ..DeleteParams::default()
        };
        let Member { resource, key, .. } = member;
        let request = Request::new(resource.path(&key.namespace)).delete(&key.name, &params);
        match self.send::<Value>("delete", resource, key, request).await {
            Ok(_) => {
                tracing::debug!(resource = resource.name(), name = %key, "deleted after its owners");
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn send<T: serde::de::DeserializeOwned>(
        &self,
        verb: &'static str,
        resource: &Served,
        key: &ObjectKey,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<T, Error> {
        let answer = match request.map_err(kube::Error::BuildRequest) {
            Ok(request) => self.context.client.request(request).await,
            Err(error) => Err(error),
        };
        answer.map_err(|source| Error::Request {
            verb,
            kind: resource.resource.kind.clone(),
            key: key.clone(),
            source: Box::new(source),
        })
    }
}
