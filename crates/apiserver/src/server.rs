//! The running server: what all requests share, and how it is started.

use std::sync::Arc;
use std::time::Duration;

use kminik_meta::StatusError;
use kminik_store::{Revision, Store, StoreError};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::admission::{self, AdmissionChain};
use crate::aggregation::{self, ApiServiceSource};
use crate::audit::Auditor;
use crate::auth::token::KeyError;
use crate::auth::{self, Auth, Authenticator, Authorizer, UserInfo};
use crate::bootstrap;
use crate::builtin;
use crate::config::Config;
use crate::custom;
use crate::flowcontrol::FlowControl;
use crate::health::{Health, Step};
use crate::http::openapi::Documents;
use crate::http::serve;
use crate::http::service::LocalService;
use crate::metrics::Metrics;
use crate::metrics::store::Metered;
use crate::outbound::Outbound;
use crate::registry::Registry;
use crate::registry::compose::{self, Composer, Fixed};
use crate::registry::table::TableError;
use crate::storage::cache::Cache;
use crate::strategies::services::Pools;
use crate::verbs::stalled::Answers;

/// History is kept for at least this long, at most twice as long.
const COMPACT_INTERVAL: Duration = Duration::from_secs(300);

/// Why a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the table of resources contradicts itself")]
    Table(#[from] TableError),
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
    #[error("the service accounts' key cannot be used")]
    ServiceAccountKey(#[from] KeyError),
    #[error("the bootstrap objects cannot be written")]
    Bootstrap(#[from] StatusError),
    #[error("the client CA or the front proxy's CA is no PEM certificate")]
    ClientCaPem(#[source] rustls_pki_types::pem::Error),
    #[error("the serving certificate or key is no PEM")]
    ServingPem(#[source] rustls_pki_types::pem::Error),
    #[error("client certificates cannot be verified")]
    ClientVerifier(#[source] rustls::server::VerifierBuilderError),
    #[error("the audit log cannot be written")]
    AuditLog(#[source] std::io::Error),
    #[error("the serving certificate cannot be used")]
    Tls(#[source] rustls::Error),
}

/// The parts of a running server, shared by all requests.
pub struct Server {
    config: Config,
    registry: Registry,
    auth: Auth,
    admission: AdmissionChain,
    outbound: Arc<Outbound>,
    health: Health,
    metrics: Arc<Metrics>,
    openapi: Documents,
    flow: Arc<FlowControl>,
    auditor: Option<Arc<Auditor>>,
    stopping: CancellationToken,
    answers: Answers,
}

impl Server {
    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub fn auth(&self) -> &Auth {
        &self.auth
    }

    pub fn authenticator(&self) -> &dyn Authenticator {
        self.auth.authenticator.as_ref()
    }

    pub fn authorizer(&self) -> &dyn Authorizer {
        self.auth.authorizer.as_ref()
    }

    pub fn admission(&self) -> &AdmissionChain {
        &self.admission
    }

    pub fn outbound(&self) -> &Arc<Outbound> {
        &self.outbound
    }

    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    pub(crate) fn openapi(&self) -> &Documents {
        &self.openapi
    }

    /// Whose turn it is.
    pub(crate) fn flow(&self) -> &Arc<FlowControl> {
        &self.flow
    }

    /// `None` where nothing is audited.
    pub(crate) fn auditor(&self) -> Option<&Arc<Auditor>> {
        self.auditor.as_ref()
    }

    pub(crate) fn answers(&self) -> &Answers {
        &self.answers
    }

    /// Cancelled when the server begins to stop: watches end.
    pub(crate) fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }
}

/// The API server. It lives until it is dropped; dropping ends its watches and background tasks.
pub struct ApiServer {
    server: Arc<Server>,
    tls: serve::Acceptor,
    _stop: DropGuard,
}

impl ApiServer {
    /// Loads all objects from the store. Nothing is served before [`ApiServer::serve`], but [`ApiServer::service`] works.
    ///
    /// # Errors
    /// When the store cannot be read or a certificate is wrong.
    pub async fn new(config: Config) -> Result<Self, StartError> {
        let stopping = CancellationToken::new();
        let tls = serve::Acceptor::new(&config)?;
        let metrics = Arc::new(Metrics::default());
        let store: Arc<dyn Store> = Arc::new(Metered::new(config.store.clone(), metrics.clone()));
        let cache = Cache::start(store.clone(), metrics.clone(), stopping.clone()).await?;
        let auth = Auth::new(&config, cache.clone())?;
        let outbound = Arc::new(Outbound::new(cache.clone()));
        let pools = Pools::new(config.service_cidr, config.node_ports);
        let identity = config.front_proxy.as_ref().map(|proxy| proxy.client.clone());
        let registrations = ApiServiceSource::new(identity);
        let composer = Composer::new(vec![
            Box::new(Fixed::new(builtin::rows(&pools, config.mutating_policies))),
            Box::new(custom::Definitions::new(outbound.clone())),
            Box::new(registrations),
        ]);
        let registry = Registry::new(composer, store, cache)?;
        let auditor = match config.audit.clone() {
            Some(audit) => Some(Arc::new(Auditor::new(audit, metrics.clone()).map_err(StartError::AuditLog)?)),
            None => None,
        };
        let server = Arc::new(Server {
            admission: AdmissionChain::new(admission::default_plugins(
                &auth,
                registry.cache(),
                &outbound,
                config.mutating_policies,
            )),
            auth,
            outbound,
            health: Health::new(metrics.clone()),
            openapi: Documents::default(),
            flow: Arc::new(FlowControl::new(config.max_in_flight, config.request_timeout, metrics.clone())),
            metrics,
            auditor,
            stopping: stopping.clone(),
            answers: Answers::new(config.patience.write),
            registry,
            config,
        });
        for step in [Step::Cache, Step::Table, Step::Admission, Step::Turns] {
            server.health.reached(step);
        }
        tokio::spawn(compact(server.clone(), stopping.clone()));
        tokio::spawn(compose::follow(server.clone(), stopping.clone()));
        tokio::spawn(aggregation::availability::follow(server.clone(), stopping.clone()));
        tokio::spawn(custom::keep(server.clone(), stopping.clone()));
        auth::bootstrap(server.clone(), stopping.clone()).await?;
        server.health.reached(Step::Roles);
        bootstrap::run(server.clone(), stopping.clone()).await?;
        tokio::spawn(server.flow.clone().follow(Arc::downgrade(&server), stopping.clone()));
        tokio::spawn(admission::policy::status::keep(server.clone(), stopping.clone()));
        tokio::spawn(auth::secret_token::keep(server.clone(), stopping.clone()));
        aggregation::local::register(server.clone(), stopping.clone()).await?;
        server.health.reached(Step::Registrations);
        Ok(ApiServer { server, tls, _stop: stopping.drop_guard() })
    }

    /// A client's end inside this process; give it to `kube::Client::new`. Requests pass the whole chain as this user.
    pub fn service(&self, user: UserInfo) -> LocalService {
        LocalService::new(self.server.clone(), user)
    }

    /// Serves HTTPS on all listeners until `stop`. Then `/readyz` fails while everything goes on for
    /// [`Config::shutdown_delay`], so that clients go elsewhere; after it nothing new is accepted, watches end, and requests
    /// under way are waited for a bounded time.
    pub async fn serve(&self, listeners: Vec<TcpListener>, stop: CancellationToken) {
        let drain = CancellationToken::new();
        let end = async {
            stop.cancelled().await;
            self.server.health.set_shutting_down();
            bootstrap::endpoints::withdraw(&self.server).await;
            tokio::time::sleep(self.server.config.shutdown_delay).await;
            self.server.stopping.cancel();
            drain.cancel();
        };
        tokio::join!(serve::run(self.server.clone(), self.tls.clone(), listeners, drain.clone()), end);
    }

    /// What all requests share; for parts that need more than a client.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }
}

/// Forgets history older than one interval.
async fn compact(server: Arc<Server>, stop: CancellationToken) {
    let store = server.registry.store().clone();
    drop(server);
    let mut previous: Revision = 0;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(COMPACT_INTERVAL) => {}
        }
        if previous > 0
            && let Err(error) = store.compact(previous).await
        {
            tracing::warn!(error = &error as &dyn std::error::Error, revision = previous, "compaction failed");
        }
        match store.revision().await {
            Ok(revision) => previous = revision,
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "revision cannot be read"),
        }
    }
}
