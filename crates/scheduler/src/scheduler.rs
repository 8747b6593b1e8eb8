//! The loop: events into cache and queue, pods out of the queue, decisions into the API.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kminik_base::component::{BoxError, Component, Ready};
use kminik_client::{Change, Informer, Informers, Recorder, Subscription, describe};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::bind::Binder;
use crate::cache::{Cache, Snapshot, Volumes};
use crate::decide::{Decision, decide};
use crate::info::PodInfo;
use crate::plugin::{CLAIM, CLASS, Events, NODE_ADD, NODE_UPDATE, POD_ADD, POD_DELETE, VOLUME, wakes};
use crate::plugins::volumes::Bindings;
use crate::preempt::{Preemption, preempt};
use crate::queue::{Popped, Queue};

/// The value of `spec.schedulerName` that this scheduler serves.
const NAME: &str = "default-scheduler";

/// What a scheduler is told by the process it runs in.
#[derive(Clone)]
pub struct SchedulerConfig {
    /// Writes as `system:kube-scheduler`.
    pub client: kube::Client,
    /// Shared with whoever else watches pods and nodes in the process.
    pub informers: Informers,
}

impl SchedulerConfig {
    pub fn new(client: kube::Client, informers: Informers) -> Self {
        Self { client, informers }
    }
}

/// The scheduler as a supervised component.
pub struct Scheduler {
    config: SchedulerConfig,
}

impl Scheduler {
    pub fn new(config: SchedulerConfig) -> Self {
        Self { config }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the informers were stopped")]
struct InformersStopped;

impl Component for Scheduler {
    fn name(&self) -> &'static str {
        "scheduler"
    }

    fn run(self: Arc<Self>, stop: CancellationToken, ready: Ready) -> BoxFuture<'static, Result<(), BoxError>> {
        async move {
            let stop = stop.child_token();
            let _guard = stop.clone().drop_guard();
            let running = Arc::new(Running::new(&self.config, stop.clone()));
            let _subscriptions = running.subscribe();
            let Some(synced) = stop.run_until_cancelled(running.wait_synced()).await else { return Ok(()) };
            if !synced {
                return Err(InformersStopped.into());
            }
            ready.set_ready();
            let mut tasks = JoinSet::new();
            while let Some(popped) = stop.run_until_cancelled(running.queue.pop()).await {
                while tasks.try_join_next().is_some() {}
                if let Some(work) = running.clone().schedule(popped) {
                    tasks.spawn(work);
                }
            }
            // A binding under way is finished: half a decision would be found out only by the next start.
            tasks.detach_all();
            Ok(())
        }
        .boxed()
    }
}

struct Running {
    binder: Binder,
    recorder: Recorder,
    queue: Arc<Queue>,
    cache: Arc<Mutex<Cache>>,
    /// Volumes given to claims whose binding the cache does not show yet, by the pod's uid.
    promised: Mutex<HashMap<String, Vec<String>>>,
    nominated: Arc<Nominated>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    namespaces: Informer<Namespace>,
}

impl Running {
    fn new(config: &SchedulerConfig, stop: CancellationToken) -> Self {
        let informers = &config.informers;
        let claims = informers.get::<PersistentVolumeClaim>();
        let volumes = informers.get::<PersistentVolume>();
        Self {
            binder: Binder { client: config.client.clone(), claims: claims.clone(), volumes: volumes.clone() },
            recorder: Recorder::new(config.client.clone(), NAME, "", stop),
            queue: Arc::default(),
            cache: Arc::default(),
            promised: Mutex::default(),
            nominated: Arc::default(),
            pods: informers.get(),
            nodes: informers.get(),
            claims,
            volumes,
            classes: informers.get(),
            namespaces: informers.get(),
        }
    }

    async fn wait_synced(&self) -> bool {
        let all = [
            self.pods.wait_synced().boxed(),
            self.nodes.wait_synced().boxed(),
            self.claims.wait_synced().boxed(),
            self.volumes.wait_synced().boxed(),
            self.classes.wait_synced().boxed(),
            self.namespaces.wait_synced().boxed(),
        ];
        !join_all(all).await.contains(&false)
    }

    fn subscribe(&self) -> Vec<Subscription> {
        let (queue, cache, nominated) = (self.queue.clone(), self.cache.clone(), self.nominated.clone());
        let pods = self.pods.subscribe(move |change| on_pod(&queue, &cache, &nominated, change));
        let (queue, cache) = (self.queue.clone(), self.cache.clone());
        let nodes = self.nodes.subscribe(move |change| on_node(&queue, &cache, change));
        vec![
            pods,
            nodes,
            wake_on(&self.claims, &self.queue, CLAIM),
            wake_on(&self.volumes, &self.queue, VOLUME),
            wake_on(&self.classes, &self.queue, CLASS),
        ]
    }

    /// Decides one pod. What is left to do afterwards, if anything, is returned to run beside the next decisions.
    fn schedule(self: Arc<Self>, popped: Popped) -> Option<BoxFuture<'static, ()>> {
        let info = popped.info.clone();
        let live = self.pods.get(&info.key).filter(|pod| pod.metadata.uid == info.pod.metadata.uid);
        let waits = live.as_ref().is_some_and(|pod| is_waiting(pod));
        if !waits || self.cache.lock().is_placed(info.uid()) {
            self.queue.remove(info.uid());
            return None;
        }
        let snapshot = self.snapshot(&info);
        let nominated = info.pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref());
        match decide(&info, &snapshot, nominated) {
            Decision::Node { name, bindings } => {
                self.cache.lock().assume(info.clone(), &name);
                self.nominated.lock().remove(info.uid());
                if !bindings.bind.is_empty() {
                    let volumes = bindings.bind.iter().map(|(_, volume)| volume.clone()).collect();
                    self.promised.lock().insert(info.uid().to_string(), volumes);
                }
                Some(self.bind(info, name, bindings).boxed())
            }
            Decision::Unschedulable(refusal) => {
                let outcome = preempt(&info, &snapshot, &refusal);
                let wakes = wakes(&refusal.rejected_by) | NODE_ADD;
                let (message, nominated, victims) = match outcome {
                    Preemption::Victims { node, pods } => {
                        self.nominated.lock().insert(info.uid().to_string(), (node.clone(), info.clone()));
                        (refusal.message(), Some(node), pods)
                    }
                    Preemption::Nothing { message } => (refusal.message_with(&message), None, Vec::new()),
                };
                self.queue.reject(&popped, wakes);
                Some(self.refuse(info, message, nominated, victims).boxed())
            }
        }
    }

    /// All nodes with their pods, and with those pods of at least this priority that wait for room they made.
    fn snapshot(&self, pod: &PodInfo) -> Snapshot {
        let mut nodes = self.cache.lock().snapshot();
        for (uid, (node, waiting)) in self.nominated.lock().iter() {
            if uid != pod.uid()
                && waiting.priority() >= pod.priority()
                && let Some(info) = nodes.get_mut(node)
            {
                Arc::make_mut(info).add(waiting.clone());
            }
        }
        let promised: HashSet<String> = self.promised.lock().values().flatten().cloned().collect();
        // Most pods have no claims: then their volumes need not be read.
        let volumes = if pod.claims().is_empty() {
            Volumes::default()
        } else {
            Volumes::read(&self.claims, &self.volumes, &self.classes, promised)
        };
        let namespaces: BTreeMap<_, _> = self
            .namespaces
            .list()
            .into_iter()
            .filter_map(|namespace| {
                Some((namespace.metadata.name.clone()?, namespace.metadata.labels.clone().unwrap_or_default()))
            })
            .collect();
        Snapshot { nodes, volumes: Arc::new(volumes), namespaces: Arc::new(namespaces) }
    }

    async fn bind(self: Arc<Self>, info: Arc<PodInfo>, node: String, bindings: Bindings) {
        let outcome = self.binder.bind(&info, &node, &bindings).await;
        self.promised.lock().remove(info.uid());
        match outcome {
            Ok(()) => {
                self.queue.remove(info.uid());
                let message = format!("Successfully assigned {} to {node}", info.key);
                self.recorder.normal(info.pod.as_ref(), "Scheduled", message);
            }
            Err(error) => {
                let message = describe(&error);
                tracing::info!(pod = %info.key, node, error = message, "binding failed");
                self.cache.lock().forget(info.uid());
                self.queue.fail(info.uid());
                // The room the pod was thought to take is free again.
                self.queue.event(POD_DELETE);
                if self.pods.get(&info.key).is_some_and(|pod| is_waiting(&pod)) {
                    self.recorder.warning(info.pod.as_ref(), "FailedScheduling", message.clone());
                    self.binder.tell_unscheduled(&info.pod, "SchedulerError", &message, None).await;
                }
            }
        }
    }

    async fn refuse(
        self: Arc<Self>,
        info: Arc<PodInfo>,
        message: String,
        nominated: Option<String>,
        victims: Vec<Arc<PodInfo>>,
    ) {
        self.recorder.warning(info.pod.as_ref(), "FailedScheduling", message.clone());
        // The newest status, lest an unchanged message be written again.
        let pod = self.pods.get(&info.key).unwrap_or_else(|| info.pod.clone());
        self.binder.tell_unscheduled(&pod, "Unschedulable", &message, nominated.as_deref()).await;
        for victim in victims {
            if victim.pod.metadata.deletion_timestamp.is_none() {
                self.binder.evict(&victim, &info).await;
                let node = nominated.as_deref().unwrap_or_default();
                let message = format!("Preempted by pod {} on node {node}", info.uid());
                self.recorder.normal(victim.pod.as_ref(), "Preempted", message);
            }
        }
    }
}

/// The pod is ours and has no node.
fn is_waiting(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    spec.scheduler_name.as_deref().unwrap_or(NAME) == NAME
        && spec.node_name.as_deref().unwrap_or_default().is_empty()
        && pod.metadata.deletion_timestamp.is_none()
        && !matches!(phase, Some("Succeeded" | "Failed"))
        && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
}

/// Pods that wait for victims to leave a node, with its name, by uid.
type Nominated = Mutex<HashMap<String, (String, Arc<PodInfo>)>>;

fn on_pod(queue: &Queue, cache: &Mutex<Cache>, nominated: &Nominated, change: &Change<Pod>) {
    let pod = change.object();
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let has_node =
        |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|node| !node.is_empty());
    let ended = |pod: &Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    if let Change::Deleted(pod) = change {
        cache.lock().remove_pod(uid);
        nominated.lock().remove(uid);
        queue.remove(uid);
        if has_node(pod) {
            queue.event(POD_DELETE);
        }
        return;
    }
    cache.lock().set_pod(pod);
    if is_waiting(pod) {
        let matters = change.old().is_none_or(|old| old.spec != pod.spec || old.metadata.labels != pod.metadata.labels);
        queue.set(Arc::new(PodInfo::new(pod.clone())), matters);
        return;
    }
    nominated.lock().remove(uid);
    queue.remove(uid);
    if ended(pod) {
        if change.old().is_some_and(|old| !ended(old)) {
            queue.event(POD_DELETE);
        }
    } else if has_node(pod)
        && change.old().is_none_or(|old| !has_node(old) || old.metadata.labels != pod.metadata.labels)
    {
        queue.event(POD_ADD);
    }
}

fn on_node(queue: &Queue, cache: &Mutex<Cache>, change: &Change<Node>) {
    match change {
        Change::Added(node) => {
            cache.lock().set_node(node.clone());
            queue.event(NODE_ADD);
        }
        Change::Updated { old, new } => {
            cache.lock().set_node(new.clone());
            // Heartbeats change none of this.
            let room = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
            let rules =
                |node: &Node| node.spec.as_ref().map(|spec| (spec.taints.clone(), spec.unschedulable.unwrap_or(false)));
            if old.metadata.labels != new.metadata.labels || rules(old) != rules(new) || room(old) != room(new) {
                queue.event(NODE_UPDATE);
            }
        }
        Change::Deleted(node) => {
            cache.lock().remove_node(node.metadata.name.as_deref().unwrap_or_default());
            // Spread constraints are relative to the nodes there are.
            queue.event(NODE_UPDATE);
        }
    }
}

fn wake_on<K>(informer: &Informer<K>, queue: &Arc<Queue>, events: Events) -> Subscription
where
    K: kube::Resource + Send + Sync + 'static,
{
    let queue = queue.clone();
    informer.subscribe(move |_| queue.event(events))
}
