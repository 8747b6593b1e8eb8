//! What the HTTPS server asks for: containers, sandboxes and logs by pod name.

use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use kminik_runtime::{ContainerState, RuntimeError};
use tokio_util::sync::CancellationToken;

use crate::kubelet::Kubelet;
use crate::logs::{self, LogOptions, LogStream};
use crate::pods::observed::label;
use crate::pods::status::ID_PREFIX;
use crate::pods::table::Entry;

/// A running container found for exec or attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerTarget {
    /// The runtime's id.
    pub id: String,
    pub sandbox: String,
    pub name: String,
    /// The container was made with a terminal / an open stdin; attach must match.
    pub tty: bool,
    pub stdin: bool,
    /// Its log file; rotated ones lie beside it.
    pub log_path: PathBuf,
}

/// A pod's sandbox, for port-forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxTarget {
    pub id: String,
    pub host_network: bool,
}

/// Why a pod or container cannot be reached; [`AccessError::status`] is the HTTP answer.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("pod \"{pod}\" in namespace \"{namespace}\" not found on this node")]
    NoPod { namespace: String, pod: String },
    #[error("container {container} is not valid for pod {pod}")]
    NoContainer { pod: String, container: String },
    #[error("a container name must be specified for pod {pod}, choose one of: [{}]", choices.join(" "))]
    ContainerRequired { pod: String, choices: Vec<String> },
    #[error("container not found (\"{container}\")")]
    NotRunning { container: String },
    #[error("container \"{container}\" in pod \"{pod}\" is waiting to start: {reason}")]
    WaitingToStart { pod: String, container: String, reason: String },
    #[error("container \"{container}\" in pod \"{pod}\" is not available")]
    NotAvailable { pod: String, container: String },
    #[error("previous terminated container \"{container}\" in pod \"{pod}\" not found")]
    NoPrevious { pod: String, container: String },
    #[error("pod \"{pod}\" has no running sandbox")]
    NoSandbox { pod: String },
    #[error("the log cannot be opened")]
    Log(#[source] std::io::Error),
    #[error("{0}")]
    Runtime(#[from] RuntimeError),
}

impl AccessError {
    /// The HTTP status code of the answer.
    pub fn status(&self) -> u16 {
        match self {
            Self::NoPod { .. } | Self::NotRunning { .. } => 404,
            Self::NoContainer { .. }
            | Self::ContainerRequired { .. }
            | Self::WaitingToStart { .. }
            | Self::NotAvailable { .. }
            | Self::NoPrevious { .. }
            | Self::NoSandbox { .. } => 400,
            Self::Log(_) | Self::Runtime(_) => 500,
        }
    }
}

impl Kubelet {
    /// The running container of a pod. Without a name, the pod must have one container, or name one by the annotation
    /// `kubectl.kubernetes.io/default-container`; with a `uid`, the pod must have it.
    pub async fn container(
        &self,
        namespace: &str,
        pod: &str,
        uid: Option<&str>,
        container: Option<&str>,
    ) -> Result<ContainerTarget, AccessError> {
        let entry = self.entry(namespace, pod, uid)?;
        let name = container_name(&entry, container)?;
        let uid = entry.view.load().uid.clone();
        let containers = self.runtime.list_containers().await?;
        let running = containers.into_iter().find(|c| {
            c.name == name && c.state == ContainerState::Running && c.labels.get(label::POD_UID) == Some(&uid)
        });
        let found = running.ok_or_else(|| AccessError::NotRunning { container: name.clone() })?;
        let view = entry.view.load();
        let spec = view.container(&name).map(|c| &c.spec);
        Ok(ContainerTarget {
            id: found.id,
            sandbox: found.sandbox,
            tty: spec.and_then(|s| s.tty) == Some(true),
            stdin: spec.and_then(|s| s.stdin) == Some(true),
            log_path: found.log_path,
            name,
        })
    }

    /// The sandbox of a pod, to dial its ports through [`kminik_runtime::Runtime::dial`].
    pub async fn sandbox(&self, namespace: &str, pod: &str, uid: Option<&str>) -> Result<SandboxTarget, AccessError> {
        let entry = self.entry(namespace, pod, uid)?;
        let view = entry.view.load_full();
        let sandboxes = self.runtime.list_sandboxes().await?;
        let seen = crate::pods::observed::Observed::of(&view.uid, sandboxes, Vec::new());
        let ready = seen.ready_sandbox().ok_or_else(|| AccessError::NoSandbox { pod: pod.to_string() })?;
        Ok(SandboxTarget { id: ready.id.clone(), host_network: view.host_network() })
    }

    /// The log of a container, from the place and to the end that the options say. Dropping the stream ends the reading.
    pub async fn logs(
        &self,
        namespace: &str,
        pod: &str,
        container: Option<&str>,
        options: LogOptions,
    ) -> Result<LogStream, AccessError> {
        let entry = self.entry(namespace, pod, None)?;
        let name = container_name(&entry, container)?;
        let id = log_container(pod, &name, &entry.status.load(), options.previous)?;
        // Events from before the state is read, so that no exit is missed.
        let mut events = self.runtime.events();
        let status = self.runtime.container_status(&id).await?;
        let ended = CancellationToken::new();
        if status.state == ContainerState::Exited {
            ended.cancel();
        } else if options.follow {
            let (runtime, ended, id) = (self.runtime.clone(), ended.clone(), id.clone());
            tokio::spawn(async move {
                let _end = ended.clone().drop_guard();
                loop {
                    let event = tokio::select! {
                        event = events.recv() => event,
                        // The reader has gone.
                        () = ended.cancelled() => return,
                    };
                    if matches!(event, Err(tokio::sync::broadcast::error::RecvError::Closed)) {
                        return;
                    }
                    match runtime.container_status(&id).await {
                        Ok(status) if status.state != ContainerState::Exited => {}
                        _ => return,
                    }
                }
            });
        }
        logs::read(status.log_path, options, ended).await.map_err(AccessError::Log)
    }

    fn entry(&self, namespace: &str, pod: &str, uid: Option<&str>) -> Result<Arc<Entry>, AccessError> {
        let found = self.table.named(namespace, pod);
        let found = found.filter(|entry| uid.is_none_or(|uid| entry.view.load().uid == uid));
        found.ok_or_else(|| AccessError::NoPod { namespace: namespace.to_string(), pod: pod.to_string() })
    }
}

fn container_name(entry: &Entry, wanted: Option<&str>) -> Result<String, AccessError> {
    let view = entry.view.load();
    let pod = format!("{}_{}", view.name, view.namespace);
    let Some(wanted) = wanted.filter(|name| !name.is_empty()) else {
        let apps: Vec<String> = view.spec().containers.iter().map(|c| c.name.clone()).collect();
        let default =
            view.pod.metadata.annotations.as_ref().and_then(|a| a.get("kubectl.kubernetes.io/default-container"));
        return match (default.filter(|name| apps.contains(name)), apps.as_slice()) {
            (Some(default), _) => Ok(default.clone()),
            (None, [only]) => Ok(only.clone()),
            (None, _) => Err(AccessError::ContainerRequired { pod, choices: apps }),
        };
    };
    match view.container(wanted) {
        Some(_) => Ok(wanted.to_string()),
        None => Err(AccessError::NoContainer { pod, container: wanted.to_string() }),
    }
}

/// The run whose log is meant: the current one, or the last one while the next has not begun.
fn log_container(pod: &str, name: &str, status: &PodStatus, previous: bool) -> Result<String, AccessError> {
    let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    let found: Option<&ContainerStatus> = lists.into_iter().flatten().flatten().find(|c| c.name == name);
    let (pod, container) = (pod.to_string(), name.to_string());
    let Some(found) = found else { return Err(AccessError::NotAvailable { pod, container }) };
    let last = found.last_state.as_ref().and_then(|s| s.terminated.as_ref()).and_then(|t| t.container_id.clone());
    let id = if previous {
        last.ok_or(AccessError::NoPrevious { pod, container })?
    } else {
        let state = found.state.clone().unwrap_or_default();
        match (state.running, state.terminated, last, state.waiting) {
            (Some(_), ..) => found.container_id.clone().unwrap_or_default(),
            (_, Some(terminated), ..) if terminated.container_id.is_some() => {
                terminated.container_id.unwrap_or_default()
            }
            (_, _, Some(last), _) => last,
            (_, _, None, Some(waiting)) => {
                let reason = waiting.message.or(waiting.reason).unwrap_or_default();
                return Err(AccessError::WaitingToStart { pod, container, reason });
            }
            _ => return Err(AccessError::NotAvailable { pod, container }),
        }
    };
    Ok(id.trim_start_matches(ID_PREFIX).to_string())
}
