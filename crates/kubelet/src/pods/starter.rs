//! Starts one container: image, configuration, creation, start, postStart hook.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::VolumeMount;
use k8s_openapi::jiff::Timestamp;
use kminik_client::{EventType, ObjectKey};
use kminik_runtime::{Mount, Propagation, RuntimeError, SandboxStatus};
use tokio_util::sync::CancellationToken;

use super::backoff::plus;
use super::events::about;
use super::memory::Failure;
use super::view::{ContainerView, PodView};
use crate::container::config::{self, ConfigError, Inputs};
use crate::container::downward::Surroundings;
use crate::container::env::{self, Objects as EnvObjects};
use crate::container::expand::expand_all;
use crate::container::{files, termination};
use crate::hooks;
use crate::images::PullFailure;
use crate::node_context::NodeContext;
use crate::objects::Unanswered;
use crate::volumes::{Paths, SubpathError};

/// How long a container that could not be made waits for the next attempt.
const RETRY: Duration = Duration::from_secs(10);
/// How long an image error is shown before the back-off is.
const ERROR_SHOWN: Duration = Duration::from_secs(2);

/// One start.
pub(crate) struct Start {
    pub view: Arc<PodView>,
    pub container: ContainerView,
    pub id: String,
    pub sandbox: SandboxStatus,
    pub restart_count: u32,
    pub volumes: Arc<Paths>,
    /// Ends the wait for an image or a hook; a container that runs by then is left to the worker.
    pub cancel: CancellationToken,
    /// Ephemeral: the id of the container it looks at.
    pub target: Option<String>,
}

/// The step that failed; its name becomes the container's waiting reason.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Image(#[from] PullFailure),
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    #[error("failed to prepare subPath for volumeMount \"{mount}\" of container \"{container}\": {source}")]
    Subpath { mount: String, container: String, source: SubpathError },
    #[error("no volume \"{0}\" for its mount")]
    NoVolume(String),
    #[error("missing value for \"{name}\" in the subPathExpr of volumeMount \"{mount}\"")]
    NoVariable { name: String, mount: String },
    #[error("cannot prepare {}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{0}")]
    Create(#[source] RuntimeError),
    #[error("{0}")]
    Run(#[source] RuntimeError),
    #[error("{0}")]
    Hook(#[from] hooks::HookError),
    #[error("cancelled")]
    Cancelled,
}

impl StartError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Image(failure) => failure.reason,
            Self::Config(_)
            | Self::Unanswered(_)
            | Self::Subpath { .. }
            | Self::NoVolume(_)
            | Self::NoVariable { .. }
            | Self::Io { .. } => "CreateContainerConfigError",
            Self::Create(_) => "CreateContainerError",
            Self::Run(_) => "RunContainerError",
            Self::Hook(_) => "PostStartHookError",
            Self::Cancelled => "ContainerCreating",
        }
    }

    /// What the worker remembers of it.
    pub(crate) fn failure(&self, image: &str, now: Timestamp) -> Failure {
        let mut failure = Failure {
            reason: self.reason().to_string(),
            message: self.to_string(),
            later: None,
            retry_at: plus(now, RETRY),
        };
        if let Self::Image(pull) = self {
            failure.message = pull.message.clone();
            if let Some(retry_at) = pull.retry_at {
                let message = format!("Back-off pulling image \"{image}\": {}: {}", pull.reason, pull.message);
                failure.later = Some((plus(now, ERROR_SHOWN), "ImagePullBackOff".into(), message));
                failure.retry_at = retry_at;
            }
        }
        failure
    }
}

/// Returns when the container runs and its postStart hook is through.
pub(crate) async fn start(node: &NodeContext, start: Start) -> Result<(), StartError> {
    let result = begin(node, &start).await;
    if let Err(
        error @ (StartError::Config(_)
        | StartError::Subpath { .. }
        | StartError::NoVariable { .. }
        | StartError::Create(_)
        | StartError::Run(_)),
    ) = &result
    {
        let text = format!("Error: {error}");
        node.recorder.event(about(&start.view, Some(&start.container)), EventType::Warning, "Failed", text);
    }
    result
}

async fn begin(node: &NodeContext, start: &Start) -> Result<(), StartError> {
    let Start { view, container, id, cancel, .. } = start;
    let image = cancel.run_until_cancelled(node.puller.ensure(view, container, &node.objects)).await;
    let image = image.ok_or(StartError::Cancelled)??;
    let around = surroundings(node, &start.sandbox, view);
    let objects = cancel.run_until_cancelled(environment_objects(node, view, container)).await;
    let objects = objects.ok_or(StartError::Cancelled)??;
    let mut env = vec![("HOSTNAME".to_string(), files::uts_name(view, &node.config.cluster_domain))];
    if view.host_network() {
        env[0].1 = node.config.node_name.clone();
    }
    let own = env::resolve(view, container, &objects, &around).map_err(ConfigError::from)?;
    env.retain(|(name, _)| !own.iter().any(|(key, _)| key == name));
    env.extend(own);
    let pod_dir = node.volumes.pod_dir(&view.uid);
    let termination_file = pod_dir.join("containers").join(container.name()).join(&id[..id.len().min(12)]);
    termination::prepare(&termination_file).map_err(io(&termination_file))?;
    let log_dir = node.log_dir(view);
    let container_logs = log_dir.join(container.name());
    std::fs::create_dir_all(&container_logs).map_err(io(&container_logs))?;
    let mounts = mounts(node, start, &env, &pod_dir, &termination_file)?;
    let config = config::config(
        view,
        container,
        Inputs {
            id: id.clone(),
            restart_count: start.restart_count,
            image: &image,
            env,
            mounts,
            devices: Vec::new(),
            termination_file,
            log_dir: &log_dir,
            seccomp_dir: &node.config.root_dir.join("seccomp"),
            node_memory_bytes: i64::try_from(node.capacity.memory_bytes).unwrap_or(i64::MAX),
            target: start.target.clone(),
        },
    )?;
    if cancel.is_cancelled() {
        return Err(StartError::Cancelled);
    }
    let told = |reason: &str, message: String| {
        node.recorder.event(about(view, Some(container)), EventType::Normal, reason, message);
    };
    let grace =
        Duration::from_secs(u64::try_from(view.spec().termination_grace_period_seconds.unwrap_or(30)).unwrap_or(0));
    node.runtime.create_container(&start.sandbox.id, config).await.map_err(StartError::Create)?;
    told("Created", "Container created".to_string());
    node.runtime.start_container(id).await.map_err(StartError::Run)?;
    told("Started", "Container started".to_string());
    let hook = container.spec.lifecycle.as_ref().and_then(|l| l.post_start.as_ref());
    if let Some(hook) = hook {
        let run = hooks::run(node, hook, container, id, start.sandbox.ips.first().copied());
        let Some(Err(error)) = cancel.run_until_cancelled(run).await else { return Ok(()) };
        let about = about(view, Some(container));
        node.recorder.event(about.clone(), EventType::Warning, "FailedPostStartHook", error.to_string());
        let name = container.name();
        node.recorder.event(
            about,
            EventType::Normal,
            "Killing",
            format!("FailedPostStartHook: stopping container {name}"),
        );
        if let Err(error) = node.runtime.stop_container(id, grace).await {
            tracing::error!(container = id, %error, "container not stopped");
        }
        return Err(error.into());
    }
    Ok(())
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> StartError + '_ {
    move |source| StartError::Io { path: path.to_path_buf(), source }
}

/// What the pod's downward API sees.
pub(crate) fn surroundings(node: &NodeContext, sandbox: &SandboxStatus, view: &PodView) -> Surroundings {
    let own: Vec<String> = sandbox.ips.iter().map(ToString::to_string).collect();
    let host_ips = node.host_ips();
    let amount = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    Surroundings {
        node_name: node.config.node_name.clone(),
        pod_ips: if view.host_network() { host_ips.clone() } else { own },
        host_ips,
        allocatable_milli_cpu: amount(node.capacity.milli_cpu),
        allocatable_memory_bytes: amount(node.capacity.memory_bytes),
        allocatable_storage_bytes: amount(node.capacity.ephemeral_storage_bytes),
    }
}

async fn environment_objects(
    node: &NodeContext,
    view: &PodView,
    container: &ContainerView,
) -> Result<EnvObjects, Unanswered> {
    let (config_maps, secrets) = env::references(container);
    let mut objects = EnvObjects::default();
    for name in config_maps {
        let found = node.objects.config_map(&view.uid, &ObjectKey::new(&view.namespace, &name)).await?;
        objects.config_maps.insert(name, found);
    }
    for name in secrets {
        let found = node.objects.secret(&view.uid, &ObjectKey::new(&view.namespace, &name)).await?;
        objects.secrets.insert(name, found);
    }
    objects.services = node.services.list_in(&view.namespace);
    if view.namespace != "default" {
        objects.services.extend(node.services.get(&ObjectKey::new("default", "kubernetes")));
    }
    Ok(objects)
}

fn mounts(
    node: &NodeContext,
    start: &Start,
    env: &[(String, String)],
    pod_dir: &Path,
    termination_file: &Path,
) -> Result<Vec<Mount>, StartError> {
    let Start { view, container, .. } = start;
    let mut out = Vec::new();
    for (index, mount) in container.spec.volume_mounts.iter().flatten().enumerate() {
        let base = start.volumes.get(&mount.name).ok_or_else(|| StartError::NoVolume(mount.name.clone()))?;
        let sub = sub_path(mount, env)?;
        let source = match sub.as_deref() {
            None => base.clone(),
            Some(sub) => node.volumes.pin_subpath(&view.uid, &mount.name, container.name(), index, base, sub).map_err(
                |source| StartError::Subpath { mount: mount.name.clone(), container: container.name().into(), source },
            )?,
        };
        out.push(volume_mount(view, mount, source));
    }
    let targets: Vec<PathBuf> = out.iter().map(|m| m.target.clone()).collect();
    let mut own = |file: &str, target: &str| {
        if !targets.iter().any(|t| t == Path::new(target)) {
            out.push(plain(pod_dir.join(file), PathBuf::from(target)));
        }
    };
    own("etc-hosts", "/etc/hosts");
    own("resolv.conf", "/etc/resolv.conf");
    if !view.host_network() {
        own("hostname", "/etc/hostname");
    }
    let message = container.spec.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    if !message.is_empty() {
        out.push(plain(termination_file.to_path_buf(), PathBuf::from(message)));
    }
    Ok(out)
}

fn plain(source: PathBuf, target: PathBuf) -> Mount {
    Mount { source, target, read_only: false, recursive_read_only: false, propagation: Propagation::Private }
}

/// The subPath of a mount; names in an expression must all be known.
fn sub_path(mount: &VolumeMount, env: &[(String, String)]) -> Result<Option<String>, StartError> {
    let lookup = |name: &str| env.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let Some(expression) = mount.sub_path_expr.as_deref().filter(|text| !text.is_empty()) else {
        return Ok(mount.sub_path.clone().filter(|path| !path.is_empty()));
    };
    expand_all(expression, lookup).map(Some).map_err(|name| StartError::NoVariable { name, mount: mount.name.clone() })
}

fn volume_mount(view: &PodView, mount: &VolumeMount, source: PathBuf) -> Mount {
    let volume = view.spec().volumes.iter().flatten().find(|v| v.name == mount.name);
    // Content from the API is the kubelet's to change, nobody else's.
    let ours = volume.is_some_and(|v| {
        v.config_map.is_some() || v.secret.is_some() || v.downward_api.is_some() || v.projected.is_some()
    });
    let claim_read_only =
        volume.and_then(|v| v.persistent_volume_claim.as_ref()).and_then(|c| c.read_only) == Some(true);
    let read_only = mount.read_only == Some(true) || ours || claim_read_only;
    let recursive = matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible"));
    let target = Path::new("/").join(&mount.mount_path);
    Mount {
        source,
        target,
        read_only,
        recursive_read_only: read_only && recursive,
        propagation: match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => Propagation::HostToContainer,
            Some("Bidirectional") => Propagation::Bidirectional,
            _ => Propagation::Private,
        },
    }
}

/// Files that every container of the pod sees; written when the sandbox has its addresses.
pub(crate) fn write_pod_files(node: &NodeContext, view: &PodView, sandbox: &SandboxStatus) -> std::io::Result<()> {
    let dir = node.volumes.pod_dir(&view.uid);
    std::fs::create_dir_all(&dir)?;
    let domain = &node.config.cluster_domain;
    let hosts = if view.host_network() {
        files::node_hosts(view, &std::fs::read_to_string("/etc/hosts").unwrap_or_default())
    } else {
        files::hosts(view, &sandbox.ips, domain)
    };
    files::write_in_place(&dir.join("etc-hosts"), &hosts)?;
    let node_resolver = files::Resolver::parse(&std::fs::read_to_string(&node.config.resolv_conf).unwrap_or_default());
    files::write_in_place(&dir.join("resolv.conf"), &files::resolv_conf(view, &node.config, &node_resolver))?;
    files::write_in_place(&dir.join("hostname"), &format!("{}\n", files::uts_name(view, domain)))
}
