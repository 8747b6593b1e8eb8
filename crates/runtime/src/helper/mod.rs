//! The re-executed, single-threaded helper in which namespaces are made and joined.
//!
//! A container library forks and then runs ordinary code in the child, which deadlocks in a process with several threads, and it changes
//! the calling process (dumpable flag, out-of-memory score, working directory). So the binary runs itself again as
//! `<program> __runtime`, dispatched before any thread exists, and does one operation there.
//!
//! The helper runs from a sealed view of the binary: a container that reaches `/proc/<pid>/exe` of a process about to enter it finds
//! a file that nobody can write.
//!
//! Protocol: descriptor 0 of the helper is a sequenced-packet socket. One message comes in, whose first descriptor is a memfd with the
//! [`Request`]; [`Reply`] messages go out. Descriptor 2 is a pipe that carries what the container library logs as errors.

mod bind;
mod create;
mod exec;
mod executable;
mod pause;
mod program;
mod sandbox;
mod serve;
mod session;

pub(crate) use sandbox::loopback_up;
pub(crate) use session::{Call, HelperError, Session, read_trace};

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::sys::process::ProcessId;

/// The hidden first argument.
pub(crate) const ARGUMENT: &str = "__runtime";

/// Runs the helper and exits if this process was started as one. Must be the first call of `main`, before any thread exists.
pub fn dispatch_if_requested() {
    if std::env::args_os().nth(1).is_some_and(|argument| argument == ARGUMENT) {
        std::process::exit(serve::run());
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Descriptors: stdin, stdout, stderr of the container (none with a terminal).
    Create(CreateRequest),
    /// Descriptors: stdin, stdout, stderr (none with a terminal).
    Exec(ExecRequest),
    PinNamespaces(PinRequest),
    Pause(PauseRequest),
    /// Descriptor: the directory or file to show.
    Bind(BindRequest),
    /// Answers [`Reply::Sockets`] with an IPv4 and an IPv6 stream socket made in the namespace.
    Sockets {
        netns: PathBuf,
    },
}

/// Makes a container that waits for its start; the bundle's `config.json` says all about it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CreateRequest {
    pub id: String,
    /// Where the library keeps its record and the start socket: `<root>/<id>/notify.sock`.
    pub root: PathBuf,
    pub bundle: PathBuf,
    pub terminal: bool,
    /// `cgroup.procs` files the helper itself is put in first: who ends the group then also ends a helper whose caller was killed.
    pub cgroup_procs: Vec<PathBuf>,
}

/// Runs a process in the namespaces of another.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExecRequest {
    pub target: ProcessId,
    /// `cgroup.procs` (or `tasks`) files the process is put in.
    pub cgroup_procs: Vec<PathBuf>,
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: PathBuf,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// Numbers; `None` keeps all.
    pub capabilities: Option<Vec<u32>>,
    pub no_new_privileges: bool,
    pub seccomp: Option<Box<libcontainer::oci_spec::runtime::LinuxSeccomp>>,
    pub oom_score_adj: Option<i32>,
    /// Width and height of the terminal to make.
    pub terminal: Option<(u16, u16)>,
}

/// Makes namespaces that live as long as the files they are bound to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PinRequest {
    /// Existing files to bind to; `None` leaves that namespace alone.
    pub net: Option<PathBuf>,
    pub ipc: Option<PathBuf>,
    pub uts: Option<PathBuf>,
    pub hostname: Option<String>,
    pub sysctls: Vec<(String, String)>,
    /// Set where that can be done.
    pub optional_sysctls: Vec<(String, String)>,
}

/// Shows a directory or file of the caller's mounts in those of a process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BindRequest {
    pub process: ProcessId,
    /// As the process sees it; made if it is missing.
    pub path: PathBuf,
    pub read_only: bool,
}

/// Makes a process that does nothing but hold a pid namespace and reap in it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PauseRequest {
    pub cgroup_procs: Vec<PathBuf>,
    /// An empty directory that becomes its root: what it sees, a container that shares its namespace can reach.
    pub root: PathBuf,
    /// Namespace files it joins.
    pub join: Vec<PathBuf>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Done,
    /// With a terminal: its master as descriptor.
    Created(ProcessId),
    /// With a terminal: its master as descriptor. [`Reply::Exited`] follows.
    Started(ProcessId),
    /// 128 + signal when killed by one.
    Exited(i32),
    /// Two descriptors.
    Sockets,
    Failed(String),
}

/// Lets a created container run: connects to its start socket, by way of its directory, for the path may be longer than a socket's
/// address can be.
pub(crate) fn notify_start(socket: &std::path::Path) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    let directory = std::fs::File::open(socket.parent().unwrap_or(socket))?;
    let name = socket.file_name().unwrap_or_default();
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    std::os::unix::net::UnixStream::connect(short)?.write_all(b"start container")
}
