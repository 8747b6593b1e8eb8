//! The listener, and the collection that runs beside it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kminik_base::component::chain;
use kminik_oci::listen;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::collect::Policy;
use crate::handlers::Registry;
use crate::storage::Storage;

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
    let answering = registry.clone();
    let answer = move |request| {
        let registry = answering.clone();
        async move { registry.answer(request).await }
    };
    tokio::select! {
        () = collect(&registry, config.policy) => {}
        () = listen(&listener, answer) => {}
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
