//! Volumes of pods: made before the first container, kept up to date, taken away after the last.
//!
//! A volume lives in `pods/<uid>/volumes/kubernetes.io~<kind>/<name>` of the kubelet root, or is a path of the node (hostPath, local).

mod atomic_writer;
mod claim;
mod local;
mod payload;
mod subpath;
mod token;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Volume;
use k8s_openapi::jiff::Timestamp;
use kminik_client::ObjectKey;

use crate::container::downward::{DownwardError, Surroundings};
use crate::objects::{Objects, Unanswered};
use crate::pods::view::PodView;

pub(crate) use subpath::SubpathError;

/// Where the volumes of a pod are on the node, by name.
pub(crate) type Paths = BTreeMap<String, PathBuf>;

/// Why a volume cannot be had; the text follows upstream's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {}", kminik_base::component::chain(source.as_ref()))]
    SetUp { volume: String, source: Box<VolumeError> },
    #[error("configmap \"{0}\" not found")]
    NoConfigMap(String),
    #[error("secret \"{0}\" not found")]
    NoSecret(String),
    #[error("{kind} references non-existent key: {key} ({object})")]
    NoKey { kind: &'static str, object: ObjectKey, key: String },
    #[error("invalid path \"{0}\"")]
    Path(String),
    #[error(transparent)]
    Downward(#[from] DownwardError),
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    #[error("failed to fetch token of service account {account}")]
    Token {
        account: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("the API gave no token for service account {0}")]
    NoToken(String),
    #[error("hostPath type check failed: {path} is not a {what}")]
    HostPath { path: String, what: &'static str },
    #[error("persistentvolumeclaim \"{0}\" not found")]
    NoClaim(String),
    #[error("PVC is not bound: persistentvolumeclaim \"{0}\"")]
    Unbound(String),
    #[error("persistentvolume \"{0}\" not found")]
    NoVolume(String),
    #[error("cannot read {kind} \"{name}\"")]
    Api {
        kind: &'static str,
        name: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("local path \"{0}\" does not exist")]
    NoLocalPath(String),
    #[error("no volume plugin matched")]
    Unsupported,
    #[error("cannot {step} {}", path.display())]
    Io {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

fn io_error<'a>(step: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> VolumeError + 'a {
    move |source| VolumeError::Io { step, path: path.to_path_buf(), source }
}

/// What setting up a volume may look at.
struct Context<'a> {
    view: &'a PodView,
    around: &'a Surroundings,
    objects: &'a Objects,
    tokens: &'a token::Tokens,
}

/// All volumes of the node.
pub(crate) struct Volumes {
    root: PathBuf,
    client: kube::Client,
    tokens: token::Tokens,
}

impl Volumes {
    /// `root`: the kubelet's root directory.
    pub(crate) fn new(root: PathBuf, client: kube::Client) -> Self {
        Self { root, tokens: token::Tokens::new(client.clone()), client }
    }

    /// The directory of a pod.
    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root.join("pods").join(uid)
    }

    /// Makes every volume of the pod, or brings those that have content from the API up to date. Idempotent.
    pub(crate) async fn set_up(
        &self,
        view: &PodView,
        around: &Surroundings,
        objects: &Objects,
    ) -> Result<Paths, VolumeError> {
        let context = Context { view, around, objects, tokens: &self.tokens };
        let mut paths = Paths::new();
        for volume in view.spec().volumes.iter().flatten() {
            let path = self.set_up_one(&context, volume).await;
            let path =
                path.map_err(|source| VolumeError::SetUp { volume: volume.name.clone(), source: Box::new(source) })?;
            paths.insert(volume.name.clone(), path);
        }
        Ok(paths)
    }

    async fn set_up_one(&self, context: &Context<'_>, volume: &Volume) -> Result<PathBuf, VolumeError> {
        let gid = fs_group(context.view);
        let dir = |kind: &str| {
            self.pod_dir(&context.view.uid).join("volumes").join(format!("kubernetes.io~{kind}")).join(&volume.name)
        };
        if let Some(files) = payload::of(context, volume).await? {
            let kind = if volume.config_map.is_some() {
                "configmap"
            } else if volume.secret.is_some() {
                "secret"
            } else if volume.downward_api.is_some() {
                "downward-api"
            } else {
                "projected"
            };
            let path = dir(kind);
            std::fs::create_dir_all(&path).map_err(io_error("create", &path))?;
            // Secrets and tokens never touch a disk.
            if volume.config_map.is_none() {
                local::mount_memory(&path, "mode=0755")?;
            }
            atomic_writer::write(&path, &files, gid).map_err(io_error("write", &path))?;
            return Ok(path);
        }
        if let Some(source) = &volume.empty_dir {
            let path = dir("empty-dir");
            local::empty_dir(&path, source)?;
            self.own(context.view, &path, gid)?;
            return Ok(path);
        }
        if let Some(source) = &volume.host_path {
            local::host_path(source)?;
            return Ok(PathBuf::from(&source.path));
        }
        let claim = match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(source), _) => source.claim_name.clone(),
            (None, Some(_)) => format!("{}-{}", context.view.name, volume.name),
            (None, None) => return Err(VolumeError::Unsupported),
        };
        let found = claim::resolve(&self.client, &context.view.namespace, &claim).await?;
        if found.owned_by_group {
            self.own(context.view, &found.path, gid)?;
        }
        Ok(found.path)
    }

    fn own(&self, view: &PodView, path: &Path, gid: Option<u32>) -> Result<(), VolumeError> {
        let Some(gid) = gid else { return Ok(()) };
        let context = view.spec().security_context.as_ref();
        let policy = context.and_then(|c| c.fs_group_change_policy.as_deref());
        local::give_to_group(path, gid, policy == Some("OnRootMismatch"))
    }

    /// Whether any volume's content comes from the API and may change.
    pub(crate) fn live(view: &PodView) -> bool {
        view.spec()
            .volumes
            .iter()
            .flatten()
            .any(|v| v.config_map.is_some() || v.secret.is_some() || v.downward_api.is_some() || v.projected.is_some())
    }

    /// When a token of the pod is due.
    pub(crate) fn renew_at(&self, uid: &str) -> Option<Timestamp> {
        self.tokens.renew_at(uid)
    }

    /// The path to mount for a subPath of a volume, pinned so that the container cannot move it elsewhere.
    pub(crate) fn pin_subpath(
        &self,
        uid: &str,
        volume: &str,
        container: &str,
        index: usize,
        base: &Path,
        sub: &str,
    ) -> Result<PathBuf, SubpathError> {
        let pin = self.pod_dir(uid).join("volume-subpaths").join(volume).join(container).join(index.to_string());
        subpath::pin(base, sub, &pin)
    }

    /// Unmounts what is mounted for the pod and removes its volumes; data of hostPath and claims is left alone.
    pub(crate) fn tear_down(&self, uid: &str) -> Result<(), VolumeError> {
        self.tokens.forget(uid);
        let dir = self.pod_dir(uid);
        local::unmount_below(&dir).map_err(io_error("unmount below", &dir))?;
        for part in ["volume-subpaths", "volumes"] {
            remove_dir(&dir.join(part))?;
        }
        Ok(())
    }

    /// Removes everything of the pod.
    pub(crate) fn remove_pod_dir(&self, uid: &str) -> Result<(), VolumeError> {
        self.tear_down(uid)?;
        remove_dir(&self.pod_dir(uid))
    }

    /// UIDs of pods that have a directory.
    pub(crate) fn pod_dirs(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join("pods")).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

/// Removes a tree that holds no mount; a missing one is fine.
fn remove_dir(path: &Path) -> Result<(), VolumeError> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(e)),
        _ => Ok(()),
    }
}

/// The pod's fsGroup.
fn fs_group(view: &PodView) -> Option<u32> {
    view.spec().security_context.as_ref()?.fs_group.and_then(|gid| u32::try_from(gid).ok())
}
