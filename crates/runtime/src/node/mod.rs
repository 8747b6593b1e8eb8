//! A machine made of a container: its own mount, pid, uts, ipc, network and cgroup namespaces around a root filesystem and a data directory.
//!
//! The process that makes it may end (or be killed) at any moment: a record is written before the first effect, and every name
//! (cgroup, namespace file, directories) follows from the record, so [`NodeContainer::open`] and [`NodeContainer::delete`] always find
//! what there is. Life:
//!
//! ```text
//!   create ──► Created ──start──► Running ──stop, kill, own end──► Stopped ──start──► Running
//!      any state ──delete──► nothing left
//! ```
//!
//! The node's processes are nobody's children (the host's PID 1 takes them), and their output goes to a log file.

mod exec;
mod record;
mod spec;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use exec::{NodeCommand, NodeProcess, NodeStdio, resize_terminal};
use serde::{Deserialize, Serialize};

use crate::cgroup::{CgroupError, Layout};
use crate::helper::{Call, CreateRequest, HelperError, PinRequest, Reply, Request, Session};
use crate::sys::process::{ProcessHandle, ProcessId};
use crate::sys::watched::watched;
use record::Record;

/// How long a killed node may take to end: the kernel closes its files and unmounts its filesystems first.
const KILL_LIMIT: Duration = Duration::from_secs(30);

/// What a node container is made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Of letters, digits, `-` and `.`; also the name of its cgroup, `/kminik/<name>`.
    pub name: String,
    /// A directory; its content is the node's root filesystem, writable, and stays when the node is deleted.
    pub rootfs: PathBuf,
    /// A directory on a filesystem that can carry overlays, mounted at /var.
    pub data_dir: PathBuf,
    pub hostname: String,
    /// A pinned network namespace, see [`create_netns`].
    pub netns: PathBuf,
    /// CPUs; `None` is all.
    pub cpus: Option<f64>,
    /// Memory without swap; `None` is all.
    pub memory_bytes: Option<u64>,
    /// PID 1 and its arguments, looked up in the root filesystem.
    pub argv: Vec<String>,
    /// `KEY=value`; PATH and HOME are added if missing.
    pub env: Vec<String>,
    /// Further mounts.
    pub mounts: Vec<NodeMount>,
    /// PID 1's output is appended here.
    pub log_file: PathBuf,
}

/// A directory or file of the host that the node sees.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeMount {
    pub source: PathBuf,
    pub target: PathBuf,
    pub read_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// It has a record, no running process.
    Stopped,
    /// Its PID 1 waits for the start.
    Created,
    Running,
}

#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("node {name} exists already")]
    Exists { name: String },
    #[error("node {name} is not running")]
    NotRunning { name: String },
    #[error("the node name {name:?} is not of letters, digits, '-' and '.'")]
    BadName { name: String },
    #[error("cannot {step} {path}")]
    Io {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the record {path} is damaged")]
    Record {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("control groups of the node")]
    Cgroup(#[from] CgroupError),
    /// The text says which step of the container's creation failed.
    #[error("cannot make the node's container: {detail}")]
    Create { detail: String },
    #[error("cannot run a command in the node: {detail}")]
    Exec { detail: String },
    #[error("node {name} did not end within {limit:?}")]
    Undying { name: String, limit: Duration },
}

pub(super) fn io_error(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> NodeError {
    let path = path.to_owned();
    move |source| NodeError::Io { step, path, source }
}

/// Makes a network namespace that lives as long as it is mounted at `path` (a file made if missing), its loopback up. Succeeds if it is there.
pub async fn create_netns(path: &Path) -> Result<(), NodeError> {
    if is_namespace(path) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(io_error("make", parent))?;
    }
    std::fs::File::create(path).map_err(io_error("make", path))?;
    let request = Request::PinNamespaces(PinRequest {
        net: Some(path.to_owned()),
        ipc: None,
        uts: None,
        hostname: None,
        sysctls: Vec::new(),
    });
    Session::ask(Call { request: &request, fds: &[] }).await.map_err(create_error)?;
    Ok(())
}

/// Lets go of a pinned namespace; succeeds if there is none.
pub fn remove_netns(path: &Path) -> Result<(), NodeError> {
    while is_namespace(path) {
        rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH)
            .map_err(|error| io_error("unmount", path)(error.into()))?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

fn is_namespace(path: &Path) -> bool {
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    rustix::fs::statfs(path).is_ok_and(|stat| i64::from(stat.f_type) == NSFS_MAGIC)
}

fn create_error(error: HelperError) -> NodeError {
    NodeError::Create { detail: error.detail() }
}

/// A node container that has a record.
#[derive(Debug)]
pub struct NodeContainer {
    directory: PathBuf,
    record: Record,
}

impl NodeContainer {
    /// Makes the container, whose PID 1 then waits for [`NodeContainer::start`]. `state_dir` holds the records of all nodes of this
    /// caller; a failure leaves nothing behind.
    pub async fn create(state_dir: &Path, spec: NodeSpec) -> Result<NodeContainer, NodeError> {
        check_name(&spec.name)?;
        let directory = state_dir.join(&spec.name);
        std::fs::create_dir_all(state_dir).map_err(io_error("make", state_dir))?;
        match std::fs::create_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(NodeError::Exists { name: spec.name });
            }
            result => result.map_err(io_error("make", &directory))?,
        }
        let mut node = NodeContainer { directory, record: Record { spec, process: None } };
        node.record.save(&node.directory)?;
        match node.make().await {
            Ok(()) => Ok(node),
            Err(error) => {
                // The first error is what is told.
                if let Err(second) = node.clear().and_then(|()| node.forget()) {
                    tracing::warn!(error = %second, "cannot clean up after a failed creation");
                }
                Err(error)
            }
        }
    }

    /// The node recorded under that name, running or not.
    pub fn open(state_dir: &Path, name: &str) -> Result<Option<NodeContainer>, NodeError> {
        check_name(name)?;
        let directory = state_dir.join(name);
        Ok(Record::load(&directory)?.map(|record| NodeContainer { directory, record }))
    }

    /// All that are recorded.
    pub fn list(state_dir: &Path) -> Result<Vec<NodeContainer>, NodeError> {
        let entries = match std::fs::read_dir(state_dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.map_err(io_error("read", state_dir))?,
        };
        let mut nodes = Vec::new();
        for entry in entries {
            let entry = entry.map_err(io_error("read", state_dir))?;
            if let Some(record) = Record::load(&entry.path())? {
                nodes.push(NodeContainer { directory: entry.path(), record });
            }
        }
        nodes.sort_by(|a, b| a.record.spec.name.cmp(&b.record.spec.name));
        Ok(nodes)
    }

    pub fn spec(&self) -> &NodeSpec {
        &self.record.spec
    }

    pub fn state(&self) -> NodeState {
        match self.process() {
            None => NodeState::Stopped,
            Some(_) if self.notify_socket().exists() => NodeState::Created,
            Some(_) => NodeState::Running,
        }
    }

    /// The host's view of the node's PID 1, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.record.process.filter(|process| process.is_running()).map(|process| process.pid)
    }

    /// Lets PID 1 run; a stopped node is made anew from its record first. Succeeds if it runs.
    pub async fn start(&mut self) -> Result<(), NodeError> {
        match self.state() {
            NodeState::Running => return Ok(()),
            NodeState::Created => {}
            NodeState::Stopped => {
                self.clear()?;
                if let Err(error) = self.make().await {
                    self.clear()?;
                    return Err(error);
                }
            }
        }
        let socket = self.notify_socket();
        crate::helper::notify_start(&socket).map_err(io_error("start the container by", &socket))?;
        // Its absence says that the container was started.
        std::fs::remove_file(&socket).map_err(io_error("remove", &socket))
    }

    /// SIGRTMIN+3 to PID 1, SIGKILL after `grace`; returns when no process is left. Succeeds if it is stopped.
    pub async fn stop(&mut self, grace: Duration) -> Result<(), NodeError> {
        if let (Some(handle), NodeState::Running) = (self.process(), self.state()) {
            let signal = crate::sys::signals::raw::rtmin_plus_3();
            handle.signal(signal).map_err(io_error("signal", &self.directory))?;
            if ended(handle, grace).await.map_err(io_error("watch", &self.directory))? {
                return self.clear();
            }
        }
        self.kill().await
    }

    /// SIGKILL to everything in it; returns when no process is left.
    pub async fn kill(&mut self) -> Result<(), NodeError> {
        if let Some(handle) = self.process() {
            handle.signal(libc::SIGKILL).map_err(io_error("signal", &self.directory))?;
            if !ended(handle, KILL_LIMIT).await.map_err(io_error("watch", &self.directory))? {
                return Err(NodeError::Undying { name: self.record.spec.name.clone(), limit: KILL_LIMIT });
            }
        }
        self.clear()
    }

    /// Kills it and removes every trace but the root filesystem, the data directory, the log and the network namespace, which are the caller's.
    pub async fn delete(mut self) -> Result<(), NodeError> {
        self.kill().await?;
        self.forget()
    }

    /// Runs a command in the running node.
    pub async fn exec(&self, command: NodeCommand, stdio: NodeStdio) -> Result<NodeProcess, NodeError> {
        let process = self.record.process.filter(|process| process.is_running());
        let target = process.ok_or_else(|| NodeError::NotRunning { name: self.record.spec.name.clone() })?;
        exec::run(target, &self.cgroup(), command, stdio).await
    }

    fn process(&self) -> Option<ProcessHandle> {
        self.record.process?.open().ok().filter(|handle| !handle.has_exited())
    }

    fn cgroup(&self) -> PathBuf {
        Path::new("/kminik").join(&self.record.spec.name)
    }

    /// Where the container library keeps its part.
    fn library_root(&self) -> PathBuf {
        self.directory.join("oci")
    }

    fn notify_socket(&self) -> PathBuf {
        self.library_root().join(&self.record.spec.name).join("notify.sock")
    }

    /// Everything up to the waiting PID 1.
    async fn make(&mut self) -> Result<(), NodeError> {
        let spec = &self.record.spec;
        let layout = Layout::detect()?;
        let group = self.cgroup();
        layout.create(&group)?;
        layout.limit(&group, &spec::limits(spec))?;
        let root = self.library_root();
        std::fs::create_dir_all(&root).map_err(io_error("make", &root))?;
        let config = self.directory.join("config.json");
        std::fs::write(&config, spec::oci(spec, &group).to_string()).map_err(io_error("write", &config))?;
        let log = open_log(&spec.log_file)?;
        let null = crate::sys::stdio::null().map_err(io_error("open", Path::new("/dev/null")))?;
        let request = Request::Create(CreateRequest {
            id: spec.name.clone(),
            root,
            bundle: self.directory.clone(),
            terminal: false,
        });
        let fds = [null.as_fd(), log.as_fd(), log.as_fd()];
        match Session::ask(Call { request: &request, fds: &fds }).await.map_err(create_error)? {
            (Reply::Created(process), _) => {
                self.record.process = Some(process);
                self.record.save(&self.directory)
            }
            _ => Err(create_error(HelperError::Protocol)),
        }
    }

    /// Ends all processes and removes the cgroup and the library's part, keeps the record.
    fn clear(&mut self) -> Result<(), NodeError> {
        let layout = Layout::detect()?;
        let group = self.cgroup();
        layout.kill(&group)?;
        layout.remove(&group)?;
        // Shared by all nodes; the last one takes it along.
        if let Some(parent) = group.parent() {
            for directory in layout.directories(parent) {
                let _still_used = std::fs::remove_dir(directory);
            }
        }
        remove_directory(&self.library_root())?;
        if self.record.process.take().is_some() {
            self.record.save(&self.directory)?;
        }
        Ok(())
    }

    fn forget(&self) -> Result<(), NodeError> {
        remove_directory(&self.directory)
    }
}

fn check_name(name: &str) -> Result<(), NodeError> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(good) {
        return Err(NodeError::BadName { name: name.to_owned() });
    }
    Ok(())
}

fn open_log(path: &Path) -> Result<OwnedFd, NodeError> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(io_error("make", parent))?;
    }
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    Ok(file.map_err(io_error("open", path))?.into())
}

fn remove_directory(path: &Path) -> Result<(), NodeError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Waits for the process' end; false if it still runs after `limit`.
async fn ended(handle: ProcessHandle, limit: Duration) -> io::Result<bool> {
    let watched = watched(handle.into_fd())?;
    let outcome = tokio::time::timeout(limit, watched.readable()).await;
    match outcome {
        Ok(ready) => ready.map(|_| true),
        Err(_elapsed) => Ok(false),
    }
}
