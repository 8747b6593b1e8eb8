//! What a Deployment's status says: counts over its sets, and the conditions Available, Progressing and ReplicaFailure.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentSpec, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kminik_client::Next;

use super::scale;
use crate::pods::elapsed;

const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const FAILURE: &str = "ReplicaFailure";

/// A condition to be set.
#[derive(Clone, Debug)]
pub(super) struct Condition {
    kind: &'static str,
    status: String,
    reason: String,
    message: String,
}

impl Condition {
    fn new(kind: &'static str, status: &str, reason: &str, message: &str) -> Self {
        Self { kind, status: status.into(), reason: reason.into(), message: message.into() }
    }

    pub(super) fn progressing(status: &str, reason: &str, message: &str) -> Self {
        Self::new(PROGRESSING, status, reason, message)
    }
}

/// The reason of one of a Deployment's conditions.
pub(super) fn condition_reason<'a>(deployment: &'a Deployment, kind: &str) -> Option<&'a str> {
    let conditions = deployment.status.as_ref()?.conditions.iter().flatten();
    conditions.filter(|condition| condition.type_ == kind).find_map(|condition| condition.reason.as_deref())
}

/// The numbers of the status, without conditions.
pub(super) fn counts(deployment: &Deployment, new: Option<&ReplicaSet>, old: &[Arc<ReplicaSet>]) -> DeploymentStatus {
    let all = || old.iter().map(Arc::as_ref).chain(new);
    let sum = |of: fn(&ReplicaSet) -> i32| -> i32 { all().map(of).sum() };
    let available = sum(scale::available);
    let ready = sum(|set| set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0));
    let replicas = sum(actual);
    let unavailable = (sum(scale::size) - available).max(0);
    let positive = |number: i32| Some(number).filter(|number| *number > 0);
    DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: positive(replicas),
        updated_replicas: positive(new.map(actual).unwrap_or(0)),
        ready_replicas: positive(ready),
        available_replicas: positive(available),
        unavailable_replicas: positive(unavailable),
        terminating_replicas: Some(sum(|set| {
            set.status.as_ref().and_then(|status| status.terminating_replicas).unwrap_or(0)
        })),
        collision_count: deployment.status.as_ref().and_then(|status| status.collision_count),
        conditions: None,
    }
}

fn actual(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

/// All pods wanted are of the current template and available, and no other is left.
pub(super) fn is_complete(deployment: &Deployment, wanted: i32, status: &DeploymentStatus) -> bool {
    let is_wanted = |number: Option<i32>| number.unwrap_or(0) == wanted;
    is_wanted(status.updated_replicas)
        && is_wanted(status.replicas)
        && is_wanted(status.available_replicas)
        && status.observed_generation >= deployment.metadata.generation
}

/// The whole status, and when the progress deadline is to be looked at.
pub(super) fn complete(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    mut status: DeploymentStatus,
    new: Option<&ReplicaSet>,
    old: &[Arc<ReplicaSet>],
    noted: Vec<Condition>,
    now: Timestamp,
) -> (DeploymentStatus, Next) {
    let before = deployment.status.clone().unwrap_or_default();
    let mut conditions = before.conditions.clone().unwrap_or_default();
    for condition in noted {
        set(&mut conditions, condition, now);
    }
    let wanted = spec.replicas.unwrap_or(1);
    let enough = status.available_replicas.unwrap_or(0) >= wanted - scale::bounds(spec).1;
    let available = if enough {
        Condition::new(AVAILABLE, "True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        Condition::new(
            AVAILABLE,
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    };
    set(&mut conditions, available, now);

    let deadline = spec.progress_deadline_seconds.filter(|seconds| *seconds != i32::MAX);
    let mut next = Next::Done;
    match deadline {
        None => conditions.retain(|condition| condition.type_ != PROGRESSING),
        Some(_) if spec.paused == Some(true) => {}
        Some(deadline) => {
            let deadline = Duration::from_secs(deadline.unsigned_abs().into());
            next = progress(deployment, wanted, &before, &status, new, &mut conditions, deadline, now);
        }
    }
    match new.into_iter().chain(old.iter().map(Arc::as_ref)).find_map(failure) {
        Some(failure) => set(&mut conditions, failure, now),
        None => conditions.retain(|condition| condition.type_ != FAILURE),
    }
    status.conditions = Some(conditions);
    (status, next)
}

#[expect(clippy::too_many_arguments, reason = "one step of `complete`, over its values")]
fn progress(
    deployment: &Deployment,
    wanted: i32,
    before: &DeploymentStatus,
    status: &DeploymentStatus,
    new: Option<&ReplicaSet>,
    conditions: &mut Vec<DeploymentCondition>,
    deadline: Duration,
    now: Timestamp,
) -> Next {
    let subject = match new.and_then(|new| new.metadata.name.as_deref()) {
        Some(set) => format!("ReplicaSet \"{set}\""),
        None => format!("Deployment \"{}\"", deployment.metadata.name.as_deref().unwrap_or_default()),
    };
    let done = status.replicas == status.updated_replicas
        && condition_reason(deployment, PROGRESSING) == Some("NewReplicaSetAvailable");
    if done {
        return Next::Done;
    }
    if is_complete(deployment, wanted, status) {
        let message = format!("{subject} has successfully progressed.");
        set(conditions, Condition::progressing("True", "NewReplicaSetAvailable", &message), now);
        return Next::Done;
    }
    if has_progressed(before, status) {
        let message = format!("{subject} is progressing.");
        let since = conditions
            .iter()
            .find(|condition| condition.type_ == PROGRESSING && condition.status == "True")
            .and_then(|condition| condition.last_transition_time.clone());
        // Progress restarts the deadline even if the condition's text stays the same.
        conditions.retain(|condition| condition.type_ != PROGRESSING);
        set(conditions, Condition::progressing("True", "ReplicaSetUpdated", &message), now);
        if let (Some(since), Some(condition)) = (since, conditions.last_mut()) {
            condition.last_transition_time = Some(since);
        }
        return Next::After(deadline);
    }
    let Some(current) = conditions.iter().find(|condition| condition.type_ == PROGRESSING) else { return Next::Done };
    if matches!(current.reason.as_deref(), Some("NewReplicaSetAvailable" | "ProgressDeadlineExceeded")) {
        return Next::Done;
    }
    let waited = current.last_update_time.as_ref().map_or(Duration::ZERO, |time| elapsed(time.0, now));
    match deadline.checked_sub(waited).filter(|left| !left.is_zero()) {
        // Times of the API are whole seconds: a second later it is surely over.
        Some(left) => Next::After(left + Duration::from_secs(1)),
        None => {
            let message = format!("{subject} has timed out progressing.");
            set(conditions, Condition::progressing("False", "ProgressDeadlineExceeded", &message), now);
            Next::Done
        }
    }
}

fn has_progressed(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let old_pods = |status: &DeploymentStatus| status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0);
    after.updated_replicas > before.updated_replicas
        || old_pods(after) < old_pods(before)
        || after.ready_replicas > before.ready_replicas
        || after.available_replicas > before.available_replicas
}

fn failure(set: &ReplicaSet) -> Option<Condition> {
    let conditions = set.status.as_ref()?.conditions.iter().flatten();
    let mut failures = conditions.filter(|condition| condition.type_ == FAILURE);
    failures.next().map(|condition| Condition {
        kind: FAILURE,
        status: condition.status.clone(),
        reason: condition.reason.clone().unwrap_or_default(),
        message: condition.message.clone().unwrap_or_default(),
    })
}

/// Sets a condition; nothing changes if status and reason stay, and the transition time stays with the status.
fn set(conditions: &mut Vec<DeploymentCondition>, condition: Condition, now: Timestamp) {
    let current = conditions.iter().position(|current| current.type_ == condition.kind);
    let current = match current {
        Some(at)
            if conditions[at].status == condition.status
                && conditions[at].reason.as_deref() == Some(condition.reason.as_str()) =>
        {
            return;
        }
        Some(at) => Some(conditions.remove(at)),
        None => None,
    };
    let transition = current
        .filter(|current| current.status == condition.status)
        .and_then(|current| current.last_transition_time)
        .unwrap_or(Time(now));
    conditions.push(DeploymentCondition {
        type_: condition.kind.into(),
        status: condition.status,
        reason: Some(condition.reason),
        message: Some(condition.message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(transition),
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status_after(deployment: serde_json::Value, set: serde_json::Value, at: &str) -> (DeploymentStatus, Next) {
        let deployment: Deployment = serde_json::from_value(deployment).unwrap();
        let set: ReplicaSet = serde_json::from_value(set).unwrap();
        let spec = deployment.spec.clone().unwrap();
        let counts = counts(&deployment, Some(&set), &[]);
        complete(&deployment, &spec, counts, Some(&set), &[], Vec::new(), at.parse().unwrap())
    }

    fn progressing(status: &DeploymentStatus) -> &DeploymentCondition {
        status.conditions.iter().flatten().find(|condition| condition.type_ == PROGRESSING).unwrap()
    }

    fn deployment(status: serde_json::Value) -> serde_json::Value {
        json!({
            "metadata": {"name": "d", "generation": 1},
            "spec": {"replicas": 2, "progressDeadlineSeconds": 60, "selector": {}, "template": {}},
            "status": status,
        })
    }

    fn replica_set(available: i32) -> serde_json::Value {
        json!({
            "metadata": {"name": "d-1"}, "spec": {"replicas": 2, "selector": {}},
            "status": {"replicas": 2, "readyReplicas": available, "availableReplicas": available},
        })
    }

    #[test]
    fn a_rollout_progresses_and_completes() {
        let (status, next) = status_after(deployment(json!({})), replica_set(1), "2026-01-01T00:00:00Z");
        assert_eq!(progressing(&status).reason.as_deref(), Some("ReplicaSetUpdated"));
        assert_eq!(next, Next::After(Duration::from_secs(60)));
        assert_eq!((status.replicas, status.unavailable_replicas), (Some(2), Some(1)));
        let before = serde_json::to_value(&status).unwrap();
        let (status, _) = status_after(deployment(before), replica_set(2), "2026-01-01T00:00:10Z");
        let condition = progressing(&status);
        assert_eq!(condition.reason.as_deref(), Some("NewReplicaSetAvailable"));
        assert_eq!(condition.message.as_deref(), Some("ReplicaSet \"d-1\" has successfully progressed."));
        assert_eq!(condition.last_transition_time.as_ref().unwrap().0.to_string(), "2026-01-01T00:00:00Z");
    }

    #[test]
    fn no_progress_for_the_deadline_is_told() {
        let (status, _) = status_after(deployment(json!({})), replica_set(1), "2026-01-01T00:00:00Z");
        let before = serde_json::to_value(&status).unwrap();
        let (status, next) = status_after(deployment(before.clone()), replica_set(1), "2026-01-01T00:00:20Z");
        assert_eq!(progressing(&status).status, "True");
        assert_eq!(next, Next::After(Duration::from_secs(41)));
        let (status, _) = status_after(deployment(before), replica_set(1), "2026-01-01T00:01:01Z");
        assert_eq!(progressing(&status).reason.as_deref(), Some("ProgressDeadlineExceeded"));
    }
}
