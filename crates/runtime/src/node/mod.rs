//! A machine made of a container: its own mount, pid, uts, ipc, network and cgroup namespaces around a root filesystem and a data directory.
//!
//! The process that makes it may end (or be killed) at any moment: a record is written before the first effect, and every name
//! (cgroup, mount, directories) follows from the record, so [`NodeContainer::open`] and [`NodeContainer::delete`] always find
//! what there is. Life:
//!
//! ```text
//!   create ──► Created ──start──► Running ──stop, kill, own end──► Stopped ──create──► Created
//!      any state ──delete──► nothing left
//! ```
//!
//! The node's processes are nobody's children (the host's PID 1 takes them), and their output goes to a log file.

mod exec;
mod record;
mod spec;
mod terminal;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use exec::{NodeProcess, NodeStdio, OutputBounds, Streams, resize_terminal};
use serde::{Deserialize, Serialize};

use crate::cgroup::{CgroupError, Layout};
use crate::helper::{BindRequest, Call, CreateRequest, HelperError, Reply, Request, Session};
use crate::snapshot::overlay::{self, Overlay};
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
    /// Where the record of this node and what is made for it are kept; a directory of this node's own.
    pub state_dir: PathBuf,
    /// Directories, bottom first, whose union is the root filesystem; never written to. What the node writes outside of /var goes into the state
    /// directory, which must be on a filesystem that can carry overlays.
    pub rootfs: Vec<PathBuf>,
    /// A directory on a filesystem that can carry overlays, mounted at /var.
    pub data_dir: PathBuf,
    pub hostname: String,
    /// `None` is all.
    pub cpus: Option<u32>,
    /// Memory without swap; `None` is all.
    pub memory_bytes: Option<u64>,
    /// PID 1 and its arguments, looked up in the root filesystem.
    pub argv: Vec<String>,
    /// `KEY=value`; PATH and HOME are added if missing.
    pub env: Vec<String>,
    /// Further mounts.
    pub mounts: Vec<NodeMount>,
    /// PID 1's output is appended here.
    pub console_log: PathBuf,
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
    /// It has a record, but no process.
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
    #[error("{detail}")]
    Mount { detail: String },
    #[error("cannot run a command in the node: {detail}")]
    Exec { detail: String },
    #[error("the command in the node did not end in time, and was killed")]
    Endless,
    #[error("the command in the node said more than is taken, and was killed")]
    TooMuch,
    #[error("node {name} did not end within {limit:?}")]
    Undying { name: String, limit: Duration },
}

pub(super) fn io_error(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> NodeError {
    let path = path.to_owned();
    move |source| NodeError::Io { step, path, source }
}

fn create_error(error: HelperError) -> NodeError {
    NodeError::Create { detail: error.detail() }
}

/// A node container that has a record.
#[derive(Debug)]
pub struct NodeContainer {
    record: Record,
}

impl NodeContainer {
    /// Makes the container, whose PID 1 then waits for [`NodeContainer::start`]; its network namespace, empty, can be filled meanwhile. A failure leaves
    /// nothing behind.
    pub async fn create(spec: &NodeSpec) -> Result<NodeContainer, NodeError> {
        check_name(&spec.name)?;
        if let Some(other) = NodeContainer::open(&spec.state_dir, &spec.name)? {
            if other.state() != NodeState::Stopped {
                return Err(NodeError::Exists { name: spec.name.clone() });
            }
            other.clear()?;
        }
        std::fs::create_dir_all(&spec.state_dir).map_err(io_error("make", &spec.state_dir))?;
        let mut node = NodeContainer { record: Record { spec: spec.clone(), process: None } };
        node.record.save()?;
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

    /// The node recorded in that directory, running or not.
    pub fn open(state_dir: &Path, name: &str) -> Result<Option<NodeContainer>, NodeError> {
        check_name(name)?;
        let record = Record::load(state_dir)?.filter(|record| record.spec.name == name);
        Ok(record.map(|record| NodeContainer { record }))
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
        self.process().and(self.record.process).map(|process| process.pid)
    }

    /// The node's network namespace, as a path that is good as long as its PID 1 lives.
    pub fn netns_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.record.process.map_or(0, |process| process.pid)))
    }

    /// Changes what it may use, at once; `None` is all.
    pub fn resize(&mut self, cpus: Option<u32>, memory_bytes: Option<u64>) -> Result<(), NodeError> {
        let spec = NodeSpec { cpus, memory_bytes, ..self.record.spec.clone() };
        Layout::detect()?.limit(&self.cgroup(), &spec::all_limits(&spec))?;
        self.record.spec = spec;
        self.record.save()
    }

    /// Lets PID 1 run. Succeeds if it runs.
    pub fn start(&self) -> Result<(), NodeError> {
        match self.state() {
            NodeState::Running => return Ok(()),
            NodeState::Created => {}
            NodeState::Stopped => return Err(NodeError::NotRunning { name: self.record.spec.name.clone() }),
        }
        let socket = self.notify_socket();
        crate::helper::notify_start(&socket).map_err(io_error("start the container by", &socket))?;
        // Its absence says that the container was started.
        std::fs::remove_file(&socket).map_err(io_error("remove", &socket))
    }

    /// SIGRTMIN+3 to PID 1, SIGKILL after `grace`; returns when no process is left. Succeeds if it is stopped.
    pub async fn stop(&self, grace: Duration) -> Result<(), NodeError> {
        if let (Some(handle), NodeState::Running) = (self.process(), self.state()) {
            let signal = crate::sys::signals::raw::rtmin_plus_3();
            handle.signal(signal).map_err(io_error("signal", &self.record.spec.state_dir))?;
            if ended(handle, grace).await.map_err(io_error("watch", &self.record.spec.state_dir))? {
                return self.clear();
            }
        }
        self.kill().await
    }

    /// SIGKILL to everything in it; returns when no process is left.
    pub async fn kill(&self) -> Result<(), NodeError> {
        let directory = &self.record.spec.state_dir;
        if let Some(handle) = self.process() {
            handle.signal(libc::SIGKILL).map_err(io_error("signal", directory))?;
            if !ended(handle, KILL_LIMIT).await.map_err(io_error("watch", directory))? {
                return Err(NodeError::Undying { name: self.record.spec.name.clone(), limit: KILL_LIMIT });
            }
        }
        self.clear()
    }

    /// Kills it and removes every trace but the directories of `rootfs`, the data directory and the log, which are the caller's. Succeeds if
    /// there is nothing.
    pub async fn delete(state_dir: &Path, name: &str) -> Result<(), NodeError> {
        match NodeContainer::open(state_dir, name)? {
            Some(node) => {
                node.kill().await?;
                node.forget()
            }
            None => remove_directory(state_dir),
        }
    }

    /// Runs a command in the running node with this process' standard streams (with `tty`: through a terminal in the node, while this process' own is
    /// in raw mode); returns its exit code.
    pub async fn exec(&self, args: &[String], tty: bool) -> Result<i32, NodeError> {
        let target = self.running()?;
        if tty {
            return terminal::run(target, &self.cgroup(), args).await;
        }
        let streams = exec::inherited().map_err(io_error("copy the streams of", Path::new("/proc/self")))?;
        exec::run(target, &self.cgroup(), args, NodeStdio::Streams(streams)).await?.wait().await
    }

    /// Runs a command in the running node to its end; one that goes beyond the bounds is killed.
    ///
    /// # Errors
    /// `Endless` and `TooMuch` among others.
    pub async fn output(&self, args: &[String], bounds: OutputBounds) -> Result<crate::ExecOutput, NodeError> {
        exec::output(self.running()?, &self.cgroup(), args, bounds).await
    }

    /// Runs a command in the running node with streams of the caller's.
    pub async fn spawn(&self, args: &[String], stdio: NodeStdio) -> Result<NodeProcess, NodeError> {
        exec::run(self.running()?, &self.cgroup(), args, stdio).await
    }

    /// Shows a directory or file of this machine in the running node; it goes with the node's end.
    pub async fn bind(&self, mount: &NodeMount) -> Result<(), NodeError> {
        bind(self.running()?, mount).await
    }

    fn running(&self) -> Result<ProcessId, NodeError> {
        match (self.state(), self.record.process) {
            (NodeState::Running, Some(process)) => Ok(process),
            _ => Err(NodeError::NotRunning { name: self.record.spec.name.clone() }),
        }
    }

    fn process(&self) -> Option<ProcessHandle> {
        self.record.process?.open().ok().filter(|handle| !handle.has_exited())
    }

    fn cgroup(&self) -> PathBuf {
        Path::new("/kminik").join(&self.record.spec.name)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.record.spec.state_dir.join(name)
    }

    /// Where the container library keeps its part.
    fn library_root(&self) -> PathBuf {
        self.path("oci")
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
        let rootfs = self.path("rootfs");
        let config = self.path("config.json");
        std::fs::write(&config, spec::oci(spec, &rootfs, &group).to_string()).map_err(io_error("write", &config))?;
        let log = open_log(&spec.console_log)?;
        let null = crate::sys::stdio::null().map_err(io_error("open", Path::new("/dev/null")))?;
        let overlay = Overlay { lower: spec.rootfs.clone(), upper: self.path("upper"), work: self.path("work") };
        overlay.mount(&rootfs).map_err(io_error("mount the root filesystem at", &rootfs))?;
        let request = Request::Create(CreateRequest {
            id: spec.name.clone(),
            root,
            bundle: spec.state_dir.clone(),
            terminal: false,
            cgroup_procs: layout.procs_files(&group),
        });
        let fds = [null.as_fd(), log.as_fd(), log.as_fd()];
        let created = Session::ask(Call { request: &request, fds: &fds }).await;
        // The container has its own copy of the mount by now.
        overlay::unmount(&rootfs).map_err(io_error("unmount", &rootfs))?;
        match created.map_err(create_error)? {
            (Reply::Created(process), _) => {
                self.record.process = Some(process);
                self.record.save()
            }
            _ => Err(create_error(HelperError::Protocol)),
        }
    }

    /// Ends all processes and removes all that was made, but keeps the record.
    fn clear(&self) -> Result<(), NodeError> {
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
        let rootfs = self.path("rootfs");
        overlay::unmount(&rootfs).map_err(io_error("unmount", &rootfs))?;
        for name in ["oci", "rootfs", "upper", "work"] {
            remove_directory(&self.path(name))?;
        }
        Ok(())
    }

    fn forget(&self) -> Result<(), NodeError> {
        remove_directory(&self.record.spec.state_dir)
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

/// As [`NodeContainer::bind`], in the mounts of any process of this machine: a node's that another engine has made.
pub async fn bind_into(pid: u32, mount: &NodeMount) -> Result<(), NodeError> {
    let process = ProcessId::of(pid).map_err(|error| NodeError::Mount { detail: error.to_string() })?;
    bind(process, mount).await
}

async fn bind(process: ProcessId, mount: &NodeMount) -> Result<(), NodeError> {
    use rustix::fs::{Mode, OFlags};
    let source = rustix::fs::open(&mount.source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| io_error("open", &mount.source)(error.into()))?;
    let request = Request::Bind(BindRequest { process, path: mount.target.clone(), read_only: mount.read_only });
    match Session::ask(Call { request: &request, fds: &[source.as_fd()] }).await {
        Ok((Reply::Done, _)) => Ok(()),
        Ok(_) => Err(NodeError::Mount { detail: HelperError::Protocol.detail() }),
        Err(error) => Err(NodeError::Mount { detail: error.detail() }),
    }
}
