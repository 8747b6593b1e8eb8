//! Containers: their record, making, ending and removal.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::record::{ContainerRecord, Ended, Phase, save};
use super::sandboxes::{Sandbox, check_id};
use super::{LibcontainerRuntime, cgroup_error, io_error, store_error};
use crate::io::{ContainerIo, IoConfig};
use crate::oci_config::container as oci_config;
use crate::oci_config::user::{self, Identity};
use crate::snapshot::overlay::{Overlay, unmount};
use crate::sys::process::ProcessId;
use crate::{ContainerConfig, ContainerEvent, ContainerState, ContainerStatus, LayerId, Resources, RuntimeError};

/// After SIGKILL, until PID 1 has told of the exit.
const KILL_LIMIT: Duration = Duration::from_secs(30);

pub(super) struct Container {
    pub id: String,
    pub sandbox: String,
    record: Mutex<ContainerRecord>,
    file: PathBuf,
    /// Changes with every change of phase.
    phases: watch::Sender<Phase>,
    pub io: Mutex<Option<Arc<ContainerIo>>>,
    /// One start or removal at a time.
    pub control: tokio::sync::Mutex<()>,
}

impl Container {
    pub(super) fn new(state_dir: &Path, record: ContainerRecord) -> Container {
        let id = record.config.id.clone();
        Container {
            file: state_dir.join("containers").join(&id).join("record.json"),
            sandbox: record.sandbox.clone(),
            phases: watch::Sender::new(record.phase.clone()),
            record: Mutex::new(record),
            io: Mutex::default(),
            control: tokio::sync::Mutex::default(),
            id,
        }
    }

    pub(super) fn config(&self) -> ContainerConfig {
        self.record.lock().config.clone()
    }

    pub(super) fn layers(&self) -> Vec<LayerId> {
        self.record.lock().config.layers.clone()
    }

    pub(super) fn phase(&self) -> Phase {
        self.phases.borrow().clone()
    }

    /// Its process, while it has one.
    pub(super) fn process(&self) -> Option<ProcessId> {
        match self.phase() {
            Phase::Starting { process } => process,
            Phase::Running { process, .. } => Some(process),
            Phase::Created | Phase::Exited(_) => None,
        }
    }

    pub(super) fn set_phase(&self, phase: Phase) -> Result<(), RuntimeError> {
        self.change(|record| record.phase = phase.clone())?;
        self.phases.send_replace(phase);
        Ok(())
    }

    pub(super) fn set_resources(&self, resources: Resources) -> Result<(), RuntimeError> {
        self.change(|record| record.config.resources = resources)
    }

    fn change(&self, change: impl FnOnce(&mut ContainerRecord)) -> Result<(), RuntimeError> {
        let mut record = self.record.lock();
        let mut next = record.clone();
        change(&mut next);
        save(&self.file, &next)?;
        *record = next;
        Ok(())
    }

    /// Waits for the exit.
    pub(super) async fn exited(&self) {
        // The sender lives as long as this.
        let _ = self.phases.subscribe().wait_for(|phase| matches!(phase, Phase::Exited(_))).await;
    }

    pub(super) fn status(&self) -> ContainerStatus {
        let record = self.record.lock();
        let config = &record.config;
        let mut status = ContainerStatus {
            id: self.id.clone(),
            sandbox: self.sandbox.clone(),
            name: config.name.clone(),
            state: ContainerState::Created,
            pid: None,
            created_at: record.created_at,
            started_at: None,
            finished_at: None,
            exit_code: None,
            reason: None,
            message: None,
            log_path: config.log_path.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        };
        match &record.phase {
            Phase::Created | Phase::Starting { .. } => {}
            Phase::Running { process, started_at } => {
                status.state = ContainerState::Running;
                status.pid = Some(process.pid);
                status.started_at = Some(*started_at);
            }
            Phase::Exited(ended) => {
                status.state = ContainerState::Exited;
                status.started_at = ended.started_at;
                status.finished_at = Some(ended.finished_at);
                status.exit_code = Some(ended.code);
                status.reason = Some(ended.reason.clone());
                status.message.clone_from(&ended.message);
            }
        }
        status
    }
}

impl LibcontainerRuntime {
    /// Of a container, what survives: bundle, record and writable layer.
    pub(super) fn state(&self, id: &str) -> PathBuf {
        self.config.state_dir.join("containers").join(id)
    }

    /// Of a container, on the tmpfs.
    pub(super) fn run(&self, id: &str) -> PathBuf {
        self.config.run_dir.join("containers").join(id)
    }

    pub(super) fn upper(&self, id: &str) -> PathBuf {
        self.state(id).join("upper")
    }

    pub(super) fn rootfs(&self, id: &str) -> PathBuf {
        self.run(id).join("rootfs")
    }

    pub(super) fn io_config(&self, config: &ContainerConfig) -> IoConfig {
        IoConfig {
            log_path: config.log_path.clone(),
            rotation: self.rotation(),
            journal_path: self.run(&config.id).join("log.journal"),
            stdin_once: config.stdin_once,
        }
    }

    pub(super) async fn make_container(&self, sandbox: &Sandbox, config: ContainerConfig) -> Result<(), RuntimeError> {
        check_id(&config.id)?;
        if !sandbox.is_ready() {
            return Err(RuntimeError::Create { detail: format!("sandbox {} is not ready", sandbox.id) });
        }
        let record = ContainerRecord {
            sandbox: sandbox.id.clone(),
            config: config.clone(),
            created_at: SystemTime::now(),
            phase: Phase::Created,
            instance: self.instance.clone(),
        };
        let container = Arc::new(Container::new(&self.config.state_dir, record));
        {
            let mut containers = self.containers.lock();
            if containers.contains_key(&config.id) {
                return Ok(());
            }
            containers.insert(config.id.clone(), container.clone());
        }
        let _alone = container.control.lock().await;
        if let Err(error) = self.make_filesystem(sandbox, &container, &config) {
            if let Err(second) = self.clear_container(&container).await {
                tracing::warn!(container = container.id, error = %second, "cannot clean up after a failed creation");
            }
            return Err(error);
        }
        Ok(())
    }

    /// Group, root filesystem and configuration.
    fn make_filesystem(
        &self,
        sandbox: &Sandbox,
        container: &Container,
        config: &ContainerConfig,
    ) -> Result<(), RuntimeError> {
        let id = &container.id;
        let (state, run) = (self.state(id), self.run(id));
        for directory in [&state, &run] {
            std::fs::create_dir_all(directory).map_err(io_error("make", directory))?;
        }
        container.change(|_| {})?;
        let layers = without_hidden(&config.layers);
        let lower = layers.into_iter().map(|layer| self.layers.path(layer)).collect::<Result<Vec<_>, _>>()?;
        self.make_group(sandbox, config)?;
        // With no layer an empty directory stands for one.
        let lower = if lower.is_empty() { vec![self.empty_directory()?] } else { lower };
        let rootfs = self.rootfs(id);
        let overlay = Overlay { lower, upper: self.upper(id), work: state.join("work") };
        overlay.mount(&rootfs).map_err(io_error("mount the root filesystem at", &rootfs))?;
        let identity = user::resolve(&rootfs, &config.user)?;
        make_below(&rootfs, &config.working_dir, &identity)
    }

    fn empty_directory(&self) -> Result<PathBuf, RuntimeError> {
        let path = self.config.run_dir.join("empty");
        std::fs::create_dir_all(&path).map_err(io_error("make", &path))?;
        Ok(path)
    }

    fn make_group(&self, sandbox: &Sandbox, config: &ContainerConfig) -> Result<(), RuntimeError> {
        let group = self.container_cgroup(sandbox, &config.id);
        self.layout.create(&group).map_err(cgroup_error)?;
        self.layout.limit(&group, &config.resources).map_err(cgroup_error)?;
        self.layout.kill_together(&group).map_err(cgroup_error)?;
        self.layout.restrict_devices(&group, &oci_config::device_rules(config)?).map_err(cgroup_error)
    }

    pub(super) async fn end_container(&self, container: &Arc<Container>, grace: Duration) -> Result<(), RuntimeError> {
        if container.phase() == Phase::Created {
            // Not started yet, and from now on never.
            let _alone = container.control.lock().await;
            if container.phase() == Phase::Created {
                let now = SystemTime::now();
                return container.set_phase(Phase::Exited(Ended {
                    started_at: None,
                    finished_at: now,
                    code: 137,
                    reason: "ContainerCannotRun".to_owned(),
                    message: Some("stopped before it was started".to_owned()),
                }));
            }
        }
        if let Ok(sandbox) = self.sandbox(&container.sandbox) {
            // What stands still hears no signal.
            self.layout.thaw(&self.container_cgroup(&sandbox, &container.id)).map_err(cgroup_error)?;
        }
        if !grace.is_zero() {
            let config = container.config();
            let signal = config.stop_signal.as_deref().and_then(signal_number).unwrap_or(libc::SIGTERM);
            self.signal(container, signal)?;
            if tokio::time::timeout(grace, container.exited()).await.is_ok() {
                return Ok(());
            }
        }
        self.signal(container, libc::SIGKILL)?;
        match tokio::time::timeout(KILL_LIMIT, container.exited()).await {
            Ok(()) => Ok(()),
            Err(_elapsed) => Err(RuntimeError::Timeout(KILL_LIMIT)),
        }
    }

    fn signal(&self, container: &Container, number: i32) -> Result<(), RuntimeError> {
        match container.process().map(ProcessId::open) {
            Some(Ok(handle)) => {
                let what = || format!("cannot signal container {}", container.id);
                handle.signal(number).map_err(|source| RuntimeError::Io { what: what(), source })
            }
            // It has ended; the exit is on its way.
            Some(Err(_)) | None => Ok(()),
        }
    }

    pub(super) async fn forget_container(&self, container: &Arc<Container>) -> Result<(), RuntimeError> {
        self.end_container(container, Duration::ZERO).await?;
        let _alone = container.control.lock().await;
        self.clear_container(container).await?;
        self.emit(ContainerEvent::Removed { sandbox: container.sandbox.clone(), id: container.id.clone() });
        Ok(())
    }

    /// Removes all that was made but the log.
    async fn clear_container(&self, container: &Container) -> Result<(), RuntimeError> {
        let id = &container.id;
        if let Ok(sandbox) = self.sandbox(&container.sandbox) {
            let group = self.container_cgroup(&sandbox, id);
            self.kill_group(&group).await?;
            self.remove_group(&group).await?;
        }
        self.fds.remove(id).map_err(store_error)?;
        let rootfs = self.rootfs(id);
        unmount(&rootfs).map_err(io_error("unmount", &rootfs))?;
        let directories = [self.run(id), self.config.run_dir.join("oci").join(id), self.state(id)];
        let removal = tokio::task::spawn_blocking(move || {
            for directory in directories {
                match std::fs::remove_dir_all(&directory) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(io_error("remove", &directory)(error));
                    }
                    _ => {}
                }
            }
            Ok(())
        });
        blocking(removal).await?;
        self.containers.lock().remove(id);
        Ok(())
    }

    pub(super) async fn kill_group(&self, group: &Path) -> Result<(), RuntimeError> {
        let (layout, group) = (self.layout.clone(), group.to_owned());
        if layout.processes(&group).is_empty() {
            return Ok(());
        }
        blocking(tokio::task::spawn_blocking(move || layout.kill(&group).map_err(cgroup_error))).await
    }

    pub(super) async fn remove_group(&self, group: &Path) -> Result<(), RuntimeError> {
        let (layout, group) = (self.layout.clone(), group.to_owned());
        blocking(tokio::task::spawn_blocking(move || layout.remove(&group).map_err(cgroup_error))).await
    }
}

/// Of a layer that is there twice (the empty one often is) the upper one: it hides the lower, and the kernel takes each directory once.
fn without_hidden(layers: &[LayerId]) -> Vec<&LayerId> {
    let hidden = |index: usize, layer| layers.iter().skip(index + 1).any(|upper| upper == layer);
    layers.iter().enumerate().filter(|(index, layer)| !hidden(*index, *layer)).map(|(_, layer)| layer).collect()
}

/// The result of work on a blocking thread; a panic there is an error here.
async fn blocking<T>(work: tokio::task::JoinHandle<Result<T, RuntimeError>>) -> Result<T, RuntimeError> {
    match work.await {
        Ok(result) => result,
        Err(panic) => Err(RuntimeError::Kernel { what: "work aside".to_owned(), detail: panic.to_string() }),
    }
}

/// Makes the working directory, with its parents, below the root, owned by the user as far as it is new.
fn make_below(rootfs: &Path, directory: &str, identity: &Identity) -> Result<(), RuntimeError> {
    use rustix::fs::{Mode, OFlags, ResolveFlags};
    let path = Path::new(directory.trim_start_matches('/'));
    let failed = |error: rustix::io::Errno| io_error("make the working directory", Path::new(directory))(error.into());
    let open = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut current = rustix::fs::open(rootfs, open, Mode::empty()).map_err(failed)?;
    let root = rustix::fs::open(rootfs, open, Mode::empty()).map_err(failed)?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut walked = PathBuf::new();
    for component in path.components() {
        let std::path::Component::Normal(name) = component else { continue };
        walked.push(name);
        current = match rustix::fs::openat2(&root, &walked, open, Mode::empty(), resolve) {
            Err(rustix::io::Errno::NOENT) => {
                rustix::fs::mkdirat(&current, name, Mode::from_raw_mode(0o755)).map_err(failed)?;
                let (uid, gid) = (rustix::fs::Uid::from_raw(identity.uid), rustix::fs::Gid::from_raw(identity.gid));
                rustix::fs::chownat(&current, name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(failed)?;
                rustix::fs::openat2(&root, &walked, open, Mode::empty(), resolve).map_err(failed)?
            }
            result => result.map_err(failed)?,
        };
    }
    Ok(())
}

/// `SIGTERM`, `TERM` or a number.
fn signal_number(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = if name.starts_with("SIG") { name.to_owned() } else { format!("SIG{name}") };
    if let Some(offset) = name.strip_prefix("SIGRTMIN+") {
        return offset.parse::<i32>().ok().filter(|offset| (0..=15).contains(offset)).map(|n| libc::SIGRTMIN() + n);
    }
    name.parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_layer_counts_once() {
        let [a, b] = ["a", "b"].map(|name| crate::LayerId(name.to_owned()));
        assert_eq!(super::without_hidden(&[a.clone(), b.clone(), a.clone()]), [&b, &a]);
    }

    #[test]
    fn signals_by_name() {
        assert_eq!(super::signal_number("SIGTERM"), Some(15));
        assert_eq!(super::signal_number("QUIT"), Some(3));
        assert_eq!(super::signal_number("9"), Some(9));
        assert_eq!(super::signal_number("SIGRTMIN+3"), Some(libc::SIGRTMIN() + 3));
        assert_eq!(super::signal_number("nonsense"), None);
    }
}
