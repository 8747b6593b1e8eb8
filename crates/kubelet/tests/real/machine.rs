//! A kubelet, a runtime and an image for the tests on the real kernel, and a runner for them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::FutureExt;
use kminik_kubelet::Kubelet;
use kminik_kubelet::images::{Credential, Image, ImageConfig, ImageError, ImageService, ImageSummary};
use kminik_runtime::keeper::{self, KeeperConfig};
use kminik_runtime::{
    LayerSource, LibcontainerRuntime, NetworkError, PortMapping, Runtime, RuntimeConfig, SandboxNetwork, SandboxStatus,
};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Test;
use crate::support::Node;
use crate::support::api::FakeApi;

#[path = "../../../runtime/tests/runtime/busybox.rs"]
mod busybox;

const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn main(tests: &[Test]) -> ! {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--list") {
        std::process::exit(0);
    }
    let code = match args.first().map(String::as_str) {
        Some("__suite") => suite(tests, &args[1..]),
        _ => keep(&args),
    };
    std::process::exit(code)
}

/// The outermost process: a reaper with the suite below it.
fn keep(args: &[String]) -> i32 {
    let directory = tempfile::tempdir_in("/run").unwrap();
    let socket = directory.path().join("keeper.sock");
    let mut program = vec![std::env::current_exe().unwrap().display().to_string(), "__suite".to_owned()];
    program.extend(args.iter().filter(|arg| !arg.starts_with('-')).cloned());
    let env = vec![("KEEPER_SOCKET".to_owned(), socket.display().to_string())];
    let config = KeeperConfig { socket, program, env, stop_limit: Duration::from_secs(5), restart: false };
    keeper::run(&config).unwrap()
}

fn suite(tests: &[Test], filters: &[String]) -> i32 {
    let mut failed = Vec::new();
    for (name, run) in tests.iter().filter(|(name, _)| filters.is_empty() || filters.iter().any(|f| name.contains(f))) {
        let begun = Instant::now();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let body = std::panic::AssertUnwindSafe(async { tokio::time::timeout(LIMIT, run()).await }).catch_unwind();
        let passed = matches!(runtime.block_on(body), Ok(Ok(())));
        println!("test {name} ... {} ({} ms)", if passed { "ok" } else { "FAILED" }, begun.elapsed().as_millis());
        if !passed {
            failed.push(*name);
        }
    }
    println!("failed: {failed:?}");
    i32::from(!failed.is_empty())
}

/// Waits for a condition; panics when it takes too long.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Addresses without links.
#[derive(Default)]
struct NoLinks(AtomicU8);

#[async_trait]
impl SandboxNetwork for NoLinks {
    async fn setup(&self, _: &str, _: &Path, _: &[PortMapping]) -> Result<Vec<IpAddr>, NetworkError> {
        Ok(vec![IpAddr::from([10, 1, 1, self.0.fetch_add(1, Ordering::SeqCst) + 2])])
    }

    async fn teardown(&self, _: &str, _: Option<&Path>) -> Result<(), NetworkError> {
        Ok(())
    }

    async fn restore(&self, _: &[SandboxStatus]) -> Result<(), NetworkError> {
        Ok(())
    }
}

/// One image, of one layer.
struct Busybox(LayerSource);

#[async_trait]
impl ImageService for Busybox {
    async fn lookup(&self, reference: &str) -> Result<Option<Image>, ImageError> {
        Ok(Some(Image {
            id: format!("sha256:{:064}", 1),
            repo_digests: vec![],
            repo_tags: vec![reference.to_string()],
            size_bytes: 1,
            config: ImageConfig { env: vec!["PATH=/bin".into()], ..ImageConfig::default() },
            layers: vec![self.0.clone()],
        }))
    }

    async fn pull(&self, reference: &str, _: &[Credential]) -> Result<Image, ImageError> {
        Err(ImageError::NotFound(reference.into()))
    }

    async fn list(&self) -> Result<Vec<ImageSummary>, ImageError> {
        Ok(vec![])
    }

    async fn remove(&self, reference: &str) -> Result<(), ImageError> {
        Err(ImageError::NotFound(reference.into()))
    }

    async fn import(&self, _: Box<dyn AsyncRead + Send + Unpin>) -> Result<Vec<String>, ImageError> {
        Ok(vec![])
    }

    async fn export(&self, _: &[String], _: Box<dyn AsyncWrite + Send + Unpin>) -> Result<(), ImageError> {
        Ok(())
    }

    async fn tag(&self, source: &str, _: &str) -> Result<(), ImageError> {
        Err(ImageError::NotFound(source.into()))
    }
}

/// A node with the real runtime.
pub(crate) struct Machine {
    pub(crate) api: Arc<FakeApi>,
    pub(crate) runtime: Arc<LibcontainerRuntime>,
    pub(crate) dir: PathBuf,
    group: PathBuf,
    layer: LayerSource,
    node: Option<Node>,
}

impl Machine {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("kubelet").tempdir_in("/var/tmp").unwrap().keep();
        let name = dir.file_name().unwrap().to_string_lossy().replace('.', "").to_lowercase();
        let group = Path::new("/kminik-kubelet-test").join(name);
        let layer = busybox::busybox_layer(&dir);
        let runtime = runtime(&dir, &group).await;
        let mut machine = Self { api: FakeApi::new(), runtime, dir, group, layer, node: None };
        machine.start();
        machine
    }

    fn start(&mut self) {
        let images = Arc::new(Busybox(self.layer.clone()));
        self.node = Some(Node::start(&self.api, self.runtime.clone(), images, &self.dir));
    }

    /// A new kubelet on the same runtime.
    pub(crate) async fn restart(&mut self) {
        self.node.take().unwrap().stop().await;
        self.start();
    }

    pub(crate) fn kubelet(&self) -> &Arc<Kubelet> {
        &self.node.as_ref().unwrap().kubelet
    }

    /// The running container of a pod, as soon as the kubelet knows the pod.
    pub(crate) async fn kubelet_container(&self, pod: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match self.kubelet().container("default", pod, None, None).await {
                Ok(target) => return target.id,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Deletes every pod and checks that nothing is left.
    pub(crate) async fn finish(mut self) {
        for path in self.api.paths("/api/v1/namespaces/default/pods/") {
            self.api.delete(&path, 1);
            self.api.wait(&path, |pod| pod.is_none()).await;
        }
        self.node.take().unwrap().stop().await;
        assert!(self.runtime.list_sandboxes().await.unwrap().is_empty());
        assert!(self.runtime.list_containers().await.unwrap().is_empty());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.dir.to_str().unwrap()), "{mounts}");
        assert_eq!(std::fs::read_dir(self.dir.join("kubelet/pods")).unwrap().count(), 0, "pod directories left");
        std::fs::remove_dir_all(&self.dir).unwrap();
        let relative = self.group.strip_prefix("/").unwrap();
        let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
        roots.extend(std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path()));
        for root in roots {
            for below in ["burstable", "besteffort", ""] {
                // Not every hierarchy has every group.
                let _ = std::fs::remove_dir(root.join(relative).join(below));
            }
            let _ = std::fs::remove_dir(root.join("kminik-kubelet-test"));
        }
    }
}

async fn runtime(dir: &Path, group: &Path) -> Arc<LibcontainerRuntime> {
    let config = RuntimeConfig {
        state_dir: dir.join("state"),
        run_dir: dir.join("run"),
        pods_cgroup: group.to_owned(),
        fd_store: std::env::var_os("KEEPER_SOCKET").unwrap().into(),
        network: Arc::new(NoLinks::default()),
        log_max_bytes: RuntimeConfig::LOG_MAX_BYTES,
        log_max_files: RuntimeConfig::LOG_MAX_FILES,
    };
    LibcontainerRuntime::new(config).await.unwrap()
}
