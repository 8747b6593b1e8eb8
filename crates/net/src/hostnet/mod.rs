//! The host's side of native nodes: a bridge a profile, a veth pair a node, address translation outward, and passage
//! through a firewall that drops what is forwarded.
//!
//! Everything is written down in the profile's record (`<state_dir>/<profile>.json`) before it is done, names follow from the
//! profile and node, and what belongs to others (sysctl, chains of the firewall) carries a tag or a recorded old value; so
//! [`detach`] and [`detach_profile`] take back whatever was done, also half of it, and may be repeated. All calls on one `state_dir` exclude
//! one another by a file lock.
//!
//! Records live in a directory that does not survive a reboot, as what they describe does not.

mod firewall;
mod legacy;
mod plan;
mod record;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use kminik_base::atomic_file::FileError;
use nlink::netlink::nftables::{BaseChain, NatHook, Priority, Rule};

use crate::link::{LinkError, Links, VethPair};
use crate::nft::{NftError, Ruleset, Table};
use crate::sysctl::SysctlError;
use crate::{names, sysctl};

pub use plan::{PODS, claim, overlap, plan};

/// Where [`HostNetSpec::state_dir`] is unless a test says otherwise.
pub const STATE_DIR: &str = "/run/kminik/hostnet";

/// One node of a profile, as the host sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostNetSpec {
    /// Name of the profile; the bridge is the profile's.
    pub profile: String,
    /// The profile's node subnet, as [`plan`] gave it.
    pub subnet: Ipv4Net,
    /// Name of the node, unique in the profile.
    pub node: String,
    /// In `subnet`, neither its first host (the gateway) nor its broadcast address.
    pub node_address: Ipv4Addr,
    /// TCP ports of the gateway that the host serves for nodes, beside DNS.
    pub host_ports: Vec<u16>,
    /// Normally [`STATE_DIR`].
    pub state_dir: PathBuf,
}

impl HostNetSpec {
    /// The host's address on the bridge: the node's default gateway, and where the agent serves DNS to it.
    pub fn gateway(&self) -> Ipv4Addr {
        gateway(self.subnet)
    }

    /// Name of the profile's bridge on the host.
    pub fn bridge(&self) -> String {
        bridge(&self.profile)
    }

    fn veth(&self) -> String {
        names::link_name("kmv", &format!("{:012x}", names::hash(&format!("{}/{}", self.profile, self.node)) >> 16))
    }
}

fn bridge(profile: &str) -> String {
    names::link_name("km-", profile)
}

fn table(profile: &str) -> String {
    format!("kminik-{profile}")
}

/// Marks our rules in chains of others.
fn tag(profile: &str) -> String {
    format!("kminik:{profile}")
}

/// First host address of a subnet.
pub fn gateway(subnet: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(subnet.network()).saturating_add(1))
}

#[derive(Debug, thiserror::Error)]
pub enum HostNetError {
    #[error("no free subnet of {tried} tried: every one overlaps a route of this host")]
    NoSubnet { tried: usize },
    #[error("the subnet {subnet} overlaps {other}, which is in use")]
    SubnetTaken { subnet: Ipv4Net, other: Ipv4Net },
    #[error("node address {address} is not a host address of {subnet}")]
    Address { address: Ipv4Addr, subnet: Ipv4Net },
    /// The host drops forwarded packets by rules that cannot be added to from here. Reason `HOST_FIREWALL`.
    #[error("the host's firewall drops forwarded packets ({firewall}); run: {command}")]
    Firewall { firewall: String, command: String },
    #[error("network record {} cannot be {action}", path.display())]
    Record {
        path: PathBuf,
        action: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("network record {} is damaged", path.display())]
    RecordDamaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("the host's firewall rules cannot be {action}")]
    FirewallRules {
        action: &'static str,
        #[source]
        source: nlink::Error,
    },
    #[error("the host's legacy firewall cannot be read")]
    LegacyFirewall(#[source] std::io::Error),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Nft(#[from] NftError),
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
}

impl HostNetError {
    /// The stable reason, for errors a user can mend.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Firewall { .. } => Some("HOST_FIREWALL"),
            Self::NoSubnet { .. } | Self::SubnetTaken { .. } => Some("HOST_SUBNET"),
            _ => None,
        }
    }
}

/// Connects the network namespace at `netns` (`/proc/<pid>/ns/net` or a pinned one) as `eth0`, with address, loopback and
/// default route. Makes the profile's bridge, translation and firewall passage if this is its first node. Repeatable.
pub async fn attach(spec: &HostNetSpec, netns: &Path) -> Result<(), HostNetError> {
    if !spec.subnet.hosts().skip(1).any(|host| host == spec.node_address) {
        return Err(HostNetError::Address { address: spec.node_address, subnet: spec.subnet });
    }
    let records = record::Records::lock(&spec.state_dir).await?;
    let mut profile = records.load(&spec.profile)?;
    profile.nodes.insert(spec.node.clone(), spec.veth());
    records.save(&spec.profile, &profile)?;

    if sysctl::get(FORWARDING)? != "1" {
        records.remember_sysctl(FORWARDING, &sysctl::get(FORWARDING)?)?;
        sysctl::set(FORWARDING, "1")?;
    }
    firewall::open(&spec.bridge(), &tag(&spec.profile), &spec.host_ports).await?;

    let links = Links::here()?;
    let mtu = links.uplink_mtu().await?;
    let address = Ipv4Net::new_assert(spec.gateway(), spec.subnet.prefix_len());
    links.ensure_bridge(&spec.bridge(), address, mtu).await?;
    Table::open(&table(&spec.profile))?.apply(translation(spec)).await?;
    let pair = VethPair {
        host_end: spec.veth(),
        bridge: spec.bridge(),
        inner_end: "eth0".to_owned(),
        address: Ipv4Net::new_assert(spec.node_address, spec.subnet.prefix_len()),
        gateway: spec.gateway(),
        mtu,
    };
    links.ensure_veth(&pair, netns, false).await?;
    Ok(())
}

/// Takes the node's link back, and with the profile's last node everything of the profile; with the last profile the
/// host's `ip_forward` as it was. Succeeds if nothing is there.
pub async fn detach(spec: &HostNetSpec) -> Result<(), HostNetError> {
    let records = record::Records::lock(&spec.state_dir).await?;
    let mut profile = records.load(&spec.profile)?;
    let links = Links::here()?;
    links.delete(&spec.veth()).await?;
    profile.nodes.remove(&spec.node);
    if !profile.nodes.is_empty() {
        return records.save(&spec.profile, &profile);
    }
    remove_profile(&spec.profile, &links, records).await
}

/// Names of the nodes that something was made for, for a profile whose configuration is lost.
pub async fn nodes(profile: &str, state_dir: &Path) -> Result<Vec<String>, HostNetError> {
    if !state_dir.exists() {
        return Ok(Vec::new());
    }
    Ok(record::Records::lock(state_dir).await?.load(profile)?.nodes.into_keys().collect())
}

/// Takes back everything recorded or nameable for a profile, for one whose configuration is lost. Succeeds if nothing is
/// there.
pub async fn detach_profile(profile: &str, state_dir: &Path) -> Result<(), HostNetError> {
    let records = record::Records::lock(state_dir).await?;
    let links = Links::here()?;
    for link in records.load(profile)?.nodes.values() {
        links.delete(link).await?;
    }
    remove_profile(profile, &links, records).await
}

async fn remove_profile(profile: &str, links: &Links, records: record::Records) -> Result<(), HostNetError> {
    links.delete(&bridge(profile)).await?;
    Table::open(&table(profile))?.remove().await?;
    firewall::close(&tag(profile)).await?;
    records.remove(profile)?;
    if records.is_empty()? {
        if let Some(value) = records.remembered_sysctl(FORWARDING)? {
            sysctl::set(FORWARDING, &value)?;
        }
        records.finish()?;
    }
    Ok(())
}

const FORWARDING: &str = "net/ipv4/ip_forward";

/// What leaves the node subnet for anywhere but another address of it goes out under the host's address. What stays on the bridge
/// is for pods of another node: where the kernel's bridge filter is on, it would be translated too.
fn translation(spec: &HostNetSpec) -> Ruleset {
    let mut rules = Ruleset::default();
    let (subnet, prefix) = (spec.subnet.network(), spec.subnet.prefix_len());
    let outward = Rule::new("", "")
        .match_saddr_v4(subnet, prefix)
        .match_daddr_v4_not(subnet, prefix)
        .match_oif_not(&spec.bridge())
        .masquerade();
    rules.base_chain("postrouting", BaseChain::nat(NatHook::Postrouting, Priority::SrcNat), vec![outward.into_spec()]);
    rules
}
