//! The control plane of a node: store, API server, and their clients in this process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use ipnet::Ipv4Net;
use kminik_apiserver::audit::{AuditConfig, LogOptions, Policy};
use kminik_apiserver::auth::UserInfo;
use kminik_apiserver::{ApiServer, CertificateAndKey, Cidr, Config, FrontProxy};
use kminik_base::component::{Supervisor, chain};
use kminik_base::pki::Identity;
use kminik_client::Informers;
use kminik_controllers::ControllersConfig;
use kminik_scheduler::{Scheduler, SchedulerConfig};
use kminik_store::{EmbeddedStore, EtcdOptions, EtcdStore, Options, SnapshotError, Store};
use kube::Client;
use tokio::net::TcpListener;
use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::NodeError;
use super::addons::AddonManager;
use super::config::{AUDIT_POLICY, AuditLog, DATASTORE_CA, DATASTORE_CERT, DATASTORE_KEY, NodeConfig, RESTORE_FILE};
use super::identity::Identities;
use super::labels::NodeLabels;
use crate::addons::Values;

/// A running control plane.
pub struct ControlPlane {
    api: Arc<ApiServer>,
    store: Backend,
    services: Ipv4Net,
    serving: JoinHandle<()>,
    stop: CancellationToken,
}

/// Where the objects are kept.
enum Backend {
    Embedded(Arc<EmbeddedStore>),
    Etcd(Arc<EtcdStore>),
}

impl Backend {
    /// Must be called within the runtime that uses it.
    fn open(data: &Path, config: &NodeConfig) -> Result<Self, NodeError> {
        if config.datastore_endpoints.is_empty() {
            let path = data.join("store/store.redb");
            restore(&data.join(RESTORE_FILE), &path)?;
            let store = EmbeddedStore::open(&path, Options::default())?;
            return Ok(Backend::Embedded(Arc::new(store)));
        }
        let read = |name: &str| {
            let path = data.join("pki").join(name);
            match std::fs::read_to_string(&path) {
                Ok(text) => Ok(Some(text)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(NodeError::File { path, source }),
            }
        };
        let options = EtcdOptions {
            endpoints: config.datastore_endpoints.clone(),
            ca_pem: read(DATASTORE_CA)?,
            client_pem: read(DATASTORE_CERT)?.zip(read(DATASTORE_KEY)?),
        };
        Ok(Backend::Etcd(Arc::new(EtcdStore::new(&options)?)))
    }

    fn shared(&self) -> Arc<dyn Store> {
        match self {
            Backend::Embedded(store) => store.clone(),
            Backend::Etcd(store) => store.clone(),
        }
    }

    /// Resolves when the store's disk has failed; a cluster that cannot be reached is waited for.
    async fn ended(&self) {
        match self {
            Backend::Embedded(store) => store.ended().await,
            Backend::Etcd(_) => std::future::pending().await,
        }
    }
}

/// The policy that lies in the node's data, and the log.
fn audit(data: &Path, log: &AuditLog) -> Result<AuditConfig, NodeError> {
    let path = data.join(AUDIT_POLICY);
    let text = std::fs::read_to_string(&path).map_err(|source| NodeError::File { path, source })?;
    let policy = Policy::parse(&text).map_err(NodeError::AuditPolicy)?;
    let log = LogOptions {
        max_size_bytes: u64::from(log.max_size_mb.max(1)) << 20,
        max_backups: log.max_backups as usize,
        max_age: Duration::from_secs(u64::from(log.max_age_days) * 86_400),
        ..LogOptions::new(log.path.clone().into())
    };
    Ok(AuditConfig { policy, log })
}

/// Makes the store anew from a snapshot that waits for that; the snapshot is gone afterwards.
fn restore(snapshot: &Path, store: &Path) -> Result<(), NodeError> {
    let file = match std::fs::File::open(snapshot) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(NodeError::Restore(SnapshotError::Io(error))),
    };
    let info = kminik_store::restore(file, store).map_err(NodeError::Restore)?;
    std::fs::remove_file(snapshot).map_err(|error| NodeError::Restore(SnapshotError::Io(error)))?;
    tracing::info!(revision = info.revision, records = info.records, "the store was made from a snapshot");
    Ok(())
}

/// Opens the store and serves; returns when connections are accepted. ComponentStatuses tell of what `supervisor` will run.
pub async fn start(
    data: &Path,
    config: &NodeConfig,
    identities: &Identities,
    runtime: &Runtime,
    supervisor: &Arc<Supervisor>,
    paused: Arc<AtomicBool>,
) -> Result<ControlPlane, NodeError> {
    let store = {
        let _context = runtime.enter();
        Backend::open(data, config)?
    };
    let pair = |identity: &Identity| CertificateAndKey {
        certificate_pem: identity.cert_pem.clone(),
        key_pem: identity.key_pem.clone(),
    };
    let mut api = Config::new(
        store.shared(),
        pair(&identities.api),
        identities.ca_pem.clone(),
        identities.account_key_pem.clone(),
        pair(&identities.kubelet_client),
        IpAddr::V4(config.node_address),
    );
    api.front_proxy = Some(FrontProxy {
        ca_pem: identities.front_proxy_ca_pem.clone(),
        client: pair(&identities.front_proxy_client),
    });
    api.advertise_port = config.api_port;
    let services = network(&config.service_cidr)?;
    api.service_cidr = Cidr { address: services.network(), prefix: services.prefix_len() };
    api.service_account_issuer = format!("https://kubernetes.default.svc.{}", config.cluster_domain);
    let supervisor = supervisor.clone();
    api.components = Arc::new(move || {
        let readiness = supervisor.readiness();
        let mut controllers =
            readiness.iter().filter(|(name, _)| name.ends_with("-controller")).map(|(_, ready)| *ready);
        let scheduler = readiness.get("scheduler").copied().unwrap_or_default();
        vec![("controller-manager", controllers.all(|ready| ready)), ("scheduler", scheduler)]
    });
    api.mutating_policies = config.mutating_policies;
    api.paused = paused;
    api.audit = config.audit_log.as_ref().map(|log| audit(data, log)).transpose()?;
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, config.api_port));
    let stop = CancellationToken::new();
    let (handle, serve_stop) = (runtime.handle().clone(), stop.clone());
    let starting = runtime.spawn(async move {
        let server = Arc::new(ApiServer::new(api).await.map_err(|error| NodeError::Api(chain(&error)))?);
        let listener = TcpListener::bind(address).await.map_err(|source| NodeError::Listen { address, source })?;
        let serving = server.clone();
        let task = handle.spawn(async move { serving.serve(vec![listener], serve_stop).await });
        Ok::<_, NodeError>((server, task))
    });
    let (api, serving) = starting.await.map_err(|error| NodeError::Api(error.to_string()))??;
    Ok(ControlPlane { api, store, services, serving, stop })
}

impl ControlPlane {
    /// A client in this process that acts as this user.
    pub fn client(&self, user: &str, groups: &[&str]) -> Client {
        Client::new(self.api.service(UserInfo::new(user, groups)), "default")
    }

    /// Controllers, scheduler, addons, and the labels of nodes.
    pub async fn start_controllers(
        &self,
        config: &NodeConfig,
        identities: &Identities,
        supervisor: &Supervisor,
        runtime: &Handle,
    ) {
        let node_network = kminik_net::network_of(config.node_address).await.unwrap_or_else(|error| {
            tracing::error!(error = %chain(&error), "the nodes' network is not known: workers cannot join");
            None
        });
        let _context = runtime.enter();
        let api = self.api.clone();
        let client_for = move |user: &str| {
            let account = user.starts_with("system:serviceaccount:");
            let groups: &[&str] =
                if account { &["system:serviceaccounts", "system:serviceaccounts:kube-system"] } else { &[] };
            Client::new(api.service(UserInfo::new(user, groups)), "default")
        };
        let manager = Informers::new(self.client("system:kube-controller-manager", &[]), self.stop.child_token());
        let mut controllers = ControllersConfig::new(Arc::new(client_for), manager.clone(), identities.ca_pem.clone());
        controllers.authority = Some(identities.authority.clone());
        controllers.node_network = node_network;
        for component in kminik_controllers::components(controllers) {
            supervisor.start_on(runtime, component);
        }
        let nodes = manager.get();
        let labels = NodeLabels::new(self.client("kminik:node-labels", &["system:masters"]), nodes.clone(), config);
        supervisor.start_on(runtime, Arc::new(labels));
        // One watch a kind for both: the scheduler reads what the controllers read.
        let scheduler = SchedulerConfig::new(self.client("system:kube-scheduler", &[]), manager);
        supervisor.start_on(runtime, Arc::new(Scheduler::new(scheduler)));
        let addons = AddonManager {
            client: self.client("kminik:addon-manager", &["system:masters"]),
            nodes,
            cluster: config.profile.clone(),
            enabled: config.addons.clone(),
            choices: config.addon_choices.clone(),
            values: Values::new(self.services, &config.cluster_domain),
        };
        supervisor.start_on(runtime, Arc::new(addons));
    }

    /// Resolves when the store writes no more, because its disk has failed.
    pub async fn store_ended(&self) {
        self.store.ended().await;
    }

    /// Drains the API, closes the store.
    pub async fn stop(self) {
        self.stop.cancel();
        if tokio::time::timeout(super::STOP, self.serving).await.is_err() {
            tracing::warn!("the API server did not drain in time");
        }
        if let Err(error) = self.store.shared().close().await {
            tracing::error!(error = %chain(&error), "the store did not close");
        }
    }
}

fn network(text: &str) -> Result<Ipv4Net, NodeError> {
    text.parse().map_err(|_| NodeError::Cidr(text.to_owned()))
}
