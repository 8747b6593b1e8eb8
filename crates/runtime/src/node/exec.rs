//! A command in a running node: a shell, a look at the logs when the API is dead.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::NodeError;
use crate::cgroup::Layout;
use crate::environment::with_defaults;
use crate::helper::{Call, ExecRequest, HelperError, Reply, Request, Session};
use crate::sys::process::ProcessId;

/// Standard streams of a command.
#[derive(Debug)]
pub struct Streams {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// What a command reads and writes.
#[derive(Debug)]
pub enum NodeStdio {
    Streams(Streams),
    /// A new terminal in the node, whose other side the caller gets.
    Terminal {
        width: u16,
        height: u16,
    },
}

/// How far a command may go whose output is collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputBounds {
    /// Until its end.
    pub time: Duration,
    /// Of each stream.
    pub bytes: u64,
}

/// Copies of this process' own.
pub(super) fn inherited() -> io::Result<Streams> {
    Ok(Streams {
        stdin: io::stdin().as_fd().try_clone_to_owned()?,
        stdout: io::stdout().as_fd().try_clone_to_owned()?,
        stderr: io::stderr().as_fd().try_clone_to_owned()?,
    })
}

pub(super) async fn output(
    target: ProcessId,
    group: &Path,
    args: &[String],
    bounds: OutputBounds,
) -> Result<crate::ExecOutput, NodeError> {
    let pipe_error = |source| NodeError::Io { step: "make a pipe for", path: "the command".into(), source };
    let (stdout_read, stdout) = crate::sys::pipe::pipe().map_err(pipe_error)?;
    let (stderr_read, stderr) = crate::sys::pipe::pipe().map_err(pipe_error)?;
    let stdin = crate::sys::stdio::null().map_err(pipe_error)?;
    let end = tokio::time::Instant::now() + bounds.time;
    let running = run(target, group, args, NodeStdio::Streams(Streams { stdin, stdout, stderr }));
    let running = tokio::time::timeout_at(end, running).await.unwrap_or(Err(NodeError::Endless))?;
    let process = running.process;
    let work = async {
        let (stdout, stderr) = tokio::try_join!(collect(stdout_read, bounds), collect(stderr_read, bounds))?;
        Ok(crate::ExecOutput { stdout, stderr, exit_code: running.wait().await? })
    };
    let outcome = tokio::time::timeout_at(end, work).await.unwrap_or(Err(NodeError::Endless));
    if matches!(outcome, Err(NodeError::Endless | NodeError::TooMuch))
        && let Ok(handle) = process.open()
        && let Err(error) = handle.signal(libc::SIGKILL)
    {
        tracing::warn!(pid = process.pid, %error, "a command in the node that went too far is not killed");
    }
    outcome
}

/// All that is said, up to the limit.
async fn collect(pipe: OwnedFd, bounds: OutputBounds) -> Result<Vec<u8>, NodeError> {
    let read_error = |source| NodeError::Io { step: "read the output of", path: "the command".into(), source };
    let pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(pipe).map_err(read_error)?;
    let mut kept = Vec::new();
    pipe.take(bounds.bytes.saturating_add(1)).read_to_end(&mut kept).await.map_err(read_error)?;
    if kept.len() as u64 > bounds.bytes { Err(NodeError::TooMuch) } else { Ok(kept) }
}

/// A command that runs.
#[derive(Debug)]
pub struct NodeProcess {
    session: Session,
    process: ProcessId,
    terminal: Option<OwnedFd>,
}

pub(super) async fn run(
    target: ProcessId,
    group: &Path,
    args: &[String],
    stdio: NodeStdio,
) -> Result<NodeProcess, NodeError> {
    let failed = |error: HelperError| NodeError::Exec { detail: error.detail() };
    let layout = Layout::detect()?;
    let (terminal, fds) = match stdio {
        NodeStdio::Streams(Streams { stdin, stdout, stderr }) => (None, vec![stdin, stdout, stderr]),
        NodeStdio::Terminal { width, height } => (Some((width, height)), Vec::new()),
    };
    let request = Request::Exec(ExecRequest {
        target,
        cgroup_procs: procs_files(&layout, group),
        args: args.to_vec(),
        env: with_defaults(&[], "/root"),
        cwd: "/".into(),
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        capabilities: None,
        no_new_privileges: false,
        seccomp: None,
        oom_score_adj: None,
        terminal,
    });
    let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut session = Session::start(Call { request: &request, fds: &borrowed }).map_err(failed)?;
    match session.step().await.map_err(failed)? {
        (Reply::Started(process), fds) => Ok(NodeProcess { session, process, terminal: fds.into_iter().next() }),
        _ => Err(failed(HelperError::Protocol)),
    }
}

/// On v2 a group that gives controllers on takes no process itself: PID 1's own leaf does.
fn procs_files(layout: &Layout, group: &Path) -> Vec<std::path::PathBuf> {
    let leaf = group.join(crate::INIT_CGROUP);
    let has_leaf = layout.is_v2() && layout.directories(&leaf).iter().all(|directory| directory.exists());
    layout.procs_files(if has_leaf { &leaf } else { group })
}

impl NodeProcess {
    /// The host's view of the process.
    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    /// The caller's side of the terminal, once.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// The command's end: its exit code, 128 + signal when killed by one.
    pub async fn wait(mut self) -> Result<i32, NodeError> {
        let failed = |error: HelperError| NodeError::Exec { detail: error.detail() };
        match self.session.next().await.map_err(failed)? {
            (Reply::Exited(code), _) => {
                self.session.reap().await;
                Ok(code)
            }
            _ => Err(failed(HelperError::Protocol)),
        }
    }
}

/// Tells a terminal its new size.
pub fn resize_terminal(terminal: impl AsFd, width: u16, height: u16) -> std::io::Result<()> {
    let size = rustix::termios::Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}
