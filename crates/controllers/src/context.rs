//! What a controller works with: its client, the shared informers, its events and its writes.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use k8s_openapi::Resource as _;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kminik_base::component::Ready;
use kminik_client::{Informer, Informers, Next, ObjectKey, Recorder, WorkQueue, Worker, Writes};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{DynamicObject, GroupVersionKind, Request};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::config::ControllersConfig;
use crate::diff::{merge_patch, replaces_list};
use crate::error::Error;

/// How long a key waits for the caches to see its own writes before it is put back.
const SETTLE: Duration = Duration::from_secs(10);

/// Everything a running controller is given. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) name: &'static str,
    /// Writes under the controller's own identity.
    pub(crate) client: kube::Client,
    pub(crate) informers: Informers,
    pub(crate) recorder: Recorder,
    pub(crate) config: Arc<ControllersConfig>,
    pub(crate) stop: CancellationToken,
    pub(crate) ready: Ready,
    writes: Arc<Writes<ObjectKey>>,
}

/// Bounds of what the write helpers take: a typed kind.
pub(crate) trait Kind:
    Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
}

impl<K> Kind for K where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync + 'static
{
}

impl Context {
    pub(crate) fn new(
        name: &'static str,
        identity: &str,
        config: Arc<ControllersConfig>,
        stop: CancellationToken,
        ready: Ready,
    ) -> Self {
        let client = (config.client_for)(identity);
        Self {
            name,
            recorder: Recorder::new(client.clone(), name, "", stop.clone()),
            client,
            informers: config.informers.clone(),
            config,
            stop,
            ready,
            writes: Arc::default(),
        }
    }

    /// Reconciles the queue's keys until the controller is stopped, once all `synced` futures said `true`.
    pub(crate) async fn work<F, R>(
        &self,
        queue: WorkQueue<ObjectKey>,
        concurrency: usize,
        synced: impl IntoIterator<Item = BoxFuture<'_, bool>>,
        reconcile: F,
    ) -> Result<(), Error>
    where
        F: Fn(ObjectKey) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Result<Next, Error>> + Send + 'static,
    {
        let Some(synced) = self.stop.run_until_cancelled(join_all(synced)).await else { return Ok(()) };
        if synced.contains(&false) {
            return Err(Error::InformersStopped);
        }
        self.ready.set_ready();
        let writes = self.writes.clone();
        Worker::new(self.name, queue, concurrency)
            .run(&self.stop, move |key| {
                let (writes, reconcile) = (writes.clone(), reconcile.clone());
                async move {
                    writes.settled(&key, SETTLE).await?;
                    reconcile(key).await
                }
            })
            .await;
        Ok(())
    }

    /// [`Context::work`] over all objects of one kind, one at a time.
    pub(crate) async fn work_on<K, F, R>(&self, objects: &Informer<K>, reconcile: F) -> Result<(), Error>
    where
        K: Kind,
        F: Fn(ObjectKey) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Result<Next, Error>> + Send + 'static,
    {
        let queue = WorkQueue::new();
        let _subscription = objects.enqueue(&queue);
        self.work(queue, 1, [objects.wait_synced().boxed()], reconcile).await
    }

    /// Creates an object for `key`; its namespace is the object's own.
    pub(crate) async fn create<K: Kind>(
        &self,
        key: &ObjectKey,
        informer: &Informer<K>,
        object: &K,
    ) -> Result<K, Error> {
        let target = ObjectKey::of(object);
        let body = serde_json::to_vec(object).map_err(|source| Error::Encode {
            kind: K::kind(&()).into_owned(),
            key: target.clone(),
            source,
        })?;
        let request = collection::<K>(&target).create(&PostParams::default(), body);
        let created = self.send::<K, K>("create", &target, request).await?;
        self.writes.wrote(key, informer, &created);
        Ok(created)
    }

    /// Merge-patches an object (or, with `subresource`, part of it) for `key`.
    pub(crate) async fn patch<K: Kind>(
        &self,
        key: &ObjectKey,
        informer: &Informer<K>,
        target: &ObjectKey,
        subresource: Option<&str>,
        patch: &Patch<Value>,
    ) -> Result<K, Error> {
        let params = PatchParams::default();
        let request = match subresource {
            Some(sub) => collection::<K>(target).patch_subresource(sub, &target.name, &params, patch),
            None => collection::<K>(target).patch(&target.name, &params, patch),
        };
        let patched = self.send::<K, K>("patch", target, request).await?;
        self.writes.wrote(key, informer, &patched);
        Ok(patched)
    }

    /// Makes `new` of `old`, as read, by a patch of what differs outside `status`. Where the patch replaces a list it is refused if
    /// someone else wrote in between; other fields are changed whatever else was. The newest state, or `None` if nothing differs.
    pub(crate) async fn update<K: Kind>(
        &self,
        key: &ObjectKey,
        informer: &Informer<K>,
        old: &K,
        new: &K,
    ) -> Result<Option<K>, Error> {
        let Some(patch) = difference(old, new)? else { return Ok(None) };
        let exact = replaces_list(&patch);
        self.write_difference(key, informer, old, patch, exact, None).await
    }

    /// As [`Context::update`], through the door of the status: for notes in the metadata that are no change of what is wished for.
    pub(crate) async fn update_notes<K: Kind>(
        &self,
        key: &ObjectKey,
        informer: &Informer<K>,
        old: &K,
        new: &K,
    ) -> Result<Option<K>, Error> {
        let Some(patch) = difference(old, new)? else { return Ok(None) };
        self.write_difference(key, informer, old, patch, false, Some("status")).await
    }

    /// As [`Context::update`], refused if anyone wrote the object since it was read: for claims that only one may make.
    pub(crate) async fn update_exact<K: Kind>(
        &self,
        key: &ObjectKey,
        informer: &Informer<K>,
        old: &K,
        new: &K,
    ) -> Result<Option<K>, Error> {
        let Some(patch) = difference(old, new)? else { return Ok(None) };
        self.write_difference(key, informer, old, patch, true, None).await
    }

    async fn write_difference<K: Kind>(
        &self,
        key: &ObjectKey,
        informer: &Informer<K>,
        old: &K,
        mut patch: Value,
        exact: bool,
        door: Option<&str>,
    ) -> Result<Option<K>, Error> {
        patch["metadata"]["uid"] = json!(old.meta().uid);
        if exact {
            patch["metadata"]["resourceVersion"] = json!(old.meta().resource_version);
        }
        self.patch(key, informer, &ObjectKey::of(old), door, &Patch::Merge(patch)).await.map(Some)
    }

    /// Makes the status of `new` that of the object read as `old`. `None` if they are equal.
    pub(crate) async fn update_status<K: Kind>(
        &self,
        key: &ObjectKey,
        informer: &Informer<K>,
        old: &K,
        new: &K,
    ) -> Result<Option<K>, Error> {
        self.write_status(key, informer, old, new, false).await
    }

    /// As [`Context::update_status`], refused if anyone wrote the object since it was read.
    pub(crate) async fn update_status_exact<K: Kind>(
        &self,
        key: &ObjectKey,
        informer: &Informer<K>,
        old: &K,
        new: &K,
    ) -> Result<Option<K>, Error> {
        self.write_status(key, informer, old, new, true).await
    }

    async fn write_status<K: Kind>(
        &self,
        key: &ObjectKey,
        informer: &Informer<K>,
        old: &K,
        new: &K,
        exact: bool,
    ) -> Result<Option<K>, Error> {
        let (before, after) = (encode(old)?, encode(new)?);
        let (before, after) = (before.get("status"), after.get("status"));
        let (empty, after) = (json!({}), after.cloned().unwrap_or_else(|| json!({})));
        let Some(status) = merge_patch(before.unwrap_or(&empty), &after) else { return Ok(None) };
        let mut patch = json!({"metadata": {"uid": old.meta().uid}, "status": status});
        if exact {
            patch["metadata"]["resourceVersion"] = json!(old.meta().resource_version);
        }
        self.patch(key, informer, &ObjectKey::of(old), Some("status"), &Patch::Merge(patch)).await.map(Some)
    }

    /// Deletes exactly the object read (by uid), and says whether it did: that it has gone or changed already is no failure.
    /// `options` may set grace, propagation, or that it must not have changed.
    pub(crate) async fn delete<K: Kind>(
        &self,
        key: &ObjectKey,
        informer: &Informer<K>,
        object: &K,
        mut options: DeleteParams,
    ) -> Result<bool, Error> {
        let target = ObjectKey::of(object);
        let precondition = options.preconditions.get_or_insert_with(Preconditions::default);
        precondition.uid = object.meta().uid.clone();
        let request = collection::<K>(&target).delete(&target.name, &options);
        match self.send::<K, Value>("delete", &target, request).await {
            Ok(_) => {
                self.writes.deleted(key, informer, object);
                Ok(true)
            }
            // Gone, or another object of that name by now.
            Err(error) if error.is_not_found() || error.request().is_some_and(kminik_client::is_conflict) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks for a token of a service account.
    pub(crate) async fn request_token(
        &self,
        account: &ObjectKey,
        request: &TokenRequest,
    ) -> Result<TokenRequest, Error> {
        let body = serde_json::to_vec(request).map_err(|source| Error::Encode {
            kind: TokenRequest::KIND.into(),
            key: account.clone(),
            source,
        })?;
        let request = collection::<ServiceAccount>(account).create_subresource(
            "token",
            &account.name,
            &PostParams::default(),
            body,
        );
        self.send::<ServiceAccount, TokenRequest>("create a token of", account, request).await
    }

    /// The replicas that the owner of an object wants by its scale, whatever kind it is of. `None` if there is no such owner.
    pub(crate) async fn scale_of(&self, namespace: &str, owner: &OwnerReference) -> Result<Option<i32>, Error> {
        let target = ObjectKey::new(namespace, owner.name.clone());
        let failed = |source| Error::Request {
            verb: "read the scale of",
            kind: owner.kind.clone(),
            key: target.clone(),
            source: Box::new(source),
        };
        let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
        let kind = GroupVersionKind::gvk(group, version, &owner.kind);
        let resource = match kube::discovery::oneshot::pinned_kind(&self.client, &kind).await {
            Ok((resource, _)) => resource,
            Err(kube::Error::Discovery(_)) => return Ok(None),
            Err(error) if kminik_client::is_not_found(&error) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let owners: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
        match owners.get_scale(&owner.name).await {
            Ok(scale) if scale.metadata.uid.as_ref() == Some(&owner.uid) => {
                Ok(Some(scale.spec.and_then(|spec| spec.replicas).unwrap_or_default()))
            }
            Ok(_) => Ok(None),
            Err(error) if kminik_client::is_not_found(&error) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Reads an object past the cache. `None` if it does not exist.
    pub(crate) async fn read<K: Kind>(&self, target: &ObjectKey) -> Result<Option<K>, Error> {
        let request = collection::<K>(target).get(&target.name, &Default::default());
        match self.send::<K, K>("get", target, request).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lists the objects of a namespace past the cache.
    pub(crate) async fn list<K: Kind>(&self, namespace: &str) -> Result<Vec<K>, Error> {
        let target = ObjectKey::new(namespace, "");
        let request = collection::<K>(&target).list(&Default::default());
        self.send::<K, kube::core::ObjectList<K>>("list", &target, request).await.map(|list| list.items)
    }

    async fn send<K: Kind, T: DeserializeOwned>(
        &self,
        verb: &'static str,
        target: &ObjectKey,
        request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<T, Error> {
        let answer = match request.map_err(kube::Error::BuildRequest) {
            Ok(request) => self.client.request(request).await,
            Err(error) => Err(error),
        };
        answer.map_err(|source| Error::Request {
            verb,
            kind: K::kind(&()).into_owned(),
            key: target.clone(),
            source: Box::new(source),
        })
    }
}

fn collection<K: Kind>(target: &ObjectKey) -> Request {
    let namespace = Some(target.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    Request::new(K::url_path(&(), namespace))
}

/// The patch of what differs outside `status`.
fn difference<K: Kind>(old: &K, new: &K) -> Result<Option<Value>, Error> {
    let (mut before, mut after) = (encode(old)?, encode(new)?);
    for value in [&mut before, &mut after] {
        if let Value::Object(fields) = value {
            fields.remove("status");
        }
    }
    Ok(merge_patch(&before, &after))
}

fn encode<K: Kind>(object: &K) -> Result<Value, Error> {
    serde_json::to_value(object).map_err(|source| Error::Encode {
        kind: K::kind(&()).into_owned(),
        key: ObjectKey::of(object),
        source,
    })
}
