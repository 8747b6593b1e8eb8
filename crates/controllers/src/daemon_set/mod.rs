//! A DaemonSet keeps one pod of its template on every node that it fits.
//!
//! The pod is bound to its node by a required node affinity on the node's name, and placed by the scheduler like any other. A node
//! counts if the template's selectors and affinity admit it and its taints are borne (those that come and go with a node's conditions
//! always are); an existing pod stays on a node whose new taints only keep new pods away. A new template replaces pods node by node, within
//! `maxUnavailable` or `maxSurge` ([`update`]).

mod update;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::join_all;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};
use k8s_openapi::jiff::Timestamp;
use kminik_client::placement::{admits, untolerated};
use kminik_client::{Informer, Next, ObjectKey, WorkQueue};
use kube::ResourceExt;

use crate::context::Context;
use crate::error::Error;
use crate::owners::{
    candidates, claim_children, controller_reference, index_by_controller, push_claimants, selector_of,
};
use crate::pod_control::{self, count, several};
use crate::pods::{self, Availability, availability, is_ready, is_terminal, is_terminating, node_of, phase};
use crate::replica_set::slow_start;
use crate::revisions::{self, HASH_LABEL, History};
use update::Pods;

const WORKERS: usize = 4;
/// Pods created or deleted in one reconciliation at most.
const BURST: usize = 250;
/// Taints of conditions that a daemon bears: they say what daemons are there to watch or mend.
const BORNE: &[(&str, &str)] = &[
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// Borne by daemons that use the host's network.
const NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

struct Controller {
    context: Context,
    sets: Informer<DaemonSet>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    revisions: Informer<ControllerRevision>,
}

pub(crate) async fn run(context: Context) -> Result<(), Error> {
    let controller = Arc::new(Controller {
        sets: context.informers.get(),
        pods: context.informers.get(),
        nodes: context.informers.get(),
        revisions: context.informers.get(),
        context: context.clone(),
    });
    index_by_controller(&controller.pods);
    index_by_controller(&controller.revisions);
    let queue = WorkQueue::new();
    let (by_pod, by_revision, by_node) = (controller.sets.clone(), controller.sets.clone(), controller.sets.clone());
    let all = queue.clone();
    let _subscriptions = [
        controller.sets.enqueue(&queue),
        controller.pods.enqueue_with(&queue, move |pod, keys| {
            push_claimants(&pod.metadata, &by_pod, |set| Some(&set.spec.as_ref()?.selector), keys);
        }),
        controller.revisions.enqueue_with(&queue, move |revision, keys| {
            push_claimants(&revision.metadata, &by_revision, |set| Some(&set.spec.as_ref()?.selector), keys);
        }),
        controller.nodes.subscribe(move |change| {
            let placing = |node: &Node| {
                let spec = node.spec.as_ref();
                (node.metadata.labels.clone(), spec.map(|spec| (spec.taints.clone(), spec.unschedulable)))
            };
            // Heartbeats change none of this.
            if change.old().is_none_or(|old| placing(old) != placing(change.object())) {
                for set in by_node.list() {
                    all.add(ObjectKey::of(set.as_ref()));
                }
            }
        }),
    ];
    let synced = [
        controller.sets.wait_synced().boxed(),
        controller.pods.wait_synced().boxed(),
        controller.nodes.wait_synced().boxed(),
        controller.revisions.wait_synced().boxed(),
    ];
    let worker = controller.clone();
    context.work(queue, WORKERS, synced, move |key| reconcile(worker.clone(), key)).await
}

async fn reconcile(controller: Arc<Controller>, key: ObjectKey) -> Result<Next, Error> {
    let Controller { context, sets, pods, nodes, revisions } = controller.as_ref();
    let Some(set) = sets.get(&key) else { return Ok(Next::Done) };
    let Some(spec) = &set.spec else { return Ok(Next::Done) };
    if set.metadata.deletion_timestamp.is_some() {
        return Ok(Next::Done);
    }
    let selector = selector_of(set.as_ref(), &spec.selector)?;
    if selector.selects_all() {
        return Ok(Next::Done);
    }
    let mut collisions = set.status.as_ref().and_then(|status| status.collision_count);
    let history =
        revisions::history(context, revisions, set.as_ref(), &selector, &spec.template, &mut collisions).await;
    let history = match history {
        Ok(history) => history,
        Err(error) => {
            let mut updated = set.as_ref().clone();
            updated.status.get_or_insert_default().collision_count = collisions;
            context.update_status(&key, sets, &set, &updated).await?;
            return Err(error);
        }
    };
    let hash = revisions::label(&history.update);
    let own = claim_children(context, pods, set.as_ref(), &selector, candidates(pods, &set.metadata)).await?;
    let nodes = nodes.list();
    let plan = plan(&set, spec, &nodes, &own, &hash, Timestamp::now());
    let outcome = controller.carry_out(&key, &set, &hash, plan).await;
    let mut updated = set.as_ref().clone();
    let (status, next) = status(&set, spec, &nodes, &own, &hash, Timestamp::now());
    updated.status = Some(DaemonSetStatus { collision_count: collisions, ..status });
    match context.update_status(&key, sets, &set, &updated).await {
        Err(error) if !error.is_not_found() => return Err(error),
        _ => {}
    }
    outcome?;
    controller.clean_up(&set, spec, &history, &own).await?;
    Ok(next)
}

/// What one reconciliation does.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    /// Names of nodes that get a pod.
    create: Vec<String>,
    delete: Vec<Arc<Pod>>,
}

impl Controller {
    async fn carry_out(&self, key: &ObjectKey, set: &DaemonSet, hash: &str, plan: Plan) -> Result<(), Error> {
        let Self { context, pods, .. } = self;
        let Some(template) = set.spec.as_ref().map(|spec| &spec.template) else { return Ok(()) };
        let deletions = plan.delete.iter().take(BURST).map(|pod| pod_control::delete(context, key, set, pods, pod));
        several(join_all(deletions).await)?;
        let mut made = pods::from_template(template, &key.name, &key.namespace, controller_reference(set));
        made.metadata.labels.get_or_insert_default().insert(HASH_LABEL.into(), hash.to_string());
        if let Some(spec) = &mut made.spec {
            bear(spec);
        }
        let waiting = parking_lot::Mutex::new(plan.create.into_iter().take(BURST).collect::<Vec<_>>());
        let number = waiting.lock().len();
        slow_start(number, || async {
            let Some(node) = waiting.lock().pop() else { return Ok(()) };
            let mut pod = made.clone();
            if let Some(spec) = &mut pod.spec {
                bind_to(spec, &node);
            }
            pod_control::create(context, key, set, pods, &pod).await
        })
        .await
    }

    async fn clean_up(
        &self,
        set: &DaemonSet,
        spec: &DaemonSetSpec,
        history: &History,
        own: &[Arc<Pod>],
    ) -> Result<(), Error> {
        let used: BTreeSet<String> = own.iter().filter_map(|pod| pod.labels().get(HASH_LABEL).cloned()).collect();
        let limit = spec.revision_history_limit.unwrap_or(10);
        revisions::clean_up(&self.context, &self.revisions, set, history, &used, limit).await
    }
}

/// Lets a daemon bear the taints of conditions.
fn bear(spec: &mut PodSpec) {
    let network = spec.host_network.unwrap_or(false).then_some(NETWORK);
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in BORNE.iter().copied().chain(network) {
        let toleration = Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some(effect.into()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
}

/// Requires the node of that name, in place of what the template requires (which the node has met).
fn bind_to(spec: &mut PodSpec, node: &str) {
    let term = NodeSelectorTerm {
        match_fields: Some(vec![NodeSelectorRequirement {
            key: "metadata.name".into(),
            operator: "In".into(),
            values: Some(vec![node.to_string()]),
        }]),
        match_expressions: None,
    };
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    affinity.node_affinity.get_or_insert_default().required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
}

/// The node a daemon's pod is on or made for.
fn target_of(pod: &Pod) -> Option<&str> {
    let node = node_of(pod);
    if !node.is_empty() {
        return Some(node);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let mut fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let rule = fields.find(|rule| rule.key == "metadata.name" && rule.operator == "In")?;
    rule.values.as_ref()?.first().map(String::as_str)
}

/// Whether a node is to have a pod, and whether one that it has may stay.
fn wanted_on(set: &DaemonSetSpec, node: &Node) -> (bool, bool) {
    let Some(mut spec) = set.template.spec.clone() else { return (false, false) };
    bear(&mut spec);
    let named = spec.node_name.as_deref().filter(|name| !name.is_empty());
    if named.is_some_and(|name| Some(name) != node.metadata.name.as_deref()) || !admits(&spec, node) {
        return (false, false);
    }
    let stays = untolerated(&spec, node, &["NoExecute"]).is_none();
    (stays && untolerated(&spec, node, &["NoSchedule"]).is_none(), stays)
}

/// The pods by the node they are on or made for.
fn by_node(own: &[Arc<Pod>]) -> BTreeMap<&str, Vec<&Arc<Pod>>> {
    let mut nodes: BTreeMap<&str, Vec<&Arc<Pod>>> = BTreeMap::new();
    for pod in own {
        if let Some(node) = target_of(pod) {
            nodes.entry(node).or_default().push(pod);
        }
    }
    nodes
}

fn plan(
    set: &DaemonSet,
    spec: &DaemonSetSpec,
    nodes: &[Arc<Node>],
    own: &[Arc<Pod>],
    hash: &str,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let by_node = by_node(own);
    let mut pairs = Vec::new();
    for node in nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let here = by_node.get(name).map(Vec::as_slice).unwrap_or_default();
        let (should_run, may_stay) = wanted_on(spec, node);
        let leaving = here.iter().any(|pod| is_terminating(pod));
        let living: Vec<&Arc<Pod>> = here.iter().copied().filter(|pod| !is_terminating(pod)).collect();
        let (ended, running): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) =
            living.iter().partition(|pod| is_terminal(pod.as_ref()));
        if !may_stay {
            plan.delete.extend(living.into_iter().cloned());
            continue;
        }
        // One that has failed is replaced once it is gone, so that a node does not fill with failures.
        plan.delete.extend(ended.iter().map(|pod| (*pod).clone()));
        let pods = Pods::sort(&running, hash);
        plan.delete.extend(pods.surplus.iter().map(|pod| (*pod).clone()));
        if running.is_empty() && ended.is_empty() && !leaving && should_run {
            plan.create.push(name.to_string());
        }
        if should_run {
            pairs.push((name.to_string(), pods.new.cloned(), pods.old.cloned(), leaving));
        }
    }
    // Pods made for nodes that are gone wait for ever; those that ran there are the pod garbage collector's.
    let known: BTreeSet<&str> = nodes.iter().filter_map(|node| node.metadata.name.as_deref()).collect();
    for (name, pods) in &by_node {
        if !known.contains(name) {
            let waiting = pods.iter().filter(|pod| node_of(pod).is_empty() && !is_terminating(pod));
            plan.delete.extend(waiting.map(|pod| (*pod).clone()));
        }
    }
    update::step(set, spec, pairs, &mut plan, now);
    plan
}

fn status(
    set: &DaemonSet,
    spec: &DaemonSetSpec,
    nodes: &[Arc<Node>],
    own: &[Arc<Pod>],
    hash: &str,
    now: Timestamp,
) -> (DaemonSetStatus, Next) {
    let by_node = by_node(own);
    let mut status = DaemonSetStatus { observed_generation: set.metadata.generation, ..DaemonSetStatus::default() };
    let (mut available, mut updated) = (0, 0);
    let mut next = Next::Done;
    for node in nodes {
        let here = by_node.get(node.metadata.name.as_deref().unwrap_or_default());
        // The oldest stands for the node; a second one is there only for the time of an update.
        let mut here: Vec<_> = here.into_iter().flatten().filter(|pod| !is_terminal(pod)).collect();
        here.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        let (should_run, _) = wanted_on(spec, node);
        if !should_run {
            status.number_misscheduled += count(usize::from(!here.is_empty()));
            continue;
        }
        status.desired_number_scheduled += 1;
        let Some(first) = here.first() else { continue };
        status.current_number_scheduled += 1;
        let newest = here.iter().find(|pod| pod.labels().get(HASH_LABEL).map(String::as_str) == Some(hash));
        updated += i32::from(newest.is_some());
        let ready = here.iter().find(|pod| is_ready(pod) && phase(pod) == "Running").unwrap_or(first);
        status.number_ready += i32::from(is_ready(ready));
        match availability(ready, spec.min_ready_seconds.unwrap_or(0), now) {
            Availability::Available => available += 1,
            Availability::After(left) => {
                next = match next {
                    Next::After(earlier) if earlier < left => next,
                    _ => Next::After(left),
                }
            }
            Availability::NotReady => {}
        }
    }
    let positive = |number: i32| Some(number).filter(|number| *number > 0);
    status.number_available = positive(available);
    status.updated_number_scheduled = positive(updated);
    status.number_unavailable = positive(status.desired_number_scheduled - available);
    (status, next)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn set(strategy: Value) -> DaemonSet {
        serde_json::from_value(json!({
            "metadata": {"name": "d", "generation": 1},
            "spec": {"selector": {}, "updateStrategy": strategy, "template": {"spec": {"containers": [], "nodeSelector": {"run": "yes"}}}},
        }))
        .unwrap()
    }

    fn node(name: &str, labels: Value, taints: Value) -> Arc<Node> {
        let value = json!({"metadata": {"name": name, "labels": labels}, "spec": {"taints": taints}});
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn pod(name: &str, node: &str, hash: &str, ready: bool) -> Arc<Pod> {
        let status = if ready { "True" } else { "False" };
        let value = json!({
            "metadata": {"name": name, "uid": name, "labels": {HASH_LABEL: hash}},
            "spec": {"nodeName": node, "containers": []},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]},
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn planned(set: &DaemonSet, nodes: &[Arc<Node>], pods: &[Arc<Pod>]) -> (Vec<String>, Vec<String>) {
        let plan = plan(set, set.spec.as_ref().unwrap(), nodes, pods, "new", Timestamp::UNIX_EPOCH);
        (plan.create, plan.delete.iter().map(|pod| pod.name_any()).collect())
    }

    #[test]
    fn every_node_that_fits_gets_one() {
        let nodes = [
            node("a", json!({"run": "yes"}), json!([])),
            node("b", json!({}), json!([])),
            node("c", json!({"run": "yes"}), json!([{"key": "k", "effect": "NoSchedule"}])),
            node(
                "d",
                json!({"run": "yes"}),
                json!([{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]),
            ),
            node("e", json!({"run": "yes"}), json!([{"key": "k", "effect": "NoExecute"}])),
        ];
        let set = set(json!({"type": "OnDelete"}));
        assert_eq!(planned(&set, &nodes, &[]), (vec!["a".to_string(), "d".to_string()], vec![]));
        let pods = [
            pod("a1", "a", "new", true),
            pod("b1", "b", "new", true),
            pod("c1", "c", "new", true),
            pod("e1", "e", "new", true),
        ];
        let (create, delete) = planned(&set, &nodes, &pods);
        assert_eq!((create, delete), (vec!["d".to_string()], vec!["b1".to_string(), "e1".to_string()]), "c1 may stay");
        let (status, _) = status(&set, set.spec.as_ref().unwrap(), &nodes, &pods, "new", Timestamp::UNIX_EPOCH);
        assert_eq!((status.desired_number_scheduled, status.current_number_scheduled, status.number_ready), (2, 1, 1));
        assert_eq!((status.number_misscheduled, status.number_unavailable), (3, Some(1)));
    }

    #[test]
    fn updates_go_node_by_node_and_broken_ones_first() {
        let fits = json!({"run": "yes"});
        let nodes = ["a", "b", "c"].map(|name| node(name, fits.clone(), json!([])));
        let rolling = set(json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}));
        let pods = [pod("a1", "a", "old", true), pod("b1", "b", "old", true), pod("c1", "c", "old", true)];
        assert_eq!(planned(&rolling, &nodes, &pods).1, ["a1"]);
        let pods = [pod("a1", "a", "old", true), pod("b1", "b", "old", false), pod("c1", "c", "old", true)];
        assert_eq!(planned(&rolling, &nodes, &pods).1, ["b1"], "one that does not serve is no loss");
        let pods = [pod("a2", "a", "new", false), pod("b1", "b", "old", true), pod("c1", "c", "old", true)];
        assert!(planned(&rolling, &nodes, &pods).1.is_empty(), "the one under way counts");

        let surging = set(json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}));
        let pods = [pod("a1", "a", "old", true), pod("b1", "b", "old", true), pod("c1", "c", "new", true)];
        assert_eq!(planned(&surging, &nodes, &pods), (vec!["a".to_string()], vec![]));
        let pods = [
            pod("a1", "a", "old", true),
            pod("a2", "a", "new", true),
            pod("b1", "b", "old", true),
            pod("c1", "c", "new", true),
        ];
        assert_eq!(planned(&surging, &nodes, &pods), (vec!["b".to_string()], vec!["a1".to_string()]));
    }
}
