//! A command in a running node: a shell, a look at the logs when the API is dead.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::NodeError;
use crate::cgroup::Layout;
use crate::environment::with_defaults;
use crate::helper::{Call, ExecRequest, HelperError, Reply, Request, Session};
use crate::sys::process::ProcessId;

#[derive(Clone, Debug)]
pub struct NodeCommand {
    /// Looked up in the node's root filesystem.
    pub args: Vec<String>,
    /// `KEY=value`; PATH and HOME are added if missing.
    pub env: Vec<String>,
}

/// What the command reads and writes.
#[derive(Debug)]
pub enum NodeStdio {
    /// Descriptors of the caller's, for example its own standard streams.
    Streams { stdin: OwnedFd, stdout: OwnedFd, stderr: OwnedFd },
    /// A new terminal in the node, whose other side the caller gets.
    Terminal { width: u16, height: u16 },
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
    command: NodeCommand,
    stdio: NodeStdio,
) -> Result<NodeProcess, NodeError> {
    let failed = |error: HelperError| NodeError::Exec { detail: error.detail() };
    let layout = Layout::detect()?;
    let (terminal, fds) = match stdio {
        NodeStdio::Streams { stdin, stdout, stderr } => (None, vec![stdin, stdout, stderr]),
        NodeStdio::Terminal { width, height } => (Some((width, height)), Vec::new()),
    };
    let request = Request::Exec(ExecRequest {
        target,
        cgroup_procs: procs_files(&layout, group),
        args: command.args,
        env: with_defaults(&command.env, "/root"),
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
