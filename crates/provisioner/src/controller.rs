//! Claims to directories: provision for unbound claims, remove for released volumes.

use std::collections::HashMap;
use std::hash::Hash;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kminik_base::component::chain;
use kminik_client::claims::{PROVISIONED_BY, SELECTED_NODE, STORAGE_PROVISIONER, is_delayed};
use kminik_client::{
    Change, Informer, Informers, Next, ObjectKey, Recorder, WorkQueue, Worker, is_already_exists, is_conflict,
    is_not_found,
};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::directory::{Directory, DirectoryError};

/// Where the volumes are, on the node and in the provisioner's pod.
pub(crate) const ROOT: &str = "/var/lib/kminik/hostpath-provisioner";

/// The name under which classes ask for this provisioner.
pub const PROVISIONER: &str = "k8s.io/minikube-hostpath";
/// On a volume: the node whose provisioner has made it.
const IDENTITY: &str = "hostPathProvisionerIdentity";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// What the provisioner is told by the process it runs in.
#[derive(Clone)]
pub struct ProvisionerConfig {
    pub client: kube::Client,
    /// The root of all volumes, by the same path here and on the node. Default `/var/lib/kminik/hostpath-provisioner`.
    pub root: PathBuf,
    /// The node it runs on.
    pub node: String,
    /// For how long a node without new pods leaves a claim that may be anywhere to the others. Default 5 s.
    pub reluctant: Duration,
    /// A node's object may be deleted and made anew while the node goes on: what is on it is given up only after this. Default 60 s.
    pub given_up_after: Duration,
}

/// A failed step; it is retried with back-off.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionerError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error("cannot create volume {name}")]
    CreateVolume {
        name: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("cannot encode volume {name}")]
    Encode {
        name: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("cannot delete volume {name}")]
    DeleteVolume {
        name: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("cannot read claim {key}")]
    ReadClaim {
        key: ObjectKey,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("cannot take claim {key}")]
    TakeClaim {
        key: ObjectKey,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("cannot read node {name}")]
    ReadNode {
        name: String,
        #[source]
        source: Box<kube::Error>,
    },
    /// A worker thread ended before its work was done.
    #[error("the work on the directory was interrupted")]
    Interrupted(#[source] tokio::task::JoinError),
}

struct Provisioner {
    config: ProvisionerConfig,
    directory: Directory,
    recorder: Recorder,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    nodes: Informer<Node>,
    /// Nodes that something is on and that are not there.
    missed: Since<String>,
    /// Claims that may be anywhere and were left to the other nodes.
    left_to_others: Since<ObjectKey>,
}

/// Since when each of some things has been so, as far as is known here.
struct Since<K>(Mutex<HashMap<K, Instant>>);

impl<K: Eq + Hash> Since<K> {
    fn new() -> Self {
        Self(Mutex::new(HashMap::new()))
    }

    /// How much of a wait is left; `None` once it is over.
    fn left(&self, key: K, wait: Duration) -> Option<Duration> {
        let since = *self.0.lock().entry(key).or_insert_with(Instant::now);
        wait.checked_sub(since.elapsed()).filter(|left| !left.is_zero())
    }

    /// It is so no longer: the next time it is, is another.
    fn forget(&self, key: &K) {
        self.0.lock().remove(key);
    }
}

/// Runs until `stop`. Fails only if the root cannot be opened.
pub async fn run_with(config: ProvisionerConfig, stop: CancellationToken) -> Result<(), ProvisionerError> {
    let root = config.root.clone();
    let directory = blocking(move || Directory::open(&root)).await?;
    let informers = Informers::new(config.client.clone(), stop.clone());
    let provisioner = Arc::new(Provisioner {
        recorder: Recorder::new(config.client.clone(), PROVISIONER, &config.node, stop.clone()),
        directory,
        claims: informers.get(),
        volumes: informers.get(),
        classes: informers.get(),
        nodes: informers.get(),
        missed: Since::new(),
        left_to_others: Since::new(),
        config,
    });
    // Claims have a namespace, volumes have none: one queue holds both.
    let queue = WorkQueue::new();
    let claims = provisioner.claims.clone();
    let all_claims = queue.clone();
    let (of_nodes, known) = (queue.clone(), provisioner.clone());
    let _subscriptions = [
        provisioner.claims.enqueue(&queue),
        provisioner.volumes.enqueue_with(&queue, |volume, keys| {
            keys.push(ObjectKey::of(volume));
            // A claim may have waited for this volume's directory.
            let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
            if let Some(claim) = claim {
                let namespace = claim.namespace.clone().unwrap_or_default();
                keys.push(ObjectKey::new(namespace, claim.name.clone().unwrap_or_default()));
            }
        }),
        provisioner.classes.subscribe(move |_| {
            for claim in claims.list() {
                all_claims.add(ObjectKey::of(claim.as_ref()));
            }
        }),
        provisioner.nodes.subscribe(move |change| {
            match change {
                Change::Deleted(node) => known.on_node(node).into_iter().for_each(|key| of_nodes.add(key)),
                _ => known.missed.forget(&change.object().name_any()),
            }
            if matches!(change, Change::Added(node) if node.name_any() == known.config.node) {
                known.claims_for_anybody().into_iter().for_each(|key| of_nodes.add(key));
            }
        }),
    ];
    let synced = async {
        tokio::join!(
            provisioner.claims.wait_synced(),
            provisioner.volumes.wait_synced(),
            provisioner.classes.wait_synced(),
            provisioner.nodes.wait_synced()
        )
    };
    if stop.run_until_cancelled(synced).await.is_some() {
        tracing::info!(node = provisioner.config.node, "storage provisioner started");
        let worker = Worker::new(PROVISIONER, queue, 4);
        worker.run(&stop, move |key: ObjectKey| reconcile(provisioner.clone(), key)).await;
    }
    Ok(())
}

async fn reconcile(provisioner: Arc<Provisioner>, key: ObjectKey) -> Result<Next, ProvisionerError> {
    if key.namespace.is_empty() { provisioner.clone().release(&key).await } else { provisioner.provision(&key).await }
}

impl Provisioner {
    async fn provision(self: Arc<Self>, key: &ObjectKey) -> Result<Next, ProvisionerError> {
        let Some(claim) = self.claims.get(key) else {
            self.left_to_others.forget(key);
            return Ok(Next::Done);
        };
        let Some(class) = self.class_to_serve(&claim) else { return Ok(Next::Done) };
        let selected = claim.annotations().get(SELECTED_NODE);
        if selected.is_some() {
            self.left_to_others.forget(key);
        }
        match selected {
            Some(node) if *node == self.config.node => {}
            Some(node) => return self.free(key, &claim, &class, node).await,
            None if is_delayed(&class) => return Ok(Next::Done),
            None => return self.take(key, &claim).await,
        }
        let uid = claim.metadata.uid.clone().unwrap_or_default();
        let name = format!("pvc-{uid}");
        if self.volumes.get(&ObjectKey::cluster(&name)).is_some() {
            return Ok(Next::Done);
        }
        if let Some(refusal) = refusal(&claim) {
            let class = class.name_any();
            let message = format!("failed to provision volume with StorageClass \"{class}\": {refusal}");
            self.recorder.warning(claim.as_ref(), "ProvisioningFailed", message);
            return Ok(Next::Done);
        }
        let directory_name = match self.directory_for(&claim, &uid) {
            Some(name) => name,
            // The earlier claim's directory is about to go; its volume's deletion brings this claim back.
            None => return Ok(Next::Done),
        };
        let message = format!("External provisioner is provisioning volume for claim \"{key}\"");
        self.recorder.normal(claim.as_ref(), "Provisioning", message);
        let (this, namespace) = (self.clone(), key.namespace.clone());
        let path = blocking(move || this.directory.make(&namespace, &directory_name)).await?;
        let volume = volume(&claim, &class, &name, &path.to_string_lossy(), &self.config.node);
        let encode = |source| ProvisionerError::Encode { name: name.clone(), source };
        let volume: PersistentVolume = kminik_client::typed(&volume).map_err(encode)?;
        let api: Api<PersistentVolume> = Api::all(self.config.client.clone());
        match api.create(&PostParams::default(), &volume).await {
            Err(error) if !is_already_exists(&error) => {
                Err(ProvisionerError::CreateVolume { name, source: Box::new(error) })
            }
            _ => {
                let message = format!("Successfully provisioned volume {name}");
                self.recorder.normal(claim.as_ref(), "ProvisioningSucceeded", message);
                Ok(Next::Done)
            }
        }
    }

    /// Says that this node's provisioner serves a claim that may be anywhere: of those of all nodes the first to say so does.
    async fn take(&self, key: &ObjectKey, claim: &PersistentVolumeClaim) -> Result<Next, ProvisionerError> {
        // Without its object there is no node to be on: where it is but not known yet, its arrival brings the claim back.
        let Some(own) = self.nodes.get(&ObjectKey::cluster(&self.config.node)) else { return Ok(Next::Done) };
        let unschedulable = own.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
        if unschedulable && let Some(left) = self.left_to_others.left(key.clone(), self.config.reluctant) {
            return Ok(Next::After(left));
        }
        let mut taken = claim.clone();
        taken.annotations_mut().insert(SELECTED_NODE.to_owned(), self.config.node.clone());
        self.write_claim(key, &taken).await?;
        Ok(Next::Done)
    }

    /// Takes back the choice of a node that is not there (any more), so that another is chosen, as upstream's provisioners do.
    async fn free(
        &self,
        key: &ObjectKey,
        claim: &PersistentVolumeClaim,
        class: &StorageClass,
        node: &str,
    ) -> Result<Next, ProvisionerError> {
        if !self.is_gone(node).await? {
            return Ok(Next::Done);
        }
        let mut freed = claim.clone();
        freed.annotations_mut().remove(SELECTED_NODE);
        if self.write_claim(key, &freed).await? {
            let message = format!(
                "failed to provision volume with StorageClass \"{}\": failed to get target node: nodes \"{node}\" not found",
                class.name_any()
            );
            self.recorder.warning(claim, "ProvisioningFailed", message);
        }
        Ok(Next::Done)
    }

    /// `false` if somebody else was faster.
    async fn write_claim(&self, key: &ObjectKey, claim: &PersistentVolumeClaim) -> Result<bool, ProvisionerError> {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.config.client.clone(), &key.namespace);
        match api.replace(&key.name, &PostParams::default(), claim).await {
            Ok(_) => Ok(true),
            // Another was faster, or it has changed: that is an event of its own.
            Err(error) if is_conflict(&error) || is_not_found(&error) => Ok(false),
            Err(error) => Err(ProvisionerError::TakeClaim { key: key.clone(), source: Box::new(error) }),
        }
    }

    /// Asks the API, not the cache, where the cache does not know the node.
    async fn is_gone(&self, node: &str) -> Result<bool, ProvisionerError> {
        if self.nodes.get(&ObjectKey::cluster(node)).is_some() {
            return Ok(false);
        }
        let live = Api::<Node>::all(self.config.client.clone()).get_opt(node).await;
        let failed = |source| ProvisionerError::ReadNode { name: node.into(), source: Box::new(source) };
        live.map(|node| node.is_none()).map_err(failed)
    }

    /// Keys of the claims that no node has been chosen for.
    fn claims_for_anybody(&self) -> Vec<ObjectKey> {
        let claims = self.claims.list();
        let free = claims.iter().filter(|claim| !claim.annotations().contains_key(SELECTED_NODE));
        free.map(|claim| ObjectKey::of(claim.as_ref())).collect()
    }

    /// Keys of the claims and volumes that wait for a node.
    fn on_node(&self, node: &Node) -> Vec<ObjectKey> {
        let name = node.metadata.name.as_ref();
        let claims = self.claims.list();
        let claims = claims.iter().filter(|claim| claim.annotations().get(SELECTED_NODE) == name);
        let volumes = self.volumes.list();
        let volumes = volumes.iter().filter(|volume| volume.annotations().get(IDENTITY) == name);
        claims
            .map(|claim| ObjectKey::of(claim.as_ref()))
            .chain(volumes.map(|volume| ObjectKey::of(volume.as_ref())))
            .collect()
    }

    /// The class of a claim that waits for this provisioner, on whichever node.
    fn class_to_serve(&self, claim: &PersistentVolumeClaim) -> Option<Arc<StorageClass>> {
        let spec = claim.spec.as_ref()?;
        let bound = spec.volume_name.as_deref().is_some_and(|name| !name.is_empty());
        let asked = claim.annotations().get(STORAGE_PROVISIONER).is_some_and(|name| name == PROVISIONER);
        if bound || !asked || claim.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let class = self.classes.get(&ObjectKey::cluster(spec.storage_class_name.clone()?))?;
        (class.provisioner == PROVISIONER).then_some(class)
    }

    /// The claim's own name, or one of its own if a kept volume has that. `None` while the holder is on its way out.
    fn directory_for(&self, claim: &PersistentVolumeClaim, uid: &str) -> Option<String> {
        let (namespace, name) = (claim.namespace().unwrap_or_default(), claim.name_any());
        let path = self.directory.path_of(&namespace, &name);
        let holder = self
            .volumes
            .list()
            .into_iter()
            .find(|volume| self.is_own(volume) && path_of(volume).as_ref() == Some(&path));
        match holder {
            None => Some(name),
            Some(volume) if policy(&volume) == "Delete" => None,
            Some(_) => Some(format!("{name}-{}", uid.split('-').next().unwrap_or(uid))),
        }
    }

    async fn release(self: Arc<Self>, key: &ObjectKey) -> Result<Next, ProvisionerError> {
        let Some(volume) = self.volumes.get(key) else { return Ok(Next::Done) };
        let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        if policy(&volume) != "Delete" || phase != Some("Released") {
            return Ok(Next::Done);
        }
        if !self.is_own(&volume) {
            return self.give_up(key, &volume).await;
        }
        if self.claim_lives(&volume).await? {
            return Ok(Next::Done);
        }
        let Some(path) = path_of(&volume) else { return Ok(Next::Done) };
        let (this, removed) = (self.clone(), path.clone());
        let outcome = blocking(move || {
            let (namespace, name) = this.directory.names_of(&removed)?;
            this.directory.remove(&namespace, &name)
        })
        .await;
        if let Err(error) = outcome {
            self.recorder.warning(volume.as_ref(), "VolumeFailedDelete", chain(&error));
            return Err(error);
        }
        self.delete(key, &volume).await?;
        tracing::info!(volume = key.name, path = %path.display(), "volume removed");
        Ok(Next::Done)
    }

    /// Deletes a released volume whose node is gone: its directory has gone with it, and nobody else would.
    async fn give_up(&self, key: &ObjectKey, volume: &PersistentVolume) -> Result<Next, ProvisionerError> {
        let annotations = volume.annotations();
        let node = annotations.get(IDENTITY).filter(|node| **node != self.config.node);
        let ours = annotations.get(PROVISIONED_BY).is_some_and(|name| name == PROVISIONER);
        let Some(node) = node.filter(|_| ours) else { return Ok(Next::Done) };
        if !self.is_gone(node).await? {
            return Ok(Next::Done);
        }
        if let Some(left) = self.missed.left(node.clone(), self.config.given_up_after) {
            return Ok(Next::After(left));
        }
        if !self.claim_lives(volume).await? {
            self.delete(key, volume).await?;
            tracing::info!(volume = key.name, node, "volume removed, as its node is gone");
        }
        Ok(Next::Done)
    }

    async fn delete(&self, key: &ObjectKey, volume: &PersistentVolume) -> Result<(), ProvisionerError> {
        let api: Api<PersistentVolume> = Api::all(self.config.client.clone());
        let preconditions = Preconditions { uid: volume.metadata.uid.clone(), ..Preconditions::default() };
        match api.delete(&key.name, &DeleteParams::default().preconditions(preconditions)).await {
            Err(error) if !is_not_found(&error) && !is_conflict(&error) => {
                Err(ProvisionerError::DeleteVolume { name: key.name.clone(), source: Box::new(error) })
            }
            _ => Ok(()),
        }
    }

    /// Asks the API, not the cache: what is removed now does not come back.
    async fn claim_lives(&self, volume: &PersistentVolume) -> Result<bool, ProvisionerError> {
        let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let Some(reference) = claim else { return Ok(true) };
        let name = reference.name.clone().unwrap_or_default();
        let namespace = reference.namespace.clone().unwrap_or_default();
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.config.client.clone(), &namespace);
        let live = api.get_opt(&name).await.map_err(|source| ProvisionerError::ReadClaim {
            key: ObjectKey::new(namespace, name),
            source: Box::new(source),
        })?;
        Ok(live.is_some_and(|claim| claim.meta().uid == reference.uid))
    }

    fn is_own(&self, volume: &PersistentVolume) -> bool {
        let annotations = volume.annotations();
        annotations.get(PROVISIONED_BY).is_some_and(|name| name == PROVISIONER)
            && annotations.get(IDENTITY).is_some_and(|node| *node == self.config.node)
    }
}

/// Why a claim cannot be served, if so.
fn refusal(claim: &PersistentVolumeClaim) -> Option<&'static str> {
    let spec = claim.spec.as_ref()?;
    if spec.selector.is_some() {
        return Some("claim.Spec.Selector is not supported");
    }
    (spec.volume_mode.as_deref() == Some("Block")).then_some("block volumes are not supported")
}

fn policy(volume: &PersistentVolume) -> &str {
    let spec = volume.spec.as_ref();
    spec.and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref()).unwrap_or("Retain")
}

fn path_of(volume: &PersistentVolume) -> Option<PathBuf> {
    volume.spec.as_ref()?.host_path.as_ref().map(|source| PathBuf::from(&source.path))
}

fn volume(claim: &PersistentVolumeClaim, class: &StorageClass, name: &str, path: &str, node: &str) -> Value {
    let spec = claim.spec.clone().unwrap_or_default();
    let requests = spec.resources.and_then(|resources| resources.requests).unwrap_or_default();
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER, IDENTITY: node}},
        "spec": {
            "capacity": {"storage": requests.get("storage")},
            "accessModes": spec.access_modes,
            "persistentVolumeReclaimPolicy": class.reclaim_policy.as_deref().unwrap_or("Delete"),
            "storageClassName": class.metadata.name,
            "mountOptions": class.mount_options,
            "volumeMode": "Filesystem",
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.metadata.namespace,
                "name": claim.metadata.name, "uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version,
            },
            "hostPath": {"path": path, "type": ""},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": HOSTNAME, "operator": "In", "values": [node]},
            ]}]}},
        },
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DirectoryError> + Send + 'static,
) -> Result<T, ProvisionerError> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(ProvisionerError::Interrupted)??)
}
