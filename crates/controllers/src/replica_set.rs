//! A ReplicaSet keeps `spec.replicas` active pods made of its template.
//!
//! Active is every pod it controls that has neither ended nor is being deleted. Missing pods are created in batches that double
//! from one as long as all succeed (a refused template costs one request, not thousands); surplus pods are
//! deleted in the order of [`crate::pods::rank_for_deletion`]. Status counts active pods only; `terminatingReplicas` those on their way out.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::join_all;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kminik_client::{Informer, Next, ObjectKey, WorkQueue};

use crate::context::Context;
use crate::error::Error;
use crate::owners::{
    candidates, claim_children, controlled, controller_of, controller_reference, index_by_controller, push_claimants,
    selector_of,
};
use crate::pod_control::{self, count, reason, several};
use crate::pods::{self, Availability, availability, is_active, is_ready};

/// Pods created or deleted in one reconciliation at most.
const BURST: usize = 500;
const WORKERS: usize = 8;

pub(crate) struct Controller {
    context: Context,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
}

pub(crate) async fn run(context: Context) -> Result<(), Error> {
    let controller =
        Arc::new(Controller { sets: context.informers.get(), pods: context.informers.get(), context: context.clone() });
    index_by_controller(&controller.pods);
    let queue = WorkQueue::new();
    let sets = controller.sets.clone();
    let _subscriptions = [
        controller.sets.enqueue(&queue),
        controller.pods.enqueue_with(&queue, move |pod, keys| {
            push_claimants(&pod.metadata, &sets, |set| Some(&set.spec.as_ref()?.selector), keys);
        }),
    ];
    let synced = [controller.sets.wait_synced().boxed(), controller.pods.wait_synced().boxed()];
    let worker = controller.clone();
    context.work(queue, WORKERS, synced, move |key| reconcile(worker.clone(), key)).await
}

async fn reconcile(controller: Arc<Controller>, key: ObjectKey) -> Result<Next, Error> {
    let Some(set) = controller.sets.get(&key) else { return Ok(Next::Done) };
    let Some(spec) = &set.spec else { return Ok(Next::Done) };
    let context = &controller.context;
    let selector = selector_of(set.as_ref(), &spec.selector)?;
    let found = candidates(&controller.pods, &set.metadata);
    let pods = claim_children(context, &controller.pods, set.as_ref(), &selector, found).await?;
    let (active, rest): (Vec<_>, Vec<_>) = pods.into_iter().partition(|pod| is_active(pod));
    let outcome = match set.metadata.deletion_timestamp {
        Some(_) => Ok(()),
        None => manage(&controller, &key, &set, &active).await,
    };
    let terminating = rest.iter().filter(|pod| pods::is_terminating(pod) && !pods::is_terminal(pod)).count();
    let (status, recheck) = status_of(&set, &active, terminating, outcome.as_ref().err(), Timestamp::now());
    let mut new = set.as_ref().clone();
    new.status = Some(status);
    match context.update_status(&key, &controller.sets, &set, &new).await {
        Err(error) if !error.is_not_found() => return Err(error),
        _ => {}
    }
    outcome?;
    Ok(recheck)
}

/// Creates or deletes what separates the active pods from the number wanted.
async fn manage(controller: &Controller, key: &ObjectKey, set: &ReplicaSet, active: &[Arc<Pod>]) -> Result<(), Error> {
    let wanted = usize::try_from(set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)).unwrap_or(0);
    let Controller { context, pods, .. } = controller;
    if active.len() < wanted {
        let Some(template) = set.spec.as_ref().and_then(|spec| spec.template.as_ref()) else { return Ok(()) };
        let pod = pods::from_template(template, &key.name, &key.namespace, controller_reference(set));
        let missing = (wanted - active.len()).min(BURST);
        slow_start(missing, || pod_control::create(context, key, set, pods, &pod)).await
    } else if active.len() > wanted {
        let surplus = (active.len() - wanted).min(BURST);
        let mut ranked = active.to_vec();
        pods::rank_for_deletion(&mut ranked, &neighbours(controller, set), Timestamp::now());
        let deletions = ranked.iter().take(surplus).map(|pod| pod_control::delete(context, key, set, pods, pod));
        several(join_all(deletions).await)
    } else {
        Ok(())
    }
}

/// Active pods on each node that belong to sets of the same owner.
fn neighbours(controller: &Controller, set: &ReplicaSet) -> BTreeMap<String, usize> {
    let owner = controller_of(&set.metadata).map(|reference| reference.uid.as_str());
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    let mut counts = BTreeMap::new();
    for other in controller.sets.list_in(namespace) {
        let of_owner =
            owner.is_some() && controller_of(&other.metadata).map(|reference| reference.uid.as_str()) == owner;
        if of_owner || other.metadata.uid == set.metadata.uid {
            for pod in controlled(&controller.pods, &other.metadata).iter().filter(|pod| is_active(pod)) {
                *counts.entry(pods::node_of(pod).to_string()).or_insert(0) += 1;
            }
        }
    }
    counts
}

/// Runs `count` requests in batches of 1, 2, 4 …, stopping after the first batch with a failure.
pub(crate) async fn slow_start<F, R>(count: usize, request: F) -> Result<(), Error>
where
    F: Fn() -> R,
    R: Future<Output = Result<(), Error>>,
{
    let (mut left, mut batch) = (count, 1);
    while left > 0 {
        let size = batch.min(left);
        several(join_all((0..size).map(|_| request())).await)?;
        left -= size;
        batch = size * 2;
    }
    Ok(())
}

fn status_of(
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    terminating: usize,
    failure: Option<&Error>,
    now: Timestamp,
) -> (ReplicaSetStatus, Next) {
    let min_ready = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    let labels = template.and_then(|template| template.metadata.as_ref()?.labels.clone()).unwrap_or_default();
    let (mut ready, mut available, mut labelled) = (0, 0, 0);
    let mut recheck = Next::Done;
    for pod in active {
        let own = pod.metadata.labels.as_ref();
        labelled += i32::from(labels.iter().all(|(name, value)| own.and_then(|own| own.get(name)) == Some(value)));
        ready += i32::from(is_ready(pod));
        match availability(pod, min_ready, now) {
            Availability::Available => available += 1,
            Availability::After(left) => {
                recheck = match recheck {
                    Next::After(earlier) if earlier < left => recheck,
                    _ => Next::After(left),
                }
            }
            Availability::NotReady => {}
        }
    }
    let old = set.status.as_ref();
    let mut conditions = old.and_then(|status| status.conditions.clone()).unwrap_or_default();
    const FAILURE: &str = "ReplicaFailure";
    match failure {
        Some(error) if !conditions.iter().any(|condition| condition.type_ == FAILURE) => {
            let wanted = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
            let more = i64::from(wanted) > i64::try_from(active.len()).unwrap_or(i64::MAX);
            conditions.push(ReplicaSetCondition {
                type_: FAILURE.into(),
                status: "True".into(),
                reason: Some(if more { "FailedCreate" } else { "FailedDelete" }.into()),
                message: Some(reason(error)),
                last_transition_time: Some(Time(now)),
            });
        }
        Some(_) => {}
        None => conditions.retain(|condition| condition.type_ != FAILURE),
    }
    let status = ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: Some(labelled).filter(|n| *n > 0),
        ready_replicas: Some(ready).filter(|n| *n > 0),
        available_replicas: Some(available).filter(|n| *n > 0),
        terminating_replicas: Some(count(terminating)),
        observed_generation: set.metadata.generation,
        conditions: Some(conditions).filter(|conditions| !conditions.is_empty()),
    };
    (status, recheck)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_refused_template_costs_one_request() {
        let asked = AtomicUsize::new(0);
        let refused = slow_start(100, || async {
            asked.fetch_add(1, Ordering::SeqCst);
            Err(Error::InformersStopped)
        })
        .await;
        assert!(refused.is_err());
        assert_eq!(asked.swap(0, Ordering::SeqCst), 1);
        slow_start(100, || async {
            asked.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 100);
    }

    #[test]
    fn status_counts_active_pods_and_names_a_failure() {
        let set: ReplicaSet = serde_json::from_value(json!({
            "metadata": {"name": "s", "generation": 3},
            "spec": {"replicas": 3, "minReadySeconds": 30, "selector": {}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}}},
        }))
        .unwrap();
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "labels": {"a": "b", "c": "d"}}, "spec": {"containers": []},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T11:59:50Z"}]},
        }))
        .unwrap();
        let (status, next) = status_of(&set, &[Arc::new(pod)], 2, Some(&Error::InformersStopped), now);
        assert_eq!(next, Next::After(std::time::Duration::from_secs(20)));
        assert_eq!((status.replicas, status.ready_replicas, status.available_replicas), (1, Some(1), None));
        assert_eq!((status.fully_labeled_replicas, status.terminating_replicas), (Some(1), Some(2)));
        assert_eq!(status.observed_generation, Some(3));
        assert_eq!(status.conditions.unwrap()[0].reason.as_deref(), Some("FailedCreate"));
    }
}
