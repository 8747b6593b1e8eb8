//! A Deployment keeps one ReplicaSet of its current template and moves pods from those of earlier templates to it.
//!
//! The *new* set is the oldest one whose template equals the Deployment's but for the `pod-template-hash` label; all others it controls
//! are *old*. A reconciliation takes one step: scaling (the wanted number changed, or the Deployment is paused) comes before the
//! rollout; a rollout first grows the new set, then shrinks old ones ([`scale`]), or with `Recreate` waits until no old pod is left. Old
//! sets beyond the history limit are deleted once the rollout is complete. What is told of it is in [`status`].

mod scale;
mod status;
mod template;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kminik_client::{Informer, Next, ObjectKey, WorkQueue};
use kube::ResourceExt;
use kube::api::DeleteParams;

use crate::context::Context;
use crate::error::Error;
use crate::owners::{
    candidates, claim_children, controlled, controller_reference, index_by_controller, is_controlled_by,
    push_claimants, push_controller, selector_of,
};
use crate::pod_control::reason;
use crate::pods::is_terminal;
use crate::revisions;
pub(crate) use scale::scaled;
use status::Condition;
use template::{HASH_LABEL, same_template, with_hash};

const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a Deployment that its sets do not inherit.
const NOT_COPIED: &[&str] = &[
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];
const WORKERS: usize = 4;

struct Controller {
    context: Context,
    deployments: Informer<Deployment>,
    sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
}

pub(crate) async fn run(context: Context) -> Result<(), Error> {
    let controller = Arc::new(Controller {
        deployments: context.informers.get(),
        sets: context.informers.get(),
        pods: context.informers.get(),
        context: context.clone(),
    });
    index_by_controller(&controller.sets);
    index_by_controller(&controller.pods);
    let queue = WorkQueue::new();
    let (deployments, sets) = (controller.deployments.clone(), controller.sets.clone());
    let _subscriptions = [
        controller.deployments.enqueue(&queue),
        controller.sets.enqueue_with(&queue, move |set, keys| {
            push_claimants(&set.metadata, &deployments, |owner| Some(&owner.spec.as_ref()?.selector), keys);
        }),
        // `Recreate` goes on when the last old pod is gone.
        controller.pods.enqueue_with(&queue, move |pod, keys| {
            let mut owners = Vec::new();
            push_controller::<ReplicaSet>(&pod.metadata, &mut owners);
            if pod.metadata.deletion_timestamp.is_some() || is_terminal(pod) {
                for set in owners.iter().filter_map(|key| sets.get(key)) {
                    push_controller::<Deployment>(&set.metadata, keys);
                }
            }
        }),
    ];
    let synced = [
        controller.deployments.wait_synced().boxed(),
        controller.sets.wait_synced().boxed(),
        controller.pods.wait_synced().boxed(),
    ];
    let worker = controller.clone();
    context.work(queue, WORKERS, synced, move |key| reconcile(worker.clone(), key)).await
}

/// One Deployment with its sets, during one reconciliation.
struct Rollout<'a> {
    controller: &'a Controller,
    key: ObjectKey,
    deployment: Deployment,
    spec: DeploymentSpec,
    new: Option<Arc<ReplicaSet>>,
    /// Oldest first.
    old: Vec<Arc<ReplicaSet>>,
    /// To be merged into the conditions of the status.
    conditions: Vec<Condition>,
    collisions: Option<i32>,
}

async fn reconcile(controller: Arc<Controller>, key: ObjectKey) -> Result<Next, Error> {
    let Some(deployment) = controller.deployments.get(&key) else { return Ok(Next::Done) };
    let Some(spec) = deployment.spec.clone() else { return Ok(Next::Done) };
    let selector = selector_of(deployment.as_ref(), &spec.selector)?;
    if selector.selects_all() {
        return Ok(Next::Done);
    }
    let found = candidates(&controller.sets, &deployment.metadata);
    let mut sets = claim_children(&controller.context, &controller.sets, deployment.as_ref(), &selector, found).await?;
    sets.sort_by(|a, b| age(a).cmp(&age(b)));
    let position = sets.iter().position(|set| same_template(set, &spec.template));
    let new = position.map(|at| sets.remove(at));
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let mut rollout = Rollout {
        controller: &controller,
        key,
        deployment: deployment.as_ref().clone(),
        spec,
        new,
        old: sets,
        conditions: Vec::new(),
        collisions,
    };
    if deployment.metadata.deletion_timestamp.is_some() {
        return rollout.sync_status().await;
    }
    let outcome = rollout.step().await;
    // The status is written also when the step failed: the failure may be told by it.
    let next = rollout.sync_status().await?;
    outcome?;
    Ok(next)
}

impl Rollout<'_> {
    async fn step(&mut self) -> Result<(), Error> {
        self.note_pause();
        if self.spec.paused == Some(true) {
            self.find_new(false).await?;
            self.scale_all().await?;
            return self.clean_up().await;
        }
        if self.is_scaling() {
            self.find_new(false).await?;
            return self.scale_all().await;
        }
        let recreate = self.spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate");
        if recreate {
            self.recreate().await?
        } else {
            self.roll().await?
        }
        Ok(())
    }

    /// Pausing and resuming are told as progress of unknown outcome, so that the deadline does not run meanwhile.
    fn note_pause(&mut self) {
        if self.spec.progress_deadline_seconds.is_none_or(|seconds| seconds == i32::MAX) {
            return;
        }
        let current = status::condition_reason(&self.deployment, "Progressing");
        if current == Some("ProgressDeadlineExceeded") {
            return;
        }
        let paused = self.spec.paused == Some(true);
        if paused && current != Some("DeploymentPaused") {
            self.conditions.push(Condition::progressing("Unknown", "DeploymentPaused", "Deployment is paused"));
        } else if !paused && current == Some("DeploymentPaused") {
            self.conditions.push(Condition::progressing("Unknown", "DeploymentResumed", "Deployment is resumed"));
        }
    }

    /// The wanted number has changed since the sets were last sized.
    fn is_scaling(&self) -> bool {
        let wanted = self.wanted();
        self.all().any(|set| {
            scale::size(set) > 0
                && annotation(&set.metadata, DESIRED)
                    .and_then(|value| value.parse::<i32>().ok())
                    .is_some_and(|desired| desired != wanted)
        })
    }

    fn wanted(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old.iter().chain(&self.new)
    }

    /// Brings the new set's revision and annotations up to date, creating it if it is missing and may be.
    async fn find_new(&mut self, create: bool) -> Result<(), Error> {
        let revision = self.old.iter().map(|set| revision_of(&set.metadata)).max().unwrap_or(0) + 1;
        match self.new.clone() {
            Some(set) => {
                let mut updated = set.as_ref().clone();
                self.annotate(&mut updated.metadata, revision);
                if let Some(spec) = &mut updated.spec {
                    spec.min_ready_seconds = self.spec.min_ready_seconds;
                }
                let informer = &self.controller.sets;
                if let Some(set) = self.controller.context.update(&self.key, informer, &set, &updated).await? {
                    self.new = Some(Arc::new(set));
                }
                let revision = self.new.as_ref().map_or(revision, |set| revision_of(&set.metadata));
                if status::condition_reason(&self.deployment, "Progressing").is_none() {
                    let message = format!("Found new replica set \"{}\"", set.name_any());
                    self.conditions.push(Condition::progressing("True", "FoundNewReplicaSet", &message));
                }
                self.set_revision(revision).await
            }
            None if create => self.create_new(revision).await,
            None => Ok(()),
        }
    }

    async fn create_new(&mut self, revision: i64) -> Result<(), Error> {
        let Controller { context, sets, .. } = self.controller;
        let hash = revisions::hash(&self.spec.template, self.collisions.unwrap_or(0));
        let mut selector = self.spec.selector.clone();
        selector.match_labels.get_or_insert_default().insert(HASH_LABEL.into(), hash.clone());
        let template = with_hash(&self.spec.template, &hash);
        let size = scale::new_size(self.wanted(), self.surge(), self.total(), 0, self.is_rolling());
        let mut set = ReplicaSet {
            metadata: ObjectMeta {
                name: Some(format!("{}-{hash}", self.key.name)),
                namespace: Some(self.key.namespace.clone()),
                labels: template.metadata.as_ref().and_then(|meta| meta.labels.clone()),
                owner_references: Some(vec![controller_reference(&self.deployment)]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(size),
                min_ready_seconds: self.spec.min_ready_seconds,
                selector,
                template: Some(template),
            }),
            status: None,
        };
        self.annotate(&mut set.metadata, revision);
        match context.create(&self.key, sets, &set).await {
            Ok(created) => {
                let name = created.name_any();
                if size > 0 {
                    self.tell_scaled(&name, 0, size);
                }
                let message = format!("Created new replica set \"{name}\"");
                self.conditions.push(Condition::progressing("True", "NewReplicaSetCreated", &message));
                self.new = Some(Arc::new(created));
                self.set_revision(revision).await
            }
            Err(error) if error.is_already_exists() => {
                let live = context.read::<ReplicaSet>(&ObjectKey::of(&set)).await?;
                match live {
                    // Ours, from an earlier run whose answer was lost.
                    Some(live)
                        if is_controlled_by(&live.metadata, &self.deployment.metadata)
                            && same_template(&live, &self.spec.template) =>
                    {
                        self.new = Some(Arc::new(live));
                        Ok(())
                    }
                    // Another template of the same hash: the next attempt counts the collision in.
                    Some(_) => {
                        self.collisions = Some(self.collisions.unwrap_or(0) + 1);
                        Err(error)
                    }
                    None => Err(error),
                }
            }
            Err(error) if error.is_terminating() => Ok(()),
            Err(error) => {
                let message = format!("Failed to create new replica set \"{}\": {}", set.name_any(), reason(&error));
                self.conditions.push(Condition::progressing("False", "ReplicaSetCreateError", &message));
                context.recorder.warning(&self.deployment, "ReplicaSetCreateError", message);
                Err(error)
            }
        }
    }

    /// What a new set carries: the Deployment's annotations, its revision and the sizes it was made for.
    fn annotate(&self, meta: &mut ObjectMeta, revision: i64) {
        let annotations = meta.annotations.get_or_insert_default();
        for (name, value) in self.deployment.metadata.annotations.iter().flatten() {
            if !NOT_COPIED.contains(&name.as_str()) {
                annotations.insert(name.clone(), value.clone());
            }
        }
        let current = annotations.get(REVISION).cloned();
        let number = current.as_deref().and_then(|value| value.parse::<i64>().ok()).unwrap_or(0);
        if number < revision {
            annotations.insert(REVISION.into(), revision.to_string());
            if let Some(current) = current {
                let mut history: Vec<String> = annotations
                    .get(REVISION_HISTORY)
                    .map(|history| history.split(',').map(str::to_string).collect())
                    .unwrap_or_default();
                history.push(current);
                // The oldest are dropped: an annotation must not grow for ever.
                let keep = history.len().saturating_sub(100);
                annotations.insert(REVISION_HISTORY.into(), history.split_off(keep).join(","));
            }
        }
        self.annotate_sizes(annotations);
    }

    fn annotate_sizes(&self, annotations: &mut BTreeMap<String, String>) {
        annotations.insert(DESIRED.into(), self.wanted().to_string());
        annotations.insert(MAX.into(), (self.wanted() + self.surge()).to_string());
    }

    async fn set_revision(&mut self, revision: i64) -> Result<(), Error> {
        let mut updated = self.deployment.clone();
        updated.metadata.annotations.get_or_insert_default().insert(REVISION.into(), revision.to_string());
        let Controller { context, deployments, .. } = self.controller;
        if let Some(deployment) = context.update_notes(&self.key, deployments, &self.deployment, &updated).await? {
            self.deployment = deployment;
        }
        Ok(())
    }

    fn is_rolling(&self) -> bool {
        self.spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) != Some("Recreate")
    }

    fn surge(&self) -> i32 {
        scale::bounds(&self.spec).0
    }

    /// Pods that all sets together are to have.
    fn total(&self) -> i32 {
        self.all().map(|set| scale::size(set)).sum()
    }

    async fn roll(&mut self) -> Result<(), Error> {
        self.find_new(true).await?;
        let Some(new) = self.new.clone() else { return Ok(()) };
        let (surge, unavailable) = scale::bounds(&self.spec);
        let size = scale::new_size(self.wanted(), surge, self.total(), scale::size(&new), true);
        if self.resize(&new, size).await? {
            return Ok(());
        }
        let plan = scale::shrink_old(self.wanted(), unavailable, &new, &self.old);
        let mut shrunk = false;
        for (at, size) in plan {
            if let Some(set) = self.old.get(at).cloned() {
                shrunk |= self.resize(&set, size).await?;
            }
        }
        if shrunk {
            return Ok(());
        }
        self.clean_up_if_complete().await
    }

    async fn recreate(&mut self) -> Result<(), Error> {
        self.find_new(false).await?;
        let mut shrunk = false;
        for set in self.old.clone() {
            if scale::size(&set) > 0 {
                shrunk |= self.resize(&set, 0).await?;
            }
        }
        if shrunk || self.old.iter().any(|set| self.has_running_pods(set)) {
            return Ok(());
        }
        self.find_new(true).await?;
        if let Some(new) = self.new.clone() {
            self.resize(&new, self.wanted()).await?;
        }
        self.clean_up_if_complete().await
    }

    fn has_running_pods(&self, set: &ReplicaSet) -> bool {
        controlled(&self.controller.pods, &set.metadata).iter().any(|pod| !is_terminal(pod))
    }

    /// Gives the sets the sizes that a changed wanted number (or a pause) asks for, without going on with the rollout.
    async fn scale_all(&mut self) -> Result<(), Error> {
        let (surge, _) = scale::bounds(&self.spec);
        let sets: Vec<_> = self.all().cloned().collect();
        let status_replicas = self.deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
        let max_of = |set: &ReplicaSet| annotation(&set.metadata, MAX).and_then(|value| value.parse().ok());
        let request = scale::Rescale {
            wanted: self.wanted(),
            surge,
            rolling: self.is_rolling(),
            new: self.new.as_ref().and_then(|new| sets.iter().position(|set| set.metadata.uid == new.metadata.uid)),
            before: status_replicas,
        };
        for (at, size) in scale::rescale(&request, &sets, max_of) {
            if let Some(set) = sets.get(at) {
                self.resize(set, size).await?;
            }
        }
        Ok(())
    }

    /// Sets a set's size and what it was sized for. `true` if anything was written.
    async fn resize(&mut self, set: &Arc<ReplicaSet>, size: i32) -> Result<bool, Error> {
        let mut updated = set.as_ref().clone();
        let before = scale::size(set);
        if let Some(spec) = &mut updated.spec {
            spec.replicas = Some(size);
        }
        self.annotate_sizes(updated.metadata.annotations.get_or_insert_default());
        let Controller { context, sets, .. } = self.controller;
        let Some(written) = context.update(&self.key, sets, set, &updated).await? else { return Ok(false) };
        if before != size {
            self.tell_scaled(&written.name_any(), before, size);
        }
        let written = Arc::new(written);
        for kept in self.old.iter_mut().chain(&mut self.new) {
            if kept.metadata.uid == written.metadata.uid {
                *kept = written.clone();
            }
        }
        Ok(before != size)
    }

    fn tell_scaled(&self, set: &str, before: i32, after: i32) {
        let direction = if after > before { "up" } else { "down" };
        let message = format!("Scaled {direction} replica set {set} from {before} to {after}");
        self.controller.context.recorder.normal(&self.deployment, "ScalingReplicaSet", message);
    }

    async fn clean_up_if_complete(&mut self) -> Result<(), Error> {
        let status = status::counts(&self.deployment, self.new.as_deref(), &self.old);
        if status::is_complete(&self.deployment, self.wanted(), &status) { self.clean_up().await } else { Ok(()) }
    }

    /// Deletes the oldest sets beyond the history limit that hold no pods.
    async fn clean_up(&mut self) -> Result<(), Error> {
        let limit = usize::try_from(self.spec.revision_history_limit.unwrap_or(10)).unwrap_or(0);
        let mut empty: Vec<_> = self.old.iter().filter(|set| scale::is_retired(set)).cloned().collect();
        empty.sort_by_key(|set| revision_of(&set.metadata));
        let surplus = empty.len().saturating_sub(limit);
        let Controller { context, sets, .. } = self.controller;
        for set in empty.iter().take(surplus) {
            context.delete(&self.key, sets, set.as_ref(), DeleteParams::default()).await?;
        }
        Ok(())
    }

    async fn sync_status(&mut self) -> Result<Next, Error> {
        let Controller { context, deployments, .. } = self.controller;
        let now = Timestamp::now();
        let mut updated = self.deployment.clone();
        let mut counts = status::counts(&self.deployment, self.new.as_deref(), &self.old);
        counts.collision_count = self.collisions;
        let (status, next) = status::complete(
            &self.deployment,
            &self.spec,
            counts,
            self.new.as_deref(),
            &self.old,
            std::mem::take(&mut self.conditions),
            now,
        );
        updated.status = Some(status);
        match context.update_status(&self.key, deployments, &self.deployment, &updated).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(next),
        }
    }
}

fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

fn revision_of(meta: &ObjectMeta) -> i64 {
    annotation(meta, REVISION).and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// Sorts older sets first; equal times by name.
fn age(set: &ReplicaSet) -> (Option<Timestamp>, &str) {
    let created = set.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (created, set.metadata.name.as_deref().unwrap_or_default())
}
