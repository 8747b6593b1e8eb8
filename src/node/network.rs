//! The pod network of a node, whose range is known only once the node has one.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use ipnet::Ipv4Net;
use kminik_net::pod::{PodNetwork, PodNetworkConfig};
use kminik_runtime::{NetworkError, PortMapping, SandboxNetwork, SandboxStatus};
use tokio::sync::watch;

/// Bound on the wait for the node's range.
const WAIT: Duration = Duration::from_secs(30);

/// Waits for the range on first use, then is the [`PodNetwork`] of it.
pub struct LatePodNetwork {
    range: watch::Receiver<Option<Ipv4Net>>,
    cluster_cidr: Ipv4Net,
    state_dir: PathBuf,
    made: tokio::sync::OnceCell<PodNetwork>,
}

impl LatePodNetwork {
    pub fn new(range: watch::Receiver<Option<Ipv4Net>>, cluster_cidr: Ipv4Net, state_dir: PathBuf) -> Self {
        Self { range, cluster_cidr, state_dir, made: tokio::sync::OnceCell::new() }
    }

    async fn network(&self) -> Result<&PodNetwork, NetworkError> {
        self.made
            .get_or_try_init(|| async {
                let mut range = self.range.clone();
                let known = tokio::time::timeout(WAIT, range.wait_for(Option::is_some)).await;
                let pod_cidr = known.ok().and_then(Result::ok).and_then(|range| *range);
                let pod_cidr =
                    pod_cidr.ok_or_else(|| NetworkError { message: "the node has no pod range yet".into() })?;
                let config = PodNetworkConfig {
                    pod_cidr,
                    cluster_cidr: self.cluster_cidr,
                    bridge_name: "kminik0".into(),
                    state_dir: self.state_dir.clone(),
                    mtu: None,
                };
                PodNetwork::new(config).await.map_err(NetworkError::from)
            })
            .await
    }
}

#[async_trait]
impl SandboxNetwork for LatePodNetwork {
    async fn setup(&self, sandbox: &str, netns: &Path, ports: &[PortMapping]) -> Result<Vec<IpAddr>, NetworkError> {
        self.network().await?.setup(sandbox, netns, ports).await
    }

    async fn teardown(&self, sandbox: &str, netns: Option<&Path>) -> Result<(), NetworkError> {
        self.network().await?.teardown(sandbox, netns).await
    }

    async fn restore(&self, live: &[SandboxStatus]) -> Result<(), NetworkError> {
        // A node without a range has no sandboxes with a network; one that had a range has recorded it.
        if live.is_empty() && self.range.borrow().is_none() {
            return Ok(());
        }
        self.network().await?.restore(live).await
    }
}
