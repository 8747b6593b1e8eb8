//! Deletes objects whose owners are all gone, and carries out foreground and orphaning deletion.
//!
//! Every resource that can be listed, watched and deleted is followed by a watch of its metadata; [`graph`] keeps who owns whom by uid. The
//! graph only says what to look at: before anything is deleted the object and each owner that counts are read live, because a cache may
//! be behind (an owner just created looks like one that is gone). An object is deleted with a precondition on its uid and revision.

mod graph;
mod kinds;

use std::collections::HashSet;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::join_all;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kminik_client::{EventType, Next, ObjectKey, WorkQueue};
use kube::api::{DeleteParams, DynamicObject, GetParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::{PartialObjectMeta, Request};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::context::Context;
use crate::discovery::Served;
use crate::error::Error;
use graph::{FOREGROUND, Graph, Member, ORPHAN};
use kinds::Kinds;

const WORKERS: usize = 8;

struct Controller {
    context: Context,
    graph: Arc<Mutex<Graph>>,
    kinds: Arc<Kinds>,
    queue: WorkQueue<ObjectKey>,
}

pub(crate) async fn run(context: Context) -> Result<(), Error> {
    let graph: Arc<Mutex<Graph>> = Arc::default();
    let queue = WorkQueue::new();
    let kinds = Kinds::new(context.clone(), graph.clone(), queue.clone());
    let controller =
        Arc::new(Controller { graph, kinds: kinds.clone(), queue: queue.clone(), context: context.clone() });
    let synced = [kinds.wait_started().boxed()];
    // What the first lists put on the queue may name owners of kinds listed later: the live reads decide.
    let work = context.work(queue, WORKERS, synced, move |key| reconcile(controller.clone(), key));
    tokio::select! {
        done = work => done,
        () = kinds.clone().run() => Ok(()),
    }
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
        let (owned, elsewhere) = {
            let graph = self.graph.lock();
            let namespace = member.key.namespace.as_str();
            let stays = |owner: &OwnerReference| {
                let there = graph.get(&owner.uid);
                there.is_some_and(|there| !there.foreground && there.is_meant(owner, namespace))
            };
            let elsewhere =
                |owner: &&OwnerReference| graph.get(&owner.uid).is_some_and(|there| there.is_elsewhere(namespace));
            (member.owners.iter().all(stays), member.owners.iter().find(elsewhere).cloned())
        };
        let news = |owner: &OwnerReference| self.graph.lock().tell_elsewhere(uid, &owner.uid);
        if let Some(owner) = elsewhere.filter(news) {
            self.tell_elsewhere(uid, &member, &owner);
        }
        if owned && !member.foreground && !member.orphan {
            return Ok(());
        }
        let live = self.read(&member.resource, &member.key).await?;
        let Some(live) = live.filter(|live| live.uid.as_deref() == Some(uid)) else {
            // Gone before its event came; the event does the rest.
            return Ok(());
        };
        let fresh = Member::new(member.resource.clone(), &live);
        // Who depends on it is known for certain once every kind is followed.
        if (fresh.orphan || fresh.foreground) && self.kinds.hold(uid) {
            return Ok(());
        }
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
        if self.graph.lock().is_gone(&owner.uid) {
            return Ok(Owner::Gone);
        }
        let Some(resource) = self.kinds.of(owner) else {
            // A kind that is not served (any more, or yet) says nothing about its objects: deleting on it could be wrong. The object
            // is looked at again when other kinds are served.
            tracing::debug!(kind = owner.kind, name = %dependent.key, "owner of a kind that is not served");
            return Ok(Owner::There);
        };
        let namespace = if resource.namespaced { dependent.key.namespace.as_str() } else { "" };
        if resource.namespaced && namespace.is_empty() {
            // An object without a namespace cannot be owned by one that has one.
            return Ok(Owner::There);
        }
        let live = match self.read_live(&resource, &ObjectKey::new(namespace, owner.name.clone())).await {
            Ok(live) => Some(live),
            Err(error) if error.is_not_found() && !tells_of(&error, &owner.name) => return Ok(Owner::There),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
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
        match self.read_live(resource, key).await {
            Ok(live) => Ok(Some(live)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn read_live(&self, resource: &Served, key: &ObjectKey) -> Result<ObjectMeta, Error> {
        let request = Request::new(resource.path(&key.namespace)).get_metadata(&key.name, &GetParams::default());
        let object = self.send::<PartialObjectMeta<DynamicObject>>("get", resource, key, request).await?;
        Ok(object.metadata)
    }

    /// Says that a reference means an object of another namespace; upstream's words.
    fn tell_elsewhere(&self, uid: &str, member: &Member, owner: &OwnerReference) {
        let (resource, namespace) = (&member.resource.resource, &member.key.namespace);
        let about = ObjectReference {
            api_version: Some(resource.api_version.clone()),
            kind: Some(resource.kind.clone()),
            namespace: Some(namespace.clone()).filter(|namespace| !namespace.is_empty()),
            name: Some(member.key.name.clone()),
            uid: Some(uid.to_string()),
            ..ObjectReference::default()
        };
        let OwnerReference { api_version, kind, name, uid, .. } = owner;
        let message = format!(
            "ownerRef [{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}] does not exist in namespace \"{namespace}\""
        );
        self.context.recorder.event(about, EventType::Warning, "OwnerRefInvalidNamespace", message);
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

/// Whether a 404 is about this object, and not about its kind's path.
fn tells_of(error: &Error, name: &str) -> bool {
    match error.request() {
        Some(kube::Error::Api(status)) => status.details.as_ref().is_some_and(|details| details.name == name),
        _ => false,
    }
}
