//! The component: starts the parts, hands runtime events to workers, answers the HTTPS server.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kminik_base::component::{BoxError, Component, Ready};
use kminik_client::{Informers, Recorder, Selection};
use kminik_runtime::{ContainerEvent, Runtime, RuntimeError, SandboxStatus};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::KubeletConfig;
use crate::images::{ImageService, Puller};
use crate::node::{self, NodeStatus};
use crate::node_context::NodeContext;
use crate::objects::Objects;
use crate::pods::observed::{annotation, label};
use crate::pods::source::Source;
use crate::pods::table::Table;
use crate::volumes::Volumes;

/// Longest grace that containers of a pod the API forgot get.
const ORPHAN_GRACE: Duration = Duration::from_secs(30);

/// The node agent. See the crate's documentation.
pub struct Kubelet {
    pub(crate) config: Arc<KubeletConfig>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) images: Arc<dyn ImageService>,
    pub(crate) table: Arc<Table>,
    range: Arc<watch::Sender<Option<String>>>,
}

#[derive(Debug, thiserror::Error)]
enum KubeletError {
    #[error("cannot list what the runtime has")]
    Runtime(#[from] RuntimeError),
    #[error("cannot create {path}")]
    Directory {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the {0} part ended")]
    Ended(&'static str),
}

impl Kubelet {
    pub fn new(config: KubeletConfig, runtime: Arc<dyn Runtime>, images: Arc<dyn ImageService>) -> Arc<Self> {
        Arc::new(Self { config: Arc::new(config), runtime, images, table: Arc::default(), range: Arc::default() })
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &KubeletConfig {
        &self.config
    }

    /// The runtime, for exec, attach and port-forward on what [`Kubelet::container`] and [`Kubelet::sandbox`] find.
    pub fn runtime(&self) -> &Arc<dyn Runtime> {
        &self.runtime
    }

    /// The node's images, for `image ls`, `load`, `rm` and `tag`.
    pub fn images(&self) -> &Arc<dyn ImageService> {
        &self.images
    }

    /// The range that the node's pods get their addresses from (`spec.podCIDR` of the Node), as soon as it has one.
    pub fn pod_range(&self) -> watch::Receiver<Option<String>> {
        self.range.subscribe()
    }

    /// The pods of the node with the status last computed, which is at least as new as the API's.
    pub fn pods(&self) -> Vec<Pod> {
        let with_status = |entry: Arc<crate::pods::table::Entry>| {
            let mut pod = Pod::clone(&entry.view.load().pod);
            pod.status = Some(entry.status.load().as_ref().clone());
            pod
        };
        self.table.all().into_iter().map(with_status).collect()
    }

    async fn serve(self: Arc<Self>, stop: CancellationToken, ready: Ready) -> Result<(), KubeletError> {
        // Everything started here ends with this run, also when it ends by an error: a pod never has two workers.
        let stop = stop.child_token();
        let workers = TaskTracker::new();
        let result = self.serve_until(&stop, &workers, ready).await;
        stop.cancel();
        workers.close();
        workers.wait().await;
        result
    }

    async fn serve_until(
        self: &Arc<Self>,
        stop: &CancellationToken,
        workers: &TaskTracker,
        ready: Ready,
    ) -> Result<(), KubeletError> {
        self.table.clear();
        for path in [&self.config.root_dir.join("pods"), &self.config.log_dir] {
            std::fs::create_dir_all(path)
                .map_err(|source| KubeletError::Directory { path: path.display().to_string(), source })?;
        }
        let mut events = self.runtime.events();
        let sandboxes = self.runtime.list_sandboxes().await?;
        for sandbox in &sandboxes {
            if let Some(uid) = sandbox.labels.get(label::POD_UID) {
                self.table.note_sandbox(&sandbox.id, uid);
            }
        }
        let node = self.context(stop);
        let informers = Informers::new(self.config.client.clone(), stop.clone());
        let own = Selection::fields(format!("metadata.name={}", self.config.node_name));
        let own = informers.get_with::<Node>(own);
        let range = self.range.clone();
        let _range = own.subscribe(move |change| {
            let found = change.object().spec.as_ref().and_then(|spec| spec.pod_cidr.clone());
            range.send_if_modified(|range| {
                let news = found.is_some() && *range != found;
                if news {
                    range.clone_from(&found);
                }
                news
            });
        });
        let mut node_status =
            tokio::spawn(NodeStatus::new(node.clone(), self.images.clone(), own.clone()).run(stop.clone()));
        let mut lease = tokio::spawn(node::lease::keep(
            self.config.client.clone(),
            self.config.node_name.clone(),
            own.clone(),
            stop.clone(),
        ));
        let pods = Selection::fields(format!("spec.nodeName={}", self.config.node_name));
        let pods = informers.get_with::<Pod>(pods);
        let source = Arc::new(Source {
            node: node.clone(),
            own,
            adopted: sandboxes.iter().filter_map(|s| s.labels.get(label::POD_UID).cloned()).collect(),
            workers: workers.clone(),
            stop: stop.clone(),
        });
        let _subscription = pods.subscribe(move |change| source.handle(change));
        tokio::select! {
            _ = pods.wait_synced() => {}
            () = stop.cancelled() => return Ok(()),
        }
        tokio::spawn(remove_orphans(node.clone(), sandboxes));
        ready.set_ready();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                event = events.recv() => match event {
                    Ok(event) => self.dispatch(&event),
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        self.table.all().iter().for_each(|entry| entry.inbox.ring());
                    }
                    Err(broadcast::error::RecvError::Closed) => return Err(KubeletError::Ended("runtime")),
                },
                _ = &mut node_status => return Err(KubeletError::Ended("node status")),
                _ = &mut lease => return Err(KubeletError::Ended("lease")),
            }
        }
    }

    fn context(&self, stop: &CancellationToken) -> Arc<NodeContext> {
        let config = self.config.clone();
        let client = config.client.clone();
        let recorder = Recorder::new(client.clone(), "kubelet", &config.node_name, stop.clone());
        let informers = Informers::new(client.clone(), stop.clone());
        let table = self.table.clone();
        let changed = Arc::new(move |uid: &str| {
            if let Some(entry) = table.get(uid) {
                entry.inbox.put(|letters| letters.objects_changed = true);
            }
        });
        Arc::new(NodeContext {
            capacity: config.capacity.unwrap_or_else(|| node::capacity::read(&config.root_dir)),
            puller: Puller::new(self.images.clone(), self.runtime.clone(), recorder.clone()),
            volumes: Volumes::new(config.root_dir.clone(), client.clone()),
            services: informers.get::<Service>(),
            objects: Objects::new(informers, changed, stop.clone()),
            runtime: self.runtime.clone(),
            table: self.table.clone(),
            recorder,
            client,
            config,
        })
    }

    fn dispatch(&self, event: &ContainerEvent) {
        let sandbox = match event {
            ContainerEvent::Started { sandbox, .. }
            | ContainerEvent::Exited { sandbox, .. }
            | ContainerEvent::Removed { sandbox, .. }
            | ContainerEvent::SandboxChanged { sandbox } => sandbox,
        };
        if let Some(entry) = self.table.of_sandbox(sandbox) {
            entry.inbox.ring();
        }
    }
}

/// Ends sandboxes and removes directories of pods that the API no longer has: deleted by force while no kubelet ran.
async fn remove_orphans(node: Arc<NodeContext>, sandboxes: Vec<SandboxStatus>) {
    let mut kept = HashSet::new();
    for sandbox in sandboxes {
        let Some(uid) = sandbox.labels.get(label::POD_UID) else { continue };
        if node.table.get(uid).is_some() {
            continue;
        }
        if let Err(error) = remove_orphan(&node, &sandbox).await {
            tracing::error!(sandbox = sandbox.id, %error, "orphaned sandbox not removed");
            kept.insert(uid.clone());
        }
    }
    for uid in node.volumes.pod_dirs() {
        if node.table.get(&uid).is_none()
            && !kept.contains(&uid)
            && let Err(error) = node.volumes.remove_pod_dir(&uid)
        {
            tracing::error!(uid, %error, "orphaned pod directory not removed");
        }
    }
}

async fn remove_orphan(node: &NodeContext, sandbox: &SandboxStatus) -> Result<(), RuntimeError> {
    let seconds = sandbox.annotations.get(annotation::GRACE).and_then(|s| s.parse().ok()).map(Duration::from_secs);
    let grace = seconds.unwrap_or(ORPHAN_GRACE).min(ORPHAN_GRACE);
    let containers = node.runtime.list_containers().await?;
    let mine = containers.iter().filter(|c| c.sandbox == sandbox.id);
    futures::future::try_join_all(mine.map(|c| node.runtime.stop_container(&c.id, grace))).await?;
    node.runtime.remove_sandbox(&sandbox.id).await
}

impl Component for Kubelet {
    fn name(&self) -> &'static str {
        "kubelet"
    }

    fn run(self: Arc<Self>, stop: CancellationToken, ready: Ready) -> BoxFuture<'static, Result<(), BoxError>> {
        Box::pin(async move { self.serve(stop, ready).await.map_err(Into::into) })
    }
}
