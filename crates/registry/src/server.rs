//! The listener, and the collection that runs beside it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use kminik_base::component::chain;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::collect::Policy;
use crate::handlers::Registry;
use crate::storage::Storage;

/// Connections that are open at once; more wait.
const MAX_CONNECTIONS: usize = 256;
/// How long a client may take to send the head of a request.
const HEAD: Duration = Duration::from_secs(30);
/// How often what nobody needs is collected.
const COLLECT: Duration = Duration::from_secs(3600);

/// What a registry is told by whoever starts it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Everything that is pushed.
    pub data: PathBuf,
    pub listen: SocketAddr,
    /// Of one blob.
    pub limit_bytes: u64,
    pub policy: Policy,
}

/// Why a registry did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot open {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot listen for signals")]
    Signals(#[source] std::io::Error),
}

/// Runs until SIGTERM or SIGINT; what is under way then is broken off, and goes on where it was when the client comes back.
///
/// # Errors
/// [`RunError`] before it listens.
pub async fn run(config: Config) -> Result<(), RunError> {
    let listener = TcpListener::bind(config.listen).await;
    let listener = listener.map_err(|source| RunError::Listen { address: config.listen, source })?;
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    tokio::select! {
        outcome = serve(listener, config) => outcome,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

/// Serves without end.
///
/// # Errors
/// If the directory cannot be opened.
pub async fn serve(listener: TcpListener, config: Config) -> Result<(), RunError> {
    let storage = Storage::open(&config.data);
    let storage = storage.map_err(|source| RunError::Open { path: config.data.clone(), source })?;
    let registry = Arc::new(Registry::new(storage, config.limit_bytes));
    tokio::select! {
        () = collect(&registry, config.policy) => {}
        () = accept(&registry, &listener) => {}
    }
    Ok(())
}

async fn collect(registry: &Registry, policy: Policy) {
    let mut turns = tokio::time::interval(COLLECT);
    loop {
        turns.tick().await;
        match registry.collect(policy).await {
            Ok(gone) => tracing::info!(manifests = gone.manifests, blobs = gone.blobs, bytes = gone.bytes, "collected"),
            Err(error) => tracing::warn!(error = %chain(&error), "cannot collect"),
        }
    }
}

async fn accept(registry: &Arc<Registry>, listener: &TcpListener) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, mostly: give others time to close theirs.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let registry = registry.clone();
        let service = hyper::service::service_fn(move |request| {
            let registry = registry.clone();
            async move { Ok::<_, Infallible>(registry.answer(request).await) }
        });
        connections.spawn(async move {
            let _permit = permit;
            let mut server = hyper::server::conn::http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD);
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(error = %error, "connection broke");
            }
        });
    }
}
