//! The cluster's server: a zone that follows the API.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hickory_proto::rr::Name;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kminik_base::component::{BoxError, Component, Ready};
use kminik_client::{Informer, Informers, Subscription};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::forward::{Forwarder, ForwarderConfig};
use crate::health;
use crate::server::{DnsServer, ListenError};
use crate::zone::Zone;

#[derive(Clone, Debug)]
pub struct ClusterDnsConfig {
    /// UDP and TCP; `0.0.0.0:53`.
    pub listen: SocketAddr,
    /// `/health`, from the start; `0.0.0.0:8080`.
    pub health: SocketAddr,
    /// `/ready`, once the zone has been read; `0.0.0.0:8181`.
    pub ready: SocketAddr,
    /// `cluster.local`.
    pub domain: String,
    /// Where the upstream resolvers are named; `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
}

impl Default for ClusterDnsConfig {
    fn default() -> Self {
        let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
        Self {
            listen: any(53),
            health: any(8080),
            ready: any(8181),
            domain: "cluster.local".to_owned(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    #[error("domain {domain:?} is not a DNS name")]
    Domain {
        domain: String,
        #[source]
        source: hickory_proto::ProtoError,
    },
    #[error("the pod's access to the API server cannot be read")]
    InCluster(#[source] kube::config::InClusterError),
    #[error("the API client cannot be made")]
    Client(#[source] kube::Error),
    #[error("signals cannot be received")]
    Signal(#[source] std::io::Error),
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// What the coredns pod runs: the server for `domain` on the usual ports, with the pod's own service account, until SIGTERM.
/// Needs a process-wide TLS provider.
///
/// # Errors
/// If the pod's credentials cannot be read or a port cannot be bound.
pub async fn run(domain: &str) -> Result<(), DnsError> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).map_err(DnsError::Signal)?;
    let stopping = stop.clone();
    tokio::spawn(async move {
        terminate.recv().await;
        stopping.cancel();
    });
    let access = kube::Config::incluster_env().map_err(DnsError::InCluster)?;
    let client = kube::Client::try_from(access).map_err(DnsError::Client)?;
    let config = ClusterDnsConfig { domain: domain.to_owned(), ..Default::default() };
    ClusterDns::new(config, client)?.serve(stop, Ready::detached()).await
}

/// Serves the cluster's names. Until they have been read it answers nothing, so that a name that is there is never denied.
pub struct ClusterDns {
    config: ClusterDnsConfig,
    domain: Name,
    client: kube::Client,
}

impl ClusterDns {
    /// `client` needs to list and watch Services, EndpointSlices and Namespaces.
    ///
    /// # Errors
    /// If the domain is not a name.
    pub fn new(config: ClusterDnsConfig, client: kube::Client) -> Result<Self, DnsError> {
        let name = Name::from_ascii(&config.domain);
        let mut domain = name.map_err(|source| DnsError::Domain { domain: config.domain.clone(), source })?;
        domain.set_fqdn(true);
        Ok(Self { config, domain, client })
    }
}

/// The zone is read again at most this often.
const REST: Duration = Duration::from_millis(20);

impl Component for ClusterDns {
    fn name(&self) -> &'static str {
        "dns"
    }

    fn run(self: Arc<Self>, stop: CancellationToken, ready: Ready) -> BoxFuture<'static, Result<(), BoxError>> {
        Box::pin(async move { Ok(self.serve(stop, ready).await?) })
    }
}

impl ClusterDns {
    /// Serves until `stop`.
    ///
    /// # Errors
    /// If a port cannot be bound.
    pub async fn serve(&self, stop: CancellationToken, ready: Ready) -> Result<(), DnsError> {
        // Ends everything also when this future is dropped.
        let stopping = stop.child_token().drop_guard();
        let stop = stopping.token();
        let (udp, tcp) = DnsServer::bind(self.config.listen).await?;
        let health = listen(self.config.health).await?;
        let readiness = listen(self.config.ready).await?;
        let (_alive, lives) = watch::channel(true);
        let (has_zone, zone_read) = watch::channel(false);
        let probes = futures::future::join(health::serve(health, lives), health::serve(readiness, zone_read));
        let source = Source::watch(&Informers::new(self.client.clone(), stop.clone()));
        let forwarder = ForwarderConfig { resolv_conf: self.config.resolv_conf.clone(), loopback: false };
        let server = Arc::new(DnsServer::new(Forwarder::new(forwarder)));

        let follow = async {
            if !source.wait_synced().await {
                return;
            }
            server.set_zone(source.zone(&self.domain));
            let serving = tokio::spawn(server.clone().serve(udp, tcp, stop.clone()));
            has_zone.send_replace(true);
            ready.set_ready();
            let prober = server.clone();
            tokio::spawn(async move { prober.forwarder().probe_for_loop().await });
            while !serving.is_finished() {
                source.changed.notified().await;
                let started = Instant::now();
                server.set_zone(source.zone(&self.domain));
                tokio::time::sleep(REST.max(started.elapsed() * 4)).await;
            }
        };
        tokio::select! {
            () = follow => {}
            _ = probes => {}
            () = stop.cancelled() => {}
        }
        Ok(())
    }
}

/// The objects a zone is made of.
struct Source {
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    namespaces: Informer<Namespace>,
    changed: Arc<Notify>,
    _subscriptions: [Subscription; 3],
}

impl Source {
    fn watch(informers: &Informers) -> Self {
        let (services, slices, namespaces) = (informers.get(), informers.get(), informers.get());
        let changed = Arc::new(Notify::new());
        let _subscriptions = [notify(&services, &changed), notify(&slices, &changed), notify(&namespaces, &changed)];
        Self { services, slices, namespaces, changed, _subscriptions }
    }

    /// `false` if stopped before.
    async fn wait_synced(&self) -> bool {
        let waits = (self.services.wait_synced(), self.slices.wait_synced(), self.namespaces.wait_synced());
        futures::future::join3(waits.0, waits.1, waits.2).await == (true, true, true)
    }

    fn zone(&self, domain: &Name) -> Arc<Zone> {
        let (services, slices, namespaces) = (self.services.list(), self.slices.list(), self.namespaces.list());
        Arc::new(Zone::new(domain.clone(), &services, &slices, &namespaces))
    }
}

fn notify<K: kube::Resource + Send + Sync + 'static>(informer: &Informer<K>, changed: &Arc<Notify>) -> Subscription {
    let changed = changed.clone();
    informer.subscribe(move |_| changed.notify_one())
}

async fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError { address, source })
}
