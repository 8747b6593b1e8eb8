//! What controllers ask of pods: phase, readiness, availability, and which of them to give up first.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;

/// A pod's phase; `Pending` if not yet set.
pub(crate) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// The pod has ended for good.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// The pod is being deleted.
pub(crate) fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// The pod counts towards a controller's replicas.
pub(crate) fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_terminating(pod)
}

/// A condition of a pod.
pub(crate) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

/// The pod's `Ready` condition is true.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|condition| condition.status == "True")
}

/// Whether a pod has been ready for `min_ready_seconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Availability {
    Available,
    /// Ready, and available after this time if it stays so.
    After(Duration),
    NotReady,
}

pub(crate) fn availability(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Availability {
    let Some(ready) = condition(pod, "Ready").filter(|condition| condition.status == "True") else {
        return Availability::NotReady;
    };
    if min_ready_seconds <= 0 {
        return Availability::Available;
    }
    let Some(since) = &ready.last_transition_time else { return Availability::NotReady };
    let needed = Duration::from_secs(min_ready_seconds.unsigned_abs().into());
    match needed.checked_sub(elapsed(since.0, now)).filter(|left| !left.is_zero()) {
        Some(left) => Availability::After(left),
        None => Availability::Available,
    }
}

/// Time from `since` to `now`; zero if that lies ahead.
pub(crate) fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// A pod made of a template, with a generated name, controlled by `owner`.
pub(crate) fn from_template(
    template: &PodTemplateSpec,
    owner_name: &str,
    namespace: &str,
    owner: OwnerReference,
) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{owner_name}-")),
            namespace: Some(namespace.to_string()),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Sorts pods so that the ones to delete first come first, as upstream ranks them: unassigned, not running, not ready, cheap by
/// `controller.kubernetes.io/pod-deletion-cost`, on a crowded node, recently ready, often restarted, young.
/// `neighbours` gives for each node the number of active pods that serve the same purpose.
pub(crate) fn rank_for_deletion(pods: &mut [Arc<Pod>], neighbours: &BTreeMap<String, usize>, now: Timestamp) {
    pods.sort_by(|a, b| deletion_order(a, b, neighbours, now));
}

fn deletion_order(a: &Pod, b: &Pod, neighbours: &BTreeMap<String, usize>, now: Timestamp) -> Ordering {
    let crowd = |pod: &Pod| neighbours.get(node_of(pod)).copied().unwrap_or(0);
    (!node_of(a).is_empty())
        .cmp(&!node_of(b).is_empty())
        .then_with(|| phase_rank(a).cmp(&phase_rank(b)))
        .then_with(|| is_ready(a).cmp(&is_ready(b)))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        .then_with(|| crowd(b).cmp(&crowd(a)))
        .then_with(|| match (is_ready(a), is_ready(b)) {
            // Younger first, but only where the ages differ in magnitude: so that deletions spread.
            (true, true) => log_age(ready_since(a), now).cmp(&log_age(ready_since(b), now)),
            _ => Ordering::Equal,
        })
        .then_with(|| Reverse(restarts(a)).cmp(&Reverse(restarts(b))))
        .then_with(|| log_age(created(a), now).cmp(&log_age(created(b), now)))
        .then_with(|| a.metadata.uid.cmp(&b.metadata.uid))
}

/// The node a pod is bound to; empty if none.
pub(crate) fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// Names of the claims that a pod mounts, those made for it included.
pub(crate) fn claims_of(pod: &Pod) -> impl Iterator<Item = String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.metadata.name.as_deref()?, volume.name)),
        (None, None) => None,
    })
}

fn phase_rank(pod: &Pod) -> u8 {
    match phase(pod) {
        "Pending" => 0,
        "Running" => 2,
        _ => 1,
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    let cost = annotations.and_then(|all| all.get("controller.kubernetes.io/pod-deletion-cost"));
    cost.and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

fn restarts(pod: &Pod) -> (i32, i32) {
    let Some(status) = &pod.status else { return (0, 0) };
    let most = |statuses: &Option<Vec<k8s_openapi::api::core::v1::ContainerStatus>>| {
        statuses.iter().flatten().map(|status| status.restart_count).max().unwrap_or(0)
    };
    (most(&status.container_statuses), most(&status.init_container_statuses))
}

fn ready_since(pod: &Pod) -> Option<Timestamp> {
    condition(pod, "Ready").and_then(|condition| condition.last_transition_time.as_ref()).map(|time| time.0)
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// The magnitude of an age: the base-2 logarithm of its nanoseconds; an unknown time is of no age.
fn log_age(since: Option<Timestamp>, now: Timestamp) -> u32 {
    since.map_or(0, |since| elapsed(since, now).as_nanos().checked_ilog2().map_or(0, |log| log + 1))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, value: serde_json::Value) -> Arc<Pod> {
        let mut value = value;
        value["metadata"]["name"] = json!(name);
        value["metadata"]["uid"] = json!(name);
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn ready(since: &str) -> serde_json::Value {
        json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": since}]})
    }

    #[test]
    fn deletion_prefers_what_is_missed_least() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let mut pods = vec![
            pod("old", json!({"spec": {"nodeName": "a", "containers": []}, "status": ready("2026-01-01T00:00:00Z")})),
            pod("young", json!({"spec": {"nodeName": "a", "containers": []}, "status": ready("2026-01-01T11:59:00Z")})),
            pod(
                "cheap",
                json!({
                    "metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5"}},
                    "spec": {"nodeName": "a", "containers": []}, "status": ready("2026-01-01T00:00:00Z"),
                }),
            ),
            pod(
                "crowded",
                json!({"spec": {"nodeName": "b", "containers": []}, "status": ready("2026-01-01T00:00:00Z")}),
            ),
            pod("unready", json!({"spec": {"nodeName": "a", "containers": []}, "status": {"phase": "Running"}})),
            pod("pending", json!({"spec": {"nodeName": "a", "containers": []}, "status": {"phase": "Pending"}})),
            pod("unassigned", json!({"spec": {"containers": []}, "status": {"phase": "Pending"}})),
        ];
        let neighbours = BTreeMap::from([("a".to_string(), 1), ("b".to_string(), 3)]);
        rank_for_deletion(&mut pods, &neighbours, now);
        let names: Vec<_> = pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
        assert_eq!(names, ["unassigned", "pending", "unready", "cheap", "crowded", "young", "old"]);
    }

    #[test]
    fn availability_waits_for_min_ready_seconds() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let pod = pod("a", json!({"spec": {"containers": []}, "status": ready("2026-01-01T11:59:50Z")}));
        assert_eq!(availability(&pod, 0, now), Availability::Available);
        assert_eq!(availability(&pod, 10, now), Availability::Available);
        assert_eq!(availability(&pod, 30, now), Availability::After(Duration::from_secs(20)));
    }
}
