//! The status of disruption budgets: how many of their pods are healthy, how many must be, and how many may be evicted.
//!
//! The API server's eviction takes from `disruptionsAllowed` and notes the pod in `disruptedPods`; so the status is only written where
//! it still is as it was read, and a pod noted there counts as gone until it is, or for two minutes. After that time a pod that was to
//! be disrupted and still runs is one like any other, and its condition says so.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use kminik_client::{Informer, Next, ObjectKey, WorkQueue};
use kube::api::Patch;
use serde_json::json;

use crate::context::{Context, Kind};
use crate::deployment::scaled;
use crate::error::Error;
use crate::owners::{controller_of, selector_of, selects};
use crate::pods::{elapsed, is_ready, is_terminal, is_terminating};

/// How long an evicted pod is expected to be deleted.
const DELETION: Duration = Duration::from_secs(120);
const ALLOWED: &str = "DisruptionAllowed";
/// Condition of pods that are about to be disrupted.
const TARGET: &str = "DisruptionTarget";
/// Reason of that condition where it is the kubelet that ends the pod, in its own time.
const BY_KUBELET: &str = "TerminationByKubelet";

struct Controller {
    context: Context,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    deployments: Informer<Deployment>,
    replica_sets: Informer<ReplicaSet>,
    stateful_sets: Informer<StatefulSet>,
    replication_controllers: Informer<ReplicationController>,
}

pub(crate) async fn run(context: Context) -> Result<(), Error> {
    let informers = &context.informers;
    let controller = Arc::new(Controller {
        budgets: informers.get(),
        pods: informers.get(),
        deployments: informers.get(),
        replica_sets: informers.get(),
        stateful_sets: informers.get(),
        replication_controllers: informers.get(),
        context: context.clone(),
    });
    let queue = WorkQueue::new();
    let budgets = controller.budgets.clone();
    let _subscriptions = [
        controller.budgets.enqueue(&queue),
        controller.pods.enqueue_with(&queue, move |pod, keys| {
            for budget in budgets.list_in(pod.metadata.namespace.as_deref().unwrap_or_default()) {
                if is_selected(&budget, pod) {
                    keys.push(ObjectKey::of(budget.as_ref()));
                }
            }
        }),
    ];
    let synced = [
        controller.budgets.wait_synced().boxed(),
        controller.pods.wait_synced().boxed(),
        controller.deployments.wait_synced().boxed(),
        controller.replica_sets.wait_synced().boxed(),
        controller.stateful_sets.wait_synced().boxed(),
        controller.replication_controllers.wait_synced().boxed(),
    ];
    let targets = WorkQueue::new();
    let _targets = controller.pods.enqueue(&targets);
    let pods_synced = [controller.pods.wait_synced().boxed()];
    let (budgets, pods) = (controller.clone(), controller.clone());
    tokio::try_join!(
        context.work(queue, 1, synced, move |key| reconcile(budgets.clone(), key)),
        context.work(targets, 1, pods_synced, move |key| spare(pods.clone(), key)),
    )?;
    Ok(())
}

/// Takes back that a pod is about to be disrupted, once that has been so for too long.
async fn spare(controller: Arc<Controller>, key: ObjectKey) -> Result<Next, Error> {
    let Controller { context, pods, .. } = controller.as_ref();
    let (now, pod) = (Timestamp::now(), pods.get(&key));
    let Some((pod, left)) = pod.and_then(|pod| stale_after(&pod, now).map(|left| (pod, left))) else {
        return Ok(Next::Done);
    };
    if !left.is_zero() {
        return Ok(Next::After(left));
    }
    let patch = json!({"metadata": {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version},
    "status": {"conditions": [{
        "type": TARGET, "status": "False", "reason": null, "message": null, "lastTransitionTime": Time(now),
    }]}});
    match context.patch(&key, pods, &key, Some("status"), &Patch::Strategic(patch)).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(Next::Done),
    }
}

/// How long a pod may still be said to be about to be disrupted; `None` where that is not said, or stays true.
fn stale_after(pod: &Pod, now: Timestamp) -> Option<Duration> {
    let status = pod.status.as_ref()?;
    if is_terminating(pod) || is_terminal(pod) {
        return None;
    }
    let target = status.conditions.iter().flatten().find(|condition| condition.type_ == TARGET)?;
    if target.status != "True" || target.reason.as_deref() == Some(BY_KUBELET) {
        return None;
    }
    let since = target.last_transition_time.as_ref().map_or(DELETION, |at| elapsed(at.0, now));
    Some(DELETION.saturating_sub(since))
}

/// A selector that is absent, or cannot be read, selects nothing.
fn is_selected(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| selector_of(budget, selector).is_ok_and(|s| selects(&s, &pod.metadata)))
}

async fn reconcile(controller: Arc<Controller>, key: ObjectKey) -> Result<Next, Error> {
    let Controller { context, budgets, pods, .. } = controller.as_ref();
    let Some(budget) = budgets.get(&key) else { return Ok(Next::Done) };
    let mut selected = pods.list_in(&key.namespace);
    selected.retain(|pod| is_selected(&budget, pod));
    if selected.is_empty() {
        context.recorder.normal(budget.as_ref(), "NoPods", "No matching pods found");
    }
    let now = Timestamp::now();
    let (status, next) = match controller.needs(&budget, &selected).await {
        Ok((expected, desired)) => status(&budget, &selected, expected, desired, now),
        // What cannot be reckoned allows nothing.
        Err(error) => {
            let message = format!("Failed to calculate the number of expected pods: {error}");
            context.recorder.warning(budget.as_ref(), "CalculateExpectedPodCountFailed", message);
            let mut status = budget.status.clone().unwrap_or_default();
            status.disruptions_allowed = 0;
            set_condition(&mut status, "SyncFailed", error.to_string(), now);
            (status, Next::Done)
        }
    };
    let mut new = budget.as_ref().clone();
    new.status = Some(status);
    context.update_status_exact(&key, budgets, budget.as_ref(), &new).await?;
    Ok(next)
}

impl Controller {
    /// How many pods there should be, and how many of them healthy.
    async fn needs(&self, budget: &PodDisruptionBudget, pods: &[Arc<Pod>]) -> Result<(i32, i32), Error> {
        let spec = budget.spec.clone().unwrap_or_default();
        match (spec.max_unavailable, spec.min_available) {
            (Some(unavailable), _) => {
                let expected = self.expected(budget, pods).await?;
                Ok((expected, (expected - scaled(&unavailable, expected, true)).max(0)))
            }
            (None, Some(IntOrString::Int(available))) => Ok((i32::try_from(pods.len()).unwrap_or(i32::MAX), available)),
            (None, Some(percent)) => {
                let expected = self.expected(budget, pods).await?;
                Ok((expected, scaled(&percent, expected, true)))
            }
            (None, None) => Ok((0, 0)),
        }
    }

    /// The sum of the sizes of all that control the pods.
    async fn expected(&self, budget: &PodDisruptionBudget, pods: &[Arc<Pod>]) -> Result<i32, Error> {
        let mut sizes: HashMap<String, i32> = HashMap::new();
        // Owners whose size is known already, under whatever it was counted.
        let mut seen: HashSet<&str> = HashSet::new();
        let mut unmanaged = false;
        for pod in pods {
            let Some(owner) = controller_of(&pod.metadata) else {
                unmanaged = true;
                continue;
            };
            if !seen.insert(&owner.uid) {
                continue;
            }
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let Some((uid, size)) = self.scale(namespace, owner).await? else {
                return Err(Error::NoScale { pod: pod.metadata.name.clone().unwrap_or_default() });
            };
            sizes.insert(uid, size);
        }
        if unmanaged {
            let message = "Pods selected by this PodDisruptionBudget were found to be unmanaged. As a result, the status of the \
                PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \
                \".spec.minAvailable\" field of the PDB to an integer value.";
            self.context.recorder.warning(budget, "UnmanagedPods", message);
        }
        Ok(sizes.into_values().fold(0, i32::saturating_add))
    }

    /// The identity and size of what controls a pod: of a replica set's Deployment, of kinds of one's own by their scale.
    async fn scale(&self, namespace: &str, owner: &OwnerReference) -> Result<Option<(String, i32)>, Error> {
        if let Some(set) = self.find(&self.replica_sets, namespace, owner) {
            if let Some(above) = controller_of(&set.metadata)
                && let Some(deployment) = self.find(&self.deployments, namespace, above)
            {
                return Ok(Some((above.uid.clone(), replicas(deployment.spec.as_ref().and_then(|s| s.replicas)))));
            }
            return Ok(Some((owner.uid.clone(), replicas(set.spec.as_ref().and_then(|spec| spec.replicas)))));
        }
        if let Some(set) = self.find(&self.stateful_sets, namespace, owner) {
            return Ok(Some((owner.uid.clone(), replicas(set.spec.as_ref().and_then(|spec| spec.replicas)))));
        }
        if let Some(set) = self.find(&self.replication_controllers, namespace, owner) {
            return Ok(Some((owner.uid.clone(), replicas(set.spec.as_ref().and_then(|spec| spec.replicas)))));
        }
        Ok(self.context.scale_of(namespace, owner).await?.map(|size| (owner.uid.clone(), size)))
    }

    /// The owner that a reference means, if it is of this informer's kind.
    fn find<K: Kind>(&self, informer: &Informer<K>, namespace: &str, owner: &OwnerReference) -> Option<Arc<K>> {
        if owner.kind != K::kind(&()) || owner.api_version != K::api_version(&()) {
            return None;
        }
        let found = informer.get(&ObjectKey::new(namespace, owner.name.clone()))?;
        (found.meta().uid.as_ref() == Some(&owner.uid)).then_some(found)
    }
}

fn replicas(wanted: Option<i32>) -> i32 {
    wanted.unwrap_or(1)
}

/// The status that follows from what there is, and when to look again because a pod noted as evicted is not gone by then.
fn status(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    expected: i32,
    desired: i32,
    now: Timestamp,
) -> (PodDisruptionBudgetStatus, Next) {
    let mut status = budget.status.clone().unwrap_or_default();
    let noted = status.disrupted_pods.take().unwrap_or_default();
    let mut disrupted: BTreeMap<String, Time> = BTreeMap::new();
    let (mut healthy, mut next) = (0, None);
    for pod in pods.iter().filter(|pod| !is_terminating(pod)) {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let left = noted.get(&name).and_then(|at| DELETION.checked_sub(elapsed(at.0, now)));
        if let (Some(at), Some(left)) = (noted.get(&name), left) {
            next = Some(next.map_or(left, |next: Duration| next.min(left)));
            disrupted.insert(name, at.clone());
        } else if is_ready(pod) {
            healthy += 1;
        }
    }
    status.current_healthy = healthy;
    status.desired_healthy = desired;
    status.expected_pods = expected;
    // A budget without pods allows nothing: its first pods may come before this controller has seen them.
    status.disruptions_allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    status.disrupted_pods = Some(disrupted).filter(|pods| !pods.is_empty());
    status.observed_generation = budget.metadata.generation;
    let reason = if status.disruptions_allowed > 0 { "SufficientPods" } else { "InsufficientPods" };
    set_condition(&mut status, reason, String::new(), now);
    (status, next.map_or(Next::Done, |left| Next::After(left.max(Duration::from_secs(1)))))
}

/// Says whether disruptions are allowed; the time stays where the answer does.
fn set_condition(status: &mut PodDisruptionBudgetStatus, reason: &str, message: String, now: Timestamp) {
    let allowed = if status.disruptions_allowed > 0 { "True" } else { "False" };
    let conditions = status.conditions.get_or_insert_default();
    let known = conditions.iter().position(|condition| condition.type_ == ALLOWED);
    let since = known.and_then(|at| conditions.get(at)).filter(|known| known.status == allowed);
    let condition = Condition {
        type_: ALLOWED.into(),
        status: allowed.into(),
        reason: reason.into(),
        message,
        observed_generation: status.observed_generation,
        last_transition_time: since.map_or(Time(now), |known| known.last_transition_time.clone()),
    };
    match known.and_then(|at| conditions.get_mut(at)) {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_to_be_disrupted_and_still_runs_is_spared_after_two_minutes() {
        let after = |change: serde_json::Value, now: &str| {
            let mut pod = json!({"metadata": {"name": "p"}, "status": {"phase": "Running", "conditions": [
                {"type": TARGET, "status": "True", "reason": "EvictionByEvictionAPI", "lastTransitionTime": "2024-01-01T00:00:00Z"}]}});
            for (pointer, value) in change.as_object().unwrap() {
                let (parent, name) = pointer.rsplit_once('/').unwrap();
                pod.pointer_mut(parent).unwrap()[name] = value.clone();
            }
            stale_after(&serde_json::from_value(pod).unwrap(), now.parse().unwrap()).map(|left| left.as_secs())
        };
        assert_eq!(after(json!({}), "2024-01-01T00:00:30Z"), Some(90));
        assert_eq!(after(json!({}), "2024-01-01T00:03:00Z"), Some(0));
        for change in [
            json!({"/metadata/deletionTimestamp": "2024-01-01T00:00:00Z"}),
            json!({"/status/phase": "Failed"}),
            json!({"/status/conditions/0/status": "False"}),
            json!({"/status/conditions/0/reason": BY_KUBELET}),
        ] {
            assert_eq!(after(change, "2024-01-01T00:03:00Z"), None);
        }
    }

    #[test]
    fn a_pod_noted_as_evicted_counts_as_gone_for_two_minutes() {
        let pod = |name: &str| {
            let ready = json!([{"type": "Ready", "status": "True"}]);
            let pod = json!({"metadata": {"name": name}, "status": {"conditions": ready}});
            Arc::new(serde_json::from_value::<Pod>(pod).unwrap())
        };
        let budget: PodDisruptionBudget = serde_json::from_value(json!({
            "metadata": {"name": "b", "generation": 3},
            "status": {"currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0, "disruptionsAllowed": 0,
                "disruptedPods": {"a": "2024-01-01T00:00:00Z", "gone": "2024-01-01T00:00:00Z"}},
        }))
        .unwrap();
        let at = |time: &str| {
            let (status, next) = status(&budget, &[pod("a"), pod("b")], 2, 1, time.parse().unwrap());
            let left = match next {
                Next::After(left) => left.as_secs(),
                Next::Done => 0,
            };
            (
                status.current_healthy,
                status.disruptions_allowed,
                status.disrupted_pods.map_or(0, |pods| pods.len()),
                left,
            )
        };
        assert_eq!(at("2024-01-01T00:01:00Z"), (1, 0, 1, 60));
        assert_eq!(at("2024-01-01T00:02:01Z"), (2, 1, 0, 0));
    }
}
