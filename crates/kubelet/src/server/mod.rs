//! The kubelet's HTTPS API on port 10250, and kminik's own node endpoints below `/kminik/v1/`.
//!
//! | path | what | rights needed on the node |
//! |---|---|---|
//! | `/containerLogs/<namespace>/<pod>/<container>` | the log of a container | `proxy` |
//! | `/exec/…`, `/attach/…`, `/portForward/…`, `/run/…` | streams into a pod | create `proxy` |
//! | `/pods`, `/runningpods/`, `/healthz` | what runs | `proxy` |
//! | `/logs/…` | the node's log files | `log` |
//! | `/metrics` | counts of pods and containers | `metrics` |
//! | `/kminik/v1/images…` | the node's images, and where its pulls go | `proxy` |
//!
//! A request is authenticated by client certificate or bearer token (TokenReview) and authorised by
//! SubjectAccessReview; both answers are kept for a short time.

mod access;
mod identity;
mod images;
mod node_logs;
mod query;
mod route;
mod streams;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kminik_base::component::{BoxError, Component, Ready};
use kminik_oci::{ImageStore, ResolverConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::access::Access;
use crate::kubelet::Kubelet;

/// Most connections at once; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 1024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to send the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long open requests may go on after the stop.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// What the server needs beside the kubelet.
#[derive(Clone)]
pub struct ServerConfig {
    /// Usually `0.0.0.0:10250`.
    pub listen: SocketAddr,
    /// What it serves HTTPS with.
    pub certificate_pem: String,
    pub key_pem: String,
    /// Client certificates are verified against it.
    pub client_ca_pem: String,
    /// Served below `/logs/`, usually `/var/log`.
    pub log_dir: PathBuf,
    /// Keeps a new configuration of the node's pulls for its next start.
    pub keep_image_config: Option<KeepImageConfig>,
}

/// See [`ServerConfig::keep_image_config`].
pub type KeepImageConfig = Arc<dyn Fn(&ResolverConfig) -> std::io::Result<()> + Send + Sync>;

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("the serving certificate or the client CA is not usable: {0}")]
    Certificate(String),
}

/// The server.
pub struct KubeletServer {
    shared: Arc<Shared>,
}

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) config: ServerConfig,
    pub(crate) kubelet: Arc<Kubelet>,
    pub(crate) images: ImageStore,
    pub(crate) access: Access,
}

impl KubeletServer {
    pub fn new(config: ServerConfig, kubelet: Arc<Kubelet>, images: ImageStore) -> Arc<KubeletServer> {
        let access = Access::new(kubelet.config().client.clone(), kubelet.config().node_name.clone());
        Arc::new(KubeletServer { shared: Arc::new(Shared { config, kubelet, images, access }) })
    }

    async fn serve(&self, stop: CancellationToken, ready: Ready) -> Result<(), ServerError> {
        let address = self.shared.config.listen;
        let acceptor = TlsAcceptor::from(Arc::new(tls::server(&self.shared.config)?));
        let listener = TcpListener::bind(address).await.map_err(|source| ServerError::Listen { address, source })?;
        ready.set_ready();
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let connections = TaskTracker::new();
        let cut = CancellationToken::new();
        loop {
            let permit = tokio::select! {
                permit = room.clone().acquire_owned() => permit,
                () = stop.cancelled() => break,
            };
            let Ok(permit) = permit else { break };
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        // Out of descriptors or an aborted connection: neither ends the server.
                        tracing::warn!(error = %error, "kubelet connection not accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
                () = stop.cancelled() => break,
            };
            let (shared, acceptor) = (self.shared.clone(), acceptor.clone());
            let (stop, cut) = (stop.clone(), cut.clone());
            connections.spawn(async move {
                cut.run_until_cancelled(connection(shared, acceptor, stream, stop)).await;
                drop(permit);
            });
        }
        connections.close();
        if tokio::time::timeout(STOP_GRACE, connections.wait()).await.is_err() {
            cut.cancel();
            connections.wait().await;
        }
        Ok(())
    }
}

impl Component for KubeletServer {
    fn name(&self) -> &'static str {
        "kubelet-server"
    }

    fn run(self: Arc<Self>, stop: CancellationToken, ready: Ready) -> BoxFuture<'static, Result<(), BoxError>> {
        Box::pin(async move { self.serve(stop, ready).await.map_err(Into::into) })
    }
}

async fn connection(shared: Arc<Shared>, acceptor: TlsAcceptor, stream: TcpStream, stop: CancellationToken) {
    // Interactive streams are made of small writes.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = %error, "no delay not set");
    }
    let tls = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => {
            tracing::debug!(error = %error, "kubelet handshake failed");
            return;
        }
        Err(_) => return,
    };
    let leaf = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.to_vec());
    let leaf: Option<Arc<[u8]>> = leaf.map(Into::into);
    let service = hyper::service::service_fn(move |request| route::answer(shared.clone(), leaf.clone(), request));
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(tls), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %error, "kubelet connection broke");
    }
}
