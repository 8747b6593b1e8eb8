//! Which kinds the graph is made of: those that the API serves now, each followed by a watch of its metadata.
//!
//! ```text
//!  definition or API service changed ─► ask what is served ─► follow what is new, leave what is gone ─► first lists read
//!                                            ▲ not all seen yet: back-off │
//!                                            └────────────────────────────┘
//! ```
//! While a change is worked in, decisions that rest on knowing every dependent wait ([`Kinds::hold`]).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kminik_base::backoff::Backoff;
use kminik_client::{Change, Informer, ObjectKey, Selection, Subscription, WorkQueue, describe};
use kube::core::discovery::ApiResource;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::graph::{Graph, Member};
use crate::context::Context;
use crate::discovery::{Discovered, Served, deletable};
use crate::error::Error;
use crate::slim::{Definition, Slim};

/// Resources whose objects are many, own nothing and are owned by nothing.
const IGNORED: &[&str] = &["events", "events.events.k8s.io"];
/// API services that another server answers; the others are made by the API server itself.
const FOREIGN: &str = "!kube-aggregator.kubernetes.io/automanaged";
/// Changes come in groups; what one brings is asked for once.
const GATHER: Duration = Duration::from_millis(50);
/// Between two questions while what is served and what is defined differ. Another server's resources change without a word,
/// so with one there is no end to asking; upstream asks as often.
const AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// How long the API may take to say what it serves.
const DISCOVERED_WITHIN: Duration = Duration::from_secs(60);
/// How long a kind that cannot be listed holds up the others: once, and a shorter time if another server has its objects.
const LISTED_WITHIN: Duration = Duration::from_secs(30);
const LISTED_ELSEWHERE_WITHIN: Duration = Duration::from_secs(5);

/// A kind with its watch, which ends when this is dropped.
struct Followed {
    served: Arc<Served>,
    /// Another server has its objects.
    foreign: bool,
    /// It was waited for in vain. What it has comes when it comes.
    late: bool,
    informer: Informer<Slim>,
    _subscription: Subscription,
    _stop: DropGuard,
}

#[derive(Default)]
struct State {
    /// By name.
    followed: BTreeMap<String, Followed>,
    /// By group and kind, for owner references.
    kinds: HashMap<(String, String), Arc<Served>>,
    /// How many of the changes told are worked in.
    done: u64,
    /// Uids to be looked at when the change is worked in, and those that have waited so.
    held: HashSet<String>,
    released: HashSet<String>,
}

pub(super) struct Kinds {
    context: Context,
    graph: Arc<Mutex<Graph>>,
    queue: WorkQueue<ObjectKey>,
    /// Locked before the graph, and never by what an informer tells.
    state: Mutex<State>,
    /// How many changes were told.
    told: AtomicU64,
    changed: Notify,
    started: watch::Sender<bool>,
}

impl Kinds {
    pub(super) fn new(context: Context, graph: Arc<Mutex<Graph>>, queue: WorkQueue<ObjectKey>) -> Arc<Self> {
        Arc::new(Self {
            context,
            graph,
            queue,
            state: Mutex::default(),
            told: AtomicU64::new(0),
            changed: Notify::new(),
            started: watch::Sender::new(false),
        })
    }

    /// Waits until the graph holds what was served at the start.
    pub(super) async fn wait_started(&self) -> bool {
        self.started.subscribe().wait_for(|started| *started).await.is_ok()
    }

    /// The kind that a reference names; `None` if it is not served.
    pub(super) fn of(&self, owner: &OwnerReference) -> Option<Arc<Served>> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        self.state.lock().kinds.get(&(group.to_string(), owner.kind.clone())).cloned()
    }

    /// Whether this uid has to wait until all kinds are followed; it is put on the queue then. It waits once only, so that kinds
    /// that come and go all the time stop nothing.
    pub(super) fn hold(&self, uid: &str) -> bool {
        let mut state = self.state.lock();
        let waited = state.released.remove(uid);
        let holds = self.told.load(Ordering::SeqCst) != state.done && !waited;
        if holds {
            state.held.insert(uid.to_string());
        }
        holds
    }

    /// Follows what is served until it is dropped.
    pub(super) async fn run(self: Arc<Self>) {
        let foreign = ApiResource {
            group: "apiregistration.k8s.io".into(),
            version: "v1".into(),
            api_version: "apiregistration.k8s.io/v1".into(),
            kind: "APIService".into(),
            plural: "apiservices".into(),
        };
        let stop = self.context.stop.child_token();
        let _ends_with_this = stop.clone().drop_guard();
        let foreign = self.context.informers.start_dynamic::<Slim>(&foreign, &Selection::labels(FOREIGN), &stop);
        let definitions = self.context.informers.start_dynamic::<Definition>(&(), &Selection::default(), &stop);
        let (of_foreign, of_definition) = (Arc::downgrade(&self), Arc::downgrade(&self));
        let _subscriptions = [
            foreign.subscribe(move |_| _ = of_foreign.upgrade().map(|kinds| kinds.tell())),
            definitions.subscribe(move |_| _ = of_definition.upgrade().map(|kinds| kinds.tell())),
        ];
        let synced = async { tokio::join!(foreign.wait_synced(), definitions.wait_synced()) };
        let _ = tokio::time::timeout(LISTED_WITHIN, synced).await;
        let mut again = Backoff::new(AGAIN.0, AGAIN.1);
        loop {
            let told = self.told.load(Ordering::SeqCst);
            let settled = match self.discover().await {
                Ok(found) => {
                    let settled = self.apply(found, &foreign, &definitions).await;
                    self.started.send_replace(true);
                    settled
                }
                Err(error) => {
                    tracing::warn!(error = describe(&error), "kinds not discovered");
                    false
                }
            };
            self.release(told);
            let changed = async {
                self.changed.notified().await;
                tokio::time::sleep(GATHER).await;
            };
            if settled {
                changed.await;
                again.reset();
            } else if tokio::time::timeout(again.next_delay(), changed).await.is_ok() {
                again.reset();
            }
        }
    }

    /// What is served may have changed.
    fn tell(&self) {
        self.told.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_one();
    }

    async fn discover(&self) -> Result<Discovered, Error> {
        match tokio::time::timeout(DISCOVERED_WITHIN, deletable(&self.context.client)).await {
            Ok(found) => found,
            Err(_) => Err(Error::DiscoveryTime { within: DISCOVERED_WITHIN }),
        }
    }

    fn release(&self, told: u64) {
        let mut state = self.state.lock();
        state.done = told;
        let held = std::mem::take(&mut state.held);
        state.released = held.clone();
        drop(state);
        held.into_iter().for_each(|uid| self.queue.add(ObjectKey::cluster(uid)));
    }

    /// Follows what was found and leaves what is gone. `false` if there is more to be found than was.
    async fn apply(&self, found: Discovered, foreign: &Informer<Slim>, definitions: &Informer<Definition>) -> bool {
        let served: BTreeMap<String, Arc<Served>> =
            found.served.into_iter().map(|served| (served.name(), Arc::new(served))).collect();
        let foreign: Vec<String> = foreign.list().iter().filter_map(|service| service.metadata.name.clone()).collect();
        // What each definition says is served, by name.
        let defined: HashMap<String, BTreeSet<String>> =
            definitions.list().iter().map(|one| (one.name().to_owned(), one.served.clone())).collect();
        let changed = {
            let mut state = self.state.lock();
            let kinds: HashMap<_, _> = served
                .values()
                .map(|served| ((served.resource.group.clone(), served.resource.kind.clone()), served.clone()))
                .collect();
            // A kind that is followed may have been out of sight, and references to it were left alone.
            let more = kinds.keys().any(|kind| !state.kinds.contains_key(kind));
            state.kinds = kinds;
            let changed =
                self.leave(&mut state, &served, &defined, &foreign) | self.take_up(&mut state, &served, &foreign);
            changed || more
        };
        if changed {
            self.wait_listed().await;
            // An owner that was of no known kind may be known now, or may have gone between two watches.
            for uid in self.graph.lock().unowned() {
                self.queue.add(ObjectKey::cluster(uid));
            }
        }
        // A definition's other versions may be known here before the API serves by them.
        let served_as_defined = |(name, versions): (&String, &BTreeSet<String>)| match served.get(name) {
            Some(served) => served.versions == *versions,
            None => versions.is_empty(),
        };
        foreign.is_empty() && found.stale.is_empty() && defined.iter().all(served_as_defined)
    }

    /// Waits for the first lists of what is followed, for each in its time.
    async fn wait_listed(&self) {
        let awaited: Vec<_> = {
            let state = self.state.lock();
            let awaited = state.followed.iter().filter(|(_, followed)| !followed.late);
            awaited.map(|(name, followed)| (name.clone(), followed.informer.clone(), followed.foreign)).collect()
        };
        let waits = awaited.into_iter().map(|(name, informer, foreign)| async move {
            let within = if foreign { LISTED_ELSEWHERE_WITHIN } else { LISTED_WITHIN };
            tokio::time::timeout(within, informer.wait_synced()).await.is_err().then_some(name)
        });
        for name in join_all(waits.map(FutureExt::boxed)).await.into_iter().flatten() {
            tracing::warn!(name, "kind could not be listed; going on without");
            if let Some(followed) = self.state.lock().followed.get_mut(&name) {
                followed.late = true;
            }
        }
    }

    /// Ends watches of kinds that are gone or are served in another version. What is out of sight for a while (a server that is
    /// down, a definition that serves nothing) is not gone: its watch waits.
    fn leave(
        &self,
        state: &mut State,
        served: &BTreeMap<String, Arc<Served>>,
        defined: &HashMap<String, BTreeSet<String>>,
        foreign: &[String],
    ) -> bool {
        let mut left = Vec::new();
        for (name, followed) in &mut state.followed {
            let now = served.get(name);
            let resource = &followed.served.resource;
            let service = service_of(resource);
            followed.foreign |= foreign.contains(&service);
            if now.is_some_and(|now| now.resource == *resource && now.namespaced == followed.served.namespaced)
                || now.is_none() && (defined.contains_key(name) || foreign.contains(&service))
            {
                continue;
            }
            // Objects of a definition that is gone are gone; another server may still have its own.
            left.push((name.clone(), now.is_none() && !followed.foreign));
        }
        for (name, gone) in &left {
            // First the watch ends: what it told after this would stay in the graph for ever.
            state.followed.remove(name);
            for uid in self.graph.lock().leave(name, *gone) {
                self.queue.add(ObjectKey::cluster(uid));
            }
            tracing::debug!(name, gone, "no longer followed");
        }
        !left.is_empty()
    }

    fn take_up(&self, state: &mut State, served: &BTreeMap<String, Arc<Served>>, foreign: &[String]) -> bool {
        let mut changed = false;
        for (name, served) in served {
            if !served.can("watch") || IGNORED.contains(&name.as_str()) || state.followed.contains_key(name) {
                continue;
            }
            let mut followed = self.follow(served.clone());
            followed.foreign = foreign.contains(&service_of(&served.resource));
            state.followed.insert(name.clone(), followed);
            changed = true;
        }
        changed
    }

    fn follow(&self, served: Arc<Served>) -> Followed {
        let stop: CancellationToken = self.context.stop.child_token();
        let informer = self.context.informers.start_dynamic::<Slim>(&served.resource, &Selection::default(), &stop);
        let (graph, queue, resource) = (self.graph.clone(), self.queue.clone(), served.clone());
        let subscription = informer.subscribe(move |change| {
            let meta = &change.object().metadata;
            let uid = meta.uid.clone().unwrap_or_default();
            let look = match change {
                Change::Deleted(_) => graph.lock().remove(&uid),
                _ => graph.lock().set(uid, Member::new(resource.clone(), meta)),
            };
            for uid in look {
                queue.add(ObjectKey::cluster(uid));
            }
        });
        Followed {
            served,
            foreign: false,
            late: false,
            informer,
            _subscription: subscription,
            _stop: stop.drop_guard(),
        }
    }
}

/// The name of the API service that a resource is of.
fn service_of(resource: &ApiResource) -> String {
    format!("{}.{}", resource.version, resource.group)
}
