//! The network of a node's pods: one bridge, a veth pair a sandbox, addresses from the node's pod range.
//!
//! A sandbox holds its address as a single host and reaches everything, its neighbours too, by way of the bridge's address. So
//! all traffic between pods is routed, and the service proxy's translation sees both directions of it without help from
//! the kernel's bridge filter.

mod ipam;
mod rules;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use ipnet::Ipv4Net;
use kminik_base::component::chain;
use kminik_runtime::{NetworkError, PortMapping, SandboxNetwork, SandboxStatus};
use tokio::sync::Mutex;

use crate::link::{LinkError, Links, VethPair};
use crate::nft::{NftError, Table};
use crate::sysctl::SysctlError;
use crate::{hostnet, names, sysctl};

pub use ipam::IpamError;

#[derive(Clone, Debug)]
pub struct PodNetworkConfig {
    /// The node's pod range (Node.spec.podCIDR); its first host is the bridge's address.
    pub pod_cidr: Ipv4Net,
    /// All nodes' pod ranges: traffic to them keeps its source address.
    pub cluster_cidr: Ipv4Net,
    /// At most 15 bytes; `kminik0`.
    pub bridge_name: String,
    /// Where the addresses in use are recorded; created if missing.
    pub state_dir: PathBuf,
    /// MTU of the pods' links; `None` takes that of the link with the default route.
    pub mtu: Option<u32>,
}

#[derive(Debug, thiserror::Error)]
pub enum PodNetworkError {
    #[error("pod range {cidr} is too small: at least a /30 is needed")]
    Range { cidr: Ipv4Net },
    #[error(transparent)]
    Ipam(#[from] IpamError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Nft(#[from] NftError),
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
}

impl From<PodNetworkError> for NetworkError {
    fn from(error: PodNetworkError) -> Self {
        Self { message: chain(&error) }
    }
}

/// Implements [`SandboxNetwork`] in the namespace it was made in.
pub struct PodNetwork {
    config: PodNetworkConfig,
    mtu: u32,
    state: Mutex<State>,
}

struct State {
    addresses: ipam::Addresses,
    table: Table,
    links: Links,
}

impl PodNetwork {
    /// Makes the bridge, the rules of the ports recorded earlier, and sets what the kernel needs to forward. Repeatable;
    /// sandboxes connected earlier stay connected.
    ///
    /// # Errors
    /// If the range is too small, the record of addresses cannot be read or is for another range, or the kernel refuses.
    pub async fn new(config: PodNetworkConfig) -> Result<Self, PodNetworkError> {
        if config.pod_cidr.prefix_len() > 30 {
            return Err(PodNetworkError::Range { cidr: config.pod_cidr });
        }
        let links = Links::here()?;
        let mtu = match config.mtu {
            Some(mtu) => mtu,
            None => links.uplink_mtu().await?,
        };
        let gateway = hostnet::gateway(config.pod_cidr);
        let address = Ipv4Net::new_assert(gateway, config.pod_cidr.prefix_len());
        links.ensure_bridge(&config.bridge_name, address, mtu).await?;
        sysctl::set("net/ipv4/ip_forward", "1")?;
        let bridge = format!("net/ipv4/conf/{}", config.bridge_name);
        // Ports of the node answer on 127.0.0.1 too.
        sysctl::set(&format!("{bridge}/route_localnet"), "1")?;
        // A pod's neighbour is on the link the packet came in by; telling the pod so would lead it past the rules.
        sysctl::set("net/ipv4/conf/all/send_redirects", "0")?;
        sysctl::set(&format!("{bridge}/send_redirects"), "0")?;

        let addresses = ipam::Addresses::open(&config.state_dir, config.pod_cidr)?;
        let mut table = Table::open(rules::TABLE)?;
        table.apply(rules::wanted(&config, addresses.all())).await?;
        let state = Mutex::new(State { addresses, table, links });
        Ok(Self { config, mtu, state })
    }

    /// The bridge's address: the pods' gateway, and an address of the node.
    pub fn gateway(&self) -> Ipv4Addr {
        hostnet::gateway(self.config.pod_cidr)
    }

    async fn connect(&self, sandbox: &str, netns: &Path, ports: &[PortMapping]) -> Result<Ipv4Addr, PodNetworkError> {
        let mut state = self.state.lock().await;
        let address = state.addresses.take(sandbox, ports)?;
        let pair = VethPair {
            host_end: host_end(sandbox),
            bridge: self.config.bridge_name.clone(),
            inner_end: "eth0".to_owned(),
            address: Ipv4Net::new_assert(address, self.config.pod_cidr.prefix_len()),
            gateway: self.gateway(),
            mtu: self.mtu,
        };
        state.links.ensure_veth(&pair, netns, true).await?;
        if !ports.is_empty() {
            self.apply(&mut state).await?;
        }
        Ok(address)
    }

    async fn disconnect(&self, sandbox: &str) -> Result<(), PodNetworkError> {
        let mut state = self.state.lock().await;
        state.links.delete(&host_end(sandbox)).await?;
        if state.addresses.release(sandbox)? {
            self.apply(&mut state).await?;
        }
        Ok(())
    }

    async fn retain(&self, live: &[SandboxStatus]) -> Result<(), PodNetworkError> {
        let mut state = self.state.lock().await;
        let connected = |sandbox: &str| live.iter().any(|status| status.id == sandbox && status.netns.is_some());
        let gone: Vec<String> = state.addresses.all().keys().filter(|id| !connected(id)).cloned().collect();
        for sandbox in &gone {
            state.links.delete(&host_end(sandbox)).await?;
            state.addresses.release(sandbox)?;
        }
        for status in live.iter().filter(|status| status.netns.is_some()) {
            for ip in &status.ips {
                if let IpAddr::V4(address) = ip {
                    state.addresses.keep(&status.id, *address)?;
                }
            }
        }
        self.apply(&mut state).await
    }

    async fn apply(&self, state: &mut State) -> Result<(), PodNetworkError> {
        let wanted = rules::wanted(&self.config, state.addresses.all());
        state.table.apply(wanted).await?;
        Ok(())
    }
}

fn host_end(sandbox: &str) -> String {
    names::link_name("kmp", &format!("{:012x}", names::hash(sandbox) >> 16))
}

#[async_trait]
impl SandboxNetwork for PodNetwork {
    async fn setup(&self, sandbox: &str, netns: &Path, ports: &[PortMapping]) -> Result<Vec<IpAddr>, NetworkError> {
        Ok(vec![IpAddr::V4(self.connect(sandbox, netns, ports).await?)])
    }

    async fn teardown(&self, sandbox: &str, _netns: Option<&Path>) -> Result<(), NetworkError> {
        Ok(self.disconnect(sandbox).await?)
    }

    async fn restore(&self, live: &[SandboxStatus]) -> Result<(), NetworkError> {
        Ok(self.retain(live).await?)
    }
}
