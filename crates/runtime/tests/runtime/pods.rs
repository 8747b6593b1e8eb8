//! A runtime with everything it needs, and a root filesystem of busybox, for the tests of containers.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kminik_runtime::{
    ContainerConfig, ContainerState, ContainerStatus, LayerId, LibcontainerRuntime, NamespaceMode, NetworkError,
    PortMapping, Resources, Runtime, RuntimeConfig, SandboxConfig, SandboxNetwork, SandboxStatus, Security, User,
};

use crate::busybox::busybox_layer;

/// Gives every sandbox an address without any link: the loopback is enough here.
struct NoLinks;

#[async_trait]
impl SandboxNetwork for NoLinks {
    async fn setup(&self, _: &str, netns: &Path, _: &[PortMapping]) -> Result<Vec<IpAddr>, NetworkError> {
        assert!(netns.exists());
        Ok(vec!["10.1.1.1".parse().unwrap()])
    }

    async fn teardown(&self, _: &str, _: Option<&Path>) -> Result<(), NetworkError> {
        Ok(())
    }

    async fn restore(&self, _: &[SandboxStatus]) -> Result<(), NetworkError> {
        Ok(())
    }
}

pub struct Pods {
    pub runtime: Arc<LibcontainerRuntime>,
    pub directory: PathBuf,
    layer: LayerId,
    group: PathBuf,
    remove: bool,
}

pub fn runtime_config(directory: &Path, pods_cgroup: &Path) -> RuntimeConfig {
    RuntimeConfig {
        state_dir: directory.join("state"),
        run_dir: directory.join("run"),
        pods_cgroup: pods_cgroup.to_owned(),
        fd_store: std::env::var_os("KEEPER_SOCKET").unwrap().into(),
        network: Arc::new(NoLinks),
        log_max_bytes: 64 << 10,
        log_max_files: 3,
    }
}

impl Pods {
    /// In a new directory, on a real filesystem.
    pub async fn new() -> Pods {
        let directory = tempfile::Builder::new().prefix("rt").tempdir_in("/var/tmp").unwrap().keep();
        let name = directory.file_name().unwrap().to_string_lossy().replace('.', "").to_lowercase();
        let mut pods = Pods::at(&directory, &Path::new("/kminik-test").join(name)).await;
        pods.remove = true;
        pods
    }

    pub async fn at(directory: &Path, group: &Path) -> Pods {
        Pods::with(directory, group, runtime_config(directory, group)).await
    }

    pub async fn with(directory: &Path, group: &Path, config: RuntimeConfig) -> Pods {
        let runtime = LibcontainerRuntime::new(config).await.unwrap();
        let layer = busybox_layer(directory);
        runtime.ensure_layer(layer.clone()).await.unwrap();
        Pods { runtime, directory: directory.to_owned(), layer: layer.id, group: group.to_owned(), remove: false }
    }

    pub async fn sandbox(&self, id: &str) -> SandboxStatus {
        self.sandbox_with(id, |_| {}).await
    }

    pub async fn sandbox_with(&self, id: &str, change: impl FnOnce(&mut SandboxConfig)) -> SandboxStatus {
        let mut config = SandboxConfig {
            id: id.to_owned(),
            hostname: format!("{id}-host"),
            cgroup_parent: format!("burstable/{id}"),
            ..SandboxConfig::default()
        };
        change(&mut config);
        self.runtime.run_sandbox(config).await.unwrap()
    }

    pub fn config(&self, id: &str, script: &str) -> ContainerConfig {
        ContainerConfig {
            id: id.to_owned(),
            name: id.to_owned(),
            layers: vec![self.layer.clone()],
            args: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()],
            env: vec!["PATH=/bin".to_owned()],
            working_dir: String::new(),
            user: User::default(),
            security: Security::default(),
            resources: Resources::default(),
            mounts: Vec::new(),
            devices: Vec::new(),
            pid: NamespaceMode::Pod,
            tty: false,
            stdin: false,
            stdin_once: false,
            log_path: self.directory.join("logs").join(format!("{id}.log")),
            stop_signal: None,
            labels: Default::default(),
            annotations: Default::default(),
        }
    }

    pub async fn start(&self, sandbox: &str, config: ContainerConfig) {
        let id = config.id.clone();
        self.runtime.create_container(sandbox, config).await.unwrap();
        self.runtime.start_container(&id).await.unwrap();
    }

    pub async fn exit(&self, id: &str) -> ContainerStatus {
        let deadline = Instant::now() + crate::harness::patience();
        loop {
            let status = self.runtime.container_status(id).await.unwrap();
            if status.state == ContainerState::Exited {
                return status;
            }
            assert!(Instant::now() < deadline, "{id} does not end: {status:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Runs a script in a new container of a sandbox to its end: (exit code, what it wrote).
    pub async fn script(
        &self,
        sandbox: &str,
        id: &str,
        script: &str,
        change: impl FnOnce(&mut ContainerConfig),
    ) -> (i32, String) {
        let mut config = self.config(id, script);
        change(&mut config);
        self.start(sandbox, config).await;
        let status = self.exit(id).await;
        (status.exit_code.unwrap(), self.log(id))
    }

    /// The text of a log without the times and tags.
    pub fn log(&self, id: &str) -> String {
        let text = std::fs::read_to_string(self.directory.join("logs").join(format!("{id}.log"))).unwrap_or_default();
        text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap().to_owned() + "\n").collect()
    }

    pub fn raw_log(&self, id: &str) -> String {
        std::fs::read_to_string(self.directory.join("logs").join(format!("{id}.log"))).unwrap_or_default()
    }

    pub async fn exec(&self, id: &str, script: &str) -> (i32, String) {
        let args = vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
        let output = self.runtime.exec_sync(id, args, crate::harness::patience()).await.unwrap();
        (
            output.exit_code,
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    }

    /// Removes every sandbox and checks that nothing is left.
    pub async fn finish(self) {
        for sandbox in self.runtime.list_sandboxes().await.unwrap() {
            self.runtime.remove_sandbox(&sandbox.id).await.unwrap();
        }
        assert!(self.runtime.list_containers().await.unwrap().is_empty());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.directory.to_str().unwrap()), "{mounts}");
        for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/memory"] {
            let group = Path::new(root).join(self.group.strip_prefix("/").unwrap()).join("burstable");
            let left = std::fs::read_dir(&group).map(|entries| entries.flatten().filter(|e| e.path().is_dir()).count());
            assert_eq!(left.unwrap_or(0), 0, "groups left in {}", group.display());
        }
        if self.remove {
            remove_all(&self.directory, &self.group);
        }
    }
}

/// The group and directory of a test.
pub fn remove_all(directory: &Path, group: &Path) {
    std::fs::remove_dir_all(directory).unwrap();
    let relative = group.strip_prefix("/").unwrap();
    let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
    roots.extend(std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path()));
    for root in roots {
        for path in [root.join(relative).join("burstable"), root.join(relative), root.join("kminik-test")] {
            let _ = std::fs::remove_dir(path);
        }
    }
}
