//! The informers of a process: one watch for each kind and selection, however many ask for it.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

use kube::Resource;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::informer::Informer;
use crate::list_watch::{Source, run};

/// Which objects of a kind an informer keeps; the default is all of them in all namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selection {
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Label selector, in the API's text form.
    pub labels: Option<String>,
    /// Field selector, for example `spec.nodeName=a`.
    pub fields: Option<String>,
}

impl Selection {
    /// All objects that a field selector admits.
    pub fn fields(selector: impl Into<String>) -> Self {
        Self { fields: Some(selector.into()), ..Self::default() }
    }

    /// All objects that a label selector admits.
    pub fn labels(selector: impl Into<String>) -> Self {
        Self { labels: Some(selector.into()), ..Self::default() }
    }

    /// The one object of that name, in any namespace.
    pub fn object(name: &str) -> Self {
        Self::fields(format!("metadata.name={name}"))
    }

    /// All objects of a namespace.
    pub fn namespace(namespace: impl Into<String>) -> Self {
        Self { namespace: Some(namespace.into()), ..Self::default() }
    }
}

/// Watches some objects of a kind until `done` holds for them. Failed requests are tried again: the caller bounds it.
pub async fn until<K>(
    client: &kube::Client,
    kind: &K::DynamicType,
    selection: &Selection,
    done: impl Fn(&[Arc<K>]) -> bool,
) where
    K: Resource + Clone + DeserializeOwned + Send + Sync + 'static,
{
    let stop = CancellationToken::new();
    let _ends_with_this = stop.clone().drop_guard();
    let informers = Informers::new(client.clone(), stop.clone());
    informers.start_dynamic::<K>(kind, selection, &stop).wait_for(done).await;
}

type Running = HashMap<(TypeId, Selection), Box<dyn Any + Send>>;

struct Shared {
    client: kube::Client,
    stop: CancellationToken,
    running: Mutex<Running>,
}

/// Gives out informers, starting each when it is first asked for. Cheap to clone. All of them read through one client,
/// and end with one token.
#[derive(Clone)]
pub struct Informers(Arc<Shared>);

impl Informers {
    /// Nothing is watched yet. Must be used inside a tokio runtime.
    pub fn new(client: kube::Client, stop: CancellationToken) -> Self {
        Self(Arc::new(Shared { client, stop, running: Mutex::new(HashMap::new()) }))
    }

    /// The informer of all objects of a kind.
    pub fn get<K>(&self) -> Informer<K>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Send + Sync + 'static,
    {
        self.get_with(Selection::default())
    }

    /// The informer of some objects of a kind.
    pub fn get_with<K>(&self, selection: Selection) -> Informer<K>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Send + Sync + 'static,
    {
        let mut running = self.0.running.lock();
        let key = (TypeId::of::<K>(), selection);
        if let Some(informer) = running.get(&key).and_then(|any| any.downcast_ref::<Informer<K>>()) {
            return informer.clone();
        }
        let informer = self.start::<K>(&(), &key.1, &self.0.stop);
        running.insert(key, Box::new(informer.clone()));
        informer
    }

    /// A new informer of a kind known only at run time (discovery); it is not shared and ends with `stop`.
    /// With `K` = `PartialObjectMeta<DynamicObject>` only metadata is read.
    pub fn start_dynamic<K>(
        &self,
        kind: &K::DynamicType,
        selection: &Selection,
        stop: &CancellationToken,
    ) -> Informer<K>
    where
        K: Resource + Clone + DeserializeOwned + Send + Sync + 'static,
    {
        self.start(kind, selection, stop)
    }

    fn start<K>(&self, kind: &K::DynamicType, selection: &Selection, stop: &CancellationToken) -> Informer<K>
    where
        K: Resource + Clone + DeserializeOwned + Send + Sync + 'static,
    {
        let informer = Informer::empty();
        let source = Source {
            url: K::url_path(kind, selection.namespace.as_deref()),
            labels: selection.labels.clone(),
            fields: selection.fields.clone(),
        };
        tokio::spawn(run(self.0.client.clone(), source, informer.clone(), stop.clone()));
        informer
    }

    /// The client that the informers read through.
    pub fn client(&self) -> &kube::Client {
        &self.0.client
    }
}
