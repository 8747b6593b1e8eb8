//! The provisioner as a pod runs it: configured by its service account and environment, ended by a signal.

use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::controller::{ProvisionerConfig, ProvisionerError, ROOT, run_with};

/// The variable that names the pod's node (`spec.nodeName` by the downward API).
const NODE: &str = "NODE_NAME";
/// [`ProvisionerConfig::reluctant`].
const RELUCTANT: Duration = Duration::from_secs(5);
/// [`ProvisionerConfig::given_up_after`].
const GIVEN_UP_AFTER: Duration = Duration::from_secs(60);

/// Why the provisioner did not start or ended early.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the variable {NODE} does not name the node")]
    NoNode,
    /// Not in a pod, or its service account is not mounted.
    #[error("cannot read the pod's credentials")]
    Credentials(#[source] kube::config::InClusterError),
    #[error("cannot make a client of the pod's credentials")]
    Client(#[source] Box<kube::Error>),
    #[error("cannot listen for signals")]
    Signals(#[source] std::io::Error),
    #[error(transparent)]
    Provisioner(#[from] ProvisionerError),
}

/// Runs in a pod with `/var/lib/kminik/hostpath-provisioner` of its node mounted at the same path, until SIGTERM or SIGINT.
pub async fn run() -> Result<(), RunError> {
    let node = std::env::var(NODE).ok().filter(|node| !node.is_empty()).ok_or(RunError::NoNode)?;
    let config = kube::Config::incluster().map_err(RunError::Credentials)?;
    let client = kube::Client::try_from(config).map_err(|error| RunError::Client(Box::new(error)))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    let stop = CancellationToken::new();
    let signalled = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        signalled.cancel();
    });
    let root = PathBuf::from(ROOT);
    let config = ProvisionerConfig { client, root, node, reluctant: RELUCTANT, given_up_after: GIVEN_UP_AFTER };
    Ok(run_with(config, stop).await?)
}
