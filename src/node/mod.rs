//! The node: PID 1 ([`init`]) and, under it, the process that holds everything else. This is the composition root: which
//! parts a node runs, in which order, on which threads.
//!
//! ```text
//!                                                                                             control plane   worker
//! runtime "api"      store (own thread, or etcd) ─► API server, HTTPS                         yes             no
//! runtime "control"  controllers, scheduler, addons, labels of nodes                          yes             no
//! runtime "node"     container runtime, pod network, kubelet + its HTTPS, service proxy,      yes             yes
//!                    routes
//! way to the API                                                                              in process      HTTPS
//! certificates                                                                                `identity`      `join`
//! ```
//! A worker is a node whose configuration says where the control plane is.
//! A part that fails is restarted by its supervisor; the threads of one runtime being busy delays no other.

mod addons;
mod agent;
pub mod config;
mod control;
pub mod dial;
pub mod files;
mod identity;
mod image;
pub mod init;
mod join;
mod labels;
pub mod limits;
pub mod logs;
mod network;
pub mod pause;
mod process;
mod remote;
pub mod replace;
mod resolver;
pub mod shell;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kminik_base::component::{Supervisor, chain};
use kminik_base::telemetry;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use agent::Access;
use config::{DATA_DIR, Join, NodeConfig};
use identity::Identities;
use remote::Credential;

/// As whom service proxy and routes come.
const PROXY: &str = "system:kube-proxy";
/// Bound on the stop of each part.
const STOP: Duration = Duration::from_secs(20);

/// Why the node process cannot go on; PID 1 starts it again.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("cannot read the node's configuration")]
    Config(#[source] std::io::Error),
    #[error("cannot make a directory of the node's data")]
    Directory(#[source] std::io::Error),
    #[error("cannot open the log")]
    Log(#[source] std::io::Error),
    #[error("cannot start the runtime {name}")]
    Threads {
        name: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot prepare the node's identities")]
    Identity(#[from] identity::IdentityError),
    #[error("cannot join the cluster")]
    Join(#[from] join::JoinError),
    #[error("cannot reach the control plane")]
    Remote(#[from] remote::RemoteError),
    #[error("cannot open the store")]
    Store(#[from] kminik_store::StoreError),
    #[error("the audit policy cannot be used")]
    AuditPolicy(#[source] kminik_apiserver::audit::PolicyError),
    #[error("cannot read {}", path.display())]
    File {
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot restore the snapshot")]
    Restore(#[source] kminik_store::SnapshotError),
    /// PID 1 starts the process again, which opens and mends the file.
    #[error("the store's disk has failed")]
    StoreEnded,
    #[error("cannot start the API server: {0}")]
    Api(String),
    #[error("cannot listen on {address}")]
    Listen {
        address: std::net::SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot write the node's resolver configuration")]
    Resolver(#[source] std::io::Error),
    #[error("cannot start the container runtime")]
    Runtime(#[from] kminik_runtime::RuntimeError),
    #[error("the network {0:?} is not one")]
    Cidr(String),
    #[error("cannot prepare the built-in image")]
    Image(#[source] std::io::Error),
    #[error("the image store cannot be used: {0}")]
    Images(String),
    #[error("cannot listen for signals")]
    Signals(#[source] std::io::Error),
    #[error("cannot wait for the time to renew certificates")]
    Clock(#[source] std::io::Error),
}

/// `kminik node`: runs until SIGTERM.
pub fn main() -> Result<(), NodeError> {
    let data = Path::new(DATA_DIR);
    telemetry::to_file(&logs::file()).map_err(NodeError::Log)?;
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "panic")));
    let outcome = run(data);
    if let Err(error) = &outcome {
        tracing::error!(error = %chain(error), "the node process ends");
    }
    outcome
}

fn run(data: &Path) -> Result<(), NodeError> {
    let config = NodeConfig::load(data).map_err(NodeError::Config)?;
    let node = threads("node", 2)?;
    let main = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| NodeError::Threads { name: "main", source })?;
    let Some(join) = &config.join else {
        let identities = identity::ensure(&data.join("pki"), &config)?;
        let (api, control) = (threads("api", 2)?, threads("control", 1)?);
        return main.block_on(control_plane(data, &config, &identities, [&api, &node, &control]));
    };
    main.block_on(worker(data, &config, join, &node))
}

async fn control_plane(
    data: &Path,
    config: &NodeConfig,
    identities: &Identities,
    [api, node, control]: [&Runtime; 3],
) -> Result<(), NodeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(NodeError::Signals)?;
    let controllers = Arc::new(Supervisor::new(STOP));
    let paused = pause::follow().map_err(NodeError::Signals)?;
    let plane = control::start(data, config, identities, api, &controllers, paused).await?;
    plane.start_controllers(config, identities, &controllers, control.handle()).await;
    let access = Access {
        kubelet: plane.client(&format!("system:node:{}", config.node_name), &["system:nodes"]),
        proxy: plane.client(PROXY, &[]),
        ca_pem: identities.ca_pem.clone(),
        serving: identities.kubelet.clone(),
    };
    let agents = Supervisor::new(STOP);
    agent::start(data, config, access, &agents, node.handle()).await?;
    tracing::info!(node = config.node_name, "node started");
    let outcome = tokio::select! {
        outcome = end(&mut terminate, identities.renew_at) => outcome,
        () = plane.store_ended() => Err(NodeError::StoreEnded),
    };
    tracing::info!("stopping");
    agents.stop().await;
    controllers.stop().await;
    plane.stop().await;
    outcome
}

async fn worker(data: &Path, config: &NodeConfig, join: &Join, node: &Runtime) -> Result<(), NodeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(NodeError::Signals)?;
    // Its containers are paused by the same signal; it has no API that would have to heed it.
    let _paused = pause::follow().map_err(NodeError::Signals)?;
    let keys = data.join("pki");
    std::fs::create_dir_all(&keys).map_err(NodeError::Directory)?;
    let joined = tokio::select! {
        joined = join::ensure(&keys, config, join, crate::clock::now()) => joined?,
        _ = terminate.recv() => return Ok(()),
    };
    let access = {
        let _context = node.enter();
        Access {
            kubelet: remote::client(join, Credential::Certificate(&joined.client))?,
            proxy: remote::client(join, Credential::As(PROXY, &joined.client))?,
            ca_pem: join.ca_pem.clone(),
            serving: joined.serving,
        }
    };
    let agents = Supervisor::new(STOP);
    agent::start(data, config, access, &agents, node.handle()).await?;
    tracing::info!(node = config.node_name, "worker started");
    let outcome = end(&mut terminate, joined.renew_at).await;
    tracing::info!("stopping");
    agents.stop().await;
    outcome
}

/// Returns when the process is told to end, or has to, for new certificates.
async fn end(terminate: &mut Signal, renew_at: i64) -> Result<(), NodeError> {
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        due = crate::clock::until(renew_at) => {
            tracing::info!("certificates are to be renewed: the process starts anew");
            due.map_err(NodeError::Clock)
        }
    }
}

fn threads(name: &'static str, count: usize) -> Result<Runtime, NodeError> {
    Builder::new_multi_thread()
        .worker_threads(count)
        .thread_name(name)
        .enable_all()
        .build()
        .map_err(|source| NodeError::Threads { name, source })
}
