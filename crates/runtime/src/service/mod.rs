//! [`LibcontainerRuntime`]: the runtime trait on the real kernel.
//!
//! What it knows is on disk: a record a sandbox and a container, written before each effect. Processes, streams and exits are with PID 1 (see
//! [`crate::fdstore`]). So a new one of these, in a new process, goes on where the last one was killed.
//!
//! A container's life:
//!
//! ```text
//!   create ─► Created ─start─► Starting ─► Running ─► Exited ─remove─► (gone, its log stays)
//!                                   └── the program cannot be executed ──┘
//! ```

mod adopt;
mod attach;
mod containers;
mod exec;
mod exits;
mod record;
mod recorded;
mod sandboxes;
mod start;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::cgroup::{CgroupError, Layout};
use crate::fdstore::{FdStore, FdStoreError};
use crate::io::log::Rotation;
use crate::snapshot::layers::{Layers, disk_usage};
use crate::{
    ContainerConfig, ContainerEvent, ContainerStats, ContainerStatus, Duplex, ExecOutput, ExecRequest, LayerId,
    LayerSource, Resources, Runtime, RuntimeError, SandboxConfig, SandboxNetwork, SandboxStatus, Streams,
};
pub(crate) use recorded::{Recorded, recorded};

use containers::Container;
use sandboxes::Sandbox;

/// Events that a slow receiver may be behind before it misses some.
const EVENT_BACKLOG: usize = 4096;

/// Where a runtime keeps its things.
#[derive(Clone)]
pub struct RuntimeConfig {
    /// Layers, records and writable layers; on a filesystem that can carry overlays. Survives.
    pub state_dir: PathBuf,
    /// Mount points, namespaces, sockets; on a tmpfs of the node.
    pub run_dir: PathBuf,
    /// The group, relative to the root of the hierarchies, below which all sandboxes are.
    pub pods_cgroup: PathBuf,
    /// PID 1's socket.
    pub fd_store: PathBuf,
    pub network: Arc<dyn SandboxNetwork>,
    /// Size at which a container's log is rotated; [`RuntimeConfig::LOG_MAX_BYTES`] is customary.
    pub log_max_bytes: u64,
    /// Files of a container's log, the current one included; [`RuntimeConfig::LOG_MAX_FILES`] is customary.
    pub log_max_files: u32,
}

impl RuntimeConfig {
    pub const LOG_MAX_BYTES: u64 = 10 << 20;
    pub const LOG_MAX_FILES: u32 = 5;
}

/// The runtime. One at a time may use a state directory.
pub struct LibcontainerRuntime {
    config: RuntimeConfig,
    layout: Layout,
    layers: Layers,
    fds: Arc<FdStore>,
    /// Of PID 1's life.
    instance: String,
    sandboxes: Mutex<HashMap<String, Arc<Sandbox>>>,
    containers: Mutex<HashMap<String, Arc<Container>>>,
    events: broadcast::Sender<ContainerEvent>,
}

impl LibcontainerRuntime {
    /// Takes over what runs, ends what was half made, and starts to follow exits. Must be called in a tokio runtime, which from then on does the work
    /// of logging.
    pub async fn new(config: RuntimeConfig) -> Result<Arc<LibcontainerRuntime>, RuntimeError> {
        let directories = [
            config.state_dir.join("sandboxes"),
            config.state_dir.join("containers"),
            config.run_dir.join("sandboxes"),
            config.run_dir.join("containers"),
            config.run_dir.join("oci"),
        ];
        for directory in directories {
            std::fs::create_dir_all(&directory).map_err(io_error("make", &directory))?;
        }
        let layout = Layout::detect().map_err(cgroup_error)?;
        layout.create(&config.pods_cgroup).map_err(cgroup_error)?;
        let fds = Arc::new(FdStore::new(&config.fd_store));
        let inventory = fds.inventory().map_err(store_error)?;
        let runtime = Arc::new(LibcontainerRuntime {
            layers: Layers::open(config.state_dir.join("layers"))?,
            layout,
            fds,
            instance: inventory.instance.clone(),
            sandboxes: Mutex::default(),
            containers: Mutex::default(),
            events: broadcast::Sender::new(EVENT_BACKLOG),
            config,
        });
        runtime.clone().adopt(inventory).await?;
        exits::follow(&runtime);
        Ok(runtime)
    }

    /// Lets an unpacked directory, which must not change, serve as a layer; unpacking that layer is then a no-op.
    pub fn adopt_layer(&self, id: &LayerId, directory: &Path) -> Result<(), RuntimeError> {
        self.layers.adopt(id, directory)
    }

    fn rotation(&self) -> Rotation {
        Rotation { max_bytes: self.config.log_max_bytes, max_files: self.config.log_max_files.max(1) }
    }

    fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>, RuntimeError> {
        self.sandboxes.lock().get(id).cloned().ok_or_else(|| RuntimeError::NoSandbox(id.to_owned()))
    }

    fn container(&self, id: &str) -> Result<Arc<Container>, RuntimeError> {
        self.containers.lock().get(id).cloned().ok_or_else(|| RuntimeError::NoContainer(id.to_owned()))
    }

    fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        self.containers.lock().values().filter(|container| container.sandbox == sandbox).cloned().collect()
    }

    fn emit(&self, event: ContainerEvent) {
        // Nobody may be listening.
        let _ = self.events.send(event);
    }

    /// A container's group.
    fn container_cgroup(&self, sandbox: &Sandbox, id: &str) -> PathBuf {
        self.sandbox_cgroup(&sandbox.config()).join(id)
    }

    fn sandbox_cgroup(&self, config: &SandboxConfig) -> PathBuf {
        group_of(&self.config.pods_cgroup, config)
    }
}

/// A sandbox' group.
fn group_of(pods_cgroup: &Path, config: &SandboxConfig) -> PathBuf {
    pods_cgroup.join(config.cgroup_parent.trim_start_matches('/'))
}

#[async_trait]
impl Runtime for LibcontainerRuntime {
    async fn run_sandbox(&self, config: SandboxConfig) -> Result<SandboxStatus, RuntimeError> {
        self.make_sandbox(config).await
    }

    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        match self.sandbox(id) {
            Ok(sandbox) => self.end_sandbox(&sandbox).await,
            Err(_gone) => Ok(()),
        }
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        match self.sandbox(id) {
            Ok(sandbox) => self.forget_sandbox(&sandbox).await,
            Err(_gone) => Ok(()),
        }
    }

    async fn list_sandboxes(&self) -> Result<Vec<SandboxStatus>, RuntimeError> {
        let mut list: Vec<_> = self.sandboxes.lock().values().map(|sandbox| sandbox.status()).collect();
        list.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(list)
    }

    async fn create_container(&self, sandbox: &str, config: ContainerConfig) -> Result<(), RuntimeError> {
        let sandbox = self.sandbox(sandbox)?;
        self.make_container(&sandbox, config).await
    }

    async fn start_container(&self, id: &str) -> Result<(), RuntimeError> {
        self.run_container(&self.container(id)?).await
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError> {
        match self.container(id) {
            Ok(container) => self.end_container(&container, grace).await,
            Err(_gone) => Ok(()),
        }
    }

    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        match self.container(id) {
            Ok(container) => self.forget_container(&container).await,
            Err(_gone) => Ok(()),
        }
    }

    async fn list_containers(&self) -> Result<Vec<ContainerStatus>, RuntimeError> {
        let mut list: Vec<_> = self.containers.lock().values().map(|container| container.status()).collect();
        list.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(list)
    }

    async fn container_status(&self, id: &str) -> Result<ContainerStatus, RuntimeError> {
        Ok(self.container(id)?.status())
    }

    async fn update_resources(&self, id: &str, resources: Resources) -> Result<(), RuntimeError> {
        let container = self.container(id)?;
        let sandbox = self.sandbox(&container.sandbox)?;
        let group = self.container_cgroup(&sandbox, id);
        self.layout.limit(&group, &resources).map_err(cgroup_error)?;
        container.set_resources(resources)
    }

    async fn stats(&self) -> Result<Vec<ContainerStats>, RuntimeError> {
        let containers: Vec<_> = self.containers.lock().values().cloned().collect();
        let mut list = Vec::new();
        for container in containers {
            let Ok(sandbox) = self.sandbox(&container.sandbox) else { continue };
            let group = self.container_cgroup(&sandbox, &container.id);
            let Some(usage) = self.layout.usage(&group).filter(|_| container.process().is_some()) else { continue };
            let upper = self.upper(&container.id);
            let writable_bytes = tokio::task::spawn_blocking(move || disk_usage(&upper)).await.unwrap_or(0);
            list.push(ContainerStats {
                id: container.id.clone(),
                cpu_usage_ns: usage.cpu_ns,
                memory_usage_bytes: usage.memory_bytes,
                memory_working_set_bytes: usage.memory_working_set_bytes,
                writable_bytes,
            });
        }
        Ok(list)
    }

    async fn exec_sync(&self, id: &str, args: Vec<String>, timeout: Duration) -> Result<ExecOutput, RuntimeError> {
        let container = self.container(id)?;
        self.exec_collected(&container, args, timeout).await
    }

    async fn exec(&self, id: &str, request: ExecRequest, streams: Streams) -> Result<i32, RuntimeError> {
        let container = self.container(id)?;
        self.exec_streamed(&container, request, streams).await
    }

    async fn attach(&self, id: &str, streams: Streams) -> Result<(), RuntimeError> {
        let container = self.container(id)?;
        self.attach_streams(&container, streams).await
    }

    async fn dial(&self, sandbox: &str, port: u16) -> Result<Box<dyn Duplex>, RuntimeError> {
        let sandbox = self.sandbox(sandbox)?;
        self.connect(&sandbox, port).await
    }

    async fn ensure_layer(&self, layer: LayerSource) -> Result<(), RuntimeError> {
        self.layers.ensure(layer).await
    }

    async fn prune_layers(&self, keep: &[LayerId]) -> Result<u64, RuntimeError> {
        let used = self.containers.lock().values().flat_map(|container| container.layers()).collect::<Vec<_>>();
        let keep = keep.iter().cloned().chain(used).collect();
        self.layers.prune(&keep)
    }

    fn is_frozen(&self, id: &str) -> bool {
        let group = self.container(id).and_then(|container| {
            let sandbox = self.sandbox(&container.sandbox)?;
            Ok(self.container_cgroup(&sandbox, id))
        });
        group.is_ok_and(|group| self.layout.is_frozen(&group))
    }

    fn events(&self) -> broadcast::Receiver<ContainerEvent> {
        self.events.subscribe()
    }
}

fn io_error(step: &str, path: &Path) -> impl FnOnce(io::Error) -> RuntimeError {
    let what = format!("cannot {step} {}", path.display());
    move |source| RuntimeError::Io { what, source }
}

pub(crate) fn cgroup_error(error: CgroupError) -> RuntimeError {
    RuntimeError::Kernel { what: "control group".to_owned(), detail: with_source(&error) }
}

fn store_error(error: FdStoreError) -> RuntimeError {
    RuntimeError::Kernel { what: "descriptor store".to_owned(), detail: with_source(&error) }
}

/// For errors that cannot be a source themselves.
fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
