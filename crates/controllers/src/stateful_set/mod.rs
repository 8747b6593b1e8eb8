//! A StatefulSet keeps pods with numbers: each has a stable name, its own claims, and a place in the order.
//!
//! With the policy `OrderedReady` one pod at a time is created (lowest number first) or deleted (highest first), and the next waits until
//! those before it are ready and available; with `Parallel` none waits. Pods that have ended are made anew. A new template replaces
//! pods from the highest number down to the partition, each when those replaced before it are ready; pods below the partition are of the
//! earlier template also when they are made anew. What to do next is [`plan`], a function of what there is.

mod claims;
mod plan;

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::FutureExt;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kminik_client::{Informer, Next, ObjectKey, WorkQueue};
use kube::ResourceExt;

use crate::context::Context;
use crate::error::Error;
use crate::owners::{
    candidates, claim_children, controller_reference, index_by_controller, push_claimants, selector_of,
};
use crate::pod_control::{self, reason};
use crate::pods::{Availability, availability, is_ready, is_terminal, is_terminating};
use crate::revisions::{self, HASH_LABEL, History};
use plan::{Step, plan};

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";
const WORKERS: usize = 4;

struct Controller {
    context: Context,
    sets: Informer<StatefulSet>,
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
    revisions: Informer<ControllerRevision>,
}

pub(crate) async fn run(context: Context) -> Result<(), Error> {
    let controller = Arc::new(Controller {
        sets: context.informers.get(),
        pods: context.informers.get(),
        claims: context.informers.get(),
        revisions: context.informers.get(),
        context: context.clone(),
    });
    index_by_controller(&controller.pods);
    index_by_controller(&controller.revisions);
    let queue = WorkQueue::new();
    let (by_pod, by_revision) = (controller.sets.clone(), controller.sets.clone());
    let _subscriptions = [
        controller.sets.enqueue(&queue),
        controller.pods.enqueue_with(&queue, move |pod, keys| {
            push_claimants(&pod.metadata, &by_pod, |set| Some(&set.spec.as_ref()?.selector), keys);
        }),
        controller.revisions.enqueue_with(&queue, move |revision, keys| {
            push_claimants(&revision.metadata, &by_revision, |set| Some(&set.spec.as_ref()?.selector), keys);
        }),
    ];
    let synced = [
        controller.sets.wait_synced().boxed(),
        controller.pods.wait_synced().boxed(),
        controller.claims.wait_synced().boxed(),
        controller.revisions.wait_synced().boxed(),
    ];
    let worker = controller.clone();
    context.work(queue, WORKERS, synced, move |key| reconcile(worker.clone(), key)).await
}

/// One set during one reconciliation.
struct Sync<'a> {
    controller: &'a Controller,
    key: ObjectKey,
    set: Arc<StatefulSet>,
    spec: &'a StatefulSetSpec,
    history: &'a History,
    /// The revision of pods below the partition.
    current: Arc<ControllerRevision>,
    /// With their numbers, in order.
    pods: Vec<(i32, Arc<Pod>)>,
}

async fn reconcile(controller: Arc<Controller>, key: ObjectKey) -> Result<Next, Error> {
    let Controller { context, sets, pods, revisions, .. } = controller.as_ref();
    let Some(set) = sets.get(&key) else { return Ok(Next::Done) };
    let Some(spec) = &set.spec else { return Ok(Next::Done) };
    let selector = selector_of(set.as_ref(), &spec.selector)?;
    if selector.selects_all() || set.metadata.deletion_timestamp.is_some() {
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
    // Only pods by whose name they could be the set's are taken on.
    let mut found = candidates(pods, &set.metadata);
    found.retain(|pod| number_of(&key.name, &pod.name_any()).is_some());
    let own = claim_children(context, pods, set.as_ref(), &selector, found).await?;
    let mut numbered: Vec<_> =
        own.into_iter().filter_map(|pod| Some((number_of(&key.name, &pod.name_any())?, pod))).collect();
    numbered.sort_by_key(|(number, _)| *number);
    let current = set.status.as_ref().and_then(|status| status.current_revision.as_deref());
    let current = current.and_then(|name| history.find(name)).unwrap_or(&history.update).clone();
    let sync = Sync {
        controller: &controller,
        key: key.clone(),
        set: set.clone(),
        spec,
        history: &history,
        current,
        pods: numbered,
    };
    let outcome = sync.step().await;
    let (status, next) = sync.status(collisions, Timestamp::now());
    let mut updated = set.as_ref().clone();
    updated.status = Some(status);
    match context.update_status(&key, sets, &set, &updated).await {
        Err(error) if !error.is_not_found() => return Err(error),
        _ => {}
    }
    outcome?;
    let mut used: BTreeSet<String> =
        sync.pods.iter().filter_map(|(_, pod)| pod.labels().get(HASH_LABEL).cloned()).collect();
    used.insert(sync.current.name_any());
    let limit = spec.revision_history_limit.unwrap_or(10);
    revisions::clean_up(context, revisions, set.as_ref(), &history, &used, limit).await?;
    Ok(next)
}

/// The number of a pod by its name, `<set>-<number>`.
fn number_of(set: &str, pod: &str) -> Option<i32> {
    let number = pod.strip_prefix(set)?.strip_prefix('-')?;
    let canonical = number == "0" || !number.starts_with('0');
    number.parse().ok().filter(|_| canonical && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_of(pod: &Pod, revision: &ControllerRevision) -> bool {
    pod.labels().get(HASH_LABEL).is_some_and(|own| *own == revision.name_any())
}

impl Sync<'_> {
    async fn step(&self) -> Result<(), Error> {
        let Controller { context, pods, .. } = self.controller;
        self.keep_claims_owned().await?;
        let update = &self.history.update;
        let steps = plan(self.spec, &self.pods, |pod| is_of(pod, update), Timestamp::now());
        for step in steps {
            match step {
                Step::Create(number) => self.create(number).await?,
                Step::Delete(number) => {
                    if let Some((_, pod)) = self.pods.iter().find(|(own, _)| *own == number) {
                        if self.is_condemned(number) {
                            self.give_claims_to_pod(pod, number).await?;
                        }
                        pod_control::delete(context, &self.key, self.set.as_ref(), pods, pod).await?;
                    }
                }
            }
        }
        Ok(())
    }

    fn is_condemned(&self, number: i32) -> bool {
        let (start, end) = plan::numbers(self.spec);
        !(start..end).contains(&number)
    }

    async fn create(&self, number: i32) -> Result<(), Error> {
        let Controller { context, pods, .. } = self.controller;
        let (start, _) = plan::numbers(self.spec);
        let revision = if number < start + plan::partition(self.spec) { &self.current } else { &self.history.update };
        let template = revisions::template(revision).unwrap_or_else(|| self.spec.template.clone());
        let name = format!("{}-{number}", self.key.name);
        if let Err(error) = self.make_claims(&name, number).await {
            let message =
                format!("create Pod {name} in StatefulSet {} failed error: {}", self.key.name, reason(&error));
            context.recorder.warning(self.set.as_ref(), "FailedCreate", message);
            return Err(error);
        }
        let meta = template.metadata.clone().unwrap_or_default();
        let mut labels = meta.labels.unwrap_or_default();
        labels.insert(POD_NAME.into(), name.clone());
        labels.insert(POD_INDEX.into(), number.to_string());
        labels.insert(HASH_LABEL.into(), revision.name_any());
        let mut spec = template.spec.unwrap_or_default();
        spec.hostname = Some(name.clone());
        spec.subdomain = self.spec.service_name.clone().filter(|service| !service.is_empty());
        self.mount_claims(&mut spec, number);
        let pod = Pod {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(self.key.namespace.clone()),
                labels: Some(labels),
                annotations: meta.annotations,
                finalizers: meta.finalizers,
                owner_references: Some(vec![controller_reference(self.set.as_ref())]),
                ..ObjectMeta::default()
            },
            spec: Some(spec),
            status: None,
        };
        let set = &self.key.name;
        match context.create(&self.key, pods, &pod).await {
            Ok(_) => {
                let message = format!("create Pod {name} in StatefulSet {set} successful");
                context.recorder.normal(self.set.as_ref(), "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) if error.is_terminating() => Ok(()),
            Err(error) => {
                let message = format!("create Pod {name} in StatefulSet {set} failed error: {}", reason(&error));
                context.recorder.warning(self.set.as_ref(), "FailedCreate", message);
                Err(error)
            }
        }
    }

    fn status(&self, collisions: Option<i32>, now: Timestamp) -> (StatefulSetStatus, Next) {
        let (update, current) = (&self.history.update, &self.current);
        let min_ready = self.spec.min_ready_seconds.unwrap_or(0);
        let mut next = Next::Done;
        let (mut replicas, mut ready, mut available, mut of_current, mut of_update) = (0, 0, 0, 0, 0);
        for (_, pod) in self.pods.iter().filter(|(_, pod)| !is_terminal(pod)) {
            replicas += 1;
            if is_ready(pod) {
                ready += 1;
                match availability(pod, min_ready, now) {
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
            if !is_terminating(pod) {
                of_current += i32::from(is_of(pod, current));
                of_update += i32::from(is_of(pod, update));
            }
        }
        let mut current = current.name_any();
        // An update is complete when every pod is of the new template and ready: then that is the current one.
        if of_update == replicas && ready == replicas && replicas == self.spec.replicas.unwrap_or(1) {
            current = update.name_any();
            of_current = of_update;
        }
        let positive = |number: i32| Some(number).filter(|number| *number > 0);
        let status = StatefulSetStatus {
            replicas,
            ready_replicas: positive(ready),
            available_replicas: Some(available),
            current_replicas: positive(of_current),
            updated_replicas: positive(of_update),
            current_revision: Some(current),
            update_revision: Some(update.name_any()),
            observed_generation: self.set.metadata.generation,
            collision_count: Some(collisions.unwrap_or(0)),
            conditions: self.set.status.as_ref().and_then(|status| status.conditions.clone()),
        };
        (status, next)
    }
}

#[cfg(test)]
mod tests {
    use super::number_of;

    #[test]
    fn only_canonical_names_are_members() {
        assert_eq!(number_of("web", "web-0"), Some(0));
        assert_eq!(number_of("web", "web-12"), Some(12));
        for name in ["web", "web-", "web-01", "web-x", "web-1-2", "other-1", "web-+1", "web--1"] {
            assert_eq!(number_of("web", name), None, "{name}");
        }
    }
}
