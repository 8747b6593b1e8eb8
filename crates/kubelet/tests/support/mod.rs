//! What the kubelet's tests run it against: an API server and a container runtime in memory.
#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod api;
pub(crate) mod runtime;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kminik_base::component::{Component, Ready};
use kminik_kubelet::images::{Credential, Image, ImageConfig, ImageError, ImageService, ImageSummary};
use kminik_kubelet::{Capacity, Kubelet, KubeletConfig};
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
pub(crate) struct World {
    pub api: Arc<FakeApi>,
    pub runtime: Arc<FakeRuntime>,
    pub dir: tempfile::TempDir,
    pub kubelet: Arc<Kubelet>,
    stop: CancellationToken,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let api = FakeApi::new();
        api.put("/api/v1/namespaces/default/serviceaccounts/default", json!({}));
        api.put("/api/v1/namespaces/kube-node-lease", json!({}));
        Self::with(api, Arc::new(FakeRuntime::new()), tempfile::tempdir().unwrap()).await
    }

    async fn with(api: Arc<FakeApi>, runtime: Arc<FakeRuntime>, dir: tempfile::TempDir) -> Self {
        let config = KubeletConfig {
            node_name: "node-1".into(),
            node_ips: vec!["192.168.7.2".parse().unwrap()],
            cluster_dns: vec!["10.96.0.10".parse().unwrap()],
            cluster_domain: "cluster.local".into(),
            root_dir: dir.path().join("kubelet"),
            log_dir: dir.path().join("logs"),
            resolv_conf: dir.path().join("resolv.conf"),
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
        let kubelet = Kubelet::new(config, runtime.clone(), Arc::new(FakeImages));
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let (kubelet, stop) = (kubelet.clone(), stop.clone());
            async move { kubelet.run(stop, Ready::detached()).await.unwrap() }
        });
        Self { api, runtime, dir, kubelet, stop, task: Some(task) }
    }

    /// Stops the kubelet and starts another one on the same node.
    pub(crate) async fn restart(mut self, while_down: impl FnOnce(&FakeApi)) -> Self {
        self.stop.cancel();
        self.task.take().unwrap().await.unwrap();
        while_down(&self.api);
        Self::with(
            self.api.clone(),
            self.runtime.clone(),
            std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap()),
        )
        .await
    }

    /// Creates a pod bound to the node.
    pub(crate) fn create_pod(&self, name: &str, mut spec: Value) -> Value {
        spec["nodeName"] = json!("node-1");
        self.api.put(&format!("/api/v1/namespaces/default/pods/{name}"), json!({"spec": spec}))
    }

    /// Waits until the pod fulfils a condition; panics with its last state.
    pub(crate) async fn wait_pod(&self, name: &str, what: impl Fn(&Value) -> bool) -> Value {
        self.api.wait(&format!("/api/v1/namespaces/default/pods/{name}"), |pod| pod.is_some_and(&what)).await.unwrap()
    }

    pub(crate) async fn wait_gone(&self, name: &str) {
        self.api.wait(&format!("/api/v1/namespaces/default/pods/{name}"), |pod| pod.is_none()).await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
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
