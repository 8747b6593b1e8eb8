//! An informer: the current objects of one kind, kept by one watch, with indexes and subscriptions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::ops::Bound;
use std::sync::{Arc, Weak};

use kube::Resource;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::key::{ObjectKey, revision_of};
use crate::queue::WorkQueue;

/// One change of one object, told to subscribers after the cache holds it.
#[derive(Debug)]
pub enum Change<K> {
    Added(Arc<K>),
    Updated {
        old: Arc<K>,
        new: Arc<K>,
    },
    /// The last state known; after a lost watch this may be older than the one deleted.
    Deleted(Arc<K>),
}

impl<K> Change<K> {
    /// The newest state the change tells of.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Change::Added(object) | Change::Deleted(object) => object,
            Change::Updated { new, .. } => new,
        }
    }

    /// The state before an update; `None` for additions and deletions.
    pub fn old(&self) -> Option<&Arc<K>> {
        match self {
            Change::Updated { old, .. } => Some(old),
            Change::Added(_) | Change::Deleted(_) => None,
        }
    }
}

/// How far an informer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) synced: bool,
    pub(crate) revision: u64,
    pub(crate) ended: bool,
}

type IndexFn<K> = Box<dyn Fn(&K) -> Vec<String> + Send + Sync>;
type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

struct Index<K> {
    values_of: IndexFn<K>,
    keys: HashMap<String, BTreeSet<ObjectKey>>,
}

impl<K> Index<K> {
    fn insert(&mut self, key: &ObjectKey, object: &K) {
        for value in (self.values_of)(object) {
            self.keys.entry(value).or_default().insert(key.clone());
        }
    }

    fn remove(&mut self, key: &ObjectKey, object: &K) {
        for value in (self.values_of)(object) {
            if let Some(keys) = self.keys.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(&value);
                }
            }
        }
    }
}

struct Cache<K> {
    objects: BTreeMap<ObjectKey, Arc<K>>,
    indexes: HashMap<&'static str, Index<K>>,
}

#[derive(Default)]
struct Handlers<K> {
    next_id: u64,
    by_id: BTreeMap<u64, Handler<K>>,
}

struct Shared<K> {
    cache: RwLock<Cache<K>>,
    /// Held while a change is applied and told, so that a new subscriber misses nothing and hears nothing twice.
    handlers: Mutex<Handlers<K>>,
    progress: watch::Sender<Progress>,
}

/// The objects of one kind as the watch last told of them. Cheap to clone; all clones share one cache.
pub struct Informer<K>(Arc<Shared<K>>);

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Ends a subscription when dropped.
#[must_use = "the subscription ends when this is dropped"]
pub struct Subscription(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(end) = self.0.take() {
            end();
        }
    }
}

impl<K: Resource + Send + Sync + 'static> Informer<K> {
    pub(crate) fn empty() -> Self {
        Self(Arc::new(Shared {
            cache: RwLock::new(Cache { objects: BTreeMap::new(), indexes: HashMap::new() }),
            handlers: Mutex::new(Handlers { next_id: 0, by_id: BTreeMap::new() }),
            progress: watch::channel(Progress::default()).0,
        }))
    }

    /// The object of that name, if the cache holds one.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.0.cache.read().objects.get(key).cloned()
    }

    /// All objects, by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.0.cache.read().objects.values().cloned().collect()
    }

    /// The objects of one namespace, by name.
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        let start = ObjectKey::new(namespace, "");
        let cache = self.0.cache.read();
        let range = cache.objects.range((Bound::Included(start), Bound::Unbounded));
        range.take_while(|(key, _)| key.namespace == namespace).map(|(_, object)| object.clone()).collect()
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.0.cache.read().objects.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds an index, once: a later one of the same name is ignored. `values_of` gives the values an object is found under.
    pub fn add_index(&self, name: &'static str, values_of: impl Fn(&K) -> Vec<String> + Send + Sync + 'static) {
        let mut cache = self.0.cache.write();
        let Cache { objects, indexes } = &mut *cache;
        indexes.entry(name).or_insert_with(|| {
            let mut index = Index { values_of: Box::new(values_of), keys: HashMap::new() };
            for (key, object) in objects.iter() {
                index.insert(key, object);
            }
            index
        });
    }

    /// The objects found under `value` in an index; none if the index was never added.
    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        let cache = self.0.cache.read();
        let Some(keys) = cache.indexes.get(name).and_then(|index| index.keys.get(value)) else { return Vec::new() };
        keys.iter().filter_map(|key| cache.objects.get(key).cloned()).collect()
    }

    /// Calls `handler` for every object there is (as [`Change::Added`]) and then for every change, in order, until the
    /// subscription is dropped. The handler runs inside the informer's task: it must not block and must not
    /// subscribe to the same informer; it may read caches.
    pub fn subscribe(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) -> Subscription {
        let mut handlers = self.0.handlers.lock();
        for object in self.list() {
            handler(&Change::Added(object));
        }
        let id = handlers.next_id;
        handlers.next_id += 1;
        handlers.by_id.insert(id, Box::new(handler));
        let shared: Weak<Shared<K>> = Arc::downgrade(&self.0);
        Subscription(Some(Box::new(move || {
            if let Some(shared) = shared.upgrade() {
                // Dropped outside the lock: a handler may own what subscribes elsewhere.
                let handler = shared.handlers.lock().by_id.remove(&id);
                drop(handler);
            }
        })))
    }

    /// Subscribes a queue: every change adds the object's own key.
    pub fn enqueue(&self, queue: &WorkQueue<ObjectKey>) -> Subscription {
        self.enqueue_with(queue, |object, keys| keys.push(ObjectKey::of(object)))
    }

    /// Subscribes a queue: every change adds the keys that `keys_of` names for the new and for the old state.
    pub fn enqueue_with<Q: Clone + Ord + Hash + Send + Sync + 'static>(
        &self,
        queue: &WorkQueue<Q>,
        keys_of: impl Fn(&K, &mut Vec<Q>) + Send + Sync + 'static,
    ) -> Subscription {
        let queue = queue.clone();
        self.subscribe(move |change| {
            let mut keys = Vec::new();
            if let Some(old) = change.old() {
                keys_of(old, &mut keys);
            }
            keys_of(change.object(), &mut keys);
            for key in keys {
                queue.add(key);
            }
        })
    }

    /// The first list has been read completely.
    pub fn has_synced(&self) -> bool {
        self.0.progress.borrow().synced
    }

    /// Every change up to and including this store revision that concerns the kind is in the cache.
    pub fn seen_revision(&self) -> u64 {
        self.0.progress.borrow().revision
    }

    /// Waits for the first list. `false` if the informer was stopped before.
    pub async fn wait_synced(&self) -> bool {
        self.wait_until(|progress| progress.synced).await
    }

    /// Waits until the cache holds every change up to `revision`. `false` if the informer was stopped before.
    /// A revision of another kind may take until the next bookmark: wait for what was written to this kind.
    pub async fn wait_revision(&self, revision: u64) -> bool {
        self.wait_until(|progress| progress.revision >= revision).await
    }

    /// Waits until `done` holds for the objects, once the first list has been read. `false` if the informer was stopped before.
    pub async fn wait_for(&self, done: impl Fn(&[Arc<K>]) -> bool) -> bool {
        self.wait_until(|progress| progress.synced && done(&self.list())).await
    }

    async fn wait_until(&self, reached: impl Fn(&Progress) -> bool) -> bool {
        let mut progress = self.0.progress.subscribe();
        match progress.wait_for(|progress| reached(progress) || progress.ended).await {
            Ok(progress) => reached(&progress),
            Err(_) => false,
        }
    }

    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.0.progress.subscribe()
    }

    /// Puts an object that a list or a watch brought into the cache and tells of it.
    pub(crate) fn apply(&self, mut object: K, revision: u64) {
        strip(&mut object);
        let handlers = self.0.handlers.lock();
        self.apply_locked(&handlers, object);
        self.advance(revision);
    }

    /// Takes an object that a watch told deleted out of the cache; `last` is what the watch said of it.
    pub(crate) fn remove(&self, mut last: K, revision: u64) {
        strip(&mut last);
        let handlers = self.0.handlers.lock();
        let key = ObjectKey::of(&last);
        self.remove_locked(&handlers, &key, Some(Arc::new(last)));
        self.advance(revision);
    }

    /// Makes the cache equal to a complete list read at `revision`.
    pub(crate) fn replace(&self, objects: Vec<K>, revision: u64) {
        let handlers = self.0.handlers.lock();
        let listed: BTreeSet<ObjectKey> = objects.iter().map(ObjectKey::of).collect();
        let gone: Vec<ObjectKey> =
            self.0.cache.read().objects.keys().filter(|key| !listed.contains(*key)).cloned().collect();
        for key in gone {
            self.remove_locked(&handlers, &key, None);
        }
        for mut object in objects {
            strip(&mut object);
            self.apply_locked(&handlers, object);
        }
        self.0.progress.send_modify(|progress| {
            progress.synced = true;
            progress.revision = progress.revision.max(revision);
        });
    }

    /// Records progress without a change (a bookmark).
    pub(crate) fn advance(&self, revision: u64) {
        self.0.progress.send_if_modified(|progress| {
            let further = revision > progress.revision;
            progress.revision = progress.revision.max(revision);
            further
        });
    }

    pub(crate) fn end(&self) {
        self.0.progress.send_modify(|progress| progress.ended = true);
    }

    fn apply_locked(&self, handlers: &Handlers<K>, object: K) {
        let key = ObjectKey::of(&object);
        let object = Arc::new(object);
        let old = {
            let mut cache = self.0.cache.write();
            if let Some(old) = cache.objects.get(&key)
                && same_state(old.as_ref(), object.as_ref())
            {
                return;
            }
            let old = cache.objects.insert(key.clone(), object.clone());
            for index in cache.indexes.values_mut() {
                if let Some(old) = &old {
                    index.remove(&key, old);
                }
                index.insert(&key, &object);
            }
            old
        };
        let replaced = old.as_ref().is_some_and(|old| old.meta().uid != object.meta().uid);
        match old {
            // Deleted and created again while nobody watched: two objects, so two changes.
            Some(old) if replaced => {
                tell(handlers, &Change::Deleted(old));
                tell(handlers, &Change::Added(object));
            }
            Some(old) => tell(handlers, &Change::Updated { old, new: object }),
            None => tell(handlers, &Change::Added(object)),
        }
    }

    fn remove_locked(&self, handlers: &Handlers<K>, key: &ObjectKey, last: Option<Arc<K>>) {
        let old = {
            let mut cache = self.0.cache.write();
            let old = cache.objects.remove(key);
            if let Some(old) = &old {
                for index in cache.indexes.values_mut() {
                    index.remove(key, old);
                }
            }
            old
        };
        if let Some(old) = old {
            tell(handlers, &Change::Deleted(last.unwrap_or(old)));
        }
    }
}

fn tell<K>(handlers: &Handlers<K>, change: &Change<K>) {
    for handler in handlers.by_id.values() {
        handler(change);
    }
}

fn same_state<K: Resource>(a: &K, b: &K) -> bool {
    let (a, b) = (a.meta(), b.meta());
    a.uid == b.uid && a.resource_version.is_some() && revision_of(a) == revision_of(b)
}

/// Field ownership is most of a small object's size and no reader of a cache needs it.
fn strip<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}
