//! ConfigMaps and Secrets that the node's pods refer to: one watch for each object, as long as a pod needs it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kminik_client::{Informer, Informers, ObjectKey, Selection, Subscription};
use kube::Resource;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

/// How long a pod waits for the first answer about an object.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// The API did not answer in time.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("timed out waiting for the condition: {kind} {key} could not be read")]
pub(crate) struct Unanswered {
    pub kind: &'static str,
    pub key: ObjectKey,
}

type Users = Arc<Mutex<BTreeSet<String>>>;

struct Tracked<K> {
    informer: Informer<K>,
    users: Users,
    stop: CancellationToken,
    _told: Subscription,
}

/// The objects of one kind.
struct Kept<K> {
    kind: &'static str,
    tracked: Mutex<HashMap<ObjectKey, Tracked<K>>>,
}

impl<K> Kept<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Send + Sync + 'static,
{
    fn new(kind: &'static str) -> Self {
        Self { kind, tracked: Mutex::new(HashMap::new()) }
    }

    fn informer(
        &self,
        informers: &Informers,
        changed: &Changed,
        stop: &CancellationToken,
        user: &str,
        key: &ObjectKey,
    ) -> Informer<K> {
        let mut tracked = self.tracked.lock();
        let entry = tracked.entry(key.clone()).or_insert_with(|| {
            let stop = stop.child_token();
            let selection = Selection {
                namespace: Some(key.namespace.clone()),
                fields: Some(format!("metadata.name={}", key.name)),
                labels: None,
            };
            let informer = informers.start_dynamic::<K>(&(), &selection, &stop);
            let users: Users = Arc::default();
            let (told, changed) = (users.clone(), changed.clone());
            let subscription = informer.subscribe(move |_| {
                let users: Vec<String> = told.lock().iter().cloned().collect();
                users.iter().for_each(|user| changed(user));
            });
            Tracked { informer, users, stop, _told: subscription }
        });
        entry.users.lock().insert(user.to_string());
        entry.informer.clone()
    }

    fn release(&self, user: &str) {
        let mut ended = Vec::new();
        let mut tracked = self.tracked.lock();
        tracked.retain(|_, entry| {
            let mut users = entry.users.lock();
            users.remove(user);
            let keep = !users.is_empty();
            if !keep {
                ended.push(entry.stop.clone());
            }
            keep
        });
        ended.iter().for_each(CancellationToken::cancel);
    }
}

/// Told the UID of a pod when an object it uses changes.
pub(crate) type Changed = Arc<dyn Fn(&str) + Send + Sync>;

/// See the module.
pub(crate) struct Objects {
    informers: Informers,
    changed: Changed,
    stop: CancellationToken,
    config_maps: Kept<ConfigMap>,
    secrets: Kept<Secret>,
}

impl Objects {
    pub(crate) fn new(informers: Informers, changed: Changed, stop: CancellationToken) -> Self {
        Self { informers, changed, stop, config_maps: Kept::new("configmap"), secrets: Kept::new("secret") }
    }

    /// The ConfigMap, watched for the pod from now on; `None` if the API has none.
    pub(crate) async fn config_map(&self, pod: &str, key: &ObjectKey) -> Result<Option<Arc<ConfigMap>>, Unanswered> {
        self.get(&self.config_maps, pod, key).await
    }

    /// The Secret, watched for the pod from now on; `None` if the API has none.
    pub(crate) async fn secret(&self, pod: &str, key: &ObjectKey) -> Result<Option<Arc<Secret>>, Unanswered> {
        self.get(&self.secrets, pod, key).await
    }

    /// The pod needs none of its objects any more.
    pub(crate) fn release(&self, pod: &str) {
        self.config_maps.release(pod);
        self.secrets.release(pod);
    }

    async fn get<K>(&self, kept: &Kept<K>, pod: &str, key: &ObjectKey) -> Result<Option<Arc<K>>, Unanswered>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Send + Sync + 'static,
    {
        let informer = kept.informer(&self.informers, &self.changed, &self.stop, pod, key);
        let synced = tokio::time::timeout(FIRST_ANSWER, informer.wait_synced()).await;
        if synced != Ok(true) {
            return Err(Unanswered { kind: kept.kind, key: key.clone() });
        }
        Ok(informer.get(key))
    }
}
