//! From a created container to a running program.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::containers::Container;
use super::record::{Ended, Phase};
use super::{LibcontainerRuntime, io_error, store_error};
use crate::helper::{Call, CreateRequest, HelperError, Reply, Request, Session, notify_start, read_trace};
use crate::io::{ContainerIo, Ends};
use crate::oci_config::container::{self as oci_config, Surroundings};
use crate::oci_config::user;
use crate::sys::pipe::pipe;
use crate::sys::process::ProcessId;
use crate::sys::watched::watched;
use crate::{ContainerConfig, ContainerEvent, ContainerState, NamespaceMode, RuntimeError};

/// From the start signal until the program is executed.
const EXECUTE_LIMIT: Duration = Duration::from_secs(30);
/// What upstream reports for a container whose program could not be executed.
const START_ERROR_CODE: i32 = 128;

/// The container's side of its streams.
struct Stdio {
    container: Vec<OwnedFd>,
    node: Ends,
}

impl LibcontainerRuntime {
    pub(super) async fn run_container(&self, container: &Arc<Container>) -> Result<(), RuntimeError> {
        let _alone = container.control.lock().await;
        match container.phase() {
            Phase::Created => {}
            Phase::Running { .. } => return Ok(()),
            Phase::Starting { .. } | Phase::Exited(_) => {
                let state = container.status().state;
                return Err(RuntimeError::WrongState {
                    id: container.id.clone(),
                    state,
                    wanted: ContainerState::Created,
                });
            }
        }
        container.set_phase(Phase::Starting { process: None })?;
        let result = self.execute(container).await;
        if let Err(error) = &result {
            self.start_failed(container, error).await?;
        }
        result
    }

    async fn execute(&self, container: &Arc<Container>) -> Result<(), RuntimeError> {
        let config = container.config();
        self.write_bundle(container, &config)?;
        let stdio = stdio(&config)
            .map_err(|source| RuntimeError::Io { what: "cannot make the container's streams".to_owned(), source })?;
        let root = self.config.run_dir.join("oci");
        let request = Request::Create(CreateRequest {
            id: container.id.clone(),
            root: root.clone(),
            bundle: self.state(&container.id),
            terminal: config.tty,
            // It would count towards the container's limits.
            cgroup_procs: Vec::new(),
        });
        let fds: Vec<_> = stdio.container.iter().map(AsFd::as_fd).collect();
        let mut session = Session::start(Call { request: &request, fds: &fds }).map_err(create_error)?;
        let (reply, received) = match session.step().await {
            Ok(answer) => answer,
            Err(error) => {
                session.reap().await;
                return Err(create_error(error));
            }
        };
        let Reply::Created(process) = reply else { return Err(create_error(HelperError::Protocol)) };
        drop(stdio.container);
        let mut ends = stdio.node;
        ends.terminal = received.into_iter().next();
        self.fds.put(&container.id, Some(process), &ends.named()).map_err(store_error)?;
        container.set_phase(Phase::Starting { process: Some(process) })?;
        self.follow_io(container, &config, process, ends)?;
        session.reap().await;
        let trace = session.into_trace();
        let socket = root.join(&container.id).join("notify.sock");
        // Before it can have ended.
        let started_at = SystemTime::now();
        notify_start(&socket).map_err(io_error("start the container by", &socket))?;
        let executed = executed(trace).await;
        // The library's record and socket have served.
        let _ = std::fs::remove_dir_all(root.join(&container.id));
        if let Some(error) = executed? {
            return Err(create_error(HelperError::Failed(error)));
        }
        // It may have ended already: then the exit has been told, and stays.
        if matches!(container.phase(), Phase::Starting { .. }) {
            container.set_phase(Phase::Running { process, started_at })?;
        }
        self.emit(ContainerEvent::Started { sandbox: container.sandbox.clone(), id: container.id.clone() });
        Ok(())
    }

    /// Logs, and when stdin is closed for good lets PID 1 forget its copy of it too.
    pub(super) fn follow_io(
        &self,
        container: &Arc<Container>,
        config: &ContainerConfig,
        process: ProcessId,
        ends: Ends,
    ) -> Result<(), RuntimeError> {
        let failed = |source| RuntimeError::Io { what: format!("cannot log container {}", container.id), source };
        let io = ContainerIo::start(&self.io_config(config), ends).map_err(failed)?;
        *container.io.lock() = Some(io.clone());
        if config.stdin && config.stdin_once && !config.tty {
            let (fds, id) = (self.fds.clone(), container.id.clone());
            let mut closed = io.stdin_closed();
            tokio::spawn(async move {
                if closed.wait_for(|closed| *closed).await.is_ok()
                    && let Err(error) = forget_stdin(&fds, &id, process)
                {
                    tracing::warn!(container = id, %error, "stdin stays open");
                }
            });
        }
        Ok(())
    }

    fn write_bundle(&self, container: &Container, config: &ContainerConfig) -> Result<(), RuntimeError> {
        let sandbox = self.sandbox(&container.sandbox)?;
        let target = match &config.pid {
            NamespaceMode::Target(id) => self.container(id)?.process().map(|process| process.pid),
            _ => None,
        };
        let rootfs = self.rootfs(&container.id);
        let identity = user::resolve(&rootfs, &config.user)?;
        let cgroup = self.container_cgroup(&sandbox, &container.id);
        let around = Surroundings {
            rootfs: &rootfs,
            cgroup: &cgroup,
            namespaces: sandbox.namespaces(config, target)?,
            shm: Some(sandbox.shm()),
            identity: &identity,
            oom_score_adj: config.resources.oom_score_adj.map(clamp_oom_score),
            cgroup_v2: self.layout.is_v2(),
        };
        let path = self.state(&container.id).join("config.json");
        let text = oci_config::oci(config, &around)?.to_string();
        std::fs::write(&path, text).map_err(io_error("write", &path))
    }

    /// What did not start has ended, with the reason upstream gives.
    async fn start_failed(&self, container: &Arc<Container>, error: &RuntimeError) -> Result<(), RuntimeError> {
        let sandbox = self.sandbox(&container.sandbox)?;
        let group = self.container_cgroup(&sandbox, &container.id);
        self.kill_group(&group).await?;
        let _ = std::fs::remove_dir_all(self.config.run_dir.join("oci").join(&container.id));
        let now = SystemTime::now();
        container.set_phase(Phase::Exited(Ended {
            started_at: None,
            finished_at: now,
            code: START_ERROR_CODE,
            reason: "StartError".to_owned(),
            message: Some(error.to_string()),
        }))?;
        self.fds.remove(&container.id).map_err(store_error)?;
        container.io.lock().take();
        self.emit(ContainerEvent::Exited { sandbox: container.sandbox.clone(), id: container.id.clone() });
        Ok(())
    }

    /// For the exit: did the kernel kill something in it for lack of memory.
    pub(super) fn was_out_of_memory(&self, container: &Container) -> bool {
        self.sandbox(&container.sandbox)
            .is_ok_and(|sandbox| self.layout.oom_kills(&self.container_cgroup(&sandbox, &container.id)) > 0)
    }

    /// What of it is still running after its first process has gone (it shared its pid namespace).
    pub(super) async fn kill_rest(&self, container: &Container) -> Result<(), RuntimeError> {
        let sandbox = self.sandbox(&container.sandbox)?;
        self.kill_group(&self.container_cgroup(&sandbox, &container.id)).await
    }
}

/// Reads the trace until the program has been executed (its end is closed then); what is in it is why not.
async fn executed(trace: OwnedFd) -> Result<Option<String>, RuntimeError> {
    let failed = |source| RuntimeError::Io { what: "cannot watch the container's start".to_owned(), source };
    let trace = watched(trace).map_err(failed)?;
    let wait = async {
        let mut text = String::new();
        loop {
            let mut ready = trace.readable().await?;
            let closed = ready.ready().is_read_closed();
            text.push_str(&read_trace(trace.get_ref()));
            if closed {
                return Ok(text);
            }
            ready.clear_ready();
        }
    };
    match tokio::time::timeout(EXECUTE_LIMIT, wait).await {
        Ok(text) => Ok(text.map(|text| exec_error(&text)).map_err(failed)?),
        Err(_elapsed) => Err(RuntimeError::Timeout(EXECUTE_LIMIT)),
    }
}

/// The line that says why the program was not executed. Others may speak of things that were done without.
fn exec_error(trace: &str) -> Option<String> {
    trace.lines().find(|line| line.starts_with("exec")).map(str::to_owned)
}

fn forget_stdin(
    fds: &crate::fdstore::FdStore,
    id: &str,
    process: ProcessId,
) -> Result<(), crate::fdstore::FdStoreError> {
    let Some((holding, descriptors)) = fds.get(id)? else { return Ok(()) };
    let ends = Ends::from_names(&holding.names, descriptors);
    let kept: Vec<_> = ends.named().into_iter().filter(|(name, _)| *name != "stdin").collect();
    fds.put(id, Some(process), &kept)
}

fn stdio(config: &ContainerConfig) -> std::io::Result<Stdio> {
    let mut node = Ends::default();
    if config.tty {
        return Ok(Stdio { container: Vec::new(), node });
    }
    let stdin = if config.stdin {
        let (read, write) = pipe()?;
        node.stdin = Some(write);
        read
    } else {
        crate::sys::stdio::null()?
    };
    let (stdout_read, stdout) = pipe()?;
    let (stderr_read, stderr) = pipe()?;
    node.stdout = Some(stdout_read);
    node.stderr = Some(stderr_read);
    Ok(Stdio { container: vec![stdin, stdout, stderr], node })
}

/// In the words people search for.
fn create_error(error: HelperError) -> RuntimeError {
    let detail = error.detail();
    let why = match detail.find("exec: ") {
        Some(at) => format!("unable to start container process: {}", detail.get(at..).unwrap_or_default()),
        None => detail,
    };
    RuntimeError::Create { detail: format!("failed to create shim task: OCI runtime create failed: {why}: unknown") }
}

/// Without the capability to lower it, only a score not below this process' own can be set.
pub(super) fn clamp_oom_score(wanted: i32) -> i32 {
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse().ok());
    let may_lower = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_RESOURCE));
    if may_lower { wanted } else { wanted.max(own.unwrap_or(0)) }
}
