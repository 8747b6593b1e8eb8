//! Claims that bind a pod to nodes: bound volumes by their node affinity, unbound ones by what could still be bound or made there.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kminik_client::ObjectKey;
use kminik_client::claims::{BIND_COMPLETED, NO_PROVISIONER, capacity, is_delayed, is_free, suits};
use kminik_client::placement::selects;

use crate::cache::{Snapshot, Volumes};
use crate::info::{NodeInfo, PodInfo};
use crate::plugin::{Cycle, Rejection, Unfit};

const NAME: &str = "VolumeBinding";
/// The pod's claims.
#[derive(Default)]
pub(crate) struct State {
    bound: Vec<Arc<PersistentVolume>>,
    /// Not bound, and waiting for a pod to be given a node.
    delayed: Vec<(Arc<PersistentVolumeClaim>, Arc<StorageClass>)>,
    /// Claims that only one pod may use.
    exclusive: HashSet<ObjectKey>,
}

/// What is to be done for the claims of a pod once its node is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bindings {
    /// Claim and the volume it is given.
    pub bind: Vec<(ObjectKey, String)>,
    /// Claims for which a volume is to be made for the node.
    pub provision: Vec<ObjectKey>,
}

pub(crate) fn prepare(pod: &PodInfo, snapshot: &Snapshot) -> Result<State, Rejection> {
    let reject = |message: String| Rejection { plugin: NAME, message };
    let volumes = &snapshot.volumes;
    let mut state = State::default();
    for key in pod.claims() {
        let Some(claim) = volumes.claims.get(&key) else {
            return Err(reject(format!("persistentvolumeclaim \"{}\" not found", key.name)));
        };
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(reject(format!("persistentvolumeclaim \"{}\" is being deleted", key.name)));
        }
        let spec = claim.spec.as_ref();
        let modes = spec.and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
        if modes.iter().any(|mode| mode == "ReadWriteOncePod") {
            state.exclusive.insert(key.clone());
        }
        let volume = spec.and_then(|spec| spec.volume_name.as_deref()).filter(|name| !name.is_empty());
        match volume {
            Some(volume) if is_bound(claim) => match volumes.volumes.get(volume) {
                Some(volume) => state.bound.push(volume.clone()),
                None => {
                    return Err(reject(format!(
                        "persistentvolumeclaim \"{}\" bound to non-existent persistentvolume \"{volume}\"",
                        key.name
                    )));
                }
            },
            Some(_) => return Err(reject("pod has unbound immediate PersistentVolumeClaims".into())),
            None => match class_of(claim, volumes).filter(|class| is_delayed(class)) {
                Some(class) => state.delayed.push((claim.clone(), class.clone())),
                None => return Err(reject("pod has unbound immediate PersistentVolumeClaims".into())),
            },
        }
    }
    Ok(state)
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    let annotations = claim.metadata.annotations.as_ref();
    annotations.is_some_and(|all| all.contains_key(BIND_COMPLETED))
}

fn class_of<'a>(claim: &PersistentVolumeClaim, volumes: &'a Volumes) -> Option<&'a Arc<StorageClass>> {
    volumes.classes.get(claim.spec.as_ref()?.storage_class_name.as_deref()?)
}

pub(crate) fn restrictions(cycle: &Cycle, node: &NodeInfo) -> Result<(), Unfit> {
    if cycle.volumes.exclusive.is_empty() {
        return Ok(());
    }
    // A claim of one pod is taken wherever that pod is, but only the node it is on can be freed for this one.
    let users = |node: &NodeInfo| {
        node.pods.iter().any(|pod| pod.claims().iter().any(|claim| cycle.volumes.exclusive.contains(claim)))
    };
    const TAKEN: &str = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
    if users(node) {
        return Err(Unfit::resolvable(TAKEN));
    }
    if cycle.snapshot.nodes.values().any(|other| users(other)) {
        return Err(Unfit::unresolvable(TAKEN));
    }
    Ok(())
}

pub(crate) fn binding(cycle: &Cycle, node: &NodeInfo) -> Result<(), Unfit> {
    if cycle.volumes.bound.iter().any(|volume| !reaches(volume, node)) {
        return Err(Unfit::unresolvable("node(s) didn't match PersistentVolume's node affinity"));
    }
    plan(cycle, node).map(|_| ())
}

/// What binding the pod's claims on this node takes.
pub(crate) fn plan(cycle: &Cycle, node: &NodeInfo) -> Result<Bindings, Unfit> {
    let mut bindings = Bindings::default();
    let mut taken: HashSet<&str> = HashSet::new();
    for (claim, class) in &cycle.volumes.delayed {
        let key = ObjectKey::of(claim.as_ref());
        let volumes = &cycle.snapshot.volumes;
        // The smallest that is large enough, so that larger ones stay for those who need them.
        let found = volumes
            .volumes
            .iter()
            .filter(|(name, _)| !taken.contains(name.as_str()) && !volumes.promised.contains(*name))
            .filter(|(_, volume)| is_free(volume) && suits(claim, volume) && reaches(volume, node))
            .min_by_key(|(name, volume)| (capacity(volume), name.as_str()));
        if let Some((name, _)) = found {
            taken.insert(name);
            bindings.bind.push((key, name.clone()));
        } else if class.provisioner != NO_PROVISIONER && topology_allows(class, node) {
            bindings.provision.push(key);
        } else {
            return Err(Unfit::unresolvable("node(s) didn't find available persistent volumes to bind"));
        }
    }
    Ok(bindings)
}

fn reaches(volume: &PersistentVolume, node: &NodeInfo) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    affinity.and_then(|affinity| affinity.required.as_ref()).is_none_or(|required| selects(required, &node.node))
}

fn topology_allows(class: &StorageClass, node: &NodeInfo) -> bool {
    let terms = class.allowed_topologies.as_deref().unwrap_or_default();
    terms.is_empty()
        || terms.iter().any(|term| {
            let rules = term.match_label_expressions.as_deref().unwrap_or_default();
            rules.iter().all(|rule| {
                node.label(&rule.key).is_some_and(|value| rule.values.iter().any(|allowed| allowed == value))
            })
        })
}
