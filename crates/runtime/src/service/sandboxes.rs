//! Sandboxes: pinned namespaces, a control group, a network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::record::{SandboxRecord, save};
use super::{LibcontainerRuntime, cgroup_error, io_error};
use crate::helper::{Call, PauseRequest, PinRequest, Reply, Request, Session};
use crate::oci_config::container::{Namespaces, PidNamespace};
use crate::snapshot::overlay::unmount;
use crate::{
    ContainerConfig, ContainerEvent, Duplex, NamespaceMode, RuntimeError, SandboxConfig, SandboxState, SandboxStatus,
};

/// Of /dev/shm, as container engines size it.
const SHM_BYTES: u64 = 64 << 20;
/// A connection within a machine is made at once or not at all.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// What every sandbox with its own network gets, unless its own sysctls say otherwise: programs need no privilege for low ports and ping.
const SYSCTLS: [(&str, &str); 2] =
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];

pub(super) struct Sandbox {
    pub id: String,
    record: Mutex<SandboxRecord>,
    file: PathBuf,
    /// Of this sandbox on the tmpfs.
    directory: PathBuf,
    /// One change at a time.
    control: tokio::sync::Mutex<()>,
}

impl Sandbox {
    pub(super) fn new(runtime: &super::RuntimeConfig, record: SandboxRecord) -> Sandbox {
        let id = record.config.id.clone();
        Sandbox {
            file: runtime.state_dir.join("sandboxes").join(format!("{id}.json")),
            directory: runtime.run_dir.join("sandboxes").join(&id),
            record: Mutex::new(record),
            control: tokio::sync::Mutex::default(),
            id,
        }
    }

    pub(super) fn config(&self) -> SandboxConfig {
        self.record.lock().config.clone()
    }

    pub(super) fn is_ready(&self) -> bool {
        self.record.lock().ready
    }

    pub(super) fn status(&self) -> SandboxStatus {
        let record = self.record.lock();
        SandboxStatus {
            id: self.id.clone(),
            state: if record.ready { SandboxState::Ready } else { SandboxState::NotReady },
            created_at: record.created_at,
            ips: record.ips.clone(),
            netns: (record.config.network == NamespaceMode::Pod && record.ready).then(|| self.pin("net")),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
        }
    }

    fn pin(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Changes the record, on disk first.
    pub(super) fn change(&self, change: impl FnOnce(&mut SandboxRecord)) -> Result<(), RuntimeError> {
        let mut record = self.record.lock();
        let mut next = record.clone();
        change(&mut next);
        save(&self.file, &next)?;
        *record = next;
        Ok(())
    }

    /// Where a container of this sandbox has its namespaces from.
    pub(super) fn namespaces(&self, config: &ContainerConfig, target: Option<u32>) -> Result<Namespaces, RuntimeError> {
        let record = self.record.lock();
        let of = |mode: &NamespaceMode, name: &str| (*mode == NamespaceMode::Pod).then(|| self.pin(name));
        let pid = match (&config.pid, record.pause) {
            (NamespaceMode::Pod, _) => PidNamespace::Own,
            (NamespaceMode::Node, _) => PidNamespace::Node,
            (NamespaceMode::Shared, Some(pause)) => PidNamespace::Joined(format!("/proc/{}/ns/pid", pause.pid).into()),
            (NamespaceMode::Shared, None) => {
                return Err(RuntimeError::Create { detail: "the sandbox has no shared pid namespace".to_owned() });
            }
            (NamespaceMode::Target(_), _) => match target {
                Some(pid) => PidNamespace::Joined(format!("/proc/{pid}/ns/pid").into()),
                None => return Err(RuntimeError::Create { detail: "the target container is not running".to_owned() }),
            },
        };
        Ok(Namespaces {
            net: of(&record.config.network, "net"),
            ipc: of(&record.config.ipc, "ipc"),
            // The node's network comes with the node's name.
            uts: of(&record.config.network, "uts"),
            pid,
        })
    }

    /// What is mounted at /dev/shm of its containers.
    pub(super) fn shm(&self) -> PathBuf {
        match self.record.lock().config.ipc {
            NamespaceMode::Node => "/dev/shm".into(),
            _ => self.directory.join("shm"),
        }
    }
}

impl LibcontainerRuntime {
    pub(super) async fn make_sandbox(&self, config: SandboxConfig) -> Result<SandboxStatus, RuntimeError> {
        check_id(&config.id)?;
        let (sandbox, is_new) = {
            let mut sandboxes = self.sandboxes.lock();
            match sandboxes.get(&config.id) {
                Some(sandbox) => (sandbox.clone(), false),
                None => {
                    let record = SandboxRecord {
                        config: config.clone(),
                        created_at: SystemTime::now(),
                        ips: Vec::new(),
                        ready: false,
                        instance: self.instance.clone(),
                        pause: None,
                    };
                    let sandbox = Arc::new(Sandbox::new(&self.config, record));
                    sandboxes.insert(config.id.clone(), sandbox.clone());
                    (sandbox, true)
                }
            }
        };
        let _alone = sandbox.control.lock().await;
        if !is_new {
            return Ok(sandbox.status());
        }
        let made = self.make_parts(&sandbox, &config).await;
        if let Err(error) = made {
            if let Err(second) = self.take_back(&sandbox).await {
                tracing::warn!(sandbox = sandbox.id, error = %second, "cannot clean up after a failed sandbox");
            }
            self.drop_record(&sandbox)?;
            return Err(error);
        }
        self.emit(ContainerEvent::SandboxChanged { sandbox: sandbox.id.clone() });
        Ok(sandbox.status())
    }

    async fn make_parts(&self, sandbox: &Sandbox, config: &SandboxConfig) -> Result<(), RuntimeError> {
        sandbox.change(|_| {})?;
        let group = self.sandbox_cgroup(config);
        self.layout.create(&group).map_err(cgroup_error)?;
        self.layout.limit(&group, &config.resources).map_err(cgroup_error)?;
        std::fs::create_dir_all(&sandbox.directory).map_err(io_error("make", &sandbox.directory))?;
        let own = |mode: &NamespaceMode| *mode == NamespaceMode::Pod;
        let pin = |wanted: bool, name: &str| -> Result<Option<PathBuf>, RuntimeError> {
            let path = sandbox.pin(name);
            if !wanted {
                return Ok(None);
            }
            std::fs::File::create(&path).map_err(io_error("make", &path))?;
            Ok(Some(path))
        };
        let request = PinRequest {
            net: pin(own(&config.network), "net")?,
            ipc: pin(own(&config.ipc), "ipc")?,
            uts: pin(own(&config.network), "uts")?,
            hostname: Some(config.hostname.clone()).filter(|name| !name.is_empty()),
            sysctls: config.sysctls.clone().into_iter().collect(),
            optional_sysctls: default_sysctls(config),
        };
        if request.net.is_some() || request.ipc.is_some() {
            let request = Request::PinNamespaces(request);
            Session::ask(Call { request: &request, fds: &[] }).await.map_err(sandbox_error)?;
        }
        if own(&config.ipc) {
            mount_shm(&sandbox.directory.join("shm"))?;
        }
        if config.pid == NamespaceMode::Shared {
            self.start_pause(sandbox, &group).await?;
        }
        let ips = if own(&config.network) {
            self.config.network.setup(&sandbox.id, &sandbox.pin("net"), &config.port_mappings).await?
        } else {
            Vec::new()
        };
        sandbox.change(|record| {
            record.ips = ips;
            record.ready = true;
        })
    }

    async fn start_pause(&self, sandbox: &Sandbox, group: &Path) -> Result<(), RuntimeError> {
        let group = group.join(pause_group(&sandbox.id));
        self.layout.create(&group).map_err(cgroup_error)?;
        let root = sandbox.directory.join("pause");
        std::fs::create_dir_all(&root).map_err(io_error("make", &root))?;
        let ipc = sandbox.pin("ipc");
        let request = Request::Pause(PauseRequest {
            cgroup_procs: self.layout.procs_files(&group),
            root,
            join: [sandbox.pin("net"), ipc, sandbox.pin("uts")].into_iter().filter(|path| path.exists()).collect(),
        });
        match Session::ask(Call { request: &request, fds: &[] }).await.map_err(sandbox_error)? {
            (Reply::Created(process), _) => sandbox.change(|record| record.pause = Some(process)),
            _ => Err(RuntimeError::Create { detail: "the pause process was not made".to_owned() }),
        }
    }

    /// Ends its containers and takes the network back.
    pub(super) async fn end_sandbox(&self, sandbox: &Sandbox) -> Result<(), RuntimeError> {
        let _alone = sandbox.control.lock().await;
        for container in self.containers_of(&sandbox.id) {
            self.end_container(&container, Duration::ZERO).await?;
        }
        let was_ready = sandbox.is_ready();
        self.take_back(sandbox).await?;
        if was_ready {
            self.emit(ContainerEvent::SandboxChanged { sandbox: sandbox.id.clone() });
        }
        Ok(())
    }

    pub(super) async fn forget_sandbox(&self, sandbox: &Sandbox) -> Result<(), RuntimeError> {
        self.end_sandbox(sandbox).await?;
        for container in self.containers_of(&sandbox.id) {
            self.forget_container(&container).await?;
        }
        let _alone = sandbox.control.lock().await;
        let config = sandbox.config();
        let group = self.sandbox_cgroup(&config);
        self.remove_group(&group.join(pause_group(&sandbox.id))).await?;
        // Its successor may have the same parent.
        let shared = self
            .sandboxes
            .lock()
            .values()
            .any(|other| other.id != sandbox.id && other.config().cgroup_parent == config.cgroup_parent);
        if !shared {
            self.remove_group(&group).await?;
        }
        self.drop_record(sandbox)
    }

    /// Network, namespaces, mounts and processes; the record stays.
    pub(super) async fn take_back(&self, sandbox: &Sandbox) -> Result<(), RuntimeError> {
        let config = sandbox.config();
        if config.network == NamespaceMode::Pod {
            let netns = sandbox.pin("net");
            let netns = netns.exists().then_some(netns);
            self.config.network.teardown(&sandbox.id, netns.as_deref()).await?;
        }
        // Not the whole of the parent: another sandbox may have the same.
        let parent = self.sandbox_cgroup(&config);
        self.kill_group(&parent.join(pause_group(&sandbox.id))).await?;
        for container in self.containers_of(&sandbox.id) {
            self.kill_group(&parent.join(&container.id)).await?;
        }
        for name in ["net", "ipc", "uts", "shm"] {
            let path = sandbox.directory.join(name);
            unmount(&path).map_err(io_error("unmount", &path))?;
        }
        match std::fs::remove_dir_all(&sandbox.directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_error("remove", &sandbox.directory)(error));
            }
            _ => {}
        }
        sandbox.change(|record| {
            record.ready = false;
            record.pause = None;
        })
    }

    fn drop_record(&self, sandbox: &Sandbox) -> Result<(), RuntimeError> {
        match std::fs::remove_file(&sandbox.file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_error("remove", &sandbox.file)(error));
            }
            _ => {}
        }
        self.sandboxes.lock().remove(&sandbox.id);
        self.emit(ContainerEvent::SandboxChanged { sandbox: sandbox.id.clone() });
        Ok(())
    }

    /// A TCP connection to the sandbox' loopback, IPv4 first.
    pub(super) async fn connect(&self, sandbox: &Sandbox, port: u16) -> Result<Box<dyn Duplex>, RuntimeError> {
        let refused = |source: std::io::Error| RuntimeError::Io {
            what: format!("cannot connect to port {port} of sandbox {}", sandbox.id),
            source,
        };
        let loopbacks: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let mut last = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
        let sockets = if sandbox.config().network == NamespaceMode::Pod {
            let request = Request::Sockets { netns: sandbox.pin("net") };
            let (_, fds) = Session::ask(Call { request: &request, fds: &[] }).await.map_err(sandbox_error)?;
            fds.into_iter().map(socket).collect::<Result<Vec<_>, _>>().map_err(refused)?
        } else {
            vec![tokio::net::TcpSocket::new_v4().map_err(refused)?, tokio::net::TcpSocket::new_v6().map_err(refused)?]
        };
        for (address, socket) in loopbacks.into_iter().zip(sockets) {
            match tokio::time::timeout(CONNECT_LIMIT, socket.connect(SocketAddr::new(address, port))).await {
                Ok(Ok(stream)) => return Ok(Box::new(stream)),
                // The first answer says more than the missing address family does.
                Ok(Err(error)) if address.is_ipv4() => last = error,
                Ok(Err(_)) => {}
                Err(_elapsed) => last = std::io::ErrorKind::TimedOut.into(),
            }
        }
        Err(refused(last))
    }
}

fn socket(fd: OwnedFd) -> std::io::Result<tokio::net::TcpSocket> {
    Ok(tokio::net::TcpSocket::from_std_stream(std::net::TcpStream::from(fd)))
}

fn default_sysctls(config: &SandboxConfig) -> Vec<(String, String)> {
    if config.network != NamespaceMode::Pod {
        return Vec::new();
    }
    let unless_set = SYSCTLS.iter().filter(|(name, _)| !config.sysctls.contains_key(*name));
    unless_set.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn mount_shm(path: &Path) -> Result<(), RuntimeError> {
    use rustix::mount::MountFlags;
    std::fs::create_dir_all(path).map_err(io_error("make", path))?;
    let options = std::ffi::CString::new(format!("mode=1777,size={SHM_BYTES}")).unwrap_or_default();
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount("shm", path, "tmpfs", flags, options.as_c_str())
        .map_err(|error| io_error("mount", path)(error.into()))
}

fn sandbox_error(error: crate::helper::HelperError) -> RuntimeError {
    RuntimeError::Kernel { what: "sandbox".to_owned(), detail: error.detail() }
}

fn pause_group(sandbox: &str) -> String {
    format!("pause-{sandbox}")
}

/// Ids become file names.
pub(super) fn check_id(id: &str) -> Result<(), RuntimeError> {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if id.is_empty() || id.len() > 128 || !id.bytes().all(good) {
        return Err(RuntimeError::Create { detail: format!("{id:?} is not an id") });
    }
    Ok(())
}
