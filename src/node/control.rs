//! The control plane of a node: store, API server, and their clients in this process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use kminik_apiserver::auth::UserInfo;
use kminik_apiserver::{ApiServer, CertificateAndKey, Cidr, Config, FrontProxy};
use kminik_base::component::{Supervisor, chain};
use kminik_base::pki::Identity;
use kminik_client::Informers;
use kminik_controllers::ControllersConfig;
use kminik_scheduler::{Scheduler, SchedulerConfig};
use kminik_store::{EmbeddedStore, Options, Store};
use kube::Client;
use tokio::net::TcpListener;
use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::NodeError;
use super::addons::AddonManager;
use super::config::NodeConfig;
use super::identity::Identities;
use crate::addons::Values;

/// A running control plane.
pub struct ControlPlane {
    api: Arc<ApiServer>,
    store: Arc<EmbeddedStore>,
    serving: JoinHandle<()>,
    stop: CancellationToken,
}

/// Opens the store and serves; returns when connections are accepted.
pub async fn start(
    data: &Path,
    config: &NodeConfig,
    identities: &Identities,
    runtime: &Runtime,
) -> Result<ControlPlane, NodeError> {
    let store = Arc::new(EmbeddedStore::open(&data.join("store/store.redb"), Options::default())?);
    let pair = |identity: &Identity| CertificateAndKey {
        certificate_pem: identity.cert_pem.clone(),
        key_pem: identity.key_pem.clone(),
    };
    let mut api = Config::new(
        store.clone(),
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
    api.service_cidr = cidr(&config.service_cidr)?;
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
    Ok(ControlPlane { api, store, serving, stop })
}

impl ControlPlane {
    /// A client in this process that acts as this user.
    pub fn client(&self, user: &str, groups: &[&str]) -> Client {
        Client::new(self.api.service(UserInfo::new(user, groups)), "default")
    }

    /// Controllers, scheduler and addons.
    pub fn start_controllers(
        &self,
        config: &NodeConfig,
        identities: &Identities,
        supervisor: &Supervisor,
        runtime: &Handle,
    ) {
        let _context = runtime.enter();
        let api = self.api.clone();
        let client_for = move |user: &str| {
            let account = user.starts_with("system:serviceaccount:");
            let groups: &[&str] =
                if account { &["system:serviceaccounts", "system:serviceaccounts:kube-system"] } else { &[] };
            Client::new(api.service(UserInfo::new(user, groups)), "default")
        };
        let manager = Informers::new(self.client("system:kube-controller-manager", &[]), self.stop.child_token());
        let controllers = ControllersConfig::new(Arc::new(client_for), manager.clone(), identities.ca_pem.clone());
        for component in kminik_controllers::components(controllers) {
            supervisor.start_on(runtime, component);
        }
        // One watch a kind for both: the scheduler reads what the controllers read.
        let scheduler = SchedulerConfig::new(self.client("system:kube-scheduler", &[]), manager);
        supervisor.start_on(runtime, Arc::new(Scheduler::new(scheduler)));
        let addons = AddonManager {
            client: self.client("kminik:addon-manager", &["system:masters"]),
            enabled: config.addons.clone(),
            values: Values {
                cluster_dns: config.cluster_dns.to_string(),
                cluster_domain: config.cluster_domain.clone(),
            },
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
        if let Err(error) = self.store.close().await {
            tracing::error!(error = %chain(&error), "the store did not close");
        }
    }
}

fn cidr(text: &str) -> Result<Cidr, NodeError> {
    let bad = || NodeError::Cidr(text.to_owned());
    let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
    Ok(Cidr { address: address.parse().map_err(|_| bad())?, prefix: prefix.parse().map_err(|_| bad())? })
}
