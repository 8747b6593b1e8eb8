//! What the kubelet's tests run it against: an API server and a container runtime in memory.
#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod api;
pub(crate) mod runtime;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kminik_base::component::{Component, Ready};
use kminik_kubelet::images::{Credential, Image, ImageConfig, ImageError, ImageService, ImageSummary};
use kminik_kubelet::{Capacity, Kubelet, KubeletConfig};
use kminik_runtime::Runtime;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use self::api::FakeApi;
use self::runtime::FakeRuntime;

/// Has `busybox`, can pull `slow` images not at all.
pub(crate) struct FakeImages;

fn busybox(reference: &str) -> Image {
    Image {
        id: format!("sha256:{:064}", 1),
        repo_digests: vec![format!("docker.io/library/busybox@sha256:{:064}", 2)],
        repo_tags: vec![reference.to_string()],
        size_bytes: 1000,
        config: ImageConfig { cmd: vec!["sh".into()], env: vec!["PATH=/bin".into()], ..ImageConfig::default() },
        layers: vec![],
    }
}

#[async_trait]
impl ImageService for FakeImages {
    async fn lookup(&self, reference: &str) -> Result<Option<Image>, ImageError> {
        if reference.contains(' ') {
            return Err(ImageError::InvalidName { name: reference.into(), detail: "invalid reference format".into() });
        }
        Ok(reference.contains("busybox").then(|| busybox(reference)))
    }

    async fn pull(&self, reference: &str, _: &[Credential]) -> Result<Image, ImageError> {
        if reference.contains("busybox") {
            return Ok(busybox(reference));
        }
        Err(ImageError::Pull { name: reference.into(), detail: "not found".into() })
    }

    async fn list(&self) -> Result<Vec<ImageSummary>, ImageError> {
        Ok(vec![])
    }

    async fn remove(&self, _: &str) -> Result<(), ImageError> {
        Ok(())
    }

    async fn export(&self, _: &[String], _: Box<dyn AsyncWrite + Send + Unpin>) -> Result<(), ImageError> {
        Ok(())
    }

    async fn import(&self, _: Box<dyn AsyncRead + Send + Unpin>) -> Result<Vec<String>, ImageError> {
        Ok(vec![])
    }

    async fn tag(&self, _: &str, _: &str) -> Result<(), ImageError> {
        Ok(())
    }
}

/// A running kubelet.
pub(crate) struct Node {
    pub(crate) kubelet: Arc<Kubelet>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Node {
    /// Starts one whose files are below `dir`.
    pub(crate) fn start(
        api: &Arc<FakeApi>,
        runtime: Arc<dyn Runtime>,
        images: Arc<dyn ImageService>,
        dir: &Path,
    ) -> Self {
        let config = KubeletConfig {
            node_name: "node-1".into(),
            node_ips: vec!["192.168.7.2".parse().unwrap()],
            cluster_dns: vec!["10.96.0.10".parse().unwrap()],
            cluster_domain: "cluster.local".into(),
            root_dir: dir.join("kubelet"),
            log_dir: dir.join("logs"),
            resolv_conf: dir.join("resolv.conf"),
            client: api.client(),
            port: 10250,
            node_labels: BTreeMap::new(),
            node_taints: vec![],
            capacity: Some(Capacity { milli_cpu: 2000, memory_bytes: 4 << 30, ephemeral_storage_bytes: 10 << 30 }),
            max_pods: 110,
            provider_id: String::new(),
            version: "v1.35.0+kminik".into(),
            runtime_version: "0.1.0".into(),
        };
        let kubelet = Kubelet::new(config, runtime, images);
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let (kubelet, stop) = (kubelet.clone(), stop.clone());
            async move { kubelet.run(stop, Ready::detached()).await.unwrap() }
        });
        Self { kubelet, stop, task }
    }

    /// Stops it; what runs goes on.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

impl FakeApi {
    /// Creates a pod bound to the node.
    pub(crate) fn create_pod(&self, name: &str, mut spec: Value) -> Value {
        spec["nodeName"] = json!("node-1");
        self.put(&format!("/api/v1/namespaces/default/pods/{name}"), json!({"spec": spec}))
    }

    /// Waits until the pod fulfils a condition; panics with its last state.
    pub(crate) async fn wait_pod(&self, name: &str, what: impl Fn(&Value) -> bool) -> Value {
        self.wait(&format!("/api/v1/namespaces/default/pods/{name}"), |pod| pod.is_some_and(&what)).await.unwrap()
    }

    pub(crate) async fn wait_gone(&self, name: &str) {
        self.wait(&format!("/api/v1/namespaces/default/pods/{name}"), |pod| pod.is_none()).await;
    }
}

/// A kubelet on a runtime in memory.
pub(crate) struct World {
    pub(crate) api: Arc<FakeApi>,
    pub(crate) runtime: Arc<FakeRuntime>,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) node: Option<Node>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let world = Self {
            api: FakeApi::new(),
            runtime: Arc::new(FakeRuntime::new()),
            dir: tempfile::tempdir().unwrap(),
            node: None,
        };
        world.begin()
    }

    fn begin(mut self) -> Self {
        self.node = Some(Node::start(&self.api, self.runtime.clone(), Arc::new(FakeImages), self.dir.path()));
        self
    }

    pub(crate) fn kubelet(&self) -> &Arc<Kubelet> {
        &self.node.as_ref().unwrap().kubelet
    }

    /// Stops the kubelet and starts another one on the same node.
    pub(crate) async fn restart(mut self, while_down: impl FnOnce(&FakeApi)) -> Self {
        self.node.take().unwrap().stop().await;
        while_down(&self.api);
        self.begin()
    }

    pub(crate) fn create_pod(&self, name: &str, spec: Value) -> Value {
        self.api.create_pod(name, spec)
    }

    pub(crate) async fn wait_pod(&self, name: &str, what: impl Fn(&Value) -> bool) -> Value {
        self.api.wait_pod(name, what).await
    }

    pub(crate) async fn wait_gone(&self, name: &str) {
        self.api.wait_gone(name).await;
    }
}

pub(crate) fn phase(pod: &Value) -> &str {
    pod["status"]["phase"].as_str().unwrap_or_default()
}

/// Status of a condition.
pub(crate) fn condition<'a>(pod: &'a Value, kind: &str) -> &'a str {
    let list = pod["status"]["conditions"].as_array().into_iter().flatten();
    list.filter(|c| c["type"] == kind).find_map(|c| c["status"].as_str()).unwrap_or_default()
}

/// State of the `index`th container.
pub(crate) fn state(pod: &Value, index: usize) -> &Value {
    &pod["status"]["containerStatuses"][index]["state"]
}

pub(crate) fn waiting_reason(pod: &Value, index: usize) -> &str {
    state(pod, index)["waiting"]["reason"].as_str().unwrap_or_default()
}

pub(crate) const BOUND: Duration = Duration::from_secs(20);
