//! Further processes in a running container.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::LibcontainerRuntime;
use super::containers::Container;
use super::start::clamp_oom_score;
use crate::environment::with_defaults;
use crate::helper::{self, Call, HelperError, Reply, Request, Session};
use crate::io::write_all;
use crate::node::resize_terminal;
use crate::oci_config::{self, capability_names, capability_numbers, container_set, user};
use crate::sys::pipe::{pipe, set_nonblocking};
use crate::sys::process::ProcessId;
use crate::sys::watched::watched;
use crate::{ContainerConfig, ContainerState, ExecOutput, ExecRequest, RuntimeError, Streams};

/// What is kept of each stream of a collected exec.
const OUTPUT_LIMIT_BYTES: usize = 16 << 20;
/// After the process' end, for the rest of its output: a child of it may hold the streams open.
const DRAIN_LIMIT: Duration = Duration::from_millis(500);

/// A process in a container.
struct Running {
    session: Session,
    process: ProcessId,
    terminal: Option<OwnedFd>,
}

impl Running {
    async fn exit(&mut self) -> Result<i32, RuntimeError> {
        match self.session.next().await {
            Ok((Reply::Exited(code), _)) => {
                self.session.reap().await;
                Ok(code)
            }
            Ok(_) => Err(exec_error(HelperError::Protocol)),
            Err(error) => Err(exec_error(error)),
        }
    }

    fn kill(&self) {
        if let Ok(handle) = self.process.open()
            && let Err(error) = handle.signal(libc::SIGKILL)
        {
            tracing::warn!(pid = self.process.pid, %error, "a process that timed out is not killed");
        }
    }
}

impl LibcontainerRuntime {
    /// Runs to the end, its output collected.
    pub(super) async fn exec_collected(
        &self,
        container: &Container,
        args: Vec<String>,
        timeout: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        let made = || -> io::Result<_> { Ok((crate::sys::stdio::null()?, pipe()?, pipe()?)) };
        let (stdin, (stdout, stdout_write), (stderr, stderr_write)) = made().map_err(stream_error)?;
        let request = ExecRequest { args, env: Vec::new(), tty: false };
        let fds = vec![stdin, stdout_write, stderr_write];
        let work = async {
            let mut running = self.spawn(container, request, fds).await?;
            let mut output = ExecOutput { stdout: Vec::new(), stderr: Vec::new(), exit_code: 0 };
            let mut copies = Box::pin(async {
                tokio::join!(collect(stdout, &mut output.stdout), collect(stderr, &mut output.stderr))
            });
            let ended = {
                let mut exit = std::pin::pin!(tokio::time::timeout(effective(timeout), running.exit()));
                let mut drained = false;
                loop {
                    tokio::select! {
                        ended = &mut exit => break ended,
                        _ = &mut copies, if !drained => drained = true,
                    }
                }
                .map(|code| (code, drained))
            };
            let Ok((code, drained)) = ended else {
                running.kill();
                return Err(RuntimeError::Timeout(timeout));
            };
            if !drained {
                let _ = tokio::time::timeout(DRAIN_LIMIT, &mut copies).await;
            }
            drop(copies);
            output.exit_code = code?;
            Ok(output)
        };
        work.await
    }

    /// Runs with the client's streams.
    pub(super) async fn exec_streamed(
        &self,
        container: &Container,
        request: ExecRequest,
        streams: Streams,
    ) -> Result<i32, RuntimeError> {
        let Streams { stdin, stdout, stderr, resize } = streams;
        if request.tty {
            let mut running = self.spawn(container, request, Vec::new()).await?;
            let Some(master) = running.terminal.take() else { return Err(exec_error(HelperError::Protocol)) };
            set_nonblocking(&master).map_err(stream_error)?;
            let master = watched(master).map_err(stream_error)?;
            return through_terminal(running, &master, Streams { stdin, stdout, stderr, resize }).await;
        }
        let made = || -> io::Result<_> { Ok((pipe()?, pipe()?, pipe()?)) };
        let ((stdin_read, stdin_write), (stdout_read, stdout_write), (stderr_read, stderr_write)) =
            made().map_err(stream_error)?;
        let mut running = self.spawn(container, request, vec![stdin_read, stdout_write, stderr_write]).await?;
        let mut input = Box::pin(async move {
            match stdin {
                Some(stdin) => feed(stdin, stdin_write).await,
                // Nothing to read: closed at once.
                None => drop(stdin_write),
            }
        });
        let mut output = Box::pin(async { tokio::join!(forward(stdout_read, stdout), forward(stderr_read, stderr)) });
        let (mut fed, mut drained) = (false, false);
        let code = {
            let mut exit = std::pin::pin!(running.exit());
            loop {
                tokio::select! {
                    code = &mut exit => break code,
                    () = &mut input, if !fed => fed = true,
                    _ = &mut output, if !drained => drained = true,
                }
            }
        };
        if !drained {
            let _ = tokio::time::timeout(DRAIN_LIMIT, output).await;
        }
        code
    }

    async fn spawn(
        &self,
        container: &Container,
        request: ExecRequest,
        fds: Vec<OwnedFd>,
    ) -> Result<Running, RuntimeError> {
        let crate::service::record::Phase::Running { process: target, .. } = container.phase() else {
            let state = container.status().state;
            return Err(RuntimeError::WrongState { id: container.id.clone(), state, wanted: ContainerState::Running });
        };
        let config = container.config();
        let request = self.exec_request(container, &config, target, request)?;
        let request = Request::Exec(request);
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let mut session = Session::start(Call { request: &request, fds: &borrowed }).map_err(exec_error)?;
        match session.step().await {
            Ok((Reply::Started(process), received)) => {
                Ok(Running { session, process, terminal: received.into_iter().next() })
            }
            Ok(_) => Err(exec_error(HelperError::Protocol)),
            Err(error) => {
                session.reap().await;
                Err(exec_error(error))
            }
        }
    }

    fn exec_request(
        &self,
        container: &Container,
        config: &ContainerConfig,
        target: ProcessId,
        request: ExecRequest,
    ) -> Result<helper::ExecRequest, RuntimeError> {
        let security = &config.security;
        let sandbox = self.sandbox(&container.sandbox)?;
        let group = self.container_cgroup(&sandbox, &container.id);
        if self.layout.processes(&group).is_empty() {
            return Err(RuntimeError::NoContainer(container.id.clone()));
        }
        let identity = user::resolve(&self.rootfs(&container.id), &config.user)?;
        let set = container_set(security.privileged, &security.add_capabilities, &security.drop_capabilities);
        let seccomp = oci_config::container::filter(config, &capability_names(set))?;
        let seccomp = seccomp
            .map(serde_json::from_value)
            .transpose()
            .map_err(|error| RuntimeError::Kernel { what: "seccomp profile".to_owned(), detail: error.to_string() })?;
        let mut env = config.env.clone();
        if request.tty {
            env.push("TERM=xterm".to_owned());
        }
        env.extend(request.env);
        Ok(helper::ExecRequest {
            target,
            cgroup_procs: self.layout.procs_files(&group),
            args: request.args,
            env: with_defaults(&env, &identity.home),
            cwd: if config.working_dir.is_empty() { "/".into() } else { config.working_dir.clone().into() },
            uid: identity.uid,
            gid: identity.gid,
            groups: identity.groups,
            capabilities: Some(capability_numbers(set)),
            no_new_privileges: security.no_new_privileges,
            seccomp,
            oom_score_adj: config.resources.oom_score_adj.map(clamp_oom_score),
            terminal: request.tty.then_some((80, 24)),
        })
    }
}

/// Zero is no limit.
fn effective(timeout: Duration) -> Duration {
    if timeout.is_zero() { Duration::from_secs(365 * 24 * 3600) } else { timeout }
}

async fn through_terminal(
    mut running: Running,
    master: &AsyncFd<OwnedFd>,
    streams: Streams,
) -> Result<i32, RuntimeError> {
    let Streams { stdin, mut stdout, resize, .. } = streams;
    let mut input = Box::pin(async move {
        let Some(mut stdin) = stdin else { return };
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(read) = stdin.read(&mut buffer).await {
            if read == 0 {
                // The end of input, as a terminal tells it.
                let _ = write_all(master, &[4]).await;
                return;
            }
            if write_all(master, buffer.get(..read).unwrap_or_default()).await.is_err() {
                return;
            }
        }
    });
    let mut sizes = Box::pin(async move {
        let Some(mut resize) = resize else { return };
        while let Some(size) = resize.recv().await {
            if resize_terminal(master.get_ref(), size.width, size.height).is_err() {
                return;
            }
        }
    });
    let mut output = Box::pin(async move {
        let mut buffer = vec![0; 32 * 1024];
        while let Ok(mut ready) = master.readable().await {
            match ready.try_io(|master| Ok(rustix::io::read(master.get_ref(), &mut buffer[..])?)) {
                Ok(Ok(read)) if read > 0 => {
                    if let Some(out) = &mut stdout {
                        let written = out.write_all(buffer.get(..read).unwrap_or_default()).await;
                        if written.is_err() || out.flush().await.is_err() {
                            stdout = None;
                        }
                    }
                }
                Ok(_) => return,
                Err(_would_block) => {}
            }
        }
    });
    let (mut fed, mut sized, mut drained) = (false, false, false);
    let code = {
        let mut exit = std::pin::pin!(running.exit());
        loop {
            tokio::select! {
                code = &mut exit => break code,
                () = &mut input, if !fed => fed = true,
                () = &mut sizes, if !sized => sized = true,
                () = &mut output, if !drained => drained = true,
            }
        }
    };
    if !drained {
        let _ = tokio::time::timeout(DRAIN_LIMIT, output).await;
    }
    code
}

fn receiver(pipe: OwnedFd) -> io::Result<tokio::net::unix::pipe::Receiver> {
    tokio::net::unix::pipe::Receiver::from_owned_fd(pipe)
}

/// All up to the limit; the rest is read and dropped, so that the process goes on.
async fn collect(pipe: OwnedFd, into: &mut Vec<u8>) -> io::Result<()> {
    let mut pipe = receiver(pipe)?;
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let read = pipe.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let room = OUTPUT_LIMIT_BYTES - into.len();
        into.extend_from_slice(buffer.get(..read.min(room)).unwrap_or_default());
    }
}

/// To the client as it comes; a client that has gone does not stop the process.
async fn forward(pipe: OwnedFd, mut to: Option<Box<dyn tokio::io::AsyncWrite + Send + Unpin>>) -> io::Result<()> {
    let mut pipe = receiver(pipe)?;
    let mut buffer = vec![0; 32 * 1024];
    loop {
        let read = pipe.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        if let Some(out) = &mut to
            && (out.write_all(buffer.get(..read).unwrap_or_default()).await.is_err() || out.flush().await.is_err())
        {
            to = None;
        }
    }
}

/// Until the client closes its side, which closes the process' stdin.
async fn feed(mut from: Box<dyn tokio::io::AsyncRead + Send + Unpin>, pipe: OwnedFd) {
    let Ok(mut pipe) = tokio::net::unix::pipe::Sender::from_owned_fd(pipe) else { return };
    // Either side's end is the end.
    let _ = tokio::io::copy(&mut from, &mut pipe).await;
}

fn exec_error(error: HelperError) -> RuntimeError {
    let detail = error.detail();
    let detail = match detail.find("exec: ") {
        Some(at) => format!(
            "failed to exec in container: OCI runtime exec failed: exec failed: unable to start container process: {}: unknown",
            detail.get(at..).unwrap_or_default()
        ),
        None => detail,
    };
    RuntimeError::Exec { detail }
}

fn stream_error(source: io::Error) -> RuntimeError {
    RuntimeError::Io { what: "cannot make the process' streams".to_owned(), source }
}
