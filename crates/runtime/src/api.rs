//! The seam to whoever drives the runtime (the kubelet; its tests use a recording fake).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{broadcast, mpsc};

/// A namespace of a sandbox or container: its own, the node's, or one joined.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NamespaceMode {
    /// Shared by the containers of the sandbox (network, ipc, uts) or private to each (pid).
    #[default]
    Pod,
    /// The node's.
    Node,
    /// pid only: one namespace for all containers of the sandbox; the runtime runs a pause process in it.
    Shared,
    /// pid only: that of another container of this sandbox.
    Target(String),
}

/// cgroup limits, in the units of the OCI runtime specification. `None` is unlimited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// v1 scale (2..=262144); converted to cpu.weight on v2.
    pub cpu_shares: Option<u64>,
    pub cpu_quota_us: Option<i64>,
    pub cpu_period_us: Option<u64>,
    pub memory_limit_bytes: Option<i64>,
    /// Memory plus swap, as on v1; equal to the limit where swap is not allowed.
    pub memory_swap_limit_bytes: Option<i64>,
    pub pids_limit: Option<i64>,
    /// Clamped to what the node may set.
    pub oom_score_adj: Option<i32>,
    pub hugepages: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SandboxConfig {
    /// Chosen by the caller, unique for ever; `[a-z0-9-]+`.
    pub id: String,
    pub hostname: String,
    /// cgroup parent relative to the pods cgroup, e.g. `burstable/pod<uid>`; created and removed with the sandbox.
    pub cgroup_parent: String,
    pub resources: Resources,
    pub network: NamespaceMode,
    pub ipc: NamespaceMode,
    pub pid: NamespaceMode,
    /// Namespaced sysctls (net.*, kernel.shm*, kernel.msg*, fs.mqueue.*).
    pub sysctls: BTreeMap<String, String>,
    pub port_mappings: Vec<PortMapping>,
    /// Opaque to the runtime, returned with the status.
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// A port of the node that leads to a port of the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    pub protocol: Protocol,
    pub container_port: u16,
    pub node_port: u16,
    /// `None` is every address of the node.
    pub node_ip: Option<IpAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxState {
    Ready,
    NotReady,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SandboxStatus {
    pub id: String,
    pub state: SandboxState,
    pub created_at: SystemTime,
    /// Empty with the node's network.
    pub ips: Vec<IpAddr>,
    pub netns: Option<PathBuf>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    #[default]
    Private,
    /// The container sees later mounts of the node.
    HostToContainer,
    Bidirectional,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mount {
    /// On the node; must exist.
    pub source: PathBuf,
    /// In the container; created if missing (file or directory, as the source is).
    pub target: PathBuf,
    pub read_only: bool,
    /// Read-only also for mounts below the source.
    pub recursive_read_only: bool,
    pub propagation: Propagation,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Device {
    pub source: PathBuf,
    pub target: PathBuf,
    /// Of `rwm`.
    pub permissions: String,
}

/// Who the process runs as. Names are looked up in the container's own /etc/passwd and /etc/group by the runtime, never by NSS.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct User {
    /// `USER` of the image or of the caller: `name`, `uid`, `name:group`, `uid:gid`; empty is root. `uid`/`gid` win over it.
    pub image_user: String,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub supplemental_gids: Vec<u32>,
    /// Do not add the groups that the image's /etc/group gives the user.
    pub strict_supplemental: bool,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub enum Seccomp {
    /// The runtime's default profile.
    #[default]
    RuntimeDefault,
    Unconfined,
    /// A profile file on the node (OCI JSON).
    Localhost(PathBuf),
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Security {
    pub privileged: bool,
    /// Names without `CAP_`; `ALL` is understood. On top of the default set.
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    pub read_only_rootfs: bool,
    pub no_new_privileges: bool,
    pub seccomp: Seccomp,
    /// `None` is the default list; `Some(vec![])` is an unmasked /proc.
    pub masked_paths: Option<Vec<String>>,
    pub readonly_paths: Option<Vec<String>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerConfig {
    /// Chosen by the caller, unique for ever; `[a-z0-9-]+`.
    pub id: String,
    pub name: String,
    /// Unpacked layers, bottom first (see [`Runtime::ensure_layer`]).
    pub layers: Vec<LayerId>,
    /// Entry point and arguments; never empty.
    pub args: Vec<String>,
    /// `KEY=value`, the image's first; PATH and HOME are added by the runtime if missing.
    pub env: Vec<String>,
    /// Created if missing; empty is `/`.
    pub working_dir: String,
    pub user: User,
    pub security: Security,
    pub resources: Resources,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    pub pid: NamespaceMode,
    pub tty: bool,
    /// Keep stdin open for attach.
    pub stdin: bool,
    /// Close stdin when the first attached client closes it.
    pub stdin_once: bool,
    /// Where the log is written, in the CRI format.
    pub log_path: PathBuf,
    /// Sent by `stop_container`, e.g. `SIGTERM` (image's or caller's); default SIGTERM.
    pub stop_signal: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    Created,
    Running,
    Exited,
    /// The runtime lost track (its record is damaged); never inferred from absence.
    Unknown,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerStatus {
    pub id: String,
    pub sandbox: String,
    pub name: String,
    pub state: ContainerState,
    pub pid: Option<u32>,
    pub created_at: SystemTime,
    pub started_at: Option<SystemTime>,
    pub finished_at: Option<SystemTime>,
    /// 128 + signal when killed by one.
    pub exit_code: Option<i32>,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerCannotRun`.
    pub reason: Option<String>,
    pub message: Option<String>,
    pub log_path: PathBuf,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
}

/// A layer by the digest of its uncompressed tar (`sha256:…`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LayerId(pub String);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// Where a layer's bytes are.
#[derive(Clone, Debug)]
pub struct LayerSource {
    /// Verified digest of the uncompressed tar; unpacking fails if the bytes differ.
    pub id: LayerId,
    pub blob: PathBuf,
    pub compression: Compression,
}

#[derive(Clone, Debug)]
pub struct ExecRequest {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub tty: bool,
}

/// The far end of an exec or attach. Dropping `stdin` closes it in the container (half-close); `None` is no stdin.
pub struct Streams {
    pub stdin: Option<Box<dyn AsyncRead + Send + Unpin>>,
    pub stdout: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Never with a tty.
    pub stderr: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    pub resize: Option<mpsc::Receiver<TerminalSize>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

#[derive(Clone, Debug)]
pub struct ExecOutput {
    /// At most 16 MiB of each; more is cut.
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub exit_code: i32,
}

/// What changed; a hint to look (PLEG), the truth is in the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerEvent {
    Started { sandbox: String, id: String },
    Exited { sandbox: String, id: String },
    Removed { sandbox: String, id: String },
    SandboxChanged { sandbox: String },
}

#[derive(Clone, Debug, Default)]
pub struct ContainerStats {
    pub id: String,
    pub cpu_usage_ns: u64,
    pub memory_usage_bytes: u64,
    /// Usage without inactive page cache.
    pub memory_working_set_bytes: u64,
    /// Bytes of the writable layer.
    pub writable_bytes: u64,
}

/// Any bidirectional byte stream.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Gives sandboxes their network; implemented by the pod network, called by the runtime between the creation of the
/// network namespace and the first container. Must be idempotent per sandbox id.
#[async_trait]
pub trait SandboxNetwork: Send + Sync + 'static {
    /// Connects the namespace pinned at `netns`; returns its addresses, primary first.
    async fn setup(
        &self,
        sandbox: &str,
        netns: &std::path::Path,
        ports: &[PortMapping],
    ) -> Result<Vec<IpAddr>, NetworkError>;
    /// Takes everything back; succeeds if there is nothing.
    async fn teardown(&self, sandbox: &str, netns: Option<&std::path::Path>) -> Result<(), NetworkError>;
    /// Called once at start with every sandbox that exists: frees what belongs to no other.
    async fn restore(&self, live: &[SandboxStatus]) -> Result<(), NetworkError>;
}

#[derive(Debug, thiserror::Error)]
#[error("pod network: {message}")]
pub struct NetworkError {
    pub message: String,
}

#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("no sandbox {0}")]
    NoSandbox(String),
    #[error("no container {0}")]
    NoContainer(String),
    #[error("container {id} is {state:?}, not {wanted:?}")]
    WrongState { id: String, state: ContainerState, wanted: ContainerState },
    #[error("layer {0:?} is not unpacked")]
    NoLayer(LayerId),
    #[error("layer {id:?} cannot be unpacked: {detail}")]
    Layer { id: LayerId, detail: String },
    /// The process could not be made or its entry point not executed: text as runc words it.
    #[error("failed to create containerd task: {detail}")]
    Create { detail: String },
    #[error("user {user:?} is not in the image's passwd file")]
    UnknownUser { user: String },
    #[error("exec failed: {detail}")]
    Exec { detail: String },
    #[error("command timed out after {0:?}")]
    Timeout(Duration),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error("{what}")]
    Io {
        what: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{what}: {detail}")]
    Kernel { what: String, detail: String },
}

/// CRI in Rust. Ids are the caller's; every call is idempotent where CRI asks it to be.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Makes namespaces, cgroup and network.
    async fn run_sandbox(&self, config: SandboxConfig) -> Result<SandboxStatus, RuntimeError>;
    /// Kills what still runs in it and takes the network back; succeeds if stopped or missing.
    async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError>;
    /// Stops, then removes containers, namespaces, cgroup; succeeds if missing.
    async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError>;
    async fn list_sandboxes(&self) -> Result<Vec<SandboxStatus>, RuntimeError>;

    async fn create_container(&self, sandbox: &str, config: ContainerConfig) -> Result<(), RuntimeError>;
    async fn start_container(&self, id: &str) -> Result<(), RuntimeError>;
    /// Stop signal, then SIGKILL after `grace`; returns when it has exited. Succeeds if it has.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), RuntimeError>;
    /// Kills if running; removes its writable layer and record, keeps its log. Succeeds if missing.
    async fn remove_container(&self, id: &str) -> Result<(), RuntimeError>;
    async fn list_containers(&self) -> Result<Vec<ContainerStatus>, RuntimeError>;
    async fn container_status(&self, id: &str) -> Result<ContainerStatus, RuntimeError>;
    async fn update_resources(&self, id: &str, resources: Resources) -> Result<(), RuntimeError>;
    async fn stats(&self) -> Result<Vec<ContainerStats>, RuntimeError>;

    /// Runs to its end, output collected; `Timeout` kills it.
    async fn exec_sync(&self, id: &str, args: Vec<String>, timeout: Duration) -> Result<ExecOutput, RuntimeError>;
    /// Runs with streams; returns the exit code.
    async fn exec(&self, id: &str, request: ExecRequest, streams: Streams) -> Result<i32, RuntimeError>;
    /// Joins the running process' streams until it exits or the client goes; output from now on.
    async fn attach(&self, id: &str, streams: Streams) -> Result<(), RuntimeError>;
    /// Connects to a TCP port on the sandbox' loopback.
    async fn dial(&self, sandbox: &str, port: u16) -> Result<Box<dyn Duplex>, RuntimeError>;

    /// Unpacks a layer unless it is there.
    async fn ensure_layer(&self, layer: LayerSource) -> Result<(), RuntimeError>;
    /// Removes unpacked layers not in `keep` and not used by a container; returns the bytes freed.
    async fn prune_layers(&self, keep: &[LayerId]) -> Result<u64, RuntimeError>;

    /// Whether the container was made to stand still: then it answers nobody, and is not to blame for it.
    fn is_frozen(&self, _id: &str) -> bool {
        false
    }
    fn events(&self) -> broadcast::Receiver<ContainerEvent>;
}
